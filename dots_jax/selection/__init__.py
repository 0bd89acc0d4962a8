"""Ways to choose questions, one file each; `base.Selector` says what one can do."""

from dots_jax.core import plugins
from dots_jax.selection.base import Context, Selector, check_distinct, check_ids
from dots_jax.selection.checked import Checked

__all__ = ["BASELINE", "SELECTORS", "Checked", "Context", "Selector", "check_distinct", "check_ids", "find"]

SELECTORS = {  # loaded when named: only DOTS needs Flax
    "uniform": "dots_jax.selection.uniform:Uniform",
    "dots": "dots_jax.selection.dots:Dots",
    "static": "dots_jax.selection.static:Static",
    "oracle": "dots_jax.selection.oracle:Oracle",
}
BASELINE = "uniform"  # what reports compare with


def find(name: str) -> type[Selector]:
    """The class that `config.selection.name` names. Raises UserError where there is none, or it does not load."""
    expected = "a subclass of dots_jax.selection.Selector with its own propose"
    return plugins.find(name, SELECTORS, "selection.name", _is_selector, expected)


def _is_selector(found) -> bool:
    return isinstance(found, type) and issubclass(found, Selector) and found.propose is not Selector.propose
