"""The distribution over tokens: logits / temperature in float32 over the tokenizer's ids. Sampler and learner both
use `distribution`, so that a stored log-prob is the learner's log-prob.
"""

import jax
import jax.numpy as jnp

from dots_jax.core.arithmetic import ceil_div
from dots_jax.policy import transformer
from dots_jax.policy.transformer import ModelConfig

_F32 = jnp.float32


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
    hidden: jax.Array, head: jax.Array, targets: jax.Array, temperature: float, num_tokens: int, chunk: int = 128
):
    """Log-prob of each target and entropy of each distribution, both float32 [B, T].

    hidden [B, T, D], targets int32 [B, T]. Only `chunk` tokens of each row have logits at a time, in the backward
    pass too (recomputed there); no gradient flows through the entropy. An impossible target scores -inf.
    """
    B, T, D = hidden.shape

    @jax.checkpoint
    def score_chunk(hidden: jax.Array, targets: jax.Array):
        x = distribution(hidden, head, temperature, num_tokens)
        norm = jax.nn.logsumexp(x, axis=-1)
        # A masked sum instead of a gather: it fuses, and needs no collective where V is split.
        hit = jnp.arange(x.shape[-1]) == targets[..., None]
        logp = jnp.where(hit, x, 0.0).sum(-1) - norm
        y = jax.lax.stop_gradient(x - norm[..., None])
        return logp, -jnp.where(jnp.isfinite(y), jnp.exp(y) * y, 0.0).sum(-1)

    if chunk >= T:
        return score_chunk(hidden, targets)
    n = ceil_div(T, chunk)
    pad = n * chunk - T
    hidden = jnp.pad(hidden, ((0, 0), (0, pad), (0, 0))).reshape(B, n, chunk, D).swapaxes(0, 1)
    targets = jnp.pad(targets, ((0, 0), (0, pad))).reshape(B, n, chunk).swapaxes(0, 1)
    _, out = jax.lax.scan(lambda _, x: (None, score_chunk(*x)), None, (hidden, targets))
    return jax.tree.map(lambda x: x.swapaxes(0, 1).reshape(B, n * chunk)[:, :T], out)


def token_logprobs(
    params: dict,
    model_config: ModelConfig,
    tokens: jax.Array,
    lengths: jax.Array,
    temperature: float = 1.0,
    *,
    chunk: int = 128,
):
    """Log-prob of every token given those before it, and the entropy there, both float32 [B, T].

    tokens int32 [B, T] right-padded, lengths int32 [B]. Zero at a row's first token and past its length.
    """
    x = transformer.hidden(params, model_config, tokens)
    out = score(x[:, :-1], transformer.head(params), tokens[:, 1:], temperature, model_config.num_tokens, chunk)
    real = jnp.arange(1, tokens.shape[1]) < lengths[:, None]
    return tuple(jnp.pad(jnp.where(real, y, 0.0), ((0, 0), (1, 0))) for y in out)
