"""Compares runs: what each method reached, what it cost, and how much of that is saved against a baseline.

Reads `config.json` and `metrics.jsonl` of the workdirs and nothing else. `compare` makes all the numbers.
"""

import dataclasses
import itertools
import json
import math
import os
import shlex
import statistics
import sys

import numpy as np

from dots_jax import selection
from dots_jax.core import files
from dots_jax.core.errors import UserError
from dots_jax.core.text import short
from dots_jax.run import metrics, settings
from dots_jax.run.ledger import PHASES, SAMPLING

HELP = """\
Compares runs: a picture, a table and the numbers behind them.

usage: python -m dots_jax.report [LABEL=]WORKDIR ... [--out=DIR] [--baseline=LABEL]

  WORKDIR           of a run, finished or not; runs that differ only in config.seed are one method
  LABEL=WORKDIR     names the run's method; otherwise its name is made of what tells it from the others
  --out=DIR         where report.md, report.png and report.json are written (default: runs/report)
  --baseline=LABEL  the method to compare with (default: the first that selects uniformly and does not
                    replay, else the first)

example:
  python -m dots_jax.report runs/uniform-* runs/dots-* --out=runs/report
"""

DEFINITIONS = """\
Target: the mean over seeds of the baseline's last held-out accuracy. A run reaches it at its first evaluation with at
least that accuracy, the baseline's runs too; nothing is interpolated, and a run that never does counts as infinite.
Cells: median (least..most) over seeds; saved: the same, of the baseline's median. Tokens: sampled ones, reference
rollouts counted; seconds: without compilation and evaluation; what an oracle measures is in neither ("uncounted").
±: standard deviation over seeds, of the difference the standard error over the seeds that both methods have, at the
last evaluation that these runs share. At equal tokens: interpolated between evaluations, at what the cheapest run
generated in all; less baseline's with the standard error over common seeds. Useful groups: mean over all steps;
Pearson: mean over selection rounds.
"""

COSTS = ("steps", "tokens", "seconds")
_IDLE = ("seed", "name", "mesh.", "train.keep", "train.checkpoint_every", "embedding.cache")  # no part of a method
_SELECTOR = ("selection.", "predictor.", "embedding.")  # fields that may follow from the selector
_COLORS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#7a5230")  # Okabe and Ito
_BASELINE = "#4d4d4d"
_NONE = "–"
_SETTINGS = {  # that a run has, whatever its version
    "seed": files.whole(0, 2**32 - 1),
    "selection.name": files.TEXT,
    "train.steps": files.whole(),
    "replay.fresh": files.optional(files.number(0, 1)),
}
_MEASURED = files.optional(files.number())
_COUNTED = files.optional(files.number(0))
_ROW = {  # of metrics.jsonl
    "step": files.whole(),
    "eval/accuracy": files.optional(files.number(0, 1)),
    "seconds": _COUNTED,
    **{f"ledger/generated_{phase}": _COUNTED for phase in (*SAMPLING, "tokens")},
    **{f"ledger/seconds_{phase}": _COUNTED for phase in PHASES},
    "ledger/uncounted_tokens": _COUNTED,
    "train/useful_groups": _MEASURED,
    "predictor/pearson": _MEASURED,
    "predictor/reference_pearson": _MEASURED,
}


@dataclasses.dataclass(frozen=True)
class Run:
    """One workdir."""

    workdir: str
    label: str  # as given, or ""
    config: dict  # by dotted name
    rows: list[dict]  # of metrics.jsonl

    @property
    def seed(self) -> int:
        """Which of the method's runs this is."""
        return self.config.get("seed", 0)

    @property
    def exams(self) -> list[dict]:
        """The rows that hold an evaluation."""
        return [row for row in self.rows if isinstance(row.get("eval/accuracy"), int | float)]

    def mean(self, key: str) -> float:
        """Over all rows that hold `key`; NaN where none does."""
        values = metrics.series(self.rows, key)[1]
        return float(values.mean()) if values.size else math.nan

    def accuracy_at(self, tokens: float) -> float:
        """When so many tokens were generated, on the line between evaluations; NaN beyond the last."""
        x, y = zip(*((cost(row)["tokens"], row["eval/accuracy"]) for row in self.exams), strict=True)
        return float(np.interp(tokens, x, y, right=math.nan))

    def reach(self, target: float) -> dict[str, float]:
        """What the run had cost at its first evaluation with at least the accuracy `target`, else infinity."""
        reached = [row for row in self.exams if row["eval/accuracy"] >= target - 1e-9]  # a mean of equals is rounded
        return cost(reached[0]) if reached else dict.fromkeys(COSTS, math.inf)


def cost(row: dict) -> dict[str, float]:
    """Steps, generated tokens, and seconds without compilation and evaluation, up to this row of metrics."""
    whole, *apart = (_number(row, key) for key in ("seconds", "ledger/seconds_compile", "ledger/seconds_evaluation"))
    return {"steps": row["step"], "tokens": _number(row, "ledger/generated_tokens"), "seconds": whole - sum(apart)}


def load(argument: str) -> Run:
    """The run of `[LABEL=]WORKDIR`. Raises UserError where there is none, or none that was ever evaluated."""
    label, equals, workdir = argument.partition("=")
    if not equals or os.path.isdir(argument):
        label, workdir = "", argument
    if not os.path.isdir(workdir):
        raise UserError(f"no workdir {workdir!r}; give directories that dots_jax.main has written")
    config = settings.flat(settings.read(workdir))
    files.check_row(config, _SETTINGS, os.path.join(workdir, "config.json"))
    run = Run(workdir, label, config, metrics.read(workdir, kinds=_ROW))
    for one, other in itertools.pairwise(run.rows):
        if one["step"] >= other["step"]:
            raise UserError(f"{workdir}/{metrics.FILE}: step {other['step']} follows step {one['step']}; mend it")
    if not run.rows:
        raise UserError(f"{workdir} holds no {metrics.FILE}, or nothing in it yet; leave it out")
    if not run.exams:
        raise UserError(f"{workdir}/{metrics.FILE} holds no eval/accuracy yet; leave it out")
    return run


def group(runs: list[Run]) -> dict[str, list[Run]]:
    """Label -> the method's runs by seed, in the order given.

    Raises UserError for runs whose accuracies do not compare, and for two runs of one method and seed.
    """
    for field in sorted({f for run in runs for f in run.config if f.startswith("data.") or f == "eval.temperature"}):
        for run in runs:
            one, other = runs[0].config.get(field), run.config.get(field)
            if one != other:
                raise UserError(
                    f"{runs[0].workdir} and {run.workdir} were not evaluated alike: config.{field} is {one!r} and "
                    f"{other!r}; compare runs of the same data"
                )
    methods = {}
    for run in runs:
        fields = tuple((f, json.dumps(v)) for f, v in sorted(run.config.items()) if not f.startswith(_IDLE))
        methods.setdefault(run.label or fields, []).append(run)
    named = {}
    for label, members in zip(_labels([m[0].config for m in methods.values()]), methods.values(), strict=True):
        members.sort(key=lambda run: run.seed)
        for one, other in itertools.pairwise(members):
            if one.seed == other.seed:
                raise UserError(
                    f"{one.workdir} and {other.workdir} are the same method and config.seed={one.seed}; "
                    "leave one out, or give it a label of its own (LABEL=WORKDIR)"
                )
        label = members[0].label or label
        named[f"{label} ({members[0].workdir})" if label in named else label] = members
    return named


def _labels(configs: list[dict]) -> list[str]:
    """For each method its selector, and the fields that tell it from others: selection's own from its like only."""
    selectors = [config.get("selection.name", "") for config in configs]
    fields = {f for config in configs for f in config if not f.startswith(_IDLE) and f != "selection.name"}
    differing = []  # per method, the selector's own fields first
    for selector in selectors:
        like = [config for config, name in zip(configs, selectors, strict=True) if name == selector]
        own = [
            f for f in fields if len({json.dumps(c.get(f)) for c in (like if f.startswith(_SELECTOR) else configs)}) > 1
        ]
        differing.append(sorted(own, key=lambda f: (not f.startswith(_SELECTOR), not f.startswith("learner."), f)))
    leaves = [field.rpartition(".")[2] for field in set(itertools.chain(*differing))]
    labels = []
    for config, selector, own in zip(configs, selectors, differing, strict=True):
        parts = [selector] if len(set(selectors)) > 1 or len(configs) == 1 else []
        for field in own:
            leaf = field.rpartition(".")[2]
            parts.append(f"{leaf if leaves.count(leaf) == 1 else field}={config.get(field, _NONE)}")
        labels.append(", ".join(parts[:4] + [f"and {len(parts) - 4} more"] * (len(parts) > 4)))
    return labels


def compare(methods: dict[str, list[Run]], baseline: str = "") -> dict:
    """All that the report says: the target, and for each method a list over its seeds of each quantity.

    NaN: not measured; infinity: target never reached. Raises UserError for a `baseline` that is no method.
    """
    configs = {label: runs[0].config for label, runs in methods.items()}
    uniform = [label for label, config in configs.items() if config.get("selection.name") == selection.BASELINE]
    plain = [label for label in uniform if configs[label].get("replay.fresh", 1) == 1]
    baseline = baseline or [*plain, *uniform, *methods][0]
    if baseline not in methods:
        raise UserError(f"no method {baseline!r} to compare with; --baseline is one of: {'; '.join(methods)}")
    target = statistics.fmean(run.exams[-1]["eval/accuracy"] for run in methods[baseline])
    budget = min(cost(run.exams[-1])["tokens"] for runs in methods.values() for run in runs)
    table = {}
    for label, runs in methods.items():
        ends, reached = [run.rows[-1] for run in runs], [run.reach(target) for run in runs]
        table[label] = {
            "workdirs": [run.workdir for run in runs],
            "seeds": [run.seed for run in runs],
            "steps": [end["step"] for end in ends],
            "running": sum(run.rows[-1]["step"] < run.config.get("train.steps", 0) for run in runs),
            "accuracy": [run.exams[-1]["eval/accuracy"] for run in runs],
            "difference": _difference(runs, methods[baseline]),
            "at_budget": [run.accuracy_at(budget) for run in runs],
            "difference_at_budget": _paired(
                [(run.accuracy_at(budget), base.accuracy_at(budget)) for run, base in _pairs(runs, methods[baseline])]
            ),
            "useful_groups": [run.mean("train/useful_groups") for run in runs],
            "pearson": [run.mean("predictor/pearson") for run in runs],
            "reference_pearson": [run.mean("predictor/reference_pearson") for run in runs],
            "tokens": [_number(end, "ledger/generated_tokens") for end in ends],
            "uncounted_tokens": [_number(end, "ledger/uncounted_tokens") for end in ends],
            "tokens_by_phase": {p: [_number(end, f"ledger/generated_{p}") for end in ends] for p in SAMPLING},
            "seconds_by_phase": {p: [_number(end, f"ledger/seconds_{p}") for end in ends] for p in PHASES},
            "reached": {name: [at[name] for at in reached] for name in COSTS},
        }
    return {"baseline": baseline, "target": target, "budget": budget, "methods": table}


def _pairs(runs: list[Run], baseline: list[Run]) -> list[tuple[Run, Run]]:
    """Runs and the baseline's of the same seed."""
    return [(run, base) for run in runs for base in baseline if run.seed == base.seed]


def _difference(runs: list[Run], baseline: list[Run]) -> dict:
    """Accuracy less the baseline's of the same seed, at the last evaluation that all of these runs share."""
    pairs = _pairs(runs, baseline)
    exams = [[{row["step"]: row["eval/accuracy"] for row in run.exams} for run in pair] for pair in pairs]
    step = max(set.intersection(*(set(exam) for pair in exams for exam in pair)), default=None) if pairs else None
    return {"step": step} | _paired([(a[step], b[step]) for a, b in exams] if step is not None else [])


def _paired(values: list[tuple[float, float]]) -> dict:
    """Mean of the first less the second, and its standard error."""
    values = [a - b for a, b in values]
    error = statistics.stdev(values) / math.sqrt(len(values)) if len(values) > 1 else math.nan
    mean = statistics.fmean(values) if values else math.nan
    return {"seeds": len(values), "mean": mean, "standard_error": error}


# ---- Tables ------------------------------------------------------------------------------------------------------
def markdown(report: dict, command: str) -> str:
    """The tables, their definitions and the command that made them."""
    baseline, methods = report["baseline"], report["methods"]
    ends, equal, savings, phases = [], [], [], []
    for label, m in methods.items():
        ends.append(
            [
                label,
                f"{len(m['seeds'])}" + (f" ({m['running']} not finished)" if m["running"] else ""),
                "..".join(str(n) for n in sorted({min(m["steps"]), max(m["steps"])})),
                spread(m["accuracy"], "{:.3f}"),
                _NONE if label == baseline else _signed(m["difference"]),
                f"{m['difference']['seeds']}, step {m['difference']['step']}",
                spread(m["useful_groups"], "{:.3f}"),
                spread(m["tokens"], "{:,.0f}"),
                spread(m["tokens_by_phase"]["reference"], "{:,.0f}"),
                spread(m["pearson"], "{:.2f}"),
                spread(m["reference_pearson"], "{:.2f}"),
            ]
        )
        equal.append(
            [
                label,
                spread(m["at_budget"], "{:.3f}"),
                _NONE if label == baseline else _signed(m["difference_at_budget"]),
                f"{m['difference_at_budget']['seeds']}",
            ]
        )
        cells = [_saving(m["reached"][name], methods[baseline]["reached"][name]) for name in COSTS]
        count = sum(map(math.isfinite, m["reached"]["steps"]))
        savings.append([label, f"{count} of {len(m['seeds'])}", *itertools.chain(*cells)])
        phases.append([label, *(spread(m["seconds_by_phase"][phase], "{:.0f}") for phase in PHASES)])
    head = ["method", "seeds", "steps", "final accuracy", "less baseline's", "pairs", "useful groups", "tokens"]
    return (
        markdown_table([*head, "of them reference", "Pearson, trained on", "Pearson, references"], ends)
        + f"\nAt equal tokens, {short(report['budget'])} generated:\n\n"
        + markdown_table(["method", "accuracy", "less baseline's", "pairs"], equal)
        + f"\nTo reach the baseline's ({baseline}) final accuracy, {report['target']:.4f}:\n\n"
        + markdown_table(["method", "reach it", "steps", "saved", "tokens", "saved", "seconds", "saved"], savings)
        + "\nSeconds of a whole run by phase:\n\n"
        + markdown_table(["method", *PHASES], phases)
        + f"\n{DEFINITIONS}\n    {command}\n"
    )


def markdown_table(head: list[str], rows: list[list[str]]) -> str:
    """A table in Markdown."""
    lines = [head, ["---"] * len(head), *rows]
    return "".join("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |\n" for cells in lines)


def _signed(difference: dict) -> str:
    """A mean difference ± its standard error."""
    if not difference["seeds"] or math.isnan(difference["mean"]):
        return _NONE
    return f"{difference['mean']:+.3f} ± {difference['standard_error']:.3f}".replace(" ± nan", "")


def spread(values: list[float], form: str) -> str:
    """Mean ± standard deviation of those that were measured."""
    values = [value for value in values if math.isfinite(value)]
    if not values:
        return _NONE
    mean = form.format(statistics.fmean(values))
    return f"{mean} ± {form.format(statistics.stdev(values))}" if len(values) > 1 else mean


def _saving(values: list[float], baseline: list[float]) -> tuple[str, str]:
    """Median with least and most, and what these save of the baseline's median."""
    if math.isnan(sum(values)):
        return _NONE, _NONE
    whole, found = statistics.median(baseline), (statistics.median(values), min(values), max(values))
    costs = _range(*(short(value) if value < math.inf else "∞" for value in found))
    if not 0 < whole < math.inf:
        return costs, _NONE
    return costs, _range(
        *(f"{100 * (1 - found[i] / whole):.0f}%" if found[i] < math.inf else "never" for i in (0, 2, 1))
    )


def _range(middle: str, first: str, last: str) -> str:
    return middle if first == last else f"{middle} ({first}..{last})"


# ---- Picture -----------------------------------------------------------------------------------------------------
def draw(methods: dict[str, list[Run]], report: dict, path: str) -> None:
    """Accuracy against each cost, useful groups, Pearson, and seconds and tokens by phase, as one PNG."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg  # slow to import
    from matplotlib.figure import Figure

    figure = Figure(figsize=(13, 8 + 0.5 * max(0, len(methods) - 3)), layout="constrained")
    FigureCanvasAgg(figure)
    grid = figure.add_gridspec(2, 3)
    *exams, useful, pearson = (figure.add_subplot(grid[i // 3, i % 3]) for i in range(5))
    bars = [figure.add_subplot(cell) for cell in grid[1, 2].subgridspec(2, 1)]
    palette, numbers = itertools.cycle(_COLORS), report["methods"]
    for label, runs in methods.items():
        color = _BASELINE if label == report["baseline"] else next(palette)
        for axis, name in zip(exams, COSTS, strict=True):
            points = [[(row["step"], cost(row)[name], row["eval/accuracy"]) for row in run.exams] for run in runs]
            _curve(axis, points, color, label=f"{label} ({len(runs)} seed{'s' * (len(runs) > 1)})")
            at = statistics.median(numbers[label]["reached"][name])
            if math.isfinite(at):
                axis.plot(at, report["target"], "D", color=color, markersize=8, markeredgecolor="white", zorder=5)
        lines = ((useful, "train/useful_groups", "-"), (pearson, "predictor/pearson", "-"))
        for axis, key, style in (*lines, (pearson, "predictor/reference_pearson", ":")):
            found = [metrics.series(run.rows, key) for run in runs]
            points = [[*zip(x, x, metrics.running_mean(y), strict=True)] for x, y in found]
            _curve(axis, points, color, linestyle=style)
    for axis, name in zip(
        exams, ("steps", "generated tokens", "seconds without compiling and evaluating"), strict=True
    ):
        axis.axhline(report["target"], color=_BASELINE, linewidth=0.9, linestyle="--", zorder=1)
        axis.set(xlabel=name, title="held-out accuracy")
    exams[0].plot([], [], "D", color=_BASELINE, label="first at the target (dashed), median")
    useful.set(title="useful groups (0 < success < 1)", xlabel="steps", ylim=(0, 1))
    pearson.set(title="Pearson of predictions (dotted: references)", xlabel="steps")
    if not pearson.lines:
        pearson.text(0.5, 0.5, "no predictions", transform=pearson.transAxes, ha="center", color=_BASELINE)
    _bars(bars[0], {label: m["seconds_by_phase"] for label, m in numbers.items()}, "seconds by phase")
    whole = {
        label: {"other": m["tokens"]} for label, m in numbers.items() if np.isnan(m["tokens_by_phase"]["fresh"]).any()
    }
    _bars(bars[1], {label: m["tokens_by_phase"] for label, m in numbers.items()} | whole, "generated tokens by phase")
    for axis in (exams[1], bars[1]):
        axis.xaxis.set_major_formatter(lambda value, _: short(value))
    for axis in figure.axes:
        axis.grid(alpha=0.25, linewidth=0.6)
        axis.set_axisbelow(True)
        axis.spines[["top", "right"]].set_visible(False)
        axis.title.set(fontsize=10.5, fontweight="bold")
    fit = max(1, min(4, 160 // (12 + max(map(len, methods)))))
    for axes, place, columns in (
        (exams[:1], "outside upper left", fit),
        (bars, "outside lower right", len(PHASES)),
    ):
        shown = {name: line for axis in axes for line, name in zip(*axis.get_legend_handles_labels(), strict=True)}
        figure.legend(shown.values(), shown, loc=place, ncols=columns, frameon=False, fontsize=9)
    figure.savefig(path, dpi=110, format="png")


def _curve(axis, points: list[list[tuple]], color: str, **style) -> None:
    """Mean over runs, at the steps that all have, in a band from least to most, and each run faintly.

    Points of a run: (step, place on the axis, height).
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


def _bars(axis, parts: dict[str, dict[str, list[float]]], title: str) -> None:
    """A bar for each method: the means over seeds, stacked, the method's name above it."""
    start = np.zeros(len(parts))
    for phase in (phase for phase in PHASES if phase != "uncounted"):
        means = [np.mean(np.nan_to_num(values.get(phase, 0.0))) for values in parts.values()]
        if any(means):
            axis.barh(range(len(parts)), means, left=start, color=metrics.PHASE_COLORS[phase], label=phase, height=0.45)
            start += means
    for i, label in enumerate(parts):
        axis.text(0, i - 0.27, " " + (label if len(label) < 60 else f"{label[:58]}…"), fontsize=7.5, va="bottom")
    axis.set(title=title, yticks=[], ylim=(len(parts) - 0.6, -0.8))


# ---- Command line ------------------------------------------------------------------------------------------------
def main(argv: list[str] | None = None) -> int:
    """Writes the report and prints its tables; returns the exit code, 2 for the user's mistake, one line on stderr."""
    argv = list(sys.argv[1:] if argv is None else argv)
    if {"-h", "--help"} & set(argv):
        print(HELP, end="")
        return 0
    try:
        flags = {"--out": os.path.join("runs", "report"), "--baseline": ""}
        for arg in (arg for arg in argv if arg.startswith("-")):
            name, _, value = arg.partition("=")
            if name not in flags or not value:
                raise UserError(f"{arg}: no such flag, or no value (--out=DIR, --baseline=LABEL); --help shows all")
            flags[name] = value
        workdirs = [arg for arg in argv if not arg.startswith("-")]
        if not workdirs:
            raise UserError("name at least one workdir; --help shows how")
        methods = group([load(arg) for arg in workdirs])
        report = compare(methods, flags["--baseline"])
        text = markdown(report, f"python -m dots_jax.report {shlex.join(argv)}")
        os.makedirs(flags["--out"], exist_ok=True)
        paths = [os.path.join(flags["--out"], f"report.{kind}") for kind in ("md", "json", "png")]
        for path, content in zip(paths, (text, json.dumps(files.plain(report), indent=1)), strict=False):
            with open(path, "w", encoding="utf-8") as file:
                file.write(content)
        draw(methods, report, paths[-1])
    except UserError as error:
        print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    except OSError as error:
        print(f"error: cannot read or write {error.filename}: {error.strerror or error}", file=sys.stderr)
        return 2
    print(text, *paths, sep="\n")
    return 0


def _number(row: dict, key: str) -> float:
    value = row.get(key)
    return value if isinstance(value, int | float) else math.nan


if __name__ == "__main__":
    sys.exit(main())
