"""The picture of a comparison."""

import itertools
import math
import statistics
from typing import Any

import numpy as np

from dots_jax.analysis.compare import COSTS, MethodRun, cost
from dots_jax.core import picture
from dots_jax.core.text import short
from dots_jax.run import curves, metrics
from dots_jax.run.ledger import PHASES

_COLORS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#7a5230")  # Okabe and Ito
_BASELINE = "#4d4d4d"


def draw(methods: dict[str, list[MethodRun]], report: dict, path: str) -> None:
    """Accuracy against each cost, useful groups, Pearson, and seconds and tokens by phase, as one PNG."""
    with picture.draw(path, 13, 8 + 0.5 * max(0, len(methods) - 3)) as figure:
        _draw_panels(figure, methods, report)


def _draw_panels(figure: Any, methods: dict[str, list[MethodRun]], report: dict) -> None:
    grid = figure.add_gridspec(2, 3)
    *costs, useful, pearson = (figure.add_subplot(grid[i // 3, i % 3]) for i in range(5))
    bars = [figure.add_subplot(cell) for cell in grid[1, 2].subgridspec(2, 1)]
    palette, numbers = itertools.cycle(_COLORS), report["methods"]
    for label, runs in methods.items():
        color = _BASELINE if label == report["baseline"] else next(palette)
        for axis, name in zip(costs, COSTS, strict=True):
            points = [[(row["step"], cost(row)[name], row["eval/accuracy"]) for row in run.evaluations] for run in runs]
            _curve(axis, points, color, label=f"{label} ({len(runs)} {'seed' if len(runs) == 1 else 'seeds'})")
            at = statistics.median(numbers[label]["reached"][name])
            if math.isfinite(at):
                axis.plot(at, report["target"], "D", color=color, markersize=8, markeredgecolor="white", zorder=5)
        lines = ((useful, "train/useful_groups", "-"), (pearson, "predictor/pearson", "-"))
        for axis, key, style in (*lines, (pearson, "predictor/reference_pearson", ":")):
            series = (metrics.series(run.metrics, key) for run in runs)
            points = [[*zip(x, x, metrics.running_mean(y), strict=True)] for x, y in series]
            _curve(axis, points, color, linestyle=style)
    names = ("steps", "generated tokens", "seconds without compiling and evaluating")
    for axis, name in zip(costs, names, strict=True):
        axis.axhline(report["target"], color=_BASELINE, linewidth=0.9, linestyle="--", zorder=1)
        axis.set(xlabel=name, title="held-out accuracy")
    costs[0].plot([], [], "D", color=_BASELINE, label="first at the target (dashed), median")
    useful.set(title="useful groups (0 < success < 1)", xlabel="steps", ylim=(0, 1))
    pearson.set(title="Pearson of predictions (dotted: references)", xlabel="steps")
    if not pearson.lines:
        pearson.text(0.5, 0.5, "no predictions", transform=pearson.transAxes, ha="center", color=_BASELINE)
    _bars(bars[0], {label: m["seconds_by_phase"] for label, m in numbers.items()}, "seconds by phase")
    tokens = {label: m["tokens_by_phase"] for label, m in numbers.items()}
    tokens |= {label: {"other": m["tokens"]} for label, m in numbers.items() if np.isnan(tokens[label]["fresh"]).any()}
    _bars(bars[1], tokens, "generated tokens by phase")
    for axis in (costs[1], bars[1]):
        axis.xaxis.set_major_formatter(lambda value, _: short(value))
    fit = max(1, min(4, 160 // (12 + max(map(len, methods)))))
    for axes, corner, columns in ((costs[:1], "upper left", fit), (bars, "lower right", len(PHASES))):
        shown = {name: line for axis in axes for line, name in zip(*axis.get_legend_handles_labels(), strict=True)}
        figure.legend(shown.values(), shown, loc=f"outside {corner}", ncols=columns, frameon=False, fontsize=9)


def _curve(axis: Any, points: list[list[tuple]], color: str, **style) -> None:
    """Mean over runs, at the steps that all have, in a band from least to most, and each run faintly.

    Points of a run: (step, x, y).
    """
    points = [run for run in points if run]
    steps = set.intersection(*({step for step, *_ in run} for run in points)) if points else ()
    if not steps:
        return
    x, y = np.array([[point[1:] for point in run if point[0] in steps] for run in points]).transpose(2, 0, 1)
    axis.plot(x.mean(0), y.mean(0), color=color, linewidth=2, **style)
    if len(points) > 1:
        axis.fill_between(x.mean(0), y.min(0), y.max(0), color=color, alpha=0.12, linewidth=0)
        for run in points:
            axis.plot(*np.array(run)[:, 1:].T, color=color, linewidth=0.7, alpha=0.35, linestyle=style.get("linestyle"))


def _bars(axis: Any, parts: dict[str, dict[str, list[float]]], title: str) -> None:
    """A bar for each method: the means over seeds, stacked, the method's name above it."""
    start = np.zeros(len(parts))
    for phase in (phase for phase in PHASES if phase != "cost_excluded"):
        means = [np.mean(np.nan_to_num(values.get(phase, 0.0))) for values in parts.values()]
        if any(means):
            axis.barh(range(len(parts)), means, left=start, color=curves.PHASE_COLORS[phase], label=phase, height=0.45)
            start += means
    for i, label in enumerate(parts):
        axis.text(0, i - 0.27, " " + (label if len(label) < 60 else f"{label[:58]}…"), fontsize=7.5, va="bottom")
    axis.set(title=title, yticks=[], ylim=(len(parts) - 0.6, -0.8))
