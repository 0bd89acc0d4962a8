"""The screens before and after a run: what runs, on what and where; what it has learned and where that lies."""

import os
import shlex
import textwrap

import jax
import numpy as np

from dots_jax import data, reward
from dots_jax.core.errors import first_line
from dots_jax.core.runtime import compilation_cache
from dots_jax.core.text import WIDTH, duration, short, table
from dots_jax.run import curves, metrics, page
from dots_jax.run import workdir as workdirs


def first(config, exp, state, start: int, workdir: str, readable: np.ndarray | None, emptied: bool) -> None:
    """Prints what runs, on what, and where.

    `exp` and `state` are as `run.log` has them. `readable` says of each answer of the pool whether the grader
    understands it; `emptied`: the buffer of the checkpoint of step `start` is left behind.
    """
    spec, sampling, mesh = exp.replay_spec, exp.rollout_spec, exp.mesh
    method = f"{'GRPO-RR' if state.buffer else 'GRPO'}, {config.selection.name} selection"
    method += " (its cost is not counted)" if exp.selector.cost_excluded else ""
    method += f", {spec.num_replayed} of {spec.batch_size} groups replayed" if state.buffer else ""
    method += ", starts with an empty buffer" if emptied else ""
    device = f"{mesh.size} {jax.default_backend()} device{'s' if mesh.size != 1 else ''}, mesh "
    device += " x ".join(f"{name} {size}" for name, size in mesh.shape.items())
    device += f", of {jax.process_count()} processes" if jax.process_count() > 1 else ""
    parameters = sum(x.size for x in jax.tree.leaves(state.learner.params))
    tokens = spec.most_fresh(range(start + 1, exp.steps + 1)) * sampling.group_size * sampling.max_tokens
    _print_entries(
        ("run", f"{config.name}: {method}"),
        ("device", device),
        ("policy", f"{config.policy.path} ({short(parameters)} parameters, {config.policy.dtype})"),
        ("reward", reward.describe(**config.reward)),
        ("questions", _fill(data.describe(exp.pool, exp.lengths, readable))),
        ("held out", _fill(data.describe(exp.evaluator.questions, exp.evaluator.lengths) + _shared(exp))),
        ("steps", f"{exp.steps}, each generates at most {short(tokens)} tokens to train on"),
        ("rollouts", f"{sampling.slots or 'up to 128'} completions at a time (rollout.slots)"),
        ("workdir", workdir + (f" (continues after step {start})" if start else "")),
        ("compiled", compilation_cache() or "programs are not kept (--compilation_cache=DIR)"),
    )
    print(flush=True)


def _shared(exp) -> str:
    shared = len(set(exp.pool.texts) & set(exp.evaluator.questions.texts))
    return f"; {shared:,} of them are trained on: accuracy is not of what is held out" if shared else ""


def finished(workdir: str, step: int) -> None:
    """Says that a run has nothing left to do, and shows it."""
    print(f"the run in {workdir} is finished ({step} steps); raise --config.train.steps or use another --workdir")
    last(workdir)


def last(workdir: str, steps: int = 0) -> None:
    """Draws the curves and prints what was learned and where it lies, from the metrics alone.

    Also that the run has stopped, where it was to have more `steps`.
    """
    rows = metrics.read(workdir)
    picture = curves.draw(rows, workdir)
    try:
        shown = page.write(workdir)
    except Exception as error:  # the run is whole without it
        shown = f"none: {first_line(error, typed=True)}"
    if (step := rows[-1]["step"]) < steps:
        print(f"\nstopped after step {step} of {steps}: --minutes has no room for another; the same command continues")
    evaluations = [row for row in rows if row.get("eval/accuracy") is not None]
    before, after = evaluations[0], evaluations[-1]
    if len(evaluations) == 1:
        print(f"\nnot evaluated since step {before['step']}", end="")
    print(f"\nheld-out accuracy {_change(before, after, 'eval/accuracy')}", end=" ")
    print(f"({after['eval/accuracy'] - before['eval/accuracy']:+.3f})")
    if None not in (before.get("eval/greedy_accuracy"), after.get("eval/greedy_accuracy")):
        print(f"of the likeliest completions (greedy) {_change(before, after, 'eval/greedy_accuracy')}")
    _print_levels(before["eval/by_level"], after["eval/by_level"])
    end, export = rows[-1], os.path.join(workdir, workdirs.EXPORT)
    compiling, events = duration(end["ledger/seconds_compile"]), os.path.join(workdir, "tensorboard")
    _print_entries(
        ("time", f"{duration(end['seconds'])}, of which {compiling} compiling"),
        ("tokens", f"{end['ledger/generated_tokens']:,} generated"),
        ("metrics", os.path.join(workdir, metrics.FILE)),
        ("curves", picture),
        ("page", shown),
        *([("tensorboard", f"tensorboard --logdir {shlex.quote(events)}")] if os.path.isdir(events) else []),
        *([("policy", f"{export} (Hugging Face layout)")] if os.path.isdir(export) else []),
    )


def _change(before: dict, after: dict, key: str) -> str:
    return f"{before[key]:.3f} -> {after[key]:.3f}"


def _print_levels(before: dict[str, list], after: dict[str, list]) -> None:
    """The accuracy of each level of each family, before and after; None where there is no such question."""
    rows = [
        [family[:16], *(f"{_percent(a)} -> {_percent(b)}" for a, b in zip(cells, after[family], strict=True))]
        for family, cells in before.items()
    ]
    levels = max(map(len, rows)) - 1
    if levels == 1:
        print(f"\naccuracy in %, before -> after\n{table(rows)}")
        return
    print("\naccuracy in %, before -> after, by family and level (easiest first)")
    for block in range(1, levels + 1, 7):
        columns = range(block, min(block + 7, levels + 1))
        cells = [[row[0], *(row[i] if i < len(row) else "" for i in columns)] for row in rows]
        print(table([["level", *map(str, columns)], *(row for row in cells if any(row[1:]))]), end="")
    print()


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{100 * value:.0f}"


def _print_entries(*entries: tuple[str, str]) -> None:
    width = max(len(name) for name, _ in entries) + 2
    for name, text in entries:
        print(name.ljust(width) + text.replace("\n", "\n" + " " * width))


def _fill(text: str) -> str:
    return textwrap.fill(text, WIDTH - 11, break_long_words=False, break_on_hyphens=False)
