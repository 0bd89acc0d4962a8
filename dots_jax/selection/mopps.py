"""MoPPS: a Beta posterior of every question's success rate, and one draw of it for each (arXiv 2507.04632)."""

import jax
import numpy as np
from ml_collections import ConfigDict

from dots_jax.selection import draw
from dots_jax.selection.base import Measured, Selector, check_distinct

_CANDIDATES = 16  # times the questions that are drawn


class Mopps(Selector):
    """The n questions whose drawn success rate is nearest the target, of 16 n candidates drawn uniformly.

    With s successes of m completions and lambda = `selection.decay` of a question that is measured:
    alpha = lambda alpha + (1 - lambda) 1 + s, and beta = lambda beta + (1 - lambda) 1 + m - s.

    State: "alpha", "beta" float32 [N], from 1 on.
    """

    @classmethod
    def check(cls, config: ConfigDict):
        """A round's questions are distinct."""
        check_distinct(config)

    def init(self) -> dict:
        """Beta(1, 1) for all."""
        return {name: np.ones(self.context.num_questions, np.float32) for name in ("alpha", "beta")}

    def observe(self, state: dict, measured: Measured):
        """The update above; of references too, where a selector that asks for them is built on this one."""
        keep, ids = self.config.selection.decay, measured.ids
        counts = {"alpha": measured.successes, "beta": measured.rollouts - measured.successes}
        state = {name: x.copy() for name, x in state.items()}
        for name, count in counts.items():
            state[name][ids] = keep * state[name][ids] + (1 - keep) + count
        return state

    def propose(self, state: dict, key: jax.Array, n: int, step: int):
        """One draw of Beta(alpha, beta) for each candidate; the nearest to a success rate of 1 - target."""
        among, thompson = jax.random.split(key)
        N = self.context.num_questions
        ids = np.asarray(jax.random.permutation(among, N)[: min(N, _CANDIDATES * n)])
        drawn = np.asarray(jax.random.beta(thompson, state["alpha"][ids], state["beta"][ids]))
        return ids[draw.nearest(1 - drawn, self.config.selection.target, n)].astype(np.int32), state

    def predict(self, state: dict):
        """Mean and deviation of the difficulty."""
        a, b = state["alpha"], state["beta"]
        return b / (a + b), np.sqrt(a * b / (a + b + 1)) / (a + b)
