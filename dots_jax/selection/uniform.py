"""Uniform selection: shuffled epochs, as in GRPO."""

import jax
import numpy as np


class Uniform:
    """Every question once per epoch, each epoch in a new random order. State: int32 [], questions drawn so far."""

    def __init__(self, num_questions: int, config=None):
        self._num_questions = num_questions

    def init(self) -> np.ndarray:
        """Nothing drawn."""
        return np.zeros((), np.int32)

    def propose(self, state, key, n: int):
        """The next n of the running epoch, and of those after it."""
        at = int(state) + np.arange(n)
        epochs = {e: np.asarray(self._order(key, e)) for e in set((at // self._num_questions).tolist())}
        ids = [epochs[i // self._num_questions][i % self._num_questions] for i in at.tolist()]
        return np.array(ids, np.int32), np.int32(state + n)

    def observe(self, state, ids, successes, rollouts: int, step: int):
        """Learns nothing."""
        return state

    def _order(self, key, epoch: int):
        return jax.random.permutation(jax.random.fold_in(key, epoch), self._num_questions)
