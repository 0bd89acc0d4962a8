"""Checkpoints: everything that the next step reads, written by Orbax."""

import functools
import json
import logging
import os
import pathlib
import re
import sys
import zlib

import jax
import numpy as np
import orbax.checkpoint as ocp

from dots_jax.core.errors import UserError, first_line, no_room


class Checkpointer:
    """Numbered checkpoints in one directory, the newest `keep` of them; nothing is created before `save`.

    Trees may hold jax arrays (not typed PRNG keys), numpy arrays and Python ints, floats and bools. `run` identifies
    the run, and what another one has saved is refused; "": whoever has saved it.
    """

    def __init__(self, directory: str, keep: int = 2, run: str = ""):
        self.directory = os.path.abspath(directory)
        self._keep, self._run, self._lines = keep, run, {}
        self._opened = None

    @property
    def _manager(self) -> ocp.CheckpointManager:
        if self._opened is None:
            options = ocp.CheckpointManagerOptions(
                max_to_keep=self._keep,
                cleanup_tmp_directories=True,
                async_options=ocp.AsyncOptions(post_finalization_callback=self._write_sums),
            )
            _silence()
            self._opened = ocp.CheckpointManager(
                self.directory, item_handlers=ocp.StandardCheckpointHandler(), options=options
            )
        return self._opened

    def latest(self) -> int | None:
        """The newest complete checkpoint's step."""
        return max(steps(self.directory), default=None)

    def save(self, step: int, tree, lines: dict[str, int] | None = None) -> None:
        """Copies `tree` and writes it in the background; a step that is already there stays as it is.

        `lines` is kept beside it: checksums of other files of the run, as they are now.
        Raises UserError where this or the save before could not be written, as `wait` and `close` do.
        """
        # numpy arrays are copied: the caller may change them while the writer still reads
        flat = {name: leaf if isinstance(leaf, jax.Array) else np.array(leaf) for name, leaf in _flatten(tree)}
        self._lines[step] = lines or {}
        if step not in self._manager.all_steps():
            self._write(lambda: self._manager.save(step, args=ocp.args.StandardSave(flat)))

    def restore(self, step: int, abstract_tree, optional: str | None = None):
        """The tree saved at `step`, in the structure of `abstract_tree`.

        What lies under the name `optional` is None if it was saved in other shapes, or not at all.

        A `jax.ShapeDtypeStruct` or jax array becomes a jax array with that leaf's sharding (of the first device
        if it names none), a numpy array a numpy array, a Python number a number of that type. Raises UserError if
        the checkpoint is of another run, cannot be read, or a name, shape or dtype differs; `damage` sees more.
        """
        path = os.path.join(self.directory, str(step))
        leaves = _flatten(abstract_tree)
        expected = {name: _abstract(leaf) for name, leaf in leaves}
        try:
            if self._run and _read_sums(pathlib.Path(path))["run"] != self._run:
                raise UserError(f"checkpoint {path} is of another run; take it away, or use another --workdir")
            saved = dict(self._manager.item_metadata(step))
            dropped = _differing(saved, expected, optional)
            # Orbax reads whole trees: what is dropped comes to the host on the way.
            expected = {n: x for n, x in expected.items() if n not in dropped}
            expected |= {n: np.empty(saved[n].shape, saved[n].dtype) for n in dropped & saved.keys()}
            _compare(path, saved, expected)
            flat = self._manager.restore(step, args=ocp.args.StandardRestore(expected))
        except UserError:
            raise
        except Exception as error:
            raise UserError(
                f"checkpoint {path} cannot be read ({_reason(error)}); move that directory away to continue from the "
                "checkpoint before it, or use another --workdir"
            ) from error
        flat |= dict.fromkeys(dropped)
        values = [
            type(leaf)(flat[name]) if isinstance(leaf, bool | int | float) else flat[name] for name, leaf in leaves
        ]
        return jax.tree.unflatten(jax.tree.structure(abstract_tree), values)

    def wait(self) -> None:
        """Returns when the last save is on disk."""
        if self._opened is not None:
            self._write(self._opened.wait_until_finished)

    def close(self) -> None:
        """Waits and lets the background threads go."""
        if self._opened is not None:
            self._write(self._opened.close)
            self._opened = None

    def _write(self, function) -> None:
        try:
            function()
        except Exception as error:  # of Orbax, tensorstore and the system: many kinds
            mend = "make room" if no_room(error) else "mend that"
            raise UserError(
                f"a checkpoint in {self.directory} cannot be written ({_reason(error)}); {mend}, then the same command "
                "continues from the checkpoint before it"
            ) from error

    def _write_sums(self) -> None:
        """Runs on the main process, when all have written their files and before the directory gets its final name."""
        for path in pathlib.Path(self.directory).glob(f"*{_PARTIAL}"):
            lines = self._lines[int(path.name.removesuffix(_PARTIAL))]
            sums = {"run": self._run, "lines": lines, "files": dict(_sums(path))}
            (path / _SUMS).write_text(json.dumps(sums | {"crc32": _sum_of(sums)}))


_SUMS, _PARTIAL, _NOTES = "crc32.json", ".orbax-checkpoint-tmp", "_CHECKPOINT_METADATA"


def steps(directory: str) -> list[int]:
    """Of the checkpoints there, oldest first; what an interrupted save has left is none."""
    return sorted(int(name) for name in os.listdir(directory) if name.isdigit()) if os.path.isdir(directory) else []


def lines(path: str) -> dict[str, int]:
    """The checksums that were kept beside a checkpoint; {} where they are damaged."""
    try:
        return _read_sums(pathlib.Path(path))["lines"]
    except ValueError:
        return {}


def damage(path: str) -> str:
    """What is wrong with the files of a checkpoint; "" where they are as they were written.

    Reads them all: Orbax would take a flipped bit for a weight.
    """
    try:
        kept, now = _read_sums(pathlib.Path(path))["files"], dict(_sums(pathlib.Path(path)))
        if not isinstance(json.loads((pathlib.Path(path) / _NOTES).read_bytes()), dict):
            raise ValueError
    except (OSError, ValueError) as error:
        return str(error) if _SUMS in str(error) else f"{_NOTES} is missing or damaged"
    faults = [f"{name} is missing" for name in kept if name not in now]
    faults += [f"{name} is damaged" for name in kept if name in now and now[name] != kept[name]]
    return faults[0] if faults else ""


def _sums(path: pathlib.Path):
    """(name, checksum) of the arrays' files, read in pieces: they can be larger than the host's memory."""
    for file in sorted(path.rglob("*")):
        name = str(file.relative_to(path)).replace(_PARTIAL, "")
        if "/" in name and not name.endswith("commit_success.txt") and file.is_file():
            total = 0
            with file.open("rb") as f:
                while piece := f.read(2**24):
                    total = zlib.crc32(piece, total)
            yield name, total


def _sum_of(sums: dict) -> int:
    return zlib.crc32(json.dumps([sums["run"], sums["lines"], sums["files"]]).encode())


def _read_sums(path: pathlib.Path) -> dict:
    """What `_write_sums` wrote. Raises ValueError."""
    try:
        sums = json.loads((path / _SUMS).read_text())
        if sums["crc32"] == _sum_of(sums):
            return sums
    except (OSError, ValueError, KeyError, TypeError):
        pass
    raise ValueError(f"{_SUMS} is missing or damaged")


def _flatten(tree) -> list:
    """(name, leaf) pairs; a flat dictionary is saved, so that no container type is part of the format."""
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return [(jax.tree_util.keystr(path, simple=True, separator="/"), leaf) for path, leaf in leaves]


def abstract(tree):
    """`tree` with shapes and shardings in place of its jax arrays, which can then be freed before a restore."""
    return jax.tree.map(lambda x: _abstract(x) if isinstance(x, jax.Array) else x, tree)


def _abstract(leaf):
    if isinstance(leaf, jax.Array | jax.ShapeDtypeStruct):
        sharding = leaf.sharding or jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
        return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding)
    return np.asarray(leaf)


def _differing(saved: dict, expected: dict, prefix: str | None) -> set[str]:
    """All names under `prefix`, where any of them is not the same in both; otherwise none."""
    if prefix is None:
        return set()
    a, b = ({n: tuple(x.shape) for n, x in tree.items() if n.startswith(prefix)} for tree in (saved, expected))
    return set() if a == b else a.keys() | b.keys()


def _compare(path: str, saved: dict, expected: dict) -> None:
    """Raises UserError at the first field whose presence, shape or dtype differs."""
    kinds, here = ({n: f"{np.dtype(x.dtype).name}{list(x.shape)}" for n, x in t.items()} for t in (saved, expected))
    if kinds == here:
        return
    name = next(name for name in [*here, *kinds] if kinds.get(name) != here.get(name))
    difference = f"{name} is {kinds.get(name)} there, {here.get(name)} in this run"
    if name not in kinds:
        difference = f"it lacks the field {name}"
    elif name not in here:
        difference = f"it has a field {name} that this run has not"
    raise UserError(
        f"checkpoint {path} does not fit this run: {difference}; "
        "start with the config that wrote it, or with another --workdir"
    )


def _reason(error: Exception) -> str:
    """The error's first line, or what the system said of it."""
    words = re.search(r"No space left on device|File too large|Disk quota exceeded|Permission denied", str(error))
    return words[0] if words else first_line(error, typed=True)


@functools.cache  # once a process
def _silence() -> None:
    """Keeps Orbax's threads from the screen: what goes wrong in them is raised where the run waits for them.

    They report through absl's logger; tensorstore, whose writes end after one has failed, through `sys.unraisablehook`.
    """
    for name in ("absl", "asyncio"):
        logging.getLogger(name).setLevel(logging.CRITICAL)
    show = sys.unraisablehook
    sys.unraisablehook = lambda error: None if str(error.exc_value) == "Event loop is closed" else show(error)
