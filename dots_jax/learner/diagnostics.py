"""What is reported of an update: sums over its rows, by their age."""

import jax
import jax.numpy as jnp

from dots_jax.learner.types import Groups, UpdateSpec

AGES = 8  # ages of replayed groups are counted as 1, 2, .. and this or more
# Over the tokens with a gradient in rows of each age: sums, and maxima where the name says so.
BY_AGE = ("tokens", "clipped", "ratio", "ratio_sq", "ratio_max", "log_ratio_sq", "kl_behaviour", "diff", "diff_max")


def by_age(age: jax.Array, per_row: dict[str, jax.Array]) -> dict[str, jax.Array]:
    """What is known of each row [R] added up, or its maximum, for ages 0 to AGES: float32 [AGES + 1]."""
    member = jnp.minimum(age, AGES)[:, None] == jnp.arange(AGES + 1)

    def reduce(name: str, x: jax.Array):
        x = jnp.where(member, x[:, None], 0.0)
        return x.max(0) if name.endswith("_max") else x.sum(0)

    return {name: reduce(name, x) for name, x in per_row.items()}


def summary(stats: dict, spec: UpdateSpec, total_rows: int) -> dict:
    """Metrics of a step, float32 [], from the sums of its minibatches, each [minibatches] or [minibatches, AGES + 1].

    loss and grad_norm, means over the minibatches; clip_fraction over all tokens with a gradient, clip_fraction_fresh
    over those of fresh groups, ratio_max; entropy_useful, exact over tokens with a gradient (`update` adds entropy,
    estimated from the log-probs of all fresh tokens); logprob_diff_mean and logprob_diff_max, |sampler - learner| on
    fresh rows before the first optimizer step; padding, the share of computed tokens that are padding; skipped, the
    share of rows not computed; tokens, those with a gradient (`update` adds scored, those whose proximal log-probs were
    computed); kl where spec.kl_coef > 0. With a buffer also "replay", see `replay_summary`.
    """
    total = {k: v.sum(0) for k, v in stats.items()}
    tokens = jnp.maximum(total["tokens"].sum(), 1)
    metrics = {
        "loss": stats["loss"].mean(),
        "grad_norm": stats["grad_norm"].mean(),
        "clip_fraction": total["clipped"].sum() / tokens,
        "clip_fraction_fresh": total["clipped"][0] / jnp.maximum(total["tokens"][0], 1),
        "ratio_max": stats["ratio_max"].max(),
        "entropy_useful": total["entropy"] / tokens,
        "logprob_diff_mean": stats["diff"][0, 0] / jnp.maximum(stats["tokens"][0, 0], 1),
        "logprob_diff_max": stats["diff_max"][0, 0],
        "padding": 1 - jnp.maximum(total["real"], 1e-9) / jnp.maximum(total["computed"], 1e-9),
        "skipped": 1 - total["rows"] / total_rows,
        "tokens": total["tokens"].sum(),
    }
    return metrics | ({"kl": total["kl"] / tokens} if spec.kl_coef else {})


def replay_summary(stats: dict, fresh: Groups, is_fresh: jax.Array, drawn: Groups, is_drawn: jax.Array) -> dict:
    """What replay did in a step; NaN stands for a mean or maximum of nothing.

    Returns:
      share: of the trained groups that are replayed ones.
      ages: how many of these are 1, 2, .. AGES or more steps old, int32 [AGES].
      overlap: share of them whose question is also among the fresh.
      ids, steps: of the replayed groups, int32 [n]; -1 where there was none to draw.
      Over their tokens with a gradient, as these enter the loss: clip_fraction; ratio_mean and
      ratio_max of exp(log-prob now - behaviour); effective_sample_size, of these as weights, as a share of the tokens.
      By age, float32 [AGES + 1], age 0 being the fresh groups: log_ratio_sq_by_age, the mean square of the ratio's
      logarithm; kl_by_age, the mean of ratio - 1 - log ratio. That estimates KL(behaviour || policy) per token on the
      questions with a gradient, the policy being that of the minibatch; not so with positive_only.
    """
    total = {name: stats[name].sum(0) for name in BY_AGE}
    old = {name: x[1:].sum() for name, x in total.items()}
    count, age = is_drawn.sum(), jnp.minimum(fresh.step[0] - drawn.step, AGES)
    same = (drawn.ids[:, None] == fresh.ids) & is_fresh
    return {
        "share": count / (is_fresh.sum() + count),
        "ages": (is_drawn & (age == jnp.arange(1, AGES + 1)[:, None])).sum(1),
        "overlap": (same.any(1) & is_drawn).sum() / count,
        "ids": jnp.where(is_drawn, drawn.ids, -1),
        "steps": jnp.where(is_drawn, drawn.step, -1),
        "clip_fraction": old["clipped"] / old["tokens"],
        "ratio_mean": old["ratio"] / old["tokens"],
        "ratio_max": jnp.where(old["tokens"] > 0, stats["ratio_max"][:, 1:].max(), jnp.nan),
        "effective_sample_size": old["ratio"] ** 2 / (old["tokens"] * old["ratio_sq"]),
        "log_ratio_sq_by_age": total["log_ratio_sq"] / total["tokens"],
        "kl_by_age": total["kl_behaviour"] / total["tokens"],
    }
