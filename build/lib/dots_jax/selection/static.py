"""A static curriculum: the easiest third by an external label, then the middle, then the hardest."""

import jax
import numpy as np
from ml_collections import ConfigDict

from dots_jax.core.errors import UserError
from dots_jax.selection.base import Context
from dots_jax.selection.uniform import Uniform, take


class Static(Uniform):
    """Shuffled epochs of one third of the pool in each third of the run: the paper's baseline (arXiv 2506.05316).

    Questions without a label are not in it. State: "order" int32 [those with one], the thirds side by side, each in
    its running epoch's order; "used" int32 [3]. Raises UserError where a third is less than a batch.
    """

    depends_on_steps = True

    def __init__(self, config: ConfigDict, context: Context):
        super().__init__(config, context)
        labels = np.asarray(context.difficulty, np.float64)
        ties = np.asarray(jax.random.permutation(context.key, len(labels)))  # equal labels in random order
        ties = ties[np.isfinite(labels[ties])]
        if len(ties) // 3 < config.train.batch_size:
            raise UserError(
                f"config.selection.name=static requires thirds of at least config.train.batch_size="
                f"{config.train.batch_size} questions with an external difficulty, which {len(ties)} of the pool's "
                f"{len(labels):,} have; name its column in config.data.difficulty_column, or use another selector"
            )
        self._order = ties[np.argsort(labels[ties], kind="stable")].astype(np.int32)
        self._ends = np.linspace(0, len(ties), 4).astype(int)
        self._steps = context.steps

    def init(self) -> dict:
        """Three epochs that are used up."""
        return {"order": self._order.copy(), "used": np.diff(self._ends).astype(np.int32)}

    def propose(self, state: dict, key: jax.Array, n: int, step: int):
        """The next n of the third that this part of the run trains on."""
        third = min(2, 3 * (step - 1) // self._steps)
        part = slice(self._ends[third], self._ends[third + 1])
        order, used = state["order"].copy(), state["used"].copy()
        ids, order[part], used[third] = take(order[part], int(used[third]), key, n)
        return ids, {"order": order, "used": used}
