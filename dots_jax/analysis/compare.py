"""Compares runs: what each method reached, what it cost, and how much of that is saved against a baseline.

Reads `config.json` and `metrics.jsonl` of the workdirs and nothing else. `compare` makes all the numbers.
"""

import dataclasses
import itertools
import json
import math
import os
import statistics

import numpy as np
from scipy import stats

from dots_jax import selection
from dots_jax.core import rules
from dots_jax.core.errors import UserError
from dots_jax.core.fields import flatten
from dots_jax.run import metrics, settings
from dots_jax.run.ledger import PHASES, SAMPLING

NONE = "–"
COSTS = ("steps", "tokens", "seconds")
# Tokens per second of one H100 with 1.5B parameters in bfloat16, by the rollouts and the update that
# benchmarks/README.md has measured; that scoring takes a third of an update is predicted.
_H100 = {"generated": 29_410, "trained": 31_000, "scored": 93_000}
# No part of a method.
_IDLE = ("seed", "name", "mesh.", "train.keep_checkpoints", "train.checkpoint_every", "embedding.cache")
_SETTINGS = {  # that a run has, whatever its version
    "seed": rules.whole(0, 2**32 - 1),
    "selection.name": rules.text,
    "train.steps": rules.whole(),
    "replay.fresh_fraction": rules.optional(rules.number(0, 1)),
}
_MEASURED = rules.optional(rules.number())
_COUNTED = rules.optional(rules.number(0))
_METRICS = {  # of metrics.jsonl
    "step": rules.whole(),
    "eval/accuracy": rules.optional(rules.number(0, 1)),
    "seconds": _COUNTED,
    **{f"ledger/generated_{phase}": _COUNTED for phase in (*SAMPLING, "tokens")},
    **{f"ledger/seconds_{phase}": _COUNTED for phase in PHASES},
    "ledger/cost_excluded_tokens": _COUNTED,
    **{f"train/{name}": _MEASURED for name in ("useful_groups", "silent_groups")},
    "predictor/pearson": _MEASURED,
    "predictor/reference_pearson": _MEASURED,
}


@dataclasses.dataclass(frozen=True)
class MethodRun:
    """One workdir: a run of a method."""

    workdir: str
    label: str  # as given, or ""
    config: dict  # by dotted name
    metrics: list[dict]  # of metrics.jsonl

    @property
    def seed(self) -> int:
        """Which of the method's runs this is."""
        return self.config.get("seed", 0)

    @property
    def evaluations(self) -> list[dict]:
        """The metrics of steps with an evaluation."""
        return [row for row in self.metrics if isinstance(row.get("eval/accuracy"), int | float)]

    def mean(self, key: str) -> float:
        """Over all steps that have `key`; NaN where none does."""
        values = metrics.series(self.metrics, key)[1]
        return float(values.mean()) if values.size else math.nan

    def accuracy_at(self, tokens: float) -> float:
        """When so many tokens were generated, on the line between evaluations; NaN beyond the last."""
        x, y = zip(*((cost(row)["tokens"], row["eval/accuracy"]) for row in self.evaluations), strict=True)
        return float(np.interp(tokens, x, y, right=math.nan))

    def reach(self, target: float) -> dict[str, float]:
        """What the run had cost at its first evaluation with at least the accuracy `target`, else infinity."""
        least = target - 1e-9  # a mean of equals is rounded
        reached = (row for row in self.evaluations if row["eval/accuracy"] >= least)
        return next(map(cost, reached), dict.fromkeys((*COSTS, "h100"), math.inf))

    @property
    def waste(self) -> float:
        """Groups without a gradient that were rolled out for 1,000 generated tokens."""
        silent = sum(metrics.series(self.metrics, "train/silent_groups")[1])
        tokens = _number(self.metrics[-1], "ledger/generated_tokens")
        return 1000 * silent / tokens if tokens else math.nan


def cost(row: dict) -> dict[str, float]:
    """Steps, generated tokens, and seconds without compilation and evaluation, up to the step of these metrics.

    "h100": the seconds of an H100 for as many tokens, generated, trained on and scored, of a policy of 1.5B parameters.
    """
    whole, *apart = (_number(row, key) for key in ("seconds", "ledger/seconds_compile", "ledger/seconds_evaluation"))
    h100 = sum(_number(row, f"ledger/{kind}_tokens") / rate for kind, rate in _H100.items())
    tokens = _number(row, "ledger/generated_tokens")
    return {"steps": row["step"], "tokens": tokens, "seconds": whole - sum(apart), "h100": h100}


def load(argument: str) -> MethodRun:
    """The run of `[LABEL=]WORKDIR`. Raises UserError where there is none, or none that was ever evaluated."""
    label, equals, workdir = argument.partition("=")
    if not equals or os.path.isdir(argument):
        label, workdir = "", argument
    if not os.path.isdir(workdir):
        raise UserError(f"no workdir {workdir!r}; give directories that dots_jax.main has written")
    config = flatten(settings.read(workdir))
    rules.check_row(config, _SETTINGS, os.path.join(workdir, "config.json"))
    run = MethodRun(workdir, label, config, metrics.read(workdir, kinds=_METRICS))
    for step, following in itertools.pairwise(row["step"] for row in run.metrics):
        if step >= following:
            raise UserError(f"{workdir}/{metrics.FILE}: step {following} follows step {step}; mend it")
    if not run.metrics:
        raise UserError(f"{workdir} holds no {metrics.FILE}, or nothing in it yet; leave it out")
    if not run.evaluations:
        raise UserError(f"{workdir}/{metrics.FILE} holds no eval/accuracy yet; leave it out")
    return run


def group(runs: list[MethodRun]) -> dict[str, list[MethodRun]]:
    """Label -> the method's runs by seed, in the order given.

    Raises UserError for runs whose accuracies do not compare, and for two runs of one method and seed.
    """
    alike = ("data.", "reward", *(f"eval.{name}" for name in ("sets", "questions", "temperature", "top_p")))
    for field in sorted({f for run in runs for f in run.config if f.startswith(alike)}):
        for run in runs:
            values = runs[0].config.get(field), run.config.get(field)
            if values[0] != values[1]:
                raise UserError(
                    f"{runs[0].workdir} and {run.workdir} were not evaluated alike: config.{field} is "
                    f"{values[0]!r} and {values[1]!r}; compare runs that were"
                )
    methods = {}
    for run in runs:
        fields = tuple((f, json.dumps(v)) for f, v in sorted(run.config.items()) if not f.startswith(_IDLE))
        methods.setdefault(run.label or fields, []).append(run)
    named = {}
    for label, members in zip(_labels([m[0].config for m in methods.values()]), methods.values(), strict=True):
        members.sort(key=lambda run: run.seed)
        for run, other in itertools.pairwise(members):
            if run.seed == other.seed:
                raise UserError(
                    f"{run.workdir} and {other.workdir} are the same method and config.seed={run.seed}; leave one out, "
                    "or give it a label of its own (LABEL=WORKDIR)"
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
        peers = {f: like if f.startswith(selection.FIELDS) else configs for f in fields}
        unlike = [f for f in fields if len({json.dumps(config.get(f)) for config in peers[f]}) > 1]
        differing.append(
            sorted(unlike, key=lambda f: (not f.startswith(selection.FIELDS), not f.startswith("learner."), f))
        )
    leaves = [field.rpartition(".")[2] for field in set(itertools.chain(*differing))]
    labels = []
    for config, selector, unlike in zip(configs, selectors, differing, strict=True):
        parts = [selector] if len(set(selectors)) > 1 or len(configs) == 1 else []
        for field in unlike:
            leaf = field.rpartition(".")[2]
            parts.append(f"{leaf if leaves.count(leaf) == 1 else field}={config.get(field, NONE)}")
        more = f", and {len(parts) - 4} more" if len(parts) > 4 else ""
        labels.append(", ".join(parts[:4]) + more)
    return labels


def compare(methods: dict[str, list[MethodRun]], baseline: str = "") -> dict:
    """All that the report says: the target, and for each method a list over its seeds of each quantity.

    NaN: not measured; infinity: target never reached. Raises UserError for a `baseline` that is no method.
    """
    configs = {label: runs[0].config for label, runs in methods.items()}
    uniform = [label for label, config in configs.items() if config.get("selection.name") == selection.BASELINE]
    plain = [label for label in uniform if configs[label].get("replay.fresh_fraction", 1) == 1]
    baseline = baseline or [*plain, *uniform, *methods][0]
    if baseline not in methods:
        raise UserError(f"no method {baseline!r} to compare with; --baseline is one of: {'; '.join(methods)}")
    target = statistics.fmean(run.evaluations[-1]["eval/accuracy"] for run in methods[baseline])
    budget = min(cost(run.evaluations[-1])["tokens"] for runs in methods.values() for run in runs)
    table = {}
    for label, runs in methods.items():
        ends, reached = [run.metrics[-1] for run in runs], [run.reach(target) for run in runs]
        pairs = [(run, base) for run in runs for base in methods[baseline] if run.seed == base.seed]
        table[label] = {
            "workdirs": [run.workdir for run in runs],
            "seeds": [run.seed for run in runs],
            "steps": [end["step"] for end in ends],
            "running": sum(run.metrics[-1]["step"] < run.config.get("train.steps", 0) for run in runs),
            "accuracy": [run.evaluations[-1]["eval/accuracy"] for run in runs],
            "difference": _difference(pairs),
            "at_budget": [run.accuracy_at(budget) for run in runs],
            "difference_at_budget": _paired([[run.accuracy_at(budget) for run in pair] for pair in pairs]),
            "useful_groups": [run.mean("train/useful_groups") for run in runs],
            "pearson": [run.mean("predictor/pearson") for run in runs],
            "reference_pearson": [run.mean("predictor/reference_pearson") for run in runs],
            "tokens": [_number(end, "ledger/generated_tokens") for end in ends],
            "cost_excluded_tokens": [_number(end, "ledger/cost_excluded_tokens") for end in ends],
            "tokens_by_phase": {p: [_number(end, f"ledger/generated_{p}") for end in ends] for p in SAMPLING},
            "seconds_by_phase": {p: [_number(end, f"ledger/seconds_{p}") for end in ends] for p in PHASES},
            "reached": {name: [at[name] for at in reached] for name in (*COSTS, "h100")},
            "claims": _claims(pairs, target),
        }
    return {"baseline": baseline, "target": target, "budget": budget, "methods": table}


def _difference(pairs: list[tuple[MethodRun, MethodRun]]) -> dict:
    """Accuracy less the baseline's of the same seed, at the last evaluation that all of these runs share."""
    curves = [[{row["step"]: row["eval/accuracy"] for row in run.evaluations} for run in pair] for pair in pairs]
    step = max(set.intersection(*(set(curve) for pair in curves for curve in pair)), default=None) if pairs else None
    return {"step": step} | _paired([[a[step], b[step]] for a, b in curves] if step is not None else [])


def _paired(values: list[list[float]]) -> dict:
    """Mean of the first less the second, and its standard error."""
    values = [a - b for a, b in values]
    error = statistics.stdev(values) / math.sqrt(len(values)) if len(values) > 1 else math.nan
    mean = statistics.fmean(values) if values else math.nan
    return {"seeds": len(values), "mean": mean, "standard_error": error}


def _claims(pairs: list[tuple[MethodRun, MethodRun]], target: float) -> dict[str, dict]:
    """What is claimed of a method against the baseline's runs of the same seeds: estimates with 95% intervals.

    "waste": mean difference in silent groups for 1,000 generated tokens; "accuracy": of the last accuracies; "tokens",
    "seconds", "h100": median share that is saved on the way to the target. Where the baseline never gets there, what it
    has cost at its end stands for it, so that the share is a lower bound.
    """

    def saved(name: str) -> list[float]:
        costs = [
            (run.reach(target)[name], base.reach(target)[name], cost(base.metrics[-1])[name]) for run, base in pairs
        ]
        return [1 - a / min(b, end) if a < math.inf else -math.inf for a, b, end in costs if min(b, end)]

    waste = [run.waste - base.waste for run, base in pairs]
    ends = [[run.evaluations[-1]["eval/accuracy"] for run in pair] for pair in pairs]
    return {
        "waste": mean_interval(waste),
        **{name: median_interval(saved(name)) for name in ("tokens", "seconds", "h100")},
        "accuracy": mean_interval([a - b for a, b in ends]),
    }


def mean_interval(values: list[float]) -> dict[str, float]:
    """Mean of n values and its 95% interval by Student's t; NaN where there are fewer than two."""
    values = [float(x) for x in values if not math.isnan(x)]
    if len(values) < 2:
        return {"value": values[0] if values else math.nan, "low": math.nan, "high": math.nan, "seeds": len(values)}
    mean, error = statistics.fmean(values), statistics.stdev(values) / math.sqrt(len(values))
    half = float(stats.t.ppf(0.975, len(values) - 1)) * error
    return {"value": mean, "low": mean - half, "high": mean + half, "seeds": len(values)}


def median_interval(values: list[float]) -> dict[str, float]:
    """Median of n values and its interval of at least 95% by their order; NaN where n is below 6."""
    x = sorted(value for value in values if not math.isnan(value))
    n = len(x)
    outside = next((k for k in range(n // 2, 0, -1) if 2 * stats.binom.cdf(k - 1, n, 0.5) <= 0.05), 0)
    low, high = (x[outside - 1], x[n - outside]) if outside else (math.nan, math.nan)
    return {"value": statistics.median(x) if x else math.nan, "low": low, "high": high, "seeds": n}


def _number(row: dict, key: str) -> float:
    value = row.get(key)
    return value if isinstance(value, int | float) else math.nan
