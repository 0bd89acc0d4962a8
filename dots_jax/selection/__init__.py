"""Ways to choose questions, one file each, behind one small protocol."""

import dataclasses
import importlib
from collections.abc import Callable
from typing import Any, Protocol

import jax
import numpy as np

from dots_jax.core.errors import UserError


class Selector(Protocol):
    """Chooses questions by id. All that it remembers is the state: a pytree of arrays that a checkpoint holds.

    `key` is always of this step's selection stream.
    """

    uncounted: bool  # what it asks for is kept out of the ledger: a bound, not a method
    reuse: int  # how many of the questions just asked for are the first ones that it proposes: their groups exist

    def init(self) -> Any:
        """The state before the first draw."""

    def ask(self, state: Any, key: jax.Array) -> np.ndarray:
        """Questions to roll out before `propose`, int32 [K] with the same K every time; often none."""

    def propose(self, state: Any, key: jax.Array, n: int, step: int) -> tuple[np.ndarray, Any]:
        """The next n questions to train on, int32 [n], from `step` on; the first ones may be of those just asked for
        (`config.selection.reuse`): their groups exist already.
        """

    def observe(self, state: Any, ids: np.ndarray, successes: np.ndarray, rollouts: int, step: int, asked: bool) -> Any:
        """Tells how many of the `rollouts` completions of each question ids [P] succeeded at `step`."""

    def predict(self, state: Any) -> tuple[np.ndarray, np.ndarray] | None:
        """Difficulty of all questions as last predicted and how uncertain that is, float32 [N] both; None: no idea."""

    def save(self, state: Any, workdir: str) -> None:
        """Writes what others may want of it to `workdir`, when the run ends."""


@dataclasses.dataclass(frozen=True)
class Context:
    """What selectors may know of the run."""

    num_questions: int  # N
    labels: np.ndarray  # [N], external difficulty, larger is harder
    embeddings: Callable[[], np.ndarray]  # -> float32 [N, D]; computed when called
    steps: int  # of the whole run
    mesh: jax.sharding.Mesh
    key: jax.Array  # for what is drawn once


# Name, also of the file -> its class, made of (the config, the Context). Loaded when named: only DOTS needs Flax.
SELECTORS = {"uniform": "Uniform", "dots": "Dots", "oracle": "Oracle", "static": "Static"}


def make(config, context: Context) -> Selector:
    """The selector that `config.selection.name` names. Raises UserError for an unknown name, or where it won't load."""
    name = config.selection.name
    if name not in SELECTORS:
        raise UserError(f"config.selection.name is {name!r}; choose one of: {', '.join(sorted(SELECTORS))}")
    try:
        module = importlib.import_module(f"{__name__}.{name}")
    except (ImportError, AttributeError) as error:  # as old releases of Flax do on newer ones of JAX
        raise UserError(
            f"config.selection.name={name} cannot be loaded here ({error}); install releases of jax and flax that fit "
            "each other, or choose uniform"
        ) from error
    return getattr(module, SELECTORS[name])(config, context)
