"""Uniform selection: shuffled epochs, as in GRPO."""

import jax
import numpy as np


class Uniform:
    """Every question once per epoch, each epoch in a new random order.

    State: "order" int32 [N], the running epoch; "used" int32 [], how much of it has been drawn.
    """

    uncounted, reuse = False, 0

    def __init__(self, config, context):
        self._num_questions = context.num_questions

    def init(self) -> dict:
        """An epoch that is used up."""
        return {"order": np.arange(self._num_questions, dtype=np.int32), "used": np.int32(self._num_questions)}

    def ask(self, state, key):
        """Needs no measurement."""
        return np.zeros(0, np.int32)

    def propose(self, state, key, n: int, step: int):
        """The next n of the running epoch, and of as many new ones as that takes."""
        order, used = state["order"], int(state["used"])
        ids, order, used = take(order, used, key, n)
        return ids, {"order": order, "used": np.int32(used)}

    def observe(self, state, ids, successes, rollouts: int, step: int, asked: bool):
        """Learns nothing."""
        return state

    def predict(self, state):
        """Knows nothing."""
        return None

    def save(self, state, workdir: str):
        """Has nothing."""


def take(order: np.ndarray, used: int, key, n: int) -> tuple[np.ndarray, np.ndarray, int]:
    """N ids from the epoch `order` of which `used` are drawn, and from new epochs; the epoch and its use after that."""
    ids, epoch = [], 0
    while len(ids) < n:
        if used == len(order):
            key, used = jax.random.fold_in(key, epoch), 0
            order = order[np.asarray(jax.random.permutation(key, len(order)))]
            epoch += 1
        taken = order[used : used + n - len(ids)].tolist()
        ids, used = ids + taken, used + len(taken)
    return np.array(ids, np.int32), order, used
