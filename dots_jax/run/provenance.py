"""What a run was started from: `versions.json`, an entry for each start, and `code.diff`, what no commit has."""

import datetime
import hashlib
import importlib.metadata
import json
import os
import pathlib
import platform
import shlex
import subprocess
import sys

import jax

from dots_jax.core import files

VERSIONS, DIFF = "versions.json", "code.diff"
_PACKAGES = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy", "transformers")
_LONGEST, _NEW_FILES = 2**20, 100  # characters of a diff; new files in it


def record(workdir: str) -> None:
    """Notes a start of the run. `code.diff` is of the last one; another is kept as `code.N.diff`, N its last start."""
    entries, path = starts(workdir), os.path.join(workdir, DIFF)
    commit, diff = _code()
    before = pathlib.Path(path).read_bytes().decode() if os.path.exists(path) else ""
    if before and before != diff:
        kept = DIFF.replace(".", f".{len(entries)}.")
        os.replace(path, os.path.join(workdir, kept))
        entries = [start | ({"diff": kept} if start["diff"] == DIFF else {}) for start in entries]
    if diff != before and diff:
        files.write_text(path, diff)
    entries.append({
        "time": datetime.datetime.now(datetime.UTC).isoformat(),
        "workdir": os.path.abspath(workdir),
        "command": shlex.join(sys.orig_argv),
        "commit": commit,
        "diff": DIFF if diff else None,
        "python": platform.python_version(),
        **{name: _version(name) for name in _PACKAGES},
        "platform": platform.platform(),
        "device": f"{jax.device_count()} x {jax.devices()[0].device_kind}",
        "processes": jax.process_count(),
        "XLA_FLAGS": os.environ.get("XLA_FLAGS", ""),
    })  # fmt: skip
    files.write_text(os.path.join(workdir, VERSIONS), json.dumps(entries, indent=2))


def run_id(workdir: str) -> str:
    """What names the run in `workdir` wherever it is continued, or moved to: a checksum of its first start."""
    first = [starts(workdir)[0][name] for name in ("time", "workdir")]
    return hashlib.sha256(json.dumps(first).encode()).hexdigest()[:16]


def starts(workdir: str) -> list[dict]:
    """The entries of `versions.json`, the latest last; none where the file is damaged."""
    try:
        with open(os.path.join(workdir, VERSIONS), encoding="utf-8") as file:
            entries = files.parse(file.read())
        return [start for start in entries if {"time", "workdir", "diff"} <= start.keys()]
    except (OSError, ValueError, TypeError, AttributeError):
        return []


def _code() -> tuple[str | None, str]:
    """The commit of the checkout that the package lies in, None: it is none; and what differs from it."""
    try:
        top = _git("rev-parse", "--show-toplevel").strip()
        if not top or not os.path.samefile(top, files.ROOT):
            return None, ""
        diff = _git("diff", "--no-ext-diff", "--no-color", "HEAD")
        new = _git("ls-files", "--others", "--exclude-standard", "-z", "--", "*.py").split("\0")[:-1]
        for name in new[:_NEW_FILES]:
            diff += _git("diff", "--no-ext-diff", "--no-color", "--no-index", "--", os.devnull, name)
        if len(diff) > _LONGEST or len(new) > _NEW_FILES:
            diff = (
                f"{diff[:_LONGEST]}\n... and more: only {_LONGEST:,} characters and {_NEW_FILES} new files are kept\n"
            )
        return _git("rev-parse", "HEAD").strip() or None, diff
    except (OSError, subprocess.SubprocessError):
        return None, ""


def _git(*words: str) -> str:
    command = ["git", "-C", files.ROOT, *words]
    environ = os.environ | {"GIT_OPTIONAL_LOCKS": "0"}
    return subprocess.run(command, capture_output=True, env=environ, timeout=30).stdout.decode(errors="replace")


def _version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None
