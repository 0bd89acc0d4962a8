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
    most = top.max(-1, keepdims=True)
    mass = jnp.exp(x - most[..., None]).sum(-1)
    total = mass.sum(-1)

    def likeliest():
        block = jnp.argmax(top, axis=-1)
        return block * width + jnp.argmax(_at(x, block), axis=-1)

    def draw(x, mass):
        block, rest = invert(mass, u * mass.sum(-1))
        return block * width + invert(jnp.exp(_at(x, block) - most), rest)[0]

    def draw_nucleus():
        p = jnp.exp(x - most[..., None]).reshape(R, -1)
        kept = jnp.where(nucleus(p, top_p).reshape(x.shape) > 0, x, -jnp.inf)
        return draw(kept, jnp.exp(kept - most[..., None]).sum(-1))

    how = jnp.where(greedy, 0, jnp.where(top_p < 1, 2, 1))
    token = jax.lax.switch(how, [likeliest, lambda: draw(x, mass), draw_nucleus]).astype(jnp.int32)
    chosen = jnp.take_along_axis(_at(x, token // width), token[:, None] % width, axis=-1)[:, 0]
    return token, chosen - most[:, 0] - jnp.log(total)


def _at(x: jax.Array, block: jax.Array) -> jax.Array:
    """One block [R, n] of each row of x [R, blocks, n]."""
    return jnp.take_along_axis(x, block[:, None, None], axis=1)[:, 0]


def nucleus(p: jax.Array, top_p: float | jax.Array) -> jax.Array:
    """Weights p [..., V], zero but for the fewest largest that reach top_p of the mass, and ties with the last.

    The threshold is found without a sort: floats that are not negative are ordered as their bits are, and those of
    numbers up to 1 are below 2**30, so that ten cuts into eight leave one.
    """
    target = top_p * p.sum(-1)
    cast = jax.lax.bitcast_convert_type

    def keep(bits):
        return jnp.where(p >= cast(bits, jnp.float32)[..., None], p, 0.0)

    def cut(i, low):  # enough mass is at or above `low`, too little at or above low + 8 << 3 * (9 - i)
        width = jnp.int32(1) << 3 * (9 - i)
        bounds = [low + k * width for k in range(1, 8)]
        return low + width * sum((keep(bound).sum(-1) >= target).astype(jnp.int32) for bound in bounds)

    # A fixed number: with a `tensor` axis the sums are collectives, which every device must run equally often.
    return keep(jax.lax.fori_loop(0, 10, cut, jnp.zeros(target.shape, jnp.int32)))


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
