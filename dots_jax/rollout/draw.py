"""Tokens drawn by inverse CDF, of the whole distribution or its likeliest part, and each row's random stream."""

import functools

import jax
import jax.numpy as jnp

_BLOCK = 128  # of the two-level inverse CDF


def choose(x: jax.Array, u: jax.Array, greedy: bool, top_p: float) -> tuple[jax.Array, jax.Array]:
    """Tokens drawn from unnormalised log-probs x [Q, G, V] with uniforms u [Q, G], and their log-probs.

    Inverse CDF in two levels: one uniform per token and one pass over the vocabulary, where Gumbel noise would need
    V random numbers per row.
    """
    norm = jax.nn.logsumexp(x, axis=-1)
    if greedy:
        token = jnp.argmax(x, axis=-1)
    else:
        p = jnp.exp(x - norm[..., None])
        if top_p < 1:
            p = nucleus(p, top_p)
        pad = -p.shape[-1] % _BLOCK
        p = jnp.pad(p, ((0, 0), (0, 0), (0, pad))).reshape(*p.shape[:-1], -1, _BLOCK)
        mass = p.sum(-1)
        block, u = invert(mass, u * mass.sum(-1))
        p = jnp.take_along_axis(p, block[..., None, None], axis=-2)[..., 0, :]
        token = block * _BLOCK + invert(p, u)[0]
    return token.astype(jnp.int32), jnp.take_along_axis(x, token[..., None], axis=-1)[..., 0] - norm


def nucleus(p, top_p: float):
    """Probabilities p [..., V], zero but for the fewest largest that reach top_p of the mass, and ties with the last.

    The threshold is found without a sort: floats that are not negative are ordered as their bits are, and those of
    numbers up to 1 are below 2**30, so that 30 halvings leave one.
    """
    target = top_p * p.sum(-1)
    cast = jax.lax.bitcast_convert_type

    def keep(bits):
        return jnp.where(p >= cast(bits, jnp.float32)[..., None], p, 0.0)

    def halve(_, bounds):
        low, high = bounds  # enough mass is at or above the low one, too little at or above the high one
        middle = low + (high - low) // 2
        enough = keep(middle).sum(-1) >= target
        return jnp.where(enough, middle, low), jnp.where(enough, high, middle)

    # A fixed number: with a `tensor` axis the sums are collectives, which every device must run equally often.
    high = cast(p.max(-1), jnp.int32) + 1
    return keep(jax.lax.fori_loop(0, 30, halve, (jnp.zeros_like(high), high))[0])


def invert(mass, u: jax.Array):
    """The first index with mass whose running sum exceeds u, and what of u is left within it."""
    total = jnp.cumsum(mass, axis=-1)
    # Rounding can leave u at or above the sum of a block: the last index with mass is meant then.
    u = jnp.minimum(u, total[..., -1] * (1 - 2**-22))
    index = jnp.argmax((total > u[..., None]) & (mass > 0), axis=-1)
    at = jnp.take_along_axis(total - mass, index[..., None], axis=-1)[..., 0]
    return index, jnp.maximum(u - at, 0.0)


def row_keys(key: jax.Array, ids: jax.Array, group_size: int):
    """The random stream of each row, by question id [Q] and place in the group: keys [Q, G]."""
    questions = jax.vmap(functools.partial(jax.random.fold_in, key))(ids)
    return jax.vmap(jax.vmap(jax.random.fold_in, (None, 0)), (0, None))(questions, jnp.arange(group_size))


def uniform(keys: jax.Array, count: int):
    """One number in [0, 1) for each row by its key [Q, G] and the tokens its question has drawn so far [Q]."""

    def one(key: jax.Array, count: int):
        return jax.random.uniform(jax.random.fold_in(key, count))

    return jax.vmap(jax.vmap(one, (0, None)))(keys, count)
