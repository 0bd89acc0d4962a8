"""Rollouts: completions sampled from the policy, with their log-probs."""

from dots_jax.rollout.grading import GradedCompletions, Grading
from dots_jax.rollout.sampler import sample
from dots_jax.rollout.types import Rollouts, RolloutSpec, concat_completions, concat_groups, take_groups

__all__ = [
    "GradedCompletions",
    "Grading",
    "RolloutSpec",
    "Rollouts",
    "concat_completions",
    "concat_groups",
    "sample",
    "take_groups",
]
