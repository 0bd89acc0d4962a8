"""Attention: causal over whole rows, and one new token of each row against its cache."""

import functools
import math
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np

from dots_jax.core import sharding
from dots_jax.core.arithmetic import ceil_div

_F32 = jnp.float32
QUERY_BLOCK = 512  # rows of scores that exist at once where no fused kernel is used


def causal(q: jax.Array, k: jax.Array, v: jax.Array) -> jax.Array:
    """Grouped-query causal attention: q [B, T, H, E], k and v [B, T, K, E] -> [B, T, H, E].

    On NVIDIA GPUs in 16 bits the fused cuDNN kernel; elsewhere blocks of queries, so that the scores never
    hold T x T values at once for long rows.
    """
    B, T, H, E = q.shape
    if q.dtype in (jnp.bfloat16, jnp.float16) and E % 8 == 0 and E <= 128 and jax.default_backend() == "gpu":
        return _fused(q, k, v)
    if T <= QUERY_BLOCK:
        return _causal_block(q, k, v, 0)
    blocks = ceil_div(T, QUERY_BLOCK)
    padded = jnp.pad(q, ((0, 0), (0, blocks * QUERY_BLOCK - T), (0, 0), (0, 0)))
    padded = padded.reshape(B, blocks, QUERY_BLOCK, H, E).swapaxes(0, 1)
    block = jax.checkpoint(lambda q, start: _causal_block(q, k, v, start))
    out = jax.lax.map(lambda x: block(*x), (padded, jnp.arange(blocks) * QUERY_BLOCK))
    return out.swapaxes(0, 1).reshape(B, blocks * QUERY_BLOCK, H, E)[:, :T]


def _fused(q: jax.Array, k: jax.Array, v: jax.Array):
    """By cuDNN, which does not take every length: rows are padded on the right, where no query looks."""
    T = q.shape[1]
    pad = ((0, 0), (0, -T % sharding.length_unit("gpu")), (0, 0), (0, 0))
    q, k, v = (jnp.pad(x, pad) for x in (q, k, v))
    return jax.nn.dot_product_attention(q, k, v, is_causal=True, implementation="cudnn")[:, :T]


def _causal_block(q: jax.Array, k: jax.Array, v: jax.Array, start):
    """Queries at positions start.. against all keys."""
    B, Q, H, E = q.shape
    K = k.shape[2]
    q = q.reshape(B, Q, K, H // K, E)
    scores = jnp.einsum("bqkme,bske->bkmqs", q, k, preferred_element_type=_F32) / math.sqrt(E)
    seen = jnp.arange(k.shape[1])[None, :] <= start + jnp.arange(Q)[:, None]
    weights = jax.nn.softmax(jnp.where(seen, scores, -jnp.inf), axis=-1).astype(v.dtype)
    return jnp.einsum("bkmqs,bske->bqkme", weights, v).reshape(B, Q, H, E)


def decode(
    q: jax.Array,
    keys: Sequence[jax.Array],
    values: Sequence[jax.Array],
    starts: jax.Array,
    lengths: jax.Array,
    recent_keys: jax.Array,
    recent_values: jax.Array,
    step: jax.Array,
) -> jax.Array:
    """One query for each row against its cache, and against the tokens of this chunk, which are not in it yet.

    The cache comes in pieces, so that no more of them are read than the longest row needs: a branch for each number of
    pieces. Keys lie with their positions innermost, which is what a CPU multiplies fast.

    Args:
      q: [R, H, E].
      keys: pieces [R, K, E, C_i] of the cache, one after the other.
      values: pieces [R, K, C_i, E].
      starts: int32 [R], the first slot of the cache that is the row's.
      lengths: int32 [R], the slot after its last; 0 for a dead row.
      recent_keys: [R, K, E, W].
      recent_values: [R, K, W, E].
      step: int32 [], the last of the recent tokens that exists.

    Returns:
      [R, H, E].
    """
    R, H, E = q.shape
    q = (q / math.sqrt(E)).reshape(R, recent_keys.shape[1], -1, E)
    ends = np.cumsum([piece.shape[-1] for piece in keys], dtype=np.int32)

    def scores(keys: jax.Array, real: jax.Array) -> jax.Array:  # real [R or 1, C]
        x = jnp.einsum("rkme,rkec->rkmc", q, keys, preferred_element_type=_F32)
        return jnp.where(real[:, None, None], x, -jnp.inf)

    def attend(count: int):
        parts = [scores(recent_keys, (jnp.arange(recent_keys.shape[-1]) <= step)[None])]
        for piece, end in zip(keys[:count], ends, strict=False):
            slot = jnp.arange(end - piece.shape[-1], end)
            parts.append(scores(piece, (starts[:, None] <= slot) & (slot < lengths[:, None])))
        top = functools.reduce(jnp.maximum, [x.max(-1, keepdims=True) for x in parts])
        parts = [jnp.exp(x - top) for x in parts]
        # Values first: in the other order XLA cannot run it in bfloat16 on a CPU.
        out = sum(
            jnp.einsum("rkce,rkmc->rkme", v, x.astype(v.dtype), preferred_element_type=_F32)
            for v, x in zip([recent_values, *values[:count]], parts, strict=True)
        )
        return (out / sum(x.sum(-1, keepdims=True) for x in parts)).reshape(R, H, E).astype(q.dtype)

    count = jnp.searchsorted(ends, lengths.max()) + (lengths.max() > 0)
    return jax.lax.switch(count, [functools.partial(attend, n) for n in range(len(keys) + 1)])


def write_chunk(
    pieces: Sequence[jax.Array], recent: jax.Array, at: jax.Array, axis: int, platform: str
) -> tuple[jax.Array, ...]:
    """The pieces of a cache, as in `decode`, with a chunk [.., W, ..] of each row at its slot `at` int32 [R].

    W slots along `axis`; pieces and `at` are whole numbers of chunks, and what lies past the last piece is dropped.
    """
    W, out, first = recent.shape[axis], [], 0
    for piece in pieces:
        count = piece.shape[axis] // W
        chunk = at // W - first
        if platform == "tpu":  # a scatter would copy the keys, to lie as it wants them and back
            own = jnp.arange(piece.shape[axis]) // W == chunk[:, None]
            own = own.reshape(len(own), *(-1 if i == axis else 1 for i in range(1, piece.ndim)))
            out.append(jnp.where(own, jnp.concatenate([recent] * count, axis), piece) if count else piece)
        else:
            chunk = jnp.where(chunk < 0, count, chunk)  # past the end, as in a later piece: dropped
            blocks = piece.reshape(*piece.shape[:axis], count, W, *piece.shape[axis + 1 :])
            index = (jnp.arange(len(piece)), *[slice(None)] * (axis - 1), chunk)
            out.append(blocks.at[index].set(recent, mode="drop").reshape(piece.shape))
        first += count
    return tuple(out)
