"""Attention: causal over whole rows, and one new token of each row against its cache."""

import functools
import math
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental.pallas.ops.tpu.splash_attention import splash_attention_kernel, splash_attention_mask
from jax.sharding import PartitionSpec

from dots_jax.core import sharding
from dots_jax.core.arithmetic import ceil_div

_F32 = jnp.float32
QUERY_BLOCK = 512  # rows of scores that exist at once where no fused kernel is used


def kernel(platform: str, dtype: jnp.dtype, head_width: int) -> str:
    """The kernel that attends to whole rows and never holds scores, "cudnn" or "splash"; "": none takes these."""
    dtype = jnp.dtype(dtype)
    if platform == "gpu" and dtype.itemsize == 2 and head_width % 8 == 0 and head_width <= 128:
        return "cudnn"
    return "splash" if platform == "tpu" and dtype == jnp.bfloat16 and head_width % 64 == 0 else ""


def causal(q: jax.Array, k: jax.Array, v: jax.Array) -> jax.Array:
    """Grouped-query causal attention: q [B, T, H, E], k and v [B, T, K, E] -> [B, T, H, E].

    By a kernel where there is one; elsewhere in blocks of queries, so that the scores never hold T x T values at once
    for long rows.
    """
    functions = {"cudnn": _padded(functools.partial(cudnn, is_causal=True)), "splash": _padded(splash), "": in_blocks}
    if jax.sharding.get_abstract_mesh().empty:  # nothing says where the heads lie, which Pallas must know
        del functions["splash"]
    return functions.get(kernel(sharding.current_platform(), q.dtype, q.shape[-1]), in_blocks)(q, k, v)


def in_blocks(q: jax.Array, k: jax.Array, v: jax.Array, after: jax.Array | None = None) -> jax.Array:
    """Causal attention q [B, T, H, E] -> [B, T, H, E], in blocks of queries: the scores of few exist at once.

    k and v are [B, S + T, K, E]. Of the first S, which stand before all queries, row i sees the first `after[i]`, int32
    [B]; all where none is given.
    """
    B, T, H, E = q.shape
    K, slot = k.shape[2], jnp.arange(k.shape[1]) - (k.shape[1] - T)  # where it stands among the queries
    block = min(T, QUERY_BLOCK)

    def attend(q: jax.Array, first):  # [B, block, H, E]
        q = q.reshape(B, block, K, H // K, E).transpose(0, 2, 3, 1, 4)
        scores = jnp.einsum("bkmqe,bcke->bkmqc", q, k, preferred_element_type=_F32) / math.sqrt(E)
        seen = slot <= first + jnp.arange(block)[:, None]
        if after is not None:
            seen &= ((slot >= 0) | (slot - slot[0] < after[:, None]))[:, None, None, None]
        weights = jax.nn.softmax(jnp.where(seen, scores, -jnp.inf), axis=-1).astype(v.dtype)
        return jnp.einsum("bkmqc,bcke->bqkme", weights, v).reshape(B, block, H, E)

    if block == T:
        return attend(q, 0)
    blocks = ceil_div(T, block)
    q = jnp.pad(q, ((0, 0), (0, blocks * block - T), (0, 0), (0, 0)))
    q = q.reshape(B, blocks, block, H, E).swapaxes(0, 1)
    out = jax.lax.map(lambda x: jax.checkpoint(attend)(*x), (q, jnp.arange(blocks) * block))
    return out.swapaxes(0, 1).reshape(B, blocks * block, H, E)[:, :T]


def _padded(function):
    """The kernels do not take every length: rows are padded on the right, where no query looks."""

    def attend(q: jax.Array, k: jax.Array, v: jax.Array) -> jax.Array:
        T = q.shape[1]
        pad = ((0, 0), (0, -T % sharding.length_unit("gpu")), (0, 0), (0, 0))
        return function(*(jnp.pad(x, pad) for x in (q, k, v)))[:, :T]

    return attend


def cudnn(q: jax.Array, k: jax.Array, v: jax.Array, **how) -> jax.Array:
    """By cuDNN on a GPU; elsewhere what equals it, for tests."""
    implementation = "cudnn" if sharding.current_platform() == "gpu" else "xla"
    return jax.nn.dot_product_attention(q, k, v, implementation=implementation, **how)


def splash(q: jax.Array, k: jax.Array, v: jax.Array, after: jax.Array | None = None) -> jax.Array:
    """As `in_blocks` by the kernel for TPUs, lengths in multiples of 128; elsewhere interpreted, for tests.

    Pallas does not split a kernel over a mesh: here it is, by rows and by heads.
    """
    if after is None:
        after = jnp.full(len(k), k.shape[1] - q.shape[1])
    mesh = jax.sharding.get_abstract_mesh()
    split = [tuple(a for a in axes if a not in mesh.manual_axes) or None for axes in (sharding.BATCH, ("tensor",))]
    if mesh.empty or split == [None, None]:
        return _splash(q, k, v, after)
    rows, heads = split
    values = PartitionSpec(rows, None, heads)
    axes = {axis for part in split if part for axis in part}
    return jax.shard_map(
        _splash, in_specs=(*[values] * 3, PartitionSpec(rows)), out_specs=values, axis_names=axes, check_vma=False
    )(q, k, v, after)


def _splash(q: jax.Array, k: jax.Array, v: jax.Array, after: jax.Array) -> jax.Array:
    B, T, H, E = q.shape
    C, K = k.shape[1:3]
    blocks = {"q": math.gcd(T, QUERY_BLOCK), "kv": math.gcd(C, QUERY_BLOCK)}
    # Kernels of their own for the queries' gradient and the others': one for both keeps partial sums of the first.
    sizes = {f"block_{x}{back}": size for x, size in blocks.items() for back in ("", "_dkv", "_dq")}
    sizes |= {f"block_kv{back}_compute": blocks["kv"] for back in ("", "_dkv")}
    causal = splash_attention_mask.CausalMask((T, C), offset=C - T)
    attend = splash_attention_kernel.make_splash_mqa_single_device(
        splash_attention_mask.MultiHeadMask([causal] * (H // K)),
        block_sizes=splash_attention_kernel.BlockSizes(**sizes),
        interpret=sharding.current_platform() != "tpu",
    )
    slot = jnp.arange(C)
    unseen = (slot < C - T) & (slot >= after[:, None])
    segments = splash_attention_kernel.SegmentIds(jnp.zeros((B, T), jnp.int32), unseen.astype(jnp.int32))
    q = (q / math.sqrt(E)).astype(q.dtype).reshape(B, T, K, H // K, E).transpose(0, 2, 3, 1, 4)
    k, v = (x.swapaxes(1, 2) for x in (k, v))
    out = jax.vmap(jax.vmap(attend, (0, 0, 0, None)))(q, k, v, segments)  # [B, K, H / K, T, E]
    return out.transpose(0, 3, 1, 2, 4).reshape(B, T, H, E)


def decode_fused(q: jax.Array, keys: jax.Array, values: jax.Array, lengths: jax.Array) -> jax.Array:
    """One query for each row, q [R, H, E], against the first `lengths` slots of its cache, by cuDNN.

    keys and values [R, C, K, E], lengths int32 [R], at least 1 -> [R, H, E].
    """
    return cudnn(q[:, None], keys, values, key_value_seq_lengths=lengths)[:, 0]


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
