"""A run's directory: who holds it, what a refused start leaves there, and from which step a run continues."""

import contextlib
import glob
import os
import shutil
import socket
from typing import IO, NamedTuple

import numpy as np

from dots_jax.core.distributed import from_main, is_main
from dots_jax.core.errors import UserError, tell
from dots_jax.run import checkpoint, metrics

LOCK = "lock"
EXPORT = "policy"  # the trained policy
CHECKPOINTS, ASIDE = "checkpoints", "checkpoints_aside"


class Claim:
    """One process's hold on a workdir, as a context.

    An existing workdir is locked at once, a new one when `take` makes it. The system frees the lock of a process that
    ends, however it ends. A run that is refused before it has measured anything leaves no file behind. Raises UserError
    where another process holds the workdir, or has begun a run in a new one.
    """

    def __init__(self, workdir: str):
        self._workdir, self._lock = workdir, None
        parents = [os.path.abspath(workdir)]
        while not os.path.exists(parents[-1]):
            parents.append(os.path.dirname(parents[-1]))
        self._new = parents[:-1]  # directories that `take` makes, innermost first
        self._before = set() if self._new else set(os.listdir(workdir))

    def __enter__(self) -> "Claim":
        if not self._new:
            self.take()
        return self

    def take(self) -> None:
        """Makes the workdir where it is new, locks it, and removes what a killed writer has left half-written."""
        if self._lock is not None:
            return
        os.makedirs(self._workdir, exist_ok=True)
        self._lock = _lock(self._workdir)
        if self._new and has_begun(self._workdir):
            raise UserError(f"another run has begun in {self._workdir} in the meantime; use another --workdir")
        for path in glob.glob(os.path.join(glob.escape(self._workdir), "*.partial")):
            os.remove(path)

    def __exit__(self, kind, *_) -> None:
        if self._lock is None:
            return
        if kind and issubclass(kind, UserError | OSError) and not has_begun(self._workdir):
            for name in set(os.listdir(self._workdir)) - self._before - {LOCK}:
                path = os.path.join(self._workdir, name)
                shutil.rmtree(path) if os.path.isdir(path) else os.remove(path)
        os.remove(os.path.join(self._workdir, LOCK))
        self._lock.close()
        for path in self._new:
            with contextlib.suppress(OSError):  # it holds something
                os.rmdir(path)


def _lock(workdir: str) -> IO | None:
    """The open lock file, which names the process that holds it."""
    import fcntl

    path = os.path.join(workdir, LOCK)
    while True:
        file = open(path, "a+", encoding="utf-8")  # noqa: SIM115
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            holder = file.read().strip() or "another process"
            file.close()
            raise UserError(
                f"{workdir} is in use by {holder}; wait for it or end it, or use another --workdir"
            ) from None
        except OSError as error:
            tell(f"no lock in {workdir} ({error.strerror}); start no second run there", "warning")
        with contextlib.suppress(FileNotFoundError):  # its last holder has removed it in the meantime
            if os.path.samestat(os.fstat(file.fileno()), os.stat(path)):
                break
        file.close()
    file.truncate(0)
    file.write(f"process {os.getpid()} on {socket.gethostname()}\n")
    file.flush()
    return file


def has_begun(workdir: str, step: int = 0) -> bool:
    """Whether a run has measured something there at `step` or later, or left a checkpoint, or an evaluation a batch."""
    return bool(
        checkpoint.steps(os.path.join(workdir, CHECKPOINTS))
        or any(row["step"] >= step for row in metrics.read(workdir))
        or metrics.read(workdir, metrics.COMPLETIONS, key="batch")
    )


class ResumePoint(NamedTuple):
    """Where a run continues."""

    step: int  # of the newest checkpoint that is whole; 0: there is none
    faults: dict[int, str]  # what is wrong with each newer one
    past: dict[str, list[dict]]  # the lines of `metrics.past` up to the step


def resume_point(workdir: str) -> ResumePoint:
    """Where the run in `workdir` continues, the same on all processes; only the main one looks for faults.

    The lines up to the checkpoint must be as they were. Raises UserError where no checkpoint can be used.
    """
    past = metrics.past(workdir)
    step, faults = _newest_whole(os.path.join(workdir, CHECKPOINTS), past) if is_main() else (0, {})
    step = int(from_main(lambda: np.int32(step), np.int32(0)))
    lines = {name: [row for row in rows if step and row["step"] <= step] for name, rows in past.items()}
    return ResumePoint(step, faults, lines)


def _newest_whole(directory: str, past: dict[str, list[dict]]) -> tuple[int, dict[int, str]]:
    """The step of the newest whole checkpoint, and what is wrong with each newer one."""
    sums, faults = {name: metrics.sums(rows) for name, rows in past.items()}, {}
    for step in checkpoint.steps(directory)[::-1]:
        fault = _fault(os.path.join(directory, str(step)), step, sums)
        if not fault:
            return step, faults
        faults[step] = fault
    if faults:
        reasons = "; ".join(f"{step}: {fault}" for step, fault in faults.items())
        raise UserError(
            f"no checkpoint in {directory} can be continued from ({reasons}); bring the files back as they were, "
            "or use another --workdir"
        )
    return 0, faults


def _fault(path: str, step: int, sums: dict[str, dict[int, int]]) -> str:
    """Why the run cannot continue from the checkpoint `path`, "" where it can; `sums` are those of the files' lines."""
    for name, by_step in sums.items():
        if step not in by_step:
            return f"{name} lacks steps after {max(by_step, default=0)}"
    for name, kept in checkpoint.lines(path).items():
        if sums[name][step] != kept:
            return f"{name} has changed"
    return checkpoint.damage(path)


def set_aside(workdir: str, resume: ResumePoint) -> None:
    """Moves the checkpoints that have faults to `checkpoints_aside`, and says so."""
    for step, fault in resume.faults.items():
        aside = os.path.join(workdir, ASIDE, str(step))
        shutil.rmtree(aside, ignore_errors=True)
        os.makedirs(os.path.dirname(aside), exist_ok=True)
        os.rename(os.path.join(workdir, CHECKPOINTS, str(step)), aside)
        tell(f"checkpoint {step} is moved to {aside} ({fault}); the run continues from step {resume.step}", "warning")
