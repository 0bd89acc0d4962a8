"""Checkpoints: everything that the next step reads, written by Orbax."""

import contextlib
import json
import logging
import os
import pathlib
import zlib

import jax
import numpy as np
import orbax.checkpoint as ocp
from etils import epath

from dots_jax.errors import UserError


class Checkpointer:
    """Numbered checkpoints in one directory, the newest `keep` of them; nothing is created before `save`.

    Trees may hold jax arrays (not typed PRNG keys), numpy arrays and Python ints, floats and bools.
    """

    def __init__(self, directory: str, keep: int = 2):
        self.directory = os.path.abspath(directory)
        self._keep = keep
        self._opened = None

    @property
    def _manager(self) -> ocp.CheckpointManager:
        if self._opened is None:
            options = ocp.CheckpointManagerOptions(
                max_to_keep=self._keep,
                cleanup_tmp_directories=True,
                async_options=ocp.AsyncOptions(post_finalization_callback=self._write_sums),
            )
            with _quiet():
                self._opened = ocp.CheckpointManager(
                    self.directory, item_handlers=ocp.StandardCheckpointHandler(), options=options
                )
        return self._opened

    def latest(self) -> int | None:
        """The newest complete checkpoint's step; starts to remove what an interrupted save left behind."""
        return self._manager.latest_step() if epath.Path(self.directory).exists() else None

    def save(self, step: int, tree) -> None:
        """Copies `tree` and writes it in the background; a step that is already there stays as it is."""
        flat = {}
        for name, leaf in _flatten(tree):
            # numpy arrays are copied: the caller may change them while the writer still reads
            flat[name] = leaf if isinstance(leaf, jax.Array) else np.array(leaf)
        if step not in self._manager.all_steps():
            with _quiet():
                self._manager.save(step, args=ocp.args.StandardSave(flat))

    def restore(self, step: int, abstract_tree, optional: str | None = None):
        """The tree saved at `step`, in the structure of `abstract_tree`.

        What lies under the name `optional` is None if it was saved in other shapes, or not at all.

        A `jax.ShapeDtypeStruct` or jax array becomes a jax array with that leaf's sharding (of the first device
        if it names none), a numpy array a numpy array, a Python number a number of that type. Raises UserError if
        files are damaged or a name, shape or dtype differs.
        """
        path = os.path.join(self.directory, str(step))
        leaves = _flatten(abstract_tree)
        wanted = {name: _abstract(leaf) for name, leaf in leaves}
        _check_sums(path)
        with _quiet():
            try:
                saved = dict(self._manager.item_metadata(step))
            except Exception as error:
                raise _unreadable(path, error) from error
            dropped = _differing(saved, wanted, optional)
            # Orbax reads whole trees: what is dropped comes to the host on the way.
            wanted = {n: x for n, x in wanted.items() if n not in dropped}
            wanted |= {n: np.empty(saved[n].shape, saved[n].dtype) for n in dropped & saved.keys()}
            _compare(path, saved, wanted)
            try:
                flat = self._manager.restore(step, args=ocp.args.StandardRestore(wanted))
            except Exception as error:
                raise _unreadable(path, error) from error
        flat |= dict.fromkeys(dropped)
        values = [
            type(leaf)(flat[name]) if isinstance(leaf, bool | int | float) else flat[name] for name, leaf in leaves
        ]
        return jax.tree.unflatten(jax.tree.structure(abstract_tree), values)

    def wait(self) -> None:
        """Returns when the last save is on disk; raises what went wrong while writing it."""
        if self._opened is not None:
            self._opened.wait_until_finished()

    def close(self) -> None:
        """Waits and lets the background threads go."""
        if self._opened is not None:
            with _quiet():
                self._opened.close()
            self._opened = None

    def _write_sums(self) -> None:
        """Runs on the main process, when all have written their files and before the directory gets its final name."""
        for path in pathlib.Path(self.directory).glob(f"*{_PARTIAL}"):
            (path / _SUMS).write_text(json.dumps(dict(_sums(path))))


_SUMS, _PARTIAL = "crc32.json", ".orbax-checkpoint-tmp"


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


def _check_sums(path: str) -> None:
    """Raises UserError at the first file that is not as it was written: Orbax would read a flipped bit."""
    if not os.path.exists(os.path.join(path, _SUMS)):
        return
    path = pathlib.Path(path)
    try:
        wanted, found = json.loads((path / _SUMS).read_text()), dict(_sums(path))
    except (OSError, ValueError) as error:
        raise _unreadable(path, error) from error
    for name, crc in wanted.items():
        if name not in found:
            raise _unreadable(path, FileNotFoundError(f"{name} is missing"))
        if found[name] != crc:
            raise _unreadable(path, ValueError(f"{name} is damaged"))


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


def _differing(saved: dict, wanted: dict, prefix: str | None) -> set[str]:
    """All names under `prefix`, where any of them is not the same in both; otherwise none."""
    if prefix is None:
        return set()
    a, b = ({n: tuple(x.shape) for n, x in tree.items() if n.startswith(prefix)} for tree in (saved, wanted))
    return set() if a == b else a.keys() | b.keys()


def _compare(path: str, saved: dict, wanted: dict) -> None:
    """Raises UserError at the first field whose presence, shape or dtype differs."""
    for name in [*wanted, *saved]:
        has, wants = saved.get(name), wanted.get(name)
        if has is None:
            difference = f"it lacks the field {name}"
        elif wants is None:
            difference = f"it has a field {name} that this run has not"
        elif tuple(has.shape) != tuple(wants.shape) or np.dtype(has.dtype) != np.dtype(wants.dtype):
            difference = (
                f"{name} is {np.dtype(has.dtype).name}{list(has.shape)} there, "
                f"{np.dtype(wants.dtype).name}{list(wants.shape)} in this run"
            )
        else:
            continue
        raise UserError(
            f"checkpoint {path} does not fit this run: {difference}; "
            "start with the config that wrote it, or with another --workdir"
        )


def _unreadable(path, error: Exception) -> UserError:
    lines = str(error).strip().splitlines() or [""]
    return UserError(
        f"checkpoint {path} cannot be read ({type(error).__name__}: {lines[0][:120]}); delete that directory to "
        "continue from the checkpoint before it, or use another --workdir"
    )


@contextlib.contextmanager
def _quiet():
    """Orbax reports its routine through absl's logger; what goes wrong is raised as well."""
    loggers = [logging.getLogger(name) for name in ("absl", "asyncio")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
