"""The frame of every picture."""

import contextlib
from collections.abc import Iterator
from typing import Any

from dots_jax.core import files


@contextlib.contextmanager
def draw(path: str, width: float, height: float) -> Iterator[Any]:
    """Gives an empty figure of so many inches; at the end its axes get one style, and `path` holds it as PNG."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg  # slow to import
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    yield figure
    for axis in figure.axes:
        axis.grid(alpha=0.25, linewidth=0.6)
        axis.set_axisbelow(True)
        axis.spines[["top", "right"]].set_visible(False)
        axis.title.set(fontsize=10.5, fontweight="bold")
    files.replace(path, lambda partial: figure.savefig(partial, dpi=120, format="png"))
