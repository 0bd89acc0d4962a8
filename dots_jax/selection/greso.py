"""GRESO: questions that were all right or all wrong the last times are skipped, by chance (arXiv 2506.02177)."""

import jax
import numpy as np

from dots_jax.selection.base import Measured
from dots_jax.selection.uniform import Uniform, take

_ALL = (0.98, 0.11)  # success rates from which on all counts as right, up to which as wrong
_AIM = 0.25 * np.array([1, 2]) / 3  # shares of a batch that may be all right, and all wrong
_STEP, _LEAST, _MOST, _RARELY = 0.01, 0.05, 0.95, 0.01


class Greso(Uniform):
    """Shuffled epochs, of which a question is skipped with the chance 1 - max(p^z, 0.01).

    z: how many times in a row it was all right, or all wrong, up to the last; p = p_easy or p_hard, from 0.5 on. After
    each batch p_easy goes down by 0.01 where more than a twelfth of it was all right, and else up; p_hard likewise
    with a sixth that was all wrong; both stay in [0.05, 0.95].

    State: that of `Uniform`; "kind" int8 [N], 0 easy, 1 hard, -1 neither; "streak" int32 [N], z; "chance" [2].
    """

    def init(self) -> dict:
        """No streaks."""
        N = self.context.num_questions
        streaks = {"kind": np.full(N, -1, np.int8), "streak": np.zeros(N, np.int32)}
        return super().init() | streaks | {"chance": np.full(2, 0.5, np.float32)}

    def observe(self, state: dict, measured: Measured):
        """Streaks of the questions, and the chances."""
        rate, ids = measured.rate, measured.ids
        kind = np.where(rate >= _ALL[0], 0, np.where(rate <= _ALL[1], 1, -1)).astype(np.int8)
        before, streak = state["kind"].copy(), state["streak"].copy()
        streak[ids] = np.where(kind < 0, 0, np.where(kind == before[ids], streak[ids] + 1, 1))
        before[ids] = kind
        shares = np.array([(kind == i).mean() for i in (0, 1)])
        chance = state["chance"] + np.where(shares > _AIM, -_STEP, _STEP)
        chance = np.clip(chance, _LEAST, _MOST).astype(np.float32)
        return state | {"kind": before, "streak": streak} | ({} if measured.is_reference else {"chance": chance})

    def propose(self, state: dict, key: jax.Array, n: int, step: int):
        """The next n that are not skipped."""
        kept, order, used = np.zeros(0, np.int32), state["order"], int(state["used"])
        keep = np.maximum(np.where(state["kind"] < 0, 1.0, state["chance"][state["kind"]] ** state["streak"]), _RARELY)
        while len(kept) < n:
            key, epoch, skip = jax.random.split(key, 3)
            ids, order, used = take(order, used, epoch, n - len(kept))
            left = np.asarray(jax.random.uniform(skip, (n,)))[: len(ids)] < keep[ids]
            kept = np.concatenate([kept, ids[left]])
        return kept, state | {"order": order, "used": np.int32(used)}
