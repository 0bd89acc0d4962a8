"""A selector whose answers are checked: what a user's own returns by mistake is said in a line."""

from typing import Any

import jax
import numpy as np

from dots_jax.core.errors import UserError
from dots_jax.selection.base import Selector, check_ids


class Checked:
    """The selector that it is made of. Its methods raise UserError where they do not return what `Selector` says."""

    def __init__(self, selector: Selector):
        self._selector = selector

    def __getattr__(self, name: str) -> Any:
        return getattr(self._selector, name)

    def queries(self, state: Any, key: jax.Array) -> np.ndarray:
        """As `Selector.queries`."""
        count = self.num_queries(self.config)
        return check_ids(
            self._selector.queries(state, key), count, self.context.num_questions, self._selector, "queries"
        )

    def propose(self, state: Any, key: jax.Array, n: int, step: int) -> tuple[np.ndarray, Any]:
        """As `Selector.propose`."""
        proposed = self._selector.propose(state, key, n, step)
        if not isinstance(proposed, tuple | list) or len(proposed) != 2:
            self._refuse("propose", "two things, the ids and the state", proposed)
        ids, new = proposed
        return check_ids(ids, n, self.context.num_questions, self._selector), self._same("propose", new, state)

    def observe(self, state: Any, *groups, is_reference: bool) -> Any:
        """As `Selector.observe`."""
        return self._same("observe", self._selector.observe(state, *groups, is_reference=is_reference), state)

    def predict(self, state: Any) -> tuple[np.ndarray, np.ndarray] | None:
        """As `Selector.predict`."""
        predicted, count = self._selector.predict(state), self.context.num_questions
        pair = isinstance(predicted, tuple | list) and [np.shape(x) for x in predicted] == [(count,), (count,)]
        if predicted is not None and not pair:
            self._refuse("predict", f"None, or two arrays of {count} numbers", predicted)
        return predicted

    def _same(self, method: str, state: Any, before: Any) -> Any:
        """The new state, which must be a pytree like the one before."""
        if jax.tree.structure(state) != jax.tree.structure(before):
            self._refuse(method, "the state, a pytree of the same structure as `init` makes", state)
        return state

    def _refuse(self, method: str, expected: str, returned: Any) -> None:
        name, text = type(self._selector).__name__, " ".join(repr(returned).split())[:80]
        raise UserError(f"{name}.{method} must return {expected}; it returned {type(returned).__name__} {text}")
