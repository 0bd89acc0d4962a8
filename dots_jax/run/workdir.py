"""A run's directory: who holds it, what a refused start leaves there, and from which step a run continues."""

import contextlib
import glob
import os
import shutil
import socket
from typing import IO

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


def last_step(workdir: str, past: dict[str, list[dict]]) -> tuple[int, dict[int, str]]:
    """The step of the newest checkpoint that is whole (0: there is none), and what is wrong with each newer one.

    The lines of `metrics.past` up to it must be as they were. Raises UserError where no checkpoint can be used.
    """
    sums = {name: metrics.sums(rows) for name, rows in past.items()}
    bad, directory = {}, os.path.join(workdir, CHECKPOINTS)
    for step in checkpoint.steps(directory)[::-1]:
        path = os.path.join(directory, str(step))
        kept = checkpoint.lines(path)
        reasons = [
            f"{name} lacks steps after {max(found, default=0)}" for name, found in sums.items() if step not in found
        ]
        reasons += [f"{name} has changed" for name in kept if sums[name].get(step, kept[name]) != kept[name]]
        reason = reasons[0] if reasons else checkpoint.damage(path)
        if not reason:
            break
        bad[step] = reason
    else:
        step = 0
    if bad and not step:
        reasons = "; ".join(f"{step}: {reason}" for step, reason in bad.items())
        raise UserError(
            f"no checkpoint in {directory} can be continued from ({reasons}); bring the files back as they were, "
            "or use another --workdir"
        )
    return step, bad


def set_aside(workdir: str, bad: dict[int, str], step: int) -> None:
    """Moves the checkpoints that `last_step` has found `bad` to `checkpoints_aside`, and says so."""
    for torn, reason in bad.items():
        aside = os.path.join(workdir, ASIDE, str(torn))
        shutil.rmtree(aside, ignore_errors=True)
        os.makedirs(os.path.dirname(aside), exist_ok=True)
        os.rename(os.path.join(workdir, CHECKPOINTS, str(torn)), aside)
        tell(f"checkpoint {torn} is moved to {aside} ({reason}); the run continues from step {step}", "warning")
