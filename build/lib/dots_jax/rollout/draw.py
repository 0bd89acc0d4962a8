"""Tokens drawn by inverse CDF, of the whole distribution or its likeliest part, and each row's random stream."""

import jax
import jax.numpy as jnp

_BLOCK = 128  # of the two-level inverse CDF


def choose(x: jax.Array, u: jax.Array, greedy: jax.Array, top_p: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Tokens drawn from unnormalised log-probs x [R, V] with uniforms u [R], and their log-probs.

    Inverse CDF in two levels: one uniform per token and one pass over the vocabulary, where Gumbel noise would need
    V random numbers per row. `greedy` bool [] takes the likeliest tokens, `top_p` float32 [] below 1 draws from
    the fewest most probable ones whose mass reaches it.
    """
    R, V = x.shape
    width = min(_BLOCK, V)
    x = jnp.pad(x, ((0, 0), (0, -V % width)), constant_values=-jnp.inf).reshape(R, -1, width)
    top = x.max(-1)
    most = top.max(-1)
    p = jnp.exp(x - most[:, None, None])
    least = jax.lax.cond(top_p < 1, lambda: nucleus(p.reshape(R, -1), top_p), lambda: jnp.zeros(R))
    total, mass = p.sum((-2, -1)), jnp.where(p >= least[:, None, None], p, 0.0).sum(-1)
    block, rest = invert(mass, u * mass.sum(-1))
    block = jnp.where(greedy, jnp.argmax(top, axis=-1), block)
    x, p = (jnp.take_along_axis(y, block[:, None, None], axis=1)[:, 0] for y in (x, p))
    index, _ = invert(jnp.where(p >= least[:, None], p, 0.0), rest)
    index = jnp.where(greedy, jnp.argmax(x, axis=-1), index)
    logit = jnp.take_along_axis(x, index[:, None], axis=1)[:, 0]
    return (block * width + index).astype(jnp.int32), logit - most - jnp.log(total)


def nucleus(p: jax.Array, top_p: float | jax.Array) -> jax.Array:
    """The least of those of the weights p [R, V] that are the fewest largest to reach top_p of the mass, float32 [R].

    It is found without a sort: floats that are not negative are ordered as their bits are, and those of numbers up to
    1 are below 2**30, so that ten cuts into eight leave one.
    """
    target = top_p * p.sum(-1)

    def reaches(bits: jax.Array):
        least = jax.lax.bitcast_convert_type(bits, jnp.float32)
        return jnp.where(p >= least[:, None], p, 0.0).sum(-1) >= target

    def cut(
        i: jax.Array, low: jax.Array
    ):  # the mass from `low` on reaches the target, from 8 widths higher it does not
        width = jnp.int32(1) << 3 * (9 - i)
        return low + width * sum(reaches(low + k * width).astype(jnp.int32) for k in range(1, 8))

    # A fixed number: with a `tensor` axis the sums are collectives, which every device must run equally often.
    return jax.lax.bitcast_convert_type(jax.lax.fori_loop(0, 10, cut, jnp.zeros(len(p), jnp.int32)), jnp.float32)


def invert(mass, u: jax.Array):
    """The first index with mass whose running sum exceeds u, and what of u is left within it."""
    total = jnp.cumsum(mass, axis=-1)
    # Rounding can leave u at or above the sum of a block: the last index with mass is meant then.
    u = jnp.minimum(u, total[..., -1] * (1 - 2**-22))
    index = jnp.argmax((total > u[..., None]) & (mass > 0), axis=-1)
    at = jnp.take_along_axis(total - mass, index[..., None], axis=-1)[..., 0]
    return index, jnp.maximum(u - at, 0.0)


def row_keys(key: jax.Array, questions: jax.Array, completions: jax.Array) -> jax.Array:
    """The random stream of each row: keys [R], by its question and its number in the group, both [R]."""
    return jax.vmap(lambda q, g: jax.random.fold_in(jax.random.fold_in(key, q), g))(questions, completions)


def uniform(keys: jax.Array, count: jax.Array) -> jax.Array:
    """One number in [0, 1) for each row, by its key [R] and how many tokens it has [R]."""
    return jax.vmap(lambda key, n: jax.random.uniform(jax.random.fold_in(key, n)))(keys, count)
