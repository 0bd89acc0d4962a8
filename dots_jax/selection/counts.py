"""Successes and completions of every question, those of the past counting less: what several selectors remember."""

from typing import NamedTuple

import numpy as np
from scipy import special

from dots_jax.selection.base import Measured


class Counts(NamedTuple):
    """Sums over all that was measured of N questions, decayed to `step`."""

    successes: np.ndarray  # float32 [N]
    rollouts: np.ndarray  # float32 [N]
    tokens: np.ndarray  # float32 [N], generated ones of these rollouts
    step: np.ndarray  # int32 []

    @classmethod
    def none(cls, num_questions: int) -> "Counts":
        """Before anything is measured."""
        return cls(*np.zeros((3, num_questions), np.float32), np.int32(0))

    def at(self, step: int, decay: float) -> "Counts":
        """Decayed to a step; `decay` is the factor of one step."""
        factor = np.float32(decay ** (step - int(self.step)))
        return Counts(self.successes * factor, self.rollouts * factor, self.tokens * factor, np.int32(step))

    def add(self, measured: Measured, decay: float) -> "Counts":
        """With further groups, of the same step or a later one."""
        sums = [x.copy() for x in self.at(measured.step, decay)[:3]]
        n = measured.rollouts
        for x, values in zip(sums, (measured.successes, n, n * measured.tokens), strict=True):
            np.add.at(x, measured.ids, np.float32(values))
        return Counts(*sums, np.int32(measured.step))


def mixed_chance(a: np.ndarray, b: np.ndarray, group_size: int) -> np.ndarray:
    """Chance that a group has successes and failures: 1 - E[p^G] - E[(1 - p)^G] for p ~ Beta(a, b), [N]."""
    whole = special.betaln(a + group_size, b), special.betaln(a, b + group_size)
    return 1 - sum(np.exp(x - special.betaln(a, b)) for x in whole)


def log_likelihood(successes: np.ndarray, rollouts: np.ndarray, mean: np.ndarray, kappa: float) -> float:
    """Of counts [n] whose rates come from Beta(kappa mean, kappa (1 - mean)), without the binomial coefficients."""
    a, b = kappa * mean, kappa * (1 - mean)
    return float((special.betaln(a + successes, b + rollouts - successes) - special.betaln(a, b)).sum())
