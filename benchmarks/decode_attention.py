"""Decode attention of one layer: inputs as a sampler has them, the bodies that there are, their times and errors."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks import common
from dots_jax.policy import attention

TOLERANCE = 0.02  # of the norm, for attention in bfloat16: eps is 0.004


def apart(x, y) -> float:
    """|x - y| / |y|, of float32 norms."""
    x, y = (np.asarray(v, np.float32) for v in (x, y))
    return float(f"{np.linalg.norm(x - y) / np.linalg.norm(y):.3g}")


class Decode(NamedTuple):
    """One query for each of R rows; a row of length 0 is dead, and its result means nothing."""

    q: jax.Array  # [R, H, E]
    keys: tuple[jax.Array, ...]  # pieces [R, K, E, C_i]
    values: tuple[jax.Array, ...]  # pieces [R, K, C_i, E]
    lengths: jax.Array  # int32 [R]
    recent_keys: jax.Array  # [R, K, E, W]
    recent_values: jax.Array  # [R, K, W, E]


class Body(NamedTuple):
    """A way to compute it."""

    attend: Callable[[Decode], jax.Array]  # -> [R, H, E]
    lay: Callable[[Decode], Decode] = lambda x: x  # as the body wants keys and values to lie; not timed


def _decode(x: Decode) -> jax.Array:
    zeros, last = jnp.zeros_like(x.lengths), jnp.int32(x.recent_keys.shape[-1] - 1)
    return attention.decode(x.q, x.keys, x.values, zeros, x.lengths, x.recent_keys, x.recent_values, last)


def _joined(x: Decode) -> Decode:
    return x._replace(keys=(jnp.concatenate(x.keys, 3),), values=(jnp.concatenate(x.values, 2),))


def _sorted(x: Decode) -> Decode:
    """All in one cache of [R, C, K, E], a row's recent tokens behind those of its past."""
    R, K, E, W = x.recent_keys.shape
    keys, values = jnp.concatenate(x.keys, 3).transpose(0, 3, 1, 2), jnp.concatenate(x.values, 2).swapaxes(1, 2)
    at = jnp.arange(R)[:, None], x.lengths[:, None] + jnp.arange(W)
    keys, values = (jnp.pad(y, ((0, 0), (0, -(y.shape[1] + W) % 128 + W), (0, 0), (0, 0))) for y in (keys, values))
    keys = keys.at[at].set(x.recent_keys.transpose(0, 3, 1, 2))
    values = values.at[at].set(x.recent_values.swapaxes(1, 2))
    return x._replace(keys=(keys,), values=(values,), lengths=x.lengths + W)


def _fused(x: Decode) -> jax.Array:
    return attention.decode_fused(x.q, x.keys[0], x.values[0], x.lengths)


BODIES = {"pieces": Body(_decode), "one piece": Body(_decode, _joined), "fused": Body(_fused, _sorted)}


def inputs(R: int, C: tuple[int, ...], W: int, H: int, K: int, E: int, mean: float, dead: float) -> Decode:
    """Random ones in bfloat16, the cache in pieces of C slots.

    Rows are on their way to log-normal lengths; a share `dead` of them has length 0.
    """
    rng, keys = np.random.default_rng(0), iter(jax.random.split(jax.random.key(0), 2 * len(C) + 3))

    def normal(*shape: int) -> jax.Array:
        return jax.random.normal(next(keys), shape, jnp.bfloat16)

    whole = common.lognormal(rng, 16 * R, mean, 0.8, sum(C))
    whole = rng.choice(whole, R, p=whole / whole.sum())  # a long row is met more often
    lengths = np.ceil(whole * rng.uniform(size=R)) * (rng.permutation(R) >= dead * R)
    caches = [normal(R, K, E, c) for c in C], [normal(R, K, c, E) for c in C]
    lengths = jnp.asarray(lengths, jnp.int32)
    return Decode(normal(R, H, E), *map(tuple, caches), lengths, normal(R, K, E, W), normal(R, K, W, E))


def check(body: Body, x: Decode, calls: int = 10) -> dict:
    """Time of a body, the bytes that live rows need per second, and its error against one piece in float32."""
    live = np.asarray(x.lengths) > 0
    with jax.default_matmul_precision("highest"):
        float32 = jax.tree.map(lambda y: y.astype(jnp.float32) if y.dtype == jnp.bfloat16 else y, _joined(x))
        want = np.asarray(jax.jit(_decode)(float32))[live]
        del float32
    laid = jax.jit(body.lay)(x)
    attend = jax.jit(lambda q, x: body.attend(x._replace(q=q)))
    error = apart(np.asarray(attend(x.q, laid))[live], want)
    seconds = common.fastest(lambda q: attend(q, laid), x.q, calls=calls)
    _, K, E, W = x.recent_keys.shape
    useful = 2 * K * E * x.q.dtype.itemsize * int(np.asarray(x.lengths).sum() + live.sum() * W)
    held = sum(y.nbytes for y in (*x.keys, *x.values, x.recent_keys, x.recent_values))
    return {
        "microseconds": round(1e6 * seconds, 1),
        "useful_gb_s": round(useful / seconds / 1e9, 2),
        "useful_share": round(useful / held, 4),
        "apart": error,
        "ok": error < TOLERANCE,
    }
