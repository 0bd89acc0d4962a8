"""What a run has measured: `metrics.jsonl` (the truth), TensorBoard events and `curves.png`, all from one call."""

import json
import math
import os
import sys

import numpy as np

from dots_jax.progress import short

FILE = "metrics.jsonl"


class Metrics:
    """Appends one JSON object per step to `workdir/metrics.jsonl` and mirrors it to `workdir/tensorboard`."""

    def __init__(self, workdir: str):
        self._workdir = workdir
        self._file = None
        self._events = None
        self._purge_step = None

    def truncate(self, step: int) -> None:
        """Forgets all steps after `step` and a torn last line; call it before `write` when a run continues."""
        path = os.path.join(self._workdir, FILE)
        self._purge_step = step + 1
        if os.path.exists(path):
            kept = "".join(json.dumps(row) + "\n" for row in read(self._workdir) if row["step"] <= step)
            _replace(path, lambda partial: _write_text(partial, kept))

    def write(self, step: int, values: dict) -> None:
        """Appends `values` of `step`: numbers, numpy or jax scalars, strings, and lists and dictionaries of them.

        NaN and infinities become null.
        """
        if self._file is None:
            self._open()
        row = {"step": int(step)} | {name: _plain(value) for name, value in values.items()}
        self._file.write(json.dumps(row, allow_nan=False) + "\n")
        self._file.flush()
        for name, value in row.items():
            if name != "step" and isinstance(value, int | float):
                self._events.add_scalar(name, value, row["step"])
        self._events.flush()

    def close(self) -> None:
        """Closes both files."""
        if self._file is not None:
            self._file.close()
            self._events.close()
            self._file = None

    def _open(self) -> None:
        sys.modules.setdefault("torch", None)  # tensorboardX would load torch where it is installed: seconds
        try:
            from tensorboardX import SummaryWriter
        finally:
            if sys.modules["torch"] is None:
                del sys.modules["torch"]

        os.makedirs(self._workdir, exist_ok=True)
        self._file = open(os.path.join(self._workdir, FILE), "a", encoding="utf-8")  # noqa: SIM115
        events = os.path.join(self._workdir, "tensorboard")
        self._events = SummaryWriter(events, purge_step=self._purge_step)


def read(workdir: str) -> list[dict]:
    """The complete lines of `workdir/metrics.jsonl`, one dictionary per step; empty if there is none."""
    path = os.path.join(workdir, FILE)
    if not os.path.exists(path):
        return []
    rows = []
    with open(path, encoding="utf-8", errors="replace") as file:
        for line in file:
            try:
                row = json.loads(line) if line.endswith("\n") else None
            except json.JSONDecodeError:
                row = None
            if not isinstance(row, dict) or "step" not in row:
                break  # torn by a kill; whatever follows is not to be trusted
            rows.append(row)
    return rows


def draw_curves(workdir: str) -> str:
    """Draws `workdir/curves.png` from `metrics.jsonl`, a panel for each quantity found there; returns its path."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg  # slow to import
    from matplotlib.figure import Figure

    rows = read(workdir)
    panels = [panel for panel in _PANELS if any(_series(rows, key)[0].size for key, _ in panel[2])]
    seconds = {
        key.removeprefix("ledger/seconds_"): _series(rows, key)
        for key in (rows[-1] if rows else {})
        if key.startswith("ledger/seconds_")
    }
    count = max(1, len(panels) + bool(seconds))
    columns = min(3, count)
    figure = Figure(figsize=(4.2 * columns, 3.0 * math.ceil(count / columns)), layout="constrained")
    FigureCanvasAgg(figure)
    axes = [figure.add_subplot(math.ceil(count / columns), columns, i + 1) for i in range(count)]
    for axis, (title, limits, lines) in zip(axes, panels, strict=False):
        _draw(axis, rows, lines)
        axis.set(title=title, ylim=limits)
    if seconds:
        _draw_seconds(axes[len(panels)], seconds)
    for axis in axes:
        axis.set_xlabel("step")
        axis.grid(alpha=0.25, linewidth=0.6)
        axis.spines[["top", "right"]].set_visible(False)
        axis.title.set(fontsize=10.5, fontweight="bold")
        if axis.get_legend_handles_labels()[0]:
            axis.legend(fontsize=8, frameon=False, loc="best")
    path = os.path.join(workdir, "curves.png")
    _replace(path, lambda partial: figure.savefig(partial, dpi=120, format="png"))
    return path


# title, limits of the vertical axis, (key, label) of its lines
_PANELS = (
    ("success rate", (0, None), (("train/reward", "trained questions"), ("eval/accuracy", "held-out"))),
    ("useful groups (0 < success < 1)", (0, 1), (("train/useful_groups", ""),)),
    ("entropy, nats per token", (0, None), (("train/entropy", ""),)),
    ("clip fraction", (0, None), (("train/clip_fraction", ""),)),
    ("generated tokens", (0, None), (("ledger/generated_tokens", ""),)),
)
_EVALUATED, _MEASURED = "#d1495b", "#2e6f95"


def _draw(axis, rows: list[dict], lines) -> None:
    for key, label in lines:
        steps, values = _series(rows, key)
        if key.startswith("eval/"):
            axis.plot(steps, values, "o-", color=_EVALUATED, markersize=4, linewidth=1.8, label=label)
            continue
        if steps.size > 20 and not key.startswith("ledger/"):  # a noisy line stays faint behind its running mean
            axis.plot(steps, values, color=_MEASURED, alpha=0.3, linewidth=0.8)
            width = max(3, steps.size // 20)
            sums = np.cumsum(np.insert(values, 0, 0.0))
            first = np.maximum(np.arange(1, steps.size + 1) - width, 0)
            last = np.arange(1, steps.size + 1)
            values = (sums[last] - sums[first]) / (last - first)
        axis.plot(steps, values, color=_MEASURED, linewidth=1.6, label=label)
    if lines[0][0] == "ledger/generated_tokens":
        axis.yaxis.set_major_formatter(lambda value, _: short(value) if abs(value) >= 1000 else f"{value:.3g}")


def _draw_seconds(axis, seconds: dict) -> None:
    """Cumulative seconds of each phase, stacked."""
    names = [name for name, (_, values) in seconds.items() if values.size and values[-1] > 0]
    if names:
        steps = seconds[names[0]][0]
        colors = ("#2e6f95", "#f2a541", "#8f5db7", "#d1495b", "#5aa469", "#9aa0a6", "#d9dcdf")
        axis.stackplot(
            steps,
            [np.interp(steps, *seconds[name]) for name in names],
            labels=names,
            colors=colors[: len(names)],
            alpha=0.85,
        )
    axis.set(title="seconds by phase", ylim=(0, None))


def _series(rows: list[dict], key: str) -> tuple[np.ndarray, np.ndarray]:
    points = [(row["step"], row[key]) for row in rows if isinstance(row.get(key), int | float)]
    steps, values = zip(*points, strict=True) if points else ((), ())
    return np.asarray(steps, float), np.asarray(values, float)


def _plain(value):
    if isinstance(value, str) or value is None:
        return value
    if isinstance(value, dict):
        return {name: _plain(part) for name, part in value.items()}
    if isinstance(value, list):
        return [_plain(part) for part in value]
    value = np.asarray(value).item()
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _write_text(path: str, text: str) -> None:
    with open(path, "w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())


def _replace(path: str, write) -> None:
    """Writes beside `path` and renames, so that a reader never sees half a file."""
    partial = f"{path}.partial"
    write(partial)
    os.replace(partial, path)
