"""Uniform selection: shuffled epochs, as in GRPO."""

import jax
import numpy as np

from dots_jax.selection.base import Selector


class Uniform(Selector):
    """Every question once per epoch, each epoch in a new random order.

    State: "order" int32 [N], the running epoch; "used" int32 [], how much of it has been drawn.
    """

    def init(self) -> dict:
        """An epoch that is used up."""
        count = self.context.num_questions
        return {"order": np.arange(count, dtype=np.int32), "used": np.int32(count)}

    def propose(self, state: dict, key: jax.Array, n: int, step: int):
        """The next n of the running epoch, and of as many new ones as that takes."""
        order, used = state["order"], int(state["used"])
        ids, order, used = take(order, used, key, n)
        return ids, {"order": order, "used": np.int32(used)}


def take(order: np.ndarray, used: int, key: jax.Array, n: int) -> tuple[np.ndarray, np.ndarray, int]:
    """Draws n ids from the epoch `order`, of which `used` are gone, and new ones; also the epoch and its use then."""
    ids, epoch = [], 0
    while len(ids) < n:
        if used == len(order):
            key, used = jax.random.fold_in(key, epoch), 0
            order = order[np.asarray(jax.random.permutation(key, len(order)))]
            epoch += 1
        new = order[used : used + n - len(ids)].tolist()
        ids, used = ids + new, used + len(new)
    return np.array(ids, np.int32), order, used
