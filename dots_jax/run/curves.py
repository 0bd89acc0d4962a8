"""The picture of a run: `curves.png`."""

import os

import numpy as np

from dots_jax.core import picture
from dots_jax.core.arithmetic import ceil_div
from dots_jax.core.text import short
from dots_jax.run import metrics


def draw(rows: list[dict], workdir: str) -> str:
    """Draws `workdir/curves.png`, a panel for each quantity in the rows of `metrics.jsonl`; returns its path."""
    panels = [panel for panel in PANELS if any(metrics.series(rows, key)[0].size for key, _ in panel[2])]
    seconds = {
        key.removeprefix("ledger/seconds_"): metrics.series(rows, key)
        for key in (rows[-1] if rows else {})
        if key.startswith("ledger/seconds_") and key != "ledger/seconds_cost_excluded"
    }
    count = max(1, len(panels) + bool(seconds))
    columns = min(3, count)
    lines, path = ceil_div(count, columns), os.path.join(workdir, "curves.png")
    with picture.draw(path, 4.2 * columns, 3.0 * lines) as figure:
        axes = [figure.add_subplot(lines, columns, i + 1) for i in range(count)]
        for axis, (title, limits, curves) in zip(axes, panels, strict=False):
            _draw(axis, rows, curves)
            axis.set(title=title, ylim=limits)
        if seconds:
            _draw_seconds(axes[len(panels)], seconds)
        for axis in axes:
            axis.set_xlabel("step")
            if axis.get_legend_handles_labels()[0]:
                axis.legend(fontsize=8, frameon=False, loc="best")
    return path


# title, limits of the vertical axis, (key, label) of its lines
PANELS = (
    ("success rate", (0, None), (("train/reward", "trained questions"), ("eval/accuracy", "held-out"))),
    ("useful groups (0 < success < 1)", (0, 1), (("train/useful_groups", ""),)),
    (
        "questions: predicted against measured",
        (None, 1),
        (("predictor/pearson", "Pearson, trained on"), ("predictor/reference_pearson", "Pearson, references")),
    ),
    ("entropy, nats per token", (0, None), (("train/entropy", ""),)),
    ("clip fraction", (0, None), (("train/clip_fraction", "all"), ("replay/clip_fraction", "replayed"))),
    (
        "replayed groups",
        (0, 1),
        (("replay/share", "share of the batch"), ("replay/effective_sample_size", "effective sample size")),
    ),
    ("tokens per completion", (0, None), (("train/completion_tokens", ""),)),
    ("generated tokens", (0, None), (("ledger/generated_tokens", ""),)),
)
_COLORS = ("#2e6f95", "#d1495b")
PHASE_COLORS = {  # of the ledger
    "reference": "#d55e00",
    "fresh": "#0072b2",
    "refill": "#56b4e9",
    "screening": "#7a5230",
    "update": "#e69f00",
    "score": "#cc79a7",
    "evaluation": "#009e73",
    "compile": "#9aa0a6",
    "other": "#d9dcdf",
}


def _draw(axis, rows: list[dict], lines) -> None:
    for (key, label), color in zip(lines, _COLORS, strict=False):
        steps, values = metrics.series(rows, key)
        if key.startswith("eval/"):
            axis.plot(steps, values, "o-", color=color, markersize=4, linewidth=1.8, label=label)
            continue
        if steps.size > 20 and not key.startswith("ledger/"):  # a noisy line stays faint behind its running mean
            axis.plot(steps, values, color=color, alpha=0.3, linewidth=0.8)
            values = metrics.running_mean(values)
        if steps.size:
            axis.plot(steps, values, color=color, linewidth=1.6, label=label)
    if lines[0][0] == "ledger/generated_tokens":
        axis.yaxis.set_major_formatter(lambda value, _: short(value) if abs(value) >= 1000 else f"{value:.3g}")


def _draw_seconds(axis, seconds: dict) -> None:
    """Cumulative seconds of each phase, stacked."""
    names = [name for name, (_, values) in seconds.items() if values.size and values[-1] > 0]
    if names:
        steps = seconds[names[0]][0]
        axis.stackplot(
            steps,
            [np.interp(steps, *seconds[name]) for name in names],
            labels=names,
            colors=[PHASE_COLORS.get(name, "#000000") for name in names],
            alpha=0.85,
        )
    axis.set(title="seconds by phase", ylim=(0, None))
