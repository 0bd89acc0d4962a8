"""Prompt replay: questions whose last group was mixed are rolled out anew, on-policy (after arXiv 2603.21177)."""

import jax
import numpy as np

from dots_jax.selection.base import Measured
from dots_jax.selection.uniform import Uniform

_SHARE = 0.5  # of a round's questions, at most


class PromptReplay(Uniform):
    """Half of the questions are drawn of the newest `replay.capacity` with a mixed group, the others of epochs.

    State: that of `Uniform`; "kept" int32 [C], the newest last, -1 where there is none.
    """

    def init(self) -> dict:
        """Nothing kept."""
        return super().init() | {"kept": np.full(self.config.replay.capacity, -1, np.int32)}

    def observe(self, state: dict, measured: Measured):
        """Keeps what was mixed, once, and lets go what was not."""
        kept = np.concatenate(
            [state["kept"][~np.isin(state["kept"], measured.ids)], np.unique(measured.ids[measured.mixed])]
        )
        size = len(state["kept"])
        return state | {"kept": np.pad(kept, (size, 0), constant_values=-1)[-size:].astype(np.int32)}

    def propose(self, state: dict, key: jax.Array, n: int, step: int):
        """The kept ones first drawn without replacement; an epoch's may repeat them."""
        kept = state["kept"][state["kept"] >= 0]
        count = min(int(_SHARE * n), len(kept))
        order = np.asarray(jax.random.permutation(jax.random.fold_in(key, 1), len(kept)))
        ids, epoch = super().propose(state, key, n - count, step)
        ids = np.concatenate([kept[order[:count]], ids])
        mixed = np.asarray(jax.random.permutation(jax.random.fold_in(key, 2), n))  # steps of a round are alike
        return ids[mixed].astype(np.int32), state | epoch
