"""Rollouts: completions sampled from the policy, with their log-probs."""

from dots_jax.rollout.sampler import sample
from dots_jax.rollout.types import Rollouts, join

__all__ = ["Rollouts", "join", "sample"]
