"""Advantages and losses of GRPO: small functions of arrays. Letters: P groups, G completions each, R rows, T tokens."""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from dots_jax.core import plugins
from dots_jax.core.errors import UserError


def mixed(rewards: jax.Array) -> jax.Array:
    """Whether a group's rewards differ, bool [P] for rewards [P, G]: only such groups have a gradient."""
    return (rewards != rewards[:, :1]).any(1)


def advantages(rewards: jax.Array, std: bool = True) -> jax.Array:
    """Group-relative advantages, float32 [P, G]: r - mean(r), and if `std` divided by (ddof-1 deviation + 1e-6).

    Exactly zero in groups whose rewards are all equal. With `std` as in the released code, without as in the paper.
    """
    rewards = rewards.astype(jnp.float32)
    centred = rewards - rewards.mean(1, keepdims=True)
    if std:
        centred /= rewards.std(1, ddof=1, keepdims=True) + 1e-6
    return jnp.where(mixed(rewards)[:, None], centred, 0.0)


def aggregation_weights(lengths: jax.Array, kind: str, max_tokens: int) -> jax.Array:
    """The weight of each token of a row, float32 [R], with which the loss is a plain sum over an optimizer step.

    token: one over all tokens of the step; sequence: mean over a row's tokens, then over rows; constant: one over
    rows x max_tokens (Dr. GRPO). Rows without a token do not exist. Known before any forward pass, so that accumulation
    over micro-batches is exact.
    """
    rows = jnp.maximum((lengths > 0).sum(), 1)
    if kind == "token":
        return jnp.full(lengths.shape, 1.0 / jnp.maximum(lengths.sum(), 1), jnp.float32)
    if kind == "sequence":
        return 1.0 / (rows * jnp.maximum(lengths, 1).astype(jnp.float32))
    return jnp.full(lengths.shape, 1.0 / (rows * max_tokens), jnp.float32)


Clip = tuple[float, float]  # how far below and above its centre a ratio is clipped


def plain(logp: jax.Array, behaviour: jax.Array, proximal: jax.Array, advantage: jax.Array, clip: Clip, cap: float):
    """max(-A r, -A clip(r)), r = exp(logp - behaviour) clipped to [1 - e, 1 + e']: the paper's (arXiv 2506.05316)."""
    return _clipped(jnp.exp(logp - behaviour), 1.0, advantage, clip)


def decoupled(logp: jax.Array, behaviour: jax.Array, proximal: jax.Array, advantage: jax.Array, clip: Clip, cap: float):
    """The same, clipped around r_o = exp(proximal - behaviour): the released code's."""
    return _clipped(jnp.exp(logp - behaviour), jnp.exp(proximal - behaviour), advantage, clip)


def truncated_is(
    logp: jax.Array, behaviour: jax.Array, proximal: jax.Array, advantage: jax.Array, clip: Clip, cap: float
):
    """Decoupled with w = min(r_o, cap) in place of r_o, and r = w exp(logp - proximal)."""
    moved = proximal - behaviour
    weight = jnp.minimum(jnp.exp(moved), cap)
    return _clipped(weight * jnp.exp(logp - behaviour - moved), weight, advantage, clip)


plain.needs_proximal = False  # what is replayed is then not scored by the policy as it is


def _clipped(ratio: jax.Array, centre: jax.Array | float, advantage: jax.Array, clip: Clip):
    """The larger of -A r and -A r clipped to centre [1 - e, 1 + e'], and whether that is the second, [R, T] both."""
    lower, upper = clip
    free, clipped = -advantage * ratio, -advantage * jnp.clip(ratio, centre * (1 - lower), centre * (1 + upper))
    return jnp.maximum(free, clipped), clipped > free


LOSSES = {name: f"{__name__}:{name}" for name in ("plain", "decoupled", "truncated_is")}


def find(name: str) -> Callable:
    """The function that `config.learner.loss` names. Raises UserError where there is none."""
    if name == "truncated":
        raise UserError("config.learner.loss=truncated is now called truncated_is")
    loss = plugins.find(name, LOSSES, "learner.loss", callable, "a function")
    if name in LOSSES:
        return loss
    tokens, rows = jax.ShapeDtypeStruct((2, 3), jnp.float32), jax.ShapeDtypeStruct((2, 1), jnp.float32)
    with plugins.guarded(f"config.learner.loss={name} failed on log-probs [2, 3] and advantages [2, 1]", loss):
        out = jax.eval_shape(lambda *arrays: loss(*arrays, (0.2, 0.2), 2.0), tokens, tokens, tokens, rows)
    if not isinstance(out, tuple) or [getattr(x, "shape", None) for x in out] != [(2, 3)] * 2:
        raise UserError(
            f"config.learner.loss={name} must return two arrays like the log-probs: losses, and what is clipped"
        )
    return loss


def needs_proximal(loss: Callable) -> bool:
    """Whether a loss looks at the log-probs of the policy before this step's updates; functions may say no."""
    return getattr(loss, "needs_proximal", True)


def policy_loss(
    logp: jax.Array,
    behaviour: jax.Array,
    proximal: jax.Array,
    advantage: jax.Array,
    mask: jax.Array,
    clip: float | Clip,
    kind: str | Callable = "plain",
    cap: float = 2.0,
) -> tuple[jax.Array, jax.Array, dict[str, jax.Array]]:
    """The clipped surrogate of GRPO as (sum, count, info), for log-probs [R, T] and advantages [R].

    The three losses here are the same where proximal is behaviour.

    Args:
      logp: of the current policy; the gradient flows through it alone.
      behaviour: of the policy that generated the tokens.
      proximal: of the policy before this step's updates.
      advantage: float32 [R].
      mask: [R, T], 0 where there is no token, else 1 or the token's weight.
      clip: (e, e'): ratios are clipped to [1 - e, 1 + e'] times their centre; a number stands for both.
      kind: a name of `LOSSES`, or a function (logp, behaviour, proximal [R, T], advantage [R, 1], (e, e'), cap) ->
        (loss, bool whether the clipped term is the larger), [R, T] both; log-probs are 0 where there is no token.
      cap: of what the loss caps.

    Returns:
      sum of mask x loss, sum of mask, and for each row, float32 [R]: "tokens"; over them the sums of "clipped" (the
      clipped term is the larger), of the importance "ratio" exp(logp - behaviour), of "ratio_sq", its square, of
      "log_ratio_sq", and of "kl_behaviour", ratio - 1 - log ratio, an estimate of KL(behaviour || policy); "ratio_max".
    """
    # Masked slots hold anything: a zero difference there keeps exp and its gradient finite.
    real = mask > 0
    logp, behaviour, proximal = (jnp.where(real, x, 0.0) for x in (logp, behaviour, proximal))
    function = find(kind) if isinstance(kind, str) else kind
    clip = clip if isinstance(clip, tuple) else (clip, clip)
    loss, clipped = function(logp, behaviour, proximal, advantage[:, None], clip, cap)
    log_ratio = logp - behaviour
    ratio = jnp.exp(log_ratio)
    info = {
        "tokens": real,
        "clipped": real & clipped,
        "ratio": jnp.where(real, ratio, 0.0),
        "ratio_sq": jnp.where(real, ratio**2, 0.0),
        "log_ratio_sq": log_ratio**2,
        "kl_behaviour": ratio - 1 - log_ratio,
    }
    info = {name: x.sum(1, dtype=jnp.float32) for name, x in info.items()}
    info["ratio_max"] = jnp.where(real, ratio, 0.0).max(1)
    return (mask * loss).sum(), mask.sum(), info


def kl_penalty(logp: jax.Array, reference: jax.Array) -> jax.Array:
    """The k3 estimate of KL(policy || reference) per token: exp(d) - d - 1, d = reference - logp, kept in [-10, 10]."""
    d = jnp.clip(reference - logp, -20.0, 20.0)  # far past where the result is capped; exp stays finite
    return jnp.clip(jnp.exp(d) - d - 1, -10.0, 10.0)
