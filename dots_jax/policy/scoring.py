"""The distribution over tokens: logits / temperature in float32 over the tokenizer's ids. Sampler and learner both
use `distribution`, so that in float32 a stored log-prob is the learner's up to rounding.
"""

import functools

import jax
import jax.numpy as jnp

from dots_jax.core import sharding
from dots_jax.policy import transformer
from dots_jax.policy.transformer import ModelConfig

_F32 = jnp.float32


@functools.partial(jax.jit, static_argnames=("model_config", "mesh"))
def prompt_states(
    params: dict, tokens: jax.Array, lengths: jax.Array, model_config: ModelConfig, mesh: jax.sharding.Mesh
) -> jax.Array:
    """The final hidden state at the last of each row's tokens [B, T], and the mean log-prob of the others given those
    before them, float32 [B, D + 1].
    """
    with jax.sharding.use_abstract_mesh(mesh.abstract_mesh):
        tokens, lengths = (sharding.constrain(x, sharding.BATCH) for x in (tokens, lengths))
        x = transformer.hidden(params, model_config, tokens)
        logp, _ = _score_tokens(x, params, model_config, tokens, lengths)
        mean = logp.sum(1) / jnp.maximum(lengths - 1, 1)
        last = jnp.take_along_axis(x, lengths[:, None, None] - 1, axis=1)[:, 0].astype(_F32)
        return jnp.concatenate([last, mean[:, None]], 1)


def logits(params: dict, model_config: ModelConfig, tokens: jax.Array, lengths: jax.Array | None = None) -> jax.Array:
    """Raw logits, float32 [B, T, V], of right-padded tokens [B, T]; those past a row's length mean nothing."""
    del lengths  # causal: padding on the right is never seen
    x = transformer.hidden(params, model_config, tokens)
    return jnp.einsum("btd,vd->btv", x, transformer.head(params), preferred_element_type=_F32)


def distribution(hidden: jax.Array, head: jax.Array, temperature: float, num_tokens: int) -> jax.Array:
    """Unnormalised log-probs of the next token, float32 [..., V]: logits / temperature, -inf past `num_tokens`."""
    x = jnp.einsum("...d,vd->...v", hidden, head, preferred_element_type=_F32) / temperature
    if num_tokens < head.shape[0]:
        x = jnp.where(jnp.arange(head.shape[0]) < num_tokens, x, -jnp.inf)
    return x


def score(
    hidden: jax.Array, head: jax.Array, targets: jax.Array, temperature: float, num_tokens: int, chunk: int = 4096
):
    """Log-prob of each target and entropy of each distribution, both float32 [N].

    hidden [N, D], targets int32 [N]. Only `chunk` tokens have logits at a time, in the backward pass too (recomputed
    there); no gradient flows through the entropy. An impossible target scores -inf.
    """
    logp, entropy, _ = _score(num_tokens, min(chunk, len(hidden)), hidden, head, targets, temperature)
    return logp, entropy


@functools.partial(jax.custom_vjp, nondiff_argnums=(0, 1))
def _score(num_tokens: int, chunk: int, hidden: jax.Array, head: jax.Array, targets: jax.Array, temperature: float):
    """Log-prob, entropy, and the log of the sum of exponentials."""

    def score_chunk(hidden: jax.Array, targets: jax.Array):
        x = distribution(hidden, head, temperature, num_tokens)
        norm = jax.nn.logsumexp(x, axis=-1)
        # A masked sum instead of a gather: it fuses, and needs no collective where V is split.
        hit = jnp.arange(x.shape[-1]) == targets[:, None]
        y = x - norm[:, None]
        entropy = -jnp.where(jnp.isfinite(y), jnp.exp(y) * y, 0.0).sum(-1)
        return jnp.where(hit, x, 0.0).sum(-1) - norm, entropy, norm

    _, out = jax.lax.scan(lambda _, x: (None, score_chunk(*x)), None, _chunks(chunk, hidden, targets))
    return tuple(x.ravel()[: len(hidden)] for x in out)


def _score_forward(num_tokens, chunk, hidden, head, targets, temperature):
    out = _score(num_tokens, chunk, hidden, head, targets, temperature)
    return out, (hidden, head, targets, temperature, out[2])


def _score_backward(num_tokens, chunk, saved, cotangents):
    # Written out, so that both products take the policy's dtype: by itself XLA would take float32 for them.
    hidden, head, targets, temperature, norm = saved

    def add_chunk(total: jax.Array, x: tuple):
        hidden, targets, norm, weight = x
        logits = distribution(hidden, head, temperature, num_tokens)
        hit = jnp.arange(logits.shape[-1]) == targets[:, None]
        slope = jnp.where(jnp.isfinite(logits), hit - jnp.exp(logits - norm[:, None]), 0.0)
        slope = (slope * weight[:, None] / temperature).astype(head.dtype)
        back = jnp.einsum("nv,vd->nd", slope, head, preferred_element_type=_F32).astype(hidden.dtype)
        return total + jnp.einsum("nv,nd->vd", slope, hidden, preferred_element_type=_F32), back

    zeros = jnp.zeros(head.shape, _F32)
    total, back = jax.lax.scan(add_chunk, zeros, _chunks(chunk, hidden, targets, norm, cotangents[0]))
    return back.reshape(-1, hidden.shape[1])[: len(hidden)], total.astype(head.dtype), None, None


_score.defvjp(_score_forward, _score_backward)


def _chunks(size: int, *arrays: jax.Array) -> tuple[jax.Array, ...]:
    """Arrays [N, ..] as [chunks, size, ..]."""
    pad = -len(arrays[0]) % size
    arrays = (jnp.pad(x, [(0, pad)] + [(0, 0)] * (x.ndim - 1)) for x in arrays)
    return tuple(x.reshape(-1, size, *x.shape[1:]) for x in arrays)


def token_logprobs(
    params: dict,
    model_config: ModelConfig,
    tokens: jax.Array,
    lengths: jax.Array,
    temperature: float = 1.0,
    *,
    chunk: int = 4096,
):
    """Log-prob of every token given those before it, and the entropy there, both float32 [B, T].

    tokens int32 [B, T] right-padded, lengths int32 [B]. Zero at a row's first token and past its length.
    """
    x = transformer.hidden(params, model_config, tokens)
    return _score_tokens(x, params, model_config, tokens, lengths, temperature, chunk)


def _score_tokens(x, params, model_config, tokens, lengths, temperature=1.0, chunk=4096):
    """As `token_logprobs`, of final hidden states [B, T, D]."""
    x, targets, head = x[:, :-1], tokens[:, 1:], transformer.head(params)
    out = score(x.reshape(-1, x.shape[2]), head, targets.ravel(), temperature, model_config.num_tokens, chunk)
    real = jnp.arange(1, tokens.shape[1]) < lengths[:, None]
    return tuple(jnp.pad(jnp.where(real, y.reshape(targets.shape), 0.0), ((0, 0), (1, 0))) for y in out)
