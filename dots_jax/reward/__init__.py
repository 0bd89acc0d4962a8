"""Graders: one module each, with `grade(completions, answers)`."""

from dots_jax.reward import exact

__all__ = ["exact"]
