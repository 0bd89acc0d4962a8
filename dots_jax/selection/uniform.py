"""Uniform selection: shuffled epochs, as in GRPO."""

import jax
import numpy as np


class Uniform:
    """Every question once per epoch, each epoch in a new random order.

    State: "order" int32 [N], the running epoch; "used" int32 [], how much of it has been drawn.
    """

    def __init__(self, num_questions: int, config=None):
        self._num_questions = num_questions

    def init(self) -> dict:
        """An epoch that is used up."""
        return {"order": np.arange(self._num_questions, dtype=np.int32), "used": np.int32(self._num_questions)}

    def propose(self, state, key, n: int):
        """The next n of the running epoch, and of as many new ones as that takes."""
        order, used, ids, epoch = state["order"], int(state["used"]), [], 0
        while len(ids) < n:
            if used == self._num_questions:
                key, used = jax.random.fold_in(key, epoch), 0
                order = np.asarray(jax.random.permutation(key, self._num_questions), np.int32)
                epoch += 1
            taken = order[used : used + n - len(ids)].tolist()
            ids, used = ids + taken, used + len(taken)
        return np.array(ids, np.int32), {"order": order, "used": np.int32(used)}

    def observe(self, state, ids, successes, rollouts: int, step: int):
        """Learns nothing."""
        return state
