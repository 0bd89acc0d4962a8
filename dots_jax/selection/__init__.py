"""Ways to choose questions, one file each, behind one small protocol."""

from typing import Any, Protocol

import jax
import numpy as np

from dots_jax.errors import UserError
from dots_jax.selection.uniform import Uniform


class Selector(Protocol):
    """Chooses questions by id. All that it remembers is the state: a pytree of arrays that a checkpoint holds."""

    def init(self) -> Any:
        """The state before the first draw."""

    def propose(self, state: Any, key: jax.Array, n: int) -> tuple[np.ndarray, Any]:
        """The next n questions to train on, int32 [n]; `key` is of this step's selection stream."""

    def observe(self, state: Any, ids: np.ndarray, successes: np.ndarray, rollouts: int, step: int) -> Any:
        """Tells how many of the `rollouts` completions of each question ids [P] succeeded at `step`."""


SELECTORS = {"uniform": Uniform}  # name -> function of (number of questions, the config's `selection` fields)


def make(config, num_questions: int) -> Selector:
    """The selector that `config.name` names. Raises UserError for an unknown name."""
    if config.name not in SELECTORS:
        raise UserError(f"config.selection.name is {config.name!r}; choose one of: {', '.join(sorted(SELECTORS))}")
    return SELECTORS[config.name](num_questions, config)
