"""Ways to choose questions, one file each; `base.Selector` says what one can do."""

from typing import Any

from ml_collections import ConfigDict

from dots_jax.core import plugins
from dots_jax.selection.base import Context, Measured, Selector, check_distinct
from dots_jax.selection.checked import Checked

__all__ = ["BASELINE", "FIELDS", "SELECTORS", "Context", "Measured", "Selector", "check_distinct", "find", "make"]

_NAMES = (
    "uniform", "dots", "posterior", "mopps", "bots", "greso", "pcl", "graph", "dapo", "speed", "prompt_replay",
    "snis", "static", "oracle",
)  # fmt: skip
SELECTORS = {  # loaded when named: only some need Flax
    name: f"{__name__}.{name}:{name.title().replace('_', '')}" for name in _NAMES
}
BASELINE = "uniform"  # what reports compare with
FIELDS = ("selection.", "predictor.", "embedding.")  # of a config, that only some selectors read


def find(name: str) -> type[Selector]:
    """The class that `config.selection.name` names. Raises UserError where there is none, or it does not load."""
    expected = "a subclass of dots_jax.selection.Selector with its own propose"
    return plugins.find(name, SELECTORS, "selection.name", _is_selector, expected)


def make(config: ConfigDict, context: Context) -> Checked:
    """The selector of a run. The `data.num_questions` of its config are those of the context, never 0."""
    config = config.copy_and_resolve_references()
    config.data.num_questions = context.num_questions
    selector = find(config.selection.name)
    with plugins.guarded(f"config.selection.name={config.selection.name} cannot be made; {plugins.AGAIN}", selector):
        return Checked(selector(config, context))


def _is_selector(value: Any) -> bool:
    return isinstance(value, type) and issubclass(value, Selector) and value.propose is not Selector.propose
