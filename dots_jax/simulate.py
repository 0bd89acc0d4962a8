"""Selectors on a recorded history: `python -m dots_jax.simulate --history=FILE --embeddings=FILE`."""

import json
import math
import os
import re
import sys

import jax
import numpy as np
from absl import flags
from ml_collections import ConfigDict

from dots_jax import selection
from dots_jax.analysis import recording as recordings
from dots_jax.analysis import simulation, tables
from dots_jax.analysis.recording import Recording
from dots_jax.analysis.simulation import Simulation
from dots_jax.core import command_line, config_rules, fields, files, picture, sharding
from dots_jax.core.errors import UserError, near
from dots_jax.run import metrics

CONFIG = "configs/simulate.py"
HELP = """\
Tries selectors on a recorded history: at each visit they propose questions, see what was recorded of these, and are
judged. The very classes that train are tried; the recorded policy does not depend on what they propose.

usage: python -m dots_jax.simulate --history=FILE --embeddings=FILE [--selectors=NAME,..] [--config.FIELD=VALUE ...]

  --history=FILE          parquet with columns problem and correct (successes at each visit, -1: not measured), of
                          which a JSON file of the same name may say the rollouts of a visit; or a run's workdir
  --embeddings=FILE       .npy [questions, D] in the order of the table; a run has its own
  --selectors=NAME,..     uniform,mopps,dots,posterior by default; with fields of their own after colons, of the group
                          `selection` where none is named: posterior:head=kernel:decay=0.9, dots:predictor.steps=50
  --batch=B               questions proposed at each visit (default: 128)
  --references=M          questions measured before, for every selector the same number (default: 64)
  --seeds=N               from config.seed on (default: 8)
  --workdir=DIR           where everything is written (default: runs/simulate)
  --config=FILE[:ARG]     fields of the selectors (default: {default}); selection.interval, selection.reuse_references
                          and replay.fresh_fraction are 1, 0 and 1 here, whatever it says
  --config.FIELD=VALUE    sets one field of it, for all selectors, such as --config.selection.kappa=4
  --compilation_cache=DIR|off
                          where compiled programs are kept (default: dots_jax/compiled in the user's cache)

In the workdir: results.json, results.md, results.png, of the selectors tried so far.
"""
LEGEND = """\
Means over seeds with 95% intervals (t); less uniform: of the differences, seed by seed. useful: of the groups proposed,
those with successes and failures; best: the most that the history holds. Pearson: predicted and recorded success of all
questions, seen at earlier visits or never, and the share of what the noise of the recorded rates allows. distinct:
different questions proposed, of as many as could be, and how often one came back. groups: paid for, references
included. per 1000: useful groups of so many rollouts. A group is not judged that the selector knows as a reference of
the same visit.
"""
_COLORS = ("#4d4d4d", "#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#7a5230")


def simulate(config: ConfigDict, workdir: str, history: str, names: list[str], seeds: int) -> dict:
    """Tries the selectors and writes the results to `workdir`; returns them. Raises UserError."""
    if os.path.exists(os.path.join(workdir, metrics.FILE)):
        raise UserError(f"--workdir={workdir} holds a run of dots_jax.main; use another")
    for name in names:
        _config(config, name)  # what is misspelt is told before anything is read
    recording = recordings.read(history, config)
    trial = Simulation(recording, config.train.batch_size, config.selection.references)
    _check(trial, history)
    changes = {"data.num_questions": len(recording.texts), "rollout.group_size": recording.rollouts}
    configs = {name: fields.replaced(_config(config, name), changes) for name in names}
    for own in configs.values():
        selection.find(own.selection.name).check(own)
    first_key = jax.random.key(config.seed)
    for name, own in configs.items():
        if _maker(recording, own)(first_key).reads_policy:  # whatever is refused is told before hours of others
            raise UserError(f"--selectors: {name} cannot be simulated: the recorded policy's states are not there")
    if expected := config_rules.RUN["seed"](config.seed + seeds - 1):
        raise UserError(f"--config.seed={config.seed} and --seeds={seeds}: a seed must be {expected}")
    os.makedirs(workdir, exist_ok=True)
    V, N = recording.successes.shape
    print(f"{history}: {N:,} questions, {V} visits, groups of {recording.rollouts}; {seeds} seeds", flush=True)
    print(f"{workdir} has the results of the selectors that have ended", flush=True)
    results = {
        "history": history,
        "questions": N,
        "visits": V,
        "rollouts": recording.rollouts,
        "batch": trial.batch,
        "references": trial.references,
        "seeds": list(range(config.seed, config.seed + seeds)),
        "best": trial.best.mean(),
    }
    runs = {}
    for name, own in configs.items():
        runs[name] = [trial.play(_maker(recording, own), config.seed + i) for i in range(seeds)]
        print(f"{name}: useful {np.mean([run['useful'] for run in runs[name]]):.3f}", flush=True)
        results["selectors"] = simulation.summary(runs, selection.BASELINE)
        paths = _write(results, workdir)  # of those so far: hours of them are not lost with one
    print(f"\n{_table(results)}\n{', '.join(paths)}")
    return results


def _config(config: ConfigDict, name: str) -> ConfigDict:
    """The config of a selector with fields of its own, `NAME:FIELD=VALUE:..`. Raises UserError."""
    parts = name.split(":")
    selector = ":".join(part for part in parts if "=" not in part)
    changes = {"selection.interval": 1, "selection.reuse_references": 0, "replay.fresh_fraction": 1.0}
    common = {*changes, "selection.name", "selection.references"}
    known = fields.flatten(config.to_dict())
    for part in (part for part in parts if "=" in part):
        field, _, text = part.partition("=")
        field = field if "." in field else f"selection.{field}"
        if field not in known:
            raise UserError(f"--selectors: {name} has an unknown field; {near(field, known)}see configs/common.py")
        if field in common or not field.startswith(selection.FIELDS):
            raise UserError(f"--selectors: {name} sets {field}, which is no field of one selector alone; leave it out")
        try:
            value = text if isinstance(known[field], str) else json.loads(text.lower())
        except ValueError:
            value = text
        if expected := config_rules.RUN[field](value):
            raise UserError(f"--selectors: {name}: {field} must be {expected}")
        changes[field] = value
    if selection.find(selector).rescores:
        raise UserError(f"--selectors: {name} cannot be simulated: no completion is recorded that it could score anew")
    return fields.replaced(config, changes | {"selection.name": selector})


def _check(trial: Simulation, history: str) -> None:
    """Raises UserError where the visits have too few questions."""
    N, least = len(trial.recording.texts), int(np.isfinite(trial.recording.successes).sum(1).min())
    if not np.isfinite(trial.recording.successes).any():
        raise UserError(f"--history={history} has measured nothing: all of its counts are -1; give another")
    for flag, count in (("--batch", trial.batch), ("--references", trial.references)):
        if count > N:
            raise UserError(f"{flag}={count} is more than the {N:,} questions of --history={history}; lower it")
    if trial.batch + trial.references > least and trial.recording.is_sparse:
        raise UserError(
            f"--batch={trial.batch} and --references={trial.references} are together more than the {least} questions "
            f"that a round of --history={history} has measured; lower them"
        )


def _maker(recording: Recording, config: ConfigDict):
    """Makes a selector from a key, as a run does."""
    mesh = sharding.make_mesh(devices=jax.devices()[:1])
    lengths = np.array([len(text.split()) for text in recording.texts], np.int32)  # in words: there is no tokenizer

    def make(key: jax.Array) -> selection.Selector:
        V, N = recording.successes.shape
        known = recording.difficulty, lengths, recording.embeddings
        return selection.make(config, selection.Context(N, recording.texts, *known, V, mesh, key))

    return make


def _write(results: dict, workdir: str) -> list[str]:
    """Writes the results as JSON, a table and a picture; returns where."""
    paths = [os.path.join(workdir, f"results.{kind}") for kind in ("json", "md", "png")]
    files.write_text(paths[0], json.dumps(files.plain(results), indent=1, allow_nan=False))
    files.write_text(paths[1], _table(results))
    _draw(results, paths[2])
    return paths


def _table(results: dict) -> str:
    head = ["selector", "useful", f"less {selection.BASELINE}", "p(1-p)", "Pearson, seen", "of ceiling"]
    head += ["Pearson, unseen", "of ceiling", "distinct", "returns", "groups", "per 1000"]
    rows = []
    for name, numbers in results["selectors"].items():
        less = numbers.get("less_baseline", {}).get("useful") if name != selection.BASELINE else None
        plain = [numbers[n]["mean"] for n in simulation.NUMBERS[1:]]
        forms = ("{:.3f}", "{:.2f}", "{:.0%}", "{:.2f}", "{:.0%}", "{:.2f}", "{:.1f}", "{:,.0f}", "", "")
        cells = [form.format(x) if math.isfinite(x) else "–" for form, x in zip(forms, plain, strict=True) if form]
        cells.append(f"{1000 * numbers['useful_per_rollout']['mean']:.1f}")
        rows.append([name, _cell(numbers["useful"], "{:.3f}"), _cell(less, "{:+.3f}"), *cells])
    about = "{batch} questions a visit, {references} references; best {best:.3f}".format(**results)
    return f"{about}\n\n{tables.markdown_table(head, rows)}\n{LEGEND}"


def _cell(numbers: dict | None, form: str) -> str:
    """A mean and its interval."""
    if numbers is None or not math.isfinite(numbers["mean"]):
        return "–"
    mean, low, high = (form.format(numbers[name]) for name in ("mean", "low", "high"))
    return f"{mean} ({low} to {high})" if math.isfinite(numbers["low"]) else mean


def _draw(results: dict, path: str) -> None:
    """The share of useful groups at each visit, and over all of them beside that of distinct questions."""
    selectors = results["selectors"]
    with picture.draw(path, 12, 4.5 + 0.15 * len(selectors)) as figure:
        curves, means, distinct = figure.subplots(1, 3, width_ratios=(2.2, 1, 1))
        for i, (name, numbers) in enumerate(selectors.items()):
            color, style = _COLORS[i % len(_COLORS)], ("-", "--", ":")[i // len(_COLORS) % 3]
            y = metrics.running_mean(np.nan_to_num(numbers["by_visit"]))
            curves.plot(np.arange(1, len(y) + 1), y, style, color=color, label=name)
            mean, low, high = (numbers["useful"][end] for end in ("mean", "low", "high"))
            reach = np.nan_to_num([[mean - low], [high - mean]])
            means.errorbar(mean, i, xerr=reach, fmt="o", color=color, capsize=3)
            distinct.barh(i, numbers["distinct"]["mean"], color=color, height=0.6)
        means.axvline(results["best"], color="#9aa0a6", linestyle="--", linewidth=0.8)
        curves.set(title="useful groups (0 < success < 1)", xlabel="visit", ylim=(0, 1.02))
        curves.legend(frameon=False, fontsize=8, loc="lower right", ncols=2)
        means.set(title="over all visits (dashed: best)")
        distinct.set(title="distinct questions", xlim=(0, 1))
        for axis, labels in ((means, list(selectors)), (distinct, [])):
            axis.set(ylim=(len(selectors) - 0.5, -0.5), yticks=range(len(labels)))
            axis.set_yticklabels(labels, fontsize=8)


def main(argv: list[str] | None = None) -> int:
    """Runs `simulate` as the flags say; returns the exit code."""
    argv = sys.argv[1:] if argv is None else argv
    own = {"batch": "train.batch_size", "references": "selection.references", "embeddings": "embedding.path"}
    argv = [re.sub(r"^--?(\w+)(?==|$)", lambda m: f"--config.{own[m[1]]}" if m[1] in own else m[0], a) for a in argv]
    values = flags.FlagValues()
    flags.DEFINE_string("history", "", "", flag_values=values)
    flags.DEFINE_list("selectors", ["uniform", "mopps", "dots", "posterior"], "", flag_values=values)
    flags.DEFINE_integer("seeds", 8, "", lower_bound=1, upper_bound=10**4, flag_values=values)

    def program(config: ConfigDict, workdir: str) -> None:
        names = list(dict.fromkeys(name.strip() for name in values.selectors if name.strip()))
        if not names:
            raise UserError("--selectors names none; give some with commas between")
        simulate(config, workdir, values.history, names, values.seeds)

    return command_line.run(program, CONFIG, HELP, argv, values)


if __name__ == "__main__":
    command_line.end(main())
