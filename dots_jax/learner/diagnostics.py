"""What is reported of an update: sums over its rows, by their age."""

import jax
import jax.numpy as jnp

from dots_jax.learner.types import Groups, UpdateSpec

AGES = 8  # ages of replayed groups are counted as 1, 2, .. and this or more
# Over the tokens with a gradient in rows of each age: sums, and maxima where the name says so.
BY_AGE = ("tokens", "clipped", "ratio", "ratio_sq", "ratio_max", "log_ratio_sq", "kl_behaviour")
BY_AGE += ("diff", "diff_max", "diff_far", "diff_k3")


def by_age(age: jax.Array, per_row: dict[str, jax.Array]) -> dict[str, jax.Array]:
    """What is known of each row [R] added up, or its maximum, for ages 0 to AGES: float32 [AGES + 1]."""
    member = jnp.minimum(age, AGES)[:, None] == jnp.arange(AGES + 1)

    def reduce(name: str, x: jax.Array):
        x = jnp.where(member, x[:, None], 0.0)
        return x.max(0) if name.endswith("_max") else x.sum(0)

    return {name: reduce(name, x) for name, x in per_row.items()}


def summary(stats: dict, spec: UpdateSpec, total_rows: int) -> dict:
    """Metrics of a step, float32 [], as docs/metrics.md has them under `train/`.

    `stats` are sums and maxima of the step's minibatches, each [minibatches] or [minibatches, AGES + 1].
    """
    total = {k: v.sum(0) for k, v in stats.items()}
    tokens = jnp.maximum(total["tokens"].sum(), 1)
    fresh = {name: stats[name][0, 0] for name in BY_AGE}  # of the first minibatch, before anything has moved
    count = jnp.maximum(fresh["tokens"], 1)
    metrics = {
        "loss": stats["loss"].mean(),
        "grad_norm": stats["grad_norm"].mean(),
        "clip_fraction": total["clipped"].sum() / tokens,
        "clip_fraction_fresh": total["clipped"][0] / jnp.maximum(total["tokens"][0], 1),
        "ratio_max": stats["ratio_max"].max(),
        "entropy_useful": total["entropy"] / tokens,
        "logprob_diff_mean": fresh["diff"] / count,
        "logprob_diff_max": fresh["diff_max"],
        "logprob_diff_k3": fresh["diff_k3"] / count,
        "logprob_diff_clipped": fresh["diff_far"] / count,
        "padding": 1 - jnp.maximum(total["real"], 1e-9) / jnp.maximum(total["computed"], 1e-9),
        "skipped": 1 - total["rows"] / total_rows,
        "tokens": total["tokens"].sum(),
    }
    return metrics | ({"kl": total["kl"] / tokens} if spec.kl_coef else {})


def replay_summary(stats: dict, fresh: Groups, is_fresh: jax.Array, drawn: Groups, is_drawn: jax.Array) -> dict:
    """What replay did in a step, as docs/metrics.md has it under `replay/`; NaN: a mean or maximum of nothing.

    Also "ids" and "steps" of the replayed groups, int32 [n]; -1 where there was none to draw. By age is float32
    [AGES + 1]. kl_by_age estimates KL(behaviour || policy), the policy being that of the minibatch; not so with
    positive_only.
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
        "tokens": old["tokens"],
        "clip_fraction": old["clipped"] / old["tokens"],
        "ratio_mean": old["ratio"] / old["tokens"],
        "ratio_max": jnp.where(old["tokens"] > 0, stats["ratio_max"][:, 1:].max(), jnp.nan),
        "effective_sample_size": old["ratio"] ** 2 / (old["tokens"] * old["ratio_sq"]),
        "log_ratio_sq_by_age": total["log_ratio_sq"] / total["tokens"],
        "kl_by_age": total["kl_behaviour"] / total["tokens"],
    }
