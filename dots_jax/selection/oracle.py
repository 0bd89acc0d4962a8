"""The oracle: DOTS' draw on the measured difficulty of the whole pool. An upper bound: its cost is not counted."""

import jax
import numpy as np
from ml_collections import ConfigDict

from dots_jax.selection import draw
from dots_jax.selection.base import Measured, Selector, check_distinct


class Oracle(Selector):
    """Every question of the pool is rolled out in every round.

    State: "difficulty" float32 [N], as last measured; "rollouts" int32 [], completions of each question.
    """

    cost_excluded = True

    @classmethod
    def check(cls, config: ConfigDict):
        """A round's questions are distinct."""
        check_distinct(config)

    @classmethod
    def num_queries(cls, config: ConfigDict):
        """All."""
        return config.data.num_questions

    def init(self) -> dict:
        """Nothing measured."""
        return {"difficulty": np.full(self.context.num_questions, 0.5, np.float32), "rollouts": np.int32(0)}

    def queries(self, state: dict, key: jax.Array):
        """All questions."""
        return np.arange(self.context.num_questions, dtype=np.int32)

    def propose(self, state: dict, key: jax.Array, n: int, step: int):
        """Distinct questions near the target."""
        c = self.config.selection
        return np.asarray(draw.near(key, state["difficulty"], c.target, c.temperature, n)), state

    def observe(self, state: dict, measured: Measured):
        """Keeps what it asked for."""
        if not measured.is_reference:
            return state
        difficulty = state["difficulty"].copy()
        difficulty[measured.ids] = 1 - measured.rate
        return {"difficulty": difficulty, "rollouts": np.int32(measured.rollouts)}

    def predict(self, state: dict):
        """Difficulty as measured and its standard error."""
        d = state["difficulty"]
        return d, np.sqrt(d * (1 - d) / max(1, state["rollouts"])).astype(np.float32)
