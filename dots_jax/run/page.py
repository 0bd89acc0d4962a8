"""The run page: what a run has left in its workdir as one HTML file, which needs no network and no other file."""

import collections
import html
import itertools
import json
import os

import numpy as np

from dots_jax import data
from dots_jax.core import command_line, files, text
from dots_jax.core.arithmetic import ceil_div
from dots_jax.core.errors import UserError, first_line
from dots_jax.core.fields import flatten
from dots_jax.difficulty import measures
from dots_jax.reward.types import Verdict
from dots_jax.run import curves, metrics, provenance, settings

FILE = "page.html"
_TEMPLATE = os.path.join(os.path.dirname(__file__), FILE)
_COMMON = os.path.join(files.ROOT, "configs", "common.py")
_ALL = 1_800_000  # characters of each kind of what can be much
KINDS = "reference", "fresh", "discarded"  # of groups
_VERDICTS = [v.name.lower() for v in Verdict]


def write(workdir: str) -> str:
    """Writes `workdir/page.html`, of a run that is finished or not, and returns its path.

    Raises UserError where `workdir` holds no run, or one whose files are damaged.
    """
    config = settings.read(workdir)
    try:
        content = gather(config, workdir)
    except (KeyError, TypeError, ValueError, IndexError, AttributeError) as error:
        why = first_line(error, typed=True)
        raise UserError(f"{workdir} holds files that are not as a run writes them ({why}); mend them") from error
    with open(_TEMPLATE, encoding="utf-8") as file:
        page = file.read()
    # In a script element nothing but `</script` and `<!--` means anything to HTML.
    packed = json.dumps(files.plain(content), separators=(",", ":"), allow_nan=False).replace("<", "\\u003c")
    path = os.path.join(workdir, FILE)
    title = html.escape(str(content["name"] or content["workdir"]))
    files.write_text(path, page.replace("{{data}}", packed, 1).replace("{{title}}", title, 1))
    return path


def gather(config: dict, workdir: str) -> dict:
    """What the page shows, as JSON can hold it. Raises UserError where `workdir` holds no run."""
    rows = metrics.read(workdir)
    if not rows:
        raise UserError(f"{workdir} holds no {metrics.FILE} of a run of dots_jax.main; name its --workdir")
    records, kept = metrics.read(workdir, metrics.GROUPS), metrics.read(workdir, metrics.COMPLETIONS)
    pool, heldout = _questions(workdir)
    events, replays = _events(records)
    pearson = {name: _pearson(events, kind) for kind, name in enumerate(KINDS[:2])}
    summary = _summary(rows, pearson["reference"], len({event[0] for event in events}), len(pool))
    groups = _groups(kept)
    evaluations = [row for row in kept if row["kind"] in ("evaluation", "greedy")]
    strides = {
        "measured questions": _stride(40 * len(events)),
        "kept groups": _stride(sum(len(json.dumps(group)) for group in groups) // 2),
        "held-out questions": _stride(sum(50 + len(row["completion"]) for row in evaluations)),
    }
    events = [event for event in events if event[0] % strides["measured questions"] == 0]
    groups = groups[:: strides["kept groups"]]
    evaluations = [row for row in evaluations if row["question"] % strides["held-out questions"] == 0]
    measured = {event[0] for event in events} | {group["question"] for group in groups}
    asked = {row["question"] for row in evaluations}
    return {
        "name": config["name"],
        "workdir": os.path.basename(os.path.abspath(workdir)),
        "method": f"{'GRPO' if config['replay']['fresh_fraction'] == 1 else 'GRPO-RR'}, "
        f"{config['selection']['name']} selection",
        "step": rows[-1]["step"],
        "steps": config["train"]["steps"],
        "summary": summary,
        "settings": _settings(config),
        "machine": _machine(workdir),
        "panels": [panel for parts in curves.PANELS[:-1] if (panel := _panel(rows, *parts))],  # but generated tokens
        "tokens": {row["step"]: row.get("ledger/generated_tokens") for row in rows},
        "kinds": KINDS,
        "verdicts": _VERDICTS,
        "pool": _shown(pool, measured, {group["question"] for group in groups}),
        "heldout": _shown(heldout, asked, asked),
        "events": events,
        "replays": [replay for replay in replays if replay[0] in measured],
        "pearson": pearson,
        "groups": groups,
        "levels": [[row["step"], row["eval/by_level"]] for row in rows if row.get("eval/by_level")],
        "evaluations": _evaluations(evaluations),
        "left_out": [f"1 in {stride} of the {name}" for name, stride in strides.items() if stride > 1],
    }


def _machine(workdir: str) -> dict[str, str]:
    """What the run was last started on: "device", and versions."""
    last = provenance.starts(workdir)[-1:]
    names = ("device", "commit", "python", "jax", "flax", "optax", "numpy", "transformers")
    return {name: str(start[name])[:40] for start in last for name in names if start.get(name)}


def _questions(workdir: str) -> tuple[dict[int, dict], dict[int, dict]]:
    """The pool and the held-out questions by number."""
    path = os.path.join(workdir, data.FILE)
    if not os.path.exists(path):
        return {}, {}
    with open(path, encoding="utf-8") as file:
        rows = [files.parse(line) for line in file]
    return tuple({row[key]: row for row in rows if key in row} for key in ("id", "heldout"))


def _shown(questions: dict[int, dict], numbers: set[int], whole: set[int]) -> dict[int, list]:
    """Name, family, level, text and answer of these questions, by number; long texts of all but some are cut."""
    room, shown = max(100, _ALL // max(1, len(numbers))), {}
    for i in sorted(numbers):
        found, problem = questions.get(i, {}), questions.get(i, {}).get("problem")
        if problem and len(problem) > room and i not in whole:
            problem = f"{problem[:room]}…"
        shown[i] = [found.get("name"), found.get("family"), found.get("level"), problem, found.get("answer")]
    return shown


def _events(records: list[dict]) -> tuple[list[list], list[list]]:
    """What was measured: [question, step, index of KINDS, successes, completions, predicted difficulty, mean tokens,
    whether it was the first time]; and what was replayed: [question, step, step that had generated it].
    """
    events, replays, seen = [], [], set()
    for record in records:
        for kind, prefix in enumerate(("reference_", "", "discarded_")):
            ids = record.get(f"{prefix}ids") or []
            rollouts = record.get("discarded_rollouts" if prefix == "discarded_" else "rollouts")
            predicted, tokens = (record.get(f"{prefix}{x}") or [None] * len(ids) for x in ("predicted", "tokens"))
            for i, *measured in zip(ids, record.get(f"{prefix}successes") or [], predicted, tokens, strict=True):
                successes, difficulty, length = (x if x is None else round(x, 3) for x in measured)
                events.append([i, record["step"], kind, successes, rollouts, difficulty, length, i not in seen])
            seen.update(ids)
        drawn = zip(record.get("replayed") or [], record.get("replayed_from") or [], strict=True)
        replays += [[i, record["step"], origin] for i, origin in drawn if i >= 0]
    return events, replays


def _pearson(events: list[list], kind: int) -> float:
    """Of predicted and measured difficulty, over questions that had not been measured before."""
    pairs = [(p, 1 - k / G) for _, _, of, k, G, p, _, new in events if of == kind and new and p is not None]
    return measures.report(*np.array(pairs).reshape(-1, 2).T)["pearson"]


def _groups(kept: list[dict]) -> list[dict]:
    """The kept groups with their completions."""
    rows = [row for row in kept if row["kind"] in KINDS]
    groups = itertools.groupby(rows, lambda row: (row["question"], row["step"], row["kind"]))
    names = "question", "step", "kind"
    return [
        dict(zip(names, key, strict=True))
        | {"completions": [{k: x for k, x in row.items() if k not in (*names, "name")} for row in part]}
        for key, part in groups
    ]


def _evaluations(rows: list[dict]) -> list[list]:
    """[step, kind, completions], each [question, sample, index of the verdict, reward, tokens, whether truncated,
    answer, text].
    """
    found = collections.defaultdict(list)
    for row in rows:
        values = (row[key] for key in ("reward", "tokens", "truncated", "extracted", "completion"))
        verdict = _VERDICTS.index(row["verdict"])
        found[row["step"], row["kind"]].append([row["question"], row["sample"], verdict, *values])
    return [[*key, part] for key, part in found.items()]


def _stride(size: int) -> int:
    """Of how many things one can be shown, `size` characters all of them."""
    return max(1, ceil_div(size, _ALL))


def _panel(rows: list[dict], title: str, limits: tuple, lines: tuple) -> list | None:
    """A panel of curves: [title, limits, [[label, [[step, value], ..]], ..]]; None: nothing was measured of it."""
    series = [[label, np.stack(metrics.series(rows, key), 1)] for key, label in lines]
    series = [[label, points] for label, points in series if len(points)]
    return [title, limits, series] if series else None


def _summary(rows: list[dict], pearson: float, measured: int, pool: int) -> list[list[str]]:
    """What the run came to: [what, number, a word on it]."""
    entries, last = [], rows[-1]
    for key, name in (("eval/accuracy", "held-out accuracy"), ("eval/greedy_accuracy", "greedy, held-out")):
        _, values = metrics.series(rows, key)
        if values.size:
            change = f"{values[-1] - values[0]:+.3f}" if values.size > 1 else "before the first step"
            entries.append(
                [name, f"{values[0]:.3f} → {values[-1]:.3f}" if values.size > 1 else f"{values[0]:.3f}", change]
            )
    _, useful = metrics.series(rows, "train/useful_groups")
    if useful.size:
        entries.append(["useful groups", f"{useful.mean():.0%}", "mean over steps, 0 < success < 1"])
    entries.append(["questions measured", f"{measured:,}", f"of {pool:,}" if pool else ""])
    if np.isfinite(pearson):
        entries.append(["predicted difficulty", f"r = {pearson:.2f}", "Pearson, new references"])
    generated, seconds = last.get("ledger/generated_tokens"), last.get("seconds")
    if generated is not None and seconds is not None:
        entries.append(["tokens generated", text.short(generated), f"in {text.duration(seconds)}"])
    return entries


def _settings(config: dict) -> list[list[str]]:
    """Name, value and default of each field that differs from configs/common.py; of all where that is not here."""
    values = flatten(config)
    try:
        defaults = flatten(json.loads(json.dumps(command_line.load(_COMMON).to_dict())))
    except UserError:
        defaults = {}
    changed = [name for name in values if name not in defaults or values[name] != defaults[name]]
    return [[name, str(values[name]), str(defaults.get(name, ""))] for name in changed]
