"""A selector whose answers are checked: what a user's own returns by mistake is said in a line."""

from typing import Any

import jax
import numpy as np

from dots_jax.core import plugins
from dots_jax.core.errors import UserError
from dots_jax.core.rules import is_whole
from dots_jax.selection.base import Measured, Selector

_DID = {"return": "returned", "be": "is"}


class Checked:
    """A selector whose methods raise UserError where they fail, or do not return what `Selector` says."""

    def __init__(self, selector: Selector):
        self._selector, self._queried = selector, None
        G = selector.config.rollout.group_size if selector.config else 0
        fits = is_whole(selector.max_draws) and selector.max_draws >= 1
        self._require(fits, "max_draws", "a whole number from 1 on", selector.max_draws, "be")
        fits = is_whole(selector.screening) and (selector.screening == 0 or 1 < selector.screening < G)
        expected = f"0, or from 2 to below config.rollout.group_size={G}"
        self._require(fits, "screening", expected, selector.screening, "be")

    def __getattr__(self, name: str) -> Any:
        return getattr(self._selector, name)

    def _call(self, method: str, *args, **named) -> Any:
        with plugins.guarded(f"{type(self._selector).__name__}.{method} failed; {plugins.AGAIN}", type(self._selector)):
            return getattr(self._selector, method)(*args, **named)

    def init(self) -> Any:
        """As `Selector.init`."""
        state = self._call("init")
        for leaf in map(np.asarray, jax.tree.leaves(state)):
            fits = leaf.size and leaf.dtype.kind in "biuf"
            self._require(fits, "init", "arrays of numbers, none empty: a checkpoint holds no others", leaf)
        return state

    def queries(self, state: Any, key: jax.Array) -> np.ndarray:
        """As `Selector.queries`."""
        self._queried = self._ids("queries", self._call("queries", state, key), self.num_queries(self.config))
        return self._queried

    def propose(self, state: Any, key: jax.Array, n: int, step: int) -> tuple[np.ndarray, Any]:
        """As `Selector.propose`."""
        proposed = self._call("propose", state, key, n, step)
        is_pair = isinstance(proposed, tuple | list) and len(proposed) == 2
        self._require(is_pair, "propose", "two things, the ids and the state", proposed)
        ids = self._ids("propose", proposed[0], n)
        if self._queried is not None and len(self._queried):
            fits = np.isin(ids[: self.num_reused], self._queried).all()
            self._require(fits, "propose", f"num_reused={self.num_reused} ids of its queries first", ids)
        return ids, self._state("propose", proposed[1], state)

    def observe(self, state: Any, measured: Measured) -> Any:
        """As `Selector.observe`."""
        return self._state("observe", self._call("observe", state, measured), state)

    def reweigh(self, state: Any, *groups) -> Any:
        """As `Selector.reweigh`."""
        return self._state("reweigh", self._call("reweigh", state, *groups), state)

    def read(self, state: Any, prompts: np.ndarray) -> Any:
        """As `Selector.read`."""
        return self._state("read", self._call("read", state, prompts), state)

    def predict(self, state: Any) -> tuple[np.ndarray, np.ndarray] | None:
        """As `Selector.predict`."""
        predicted, N = self._call("predict", state), self.context.num_questions
        is_pair = isinstance(predicted, tuple | list) and [np.shape(x) for x in predicted] == [(N,), (N,)]
        self._require(predicted is None or is_pair, "predict", f"None, or two arrays of {N} numbers", predicted)
        return predicted

    def _ids(self, method: str, ids: np.ndarray, count: int) -> np.ndarray:
        ids, N = np.asarray(ids), self.context.num_questions
        fits = ids.dtype.kind == "i" and ids.shape == (count,) and ((ids >= 0) & (ids < N)).all()
        more = "as num_queries says" if method == "queries" else "and the state"
        expected = f"an array of {count} ids of questions, whole numbers from 0 to {N - 1}, {more}"
        self._require(fits, method, expected, ids)
        return ids.astype(np.int32)

    def _state(self, method: str, state: Any, before: Any) -> Any:
        kinds = [jax.tree.map(lambda leaf: (np.shape(leaf), np.asarray(leaf).dtype), x) for x in (state, before)]
        expected = "the state, a pytree of the same shapes and types as `init` makes"
        self._require(kinds[0] == kinds[1], method, expected, state)
        return state

    def _require(self, fits: bool, method: str, expected: str, returned: Any, must: str = "return") -> None:
        if fits:
            return
        text = f"{type(returned).__name__} {' '.join(repr(returned).split())[:80]}"
        if isinstance(returned, np.ndarray):
            text = f"{returned.dtype} {list(returned.shape)}"
            if returned.size and returned.dtype.kind in "iuf":
                text += f" from {returned.min()} to {returned.max()}"
        raise UserError(f"{type(self._selector).__name__}.{method} must {must} {expected}; it {_DID[must]} {text}")
