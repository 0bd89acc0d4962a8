"""Attention: causal over whole rows, and one new token against a shared prompt and a private completion."""

import math

import jax
import jax.numpy as jnp

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


def shared_prompt(
    q: jax.Array,
    prompt_k: jax.Array,
    prompt_v: jax.Array,
    prompt_lengths: jax.Array,
    own_k: jax.Array,
    own_v: jax.Array,
    index,
) -> jax.Array:
    """One query per row against its question's prompt and its own completion.

    Args:
      q: [P, G, H, E].
      prompt_k: [P, K, S, E], read once for the G rows of a question; prompt_v alike.
      prompt_v: see prompt_k.
      prompt_lengths: int32 [P].
      own_k: [P, G, K, C, E]; own_v alike.
      own_v: see own_k.
      index: int32 [P], the last slot of the completion that exists.

    Returns:
      [P, G, H, E].
    """
    P, G, H, E = q.shape
    K = prompt_k.shape[1]
    q = q.reshape(P, G, K, H // K, E)
    s_prompt = jnp.einsum("pgkme,pkse->pgkms", q, prompt_k, preferred_element_type=_F32)
    s_own = jnp.einsum("pgkme,pgkce->pgkmc", q, own_k, preferred_element_type=_F32)

    def mask(scores: jax.Array, count):
        real = jnp.arange(scores.shape[-1]) < count[:, None]
        return jnp.where(real[:, None, None, None, :], scores / math.sqrt(E), -jnp.inf)

    s_prompt, s_own = mask(s_prompt, prompt_lengths), mask(s_own, index + 1)
    top = jnp.maximum(s_prompt.max(-1, keepdims=True), s_own.max(-1, keepdims=True))
    e_prompt, e_own = jnp.exp(s_prompt - top), jnp.exp(s_own - top)
    total = e_prompt.sum(-1) + e_own.sum(-1)
    # Values first: in the other order XLA cannot run it in bfloat16 on a CPU.
    out = jnp.einsum("pkse,pgkms->pgkme", prompt_v, e_prompt.astype(prompt_v.dtype), preferred_element_type=_F32)
    out += jnp.einsum("pgkmc,pgkce->pgkme", e_own.astype(own_v.dtype), own_v, preferred_element_type=_F32)
    return (out / total[..., None]).reshape(P, G, H, E).astype(q.dtype)
