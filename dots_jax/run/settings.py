"""The settings of a run, and what else it rests on, kept in its workdir."""

import hashlib
import json
import os
import time
from collections.abc import Iterator
from typing import Any

import numpy as np

from dots_jax import selection
from dots_jax.core import config_rules, distributed, files
from dots_jax.core.errors import UserError
from dots_jax.core.fields import flatten
from dots_jax.data.questions import Questions
from dots_jax.policy import huggingface
from dots_jax.run import metrics
from dots_jax.run import workdir as workdirs

_FINGERPRINTS = "fingerprints"  # in config.json, beside the config
_REWARD = "reward"  # of these: the file of a user's own
# What may change when a run continues.
FREE = (
    "train.steps",
    "train.checkpoint_every",
    "train.keep_checkpoints",
    "train.empty_buffer",
    "train.mended_reward",
    "mesh",
    "rollout.slots",
    "embedding.cache",
    "data.root",
    "completions",
    "log",
)
# These too, if it may start with an empty buffer; not what decides how many groups a step generates.
BUFFER = (
    *(
        f"replay.{name}"
        for name in ("capacity", "insert", "max_age", "decay", "draw_once", "positive_only", "scale_by_age")
    ),
    *("rollout.group_size", "rollout.max_tokens"),
)


def read(workdir: str) -> dict:
    """The config of the run in `workdir`. Raises UserError where there is none."""
    return _read(workdir)[0]


def _read(workdir: str) -> tuple[dict, dict]:
    """The config, and the fingerprints of what the run rests on."""
    try:
        with open(os.path.join(workdir, "config.json"), encoding="utf-8") as file:
            config = files.parse(file.read())
        fingerprints = config.pop(_FINGERPRINTS, {})
        if isinstance(config.get("reward"), str):  # of an earlier version
            config["reward"] = {"name": config["reward"], "answer": "box"}
        names = flatten(config)
    except (OSError, ValueError, AttributeError, TypeError) as error:
        why = "bring the file back as it was, or name another directory"
        raise UserError(f"{workdir} holds no readable config.json of a run; {why}") from error
    old = [name for name in config_rules.RENAMED if name in names]
    if old:
        raise UserError(
            f"{workdir} is of an earlier version: its config.json says {old[0]} for what is now "
            f"{config_rules.RENAMED[old[0]]}; open it with that version, or use another directory"
        )
    return config, fingerprints


def write_config(config, workdir: str, fingerprints: dict) -> None:
    """Writes `config`, and the fingerprints of what the run rests on, to the workdir; whole or not at all."""
    text = json.dumps(config.to_dict() | {_FINGERPRINTS: fingerprints}, indent=2)
    files.write_text(os.path.join(workdir, "config.json"), text)


def fingerprints(directory: str, files: dict[str, str], **questions: Questions) -> dict[str, str]:
    """Name -> checksum of what a run rests on beside its config.

    That is the policy and the tokenizer in `directory`, `files` (name -> a file, or a model's directory), and
    questions with their answers, labels and columns.
    """
    parts = {"policy": {}, "tokenizer": {}}
    for name, digest in huggingface.fingerprint(directory).items():
        parts["policy" if name.endswith(".safetensors") or name == "config.json" else "tokenizer"][name] = digest
    parts |= {name: huggingface.fingerprint(path) for name, path in files.items() if path}
    for name, q in questions.items():
        parts[name] = [q.texts, q.answers, np.asarray(q.labels).tolist()]
        parts[name] += [part for part in (q.repeats, q.columns) if part]
    texts = {name: json.dumps(part, default=str) for name, part in parts.items()}  # parquet has dates, for one
    return {name: hashlib.sha256(text.encode()).hexdigest()[:20] for name, text in texts.items()}


def same_inputs(prints: dict[str, str], workdir: str, mended: bool | None = None) -> None:
    """Raises UserError at the first fingerprint in which what the run in `workdir` began with differs.

    `mended`: whether another reward will do; None: it never does.
    """
    began = _read(workdir)[1] if workdirs.has_begun(workdir, 1) else prints
    if not began:
        raise UserError(f"{workdir} holds a run of an earlier version; use another --workdir")
    changed = [name for name, value in prints.items() if began.get(name) != value]
    changed = [name for name in changed if name != _REWARD or not mended]
    if changed:
        asks = changed[0] == _REWARD and mended is not None
        go_on = ", or --config.train.mended_reward=True to continue with this one" if asks else ""
        raise UserError(
            f"{workdir} began with another {changed[0].replace('_', ' ')} than is there now; bring the old one back to "
            f"continue{go_on}, or use another --workdir"
        )


def identity(config, fingerprints: dict[str, str]) -> str:
    """A checksum of all that may not change when a run continues; its checkpoints hold it."""
    fixed = {name: value for name, value in flatten(config.to_dict()).items() if not name.startswith(FREE + BUFFER)}
    fingerprints = {name: value for name, value in fingerprints.items() if name != _REWARD}  # `same_inputs` has a say
    return hashlib.sha256(json.dumps([fixed, fingerprints], sort_keys=True).encode()).hexdigest()[:20]


def check_shared(workdir: str) -> None:
    """Returns when all processes see the config that the main one has written. Raises UserError where one does not."""
    distributed.barrier("the config is written")
    path, tries = os.path.join(workdir, "config.json"), 60
    while tries and not os.path.exists(path):  # a network file system may show it late
        time.sleep(1)
        tries -= 1
    if not distributed.gather(os.path.exists(path)).all():
        raise UserError(f"--workdir={workdir} must be on a file system that all processes share; use another")


def differences(config, workdir: str) -> Iterator[tuple[str, Any, Any]]:
    """Dotted name, value there and value here of what differs from the config in `workdir`; None: it is not there."""
    old, new = flatten(read(workdir)), flatten(json.loads(json.dumps(config.to_dict())))
    for name in sorted(old.keys() | new.keys()):
        if old.get(name) != new.get(name):
            yield name, old.get(name), new.get(name)


def same_run(config, workdir: str) -> None:
    """Raises UserError at the first setting in which the run in `workdir` differs, but for those that may change."""
    names = ("checkpoints", "config.json", metrics.FILE)
    exist = distributed.gather([os.path.exists(os.path.join(workdir, name)) for name in names])
    if (exist != exist[0]).any():
        raise UserError(f"not all processes see the same in {workdir}; --workdir must be on a file system they share")
    if not workdirs.has_begun(workdir, 1):  # a run that made no step starts anew
        if os.path.exists(os.path.join(workdir, metrics.FILE)):
            read(workdir)  # raises where it is somebody else's
        return
    fixed = ("train.steps",) if selection.find(config.selection.name).depends_on_steps else ()
    free = tuple(name for name in FREE if name not in fixed)
    free += BUFFER if config.train.empty_buffer else ()
    for name, old, new in differences(config, workdir):
        if name.startswith(free):
            continue
        if old is None:
            raise UserError(f"{workdir} holds a run of a version without config.{name}; use another --workdir")
        emptied = ", or --config.train.empty_buffer=True to do so without its buffer" if name.startswith(BUFFER) else ""
        raise UserError(
            f"{workdir} holds a run with config.{name}={old!r}, not {new!r}; give the same setting to continue it"
            f"{emptied}, or use another --workdir"
        )
