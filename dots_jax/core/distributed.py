"""One run as several processes: how they find each other, which of them writes, and what the host sees of all devices.

Every process runs the same program on the same inputs, so that all dispatch the same computations in the same order.
Files are read by all and written by the main process alone; with one process everything here does nothing.
"""

import os
import re
import sys
import threading
import time

import jax
import numpy as np
from jax.experimental import multihost_utils

from dots_jax.core.errors import UserError, flush, tell

_JOIN_SECONDS = 300  # hosts of a pod or a queue start minutes apart
_joined = False


def initialize(
    distributed: bool = False,
    coordinator: str | None = None,
    num_processes: int | None = None,
    process_id: int | None = None,
    environ=os.environ,
) -> bool:
    """Joins the other processes, if flags or environment ask for it; to be called before any device is touched.

    Returns whether they did.

    Args:
      distributed: JAX finds out the rest, on TPU VMs, under SLURM, Open MPI or Kubernetes; or DOTS_DISTRIBUTED=1.
      coordinator: HOST:PORT at which process 0 can listen and all others reach it; or DOTS_COORDINATOR.
      num_processes: of all hosts together; or DOTS_NUM_PROCESSES.
      process_id: of this one, from 0; or DOTS_PROCESS_ID.
      environ: the environment. In it DOTS_JOIN_SECONDS is how long to wait for the others.

    Raises UserError for values that are wrong or lacking, or where JAX cannot find the others.
    """
    global _joined
    given = {
        "coordinator": environ.get("DOTS_COORDINATOR") if coordinator is None else coordinator,
        "num_processes": _whole(environ, "DOTS_NUM_PROCESSES", 1) if num_processes is None else num_processes,
        "process_id": _whole(environ, "DOTS_PROCESS_ID", 0) if process_id is None else process_id,
    }
    explicit = any(value is not None for value in given.values())
    auto = environ.get("DOTS_DISTRIBUTED", "")
    if auto not in ("", "0", "1"):
        raise UserError(f"DOTS_DISTRIBUTED={auto} must be 1 or 0")
    if not (explicit or distributed or auto == "1"):
        return False
    where = "the hosts that JAX has found"
    if explicit:
        for name, value in given.items():
            if value is None:
                raise UserError(
                    f"--coordinator, --num_processes and --process_id go together: --{name} (or DOTS_{name.upper()}) "
                    "is missing"
                )
        where, count, index = given.values()
        if not re.fullmatch(r"\S+:\d{1,5}", where) or not 0 < int(where.rpartition(":")[2]) < 2**16:
            raise UserError(f"--coordinator={where} must be HOST:PORT, such as 10.0.0.1:8476")
        if not 0 <= index < count <= 2**20:
            raise UserError(
                f"--process_id={index} must be from 0 to below --num_processes={count}, and that at most {2**20:,}"
            )
    seconds = _whole(environ, "DOTS_JOIN_SECONDS", 1) or _JOIN_SECONDS
    jax.config.update("jax_cpu_collectives_implementation", "gloo")  # read where the devices are CPUs
    jax.config.update("jax_enable_preemption_service", False)  # would swallow SIGTERM
    # JAX's own time limit ends the process from within C++, with a page of stack.
    name = f"process {given['process_id']}" if explicit else "this process"
    timer = threading.Timer(seconds, _give_up, [f"{name} has not met all others at {where} within {seconds} s"])
    timer.daemon = True
    timer.start()
    try:
        jax.distributed.initialize(
            *given.values(),
            cluster_detection_method="deactivate" if explicit else None,
            initialization_timeout=seconds + 60,
        )
    except (RuntimeError, ValueError, OSError, KeyError) as error:
        how = "; where JAX does not find them itself give --coordinator, --num_processes and --process_id"
        reason = str(error).rstrip(".") + ("" if explicit else how)
        raise UserError(f"cannot join the other processes: {reason}") from error
    finally:
        timer.cancel()
    _joined = True
    hook = sys.excepthook

    def fail(*error):
        hook(*error)
        leave(1)

    sys.excepthook = fail
    return True


def leave(code: int) -> int:
    """Returns the exit code, if it is 0 or this process is the only one; otherwise ends the process with it.

    At once, because JAX waits at exit for processes that wait for this one in the middle of a step.
    """
    if code and _joined:
        flush()
        if is_main():
            time.sleep(2)  # all others end with it: let those that have come to the same error say so
        os._exit(code)
    return code


def is_main() -> bool:
    """Whether this is the process that writes."""
    return not _several() or jax.process_index() == 0


def main_only(function):
    """`function` on the main process; on the others one that does nothing, and in place of a class makes a `Silent`."""
    if is_main():
        return function
    return lambda *args, **kwargs: Silent(function) if isinstance(function, type) else None


class Silent:
    """Has the methods of a class; none of them does anything. Raises AttributeError for other names."""

    def __init__(self, kind: type):
        self._kind = kind

    def __getattr__(self, name: str):
        value = getattr(self._kind, name)
        return (lambda *args, **kwargs: None) if callable(value) else value

    def __enter__(self):
        return self

    def __exit__(self, *error):
        return None


def barrier(name: str) -> None:
    """Returns when all processes have come here."""
    if _several():
        multihost_utils.sync_global_devices(name)


def gather(value) -> np.ndarray:
    """What a number or truth value is on each process, [processes]."""
    return multihost_utils.process_allgather(np.asarray(value)) if _several() else np.array([value])


def from_main(make, like: np.ndarray) -> np.ndarray:
    """What `make()` returns on the main process, which alone calls it; `like` has its shape and dtype."""
    return multihost_utils.broadcast_one_to_all(make() if is_main() else like) if _several() else make()


def to_host(tree):
    """Numpy copies of arrays, whole on every process, wherever they lie; all processes must call it."""

    def whole(x):
        if isinstance(x, jax.Array) and not (x.is_fully_addressable or x.is_fully_replicated):
            return multihost_utils.process_allgather(x, tiled=True)
        return x

    return jax.tree.map(np.asarray, jax.device_get(jax.tree.map(whole, tree)))


def _several() -> bool:
    return jax.distributed.is_initialized()  # asks no device: that there is one has not been checked yet


def _whole(environ, name: str, least: int) -> int | None:
    text = environ.get(name, "")
    if text and not (text.isdecimal() and int(text) >= least):
        raise UserError(f"{name}={text} must be a whole number of at least {least}")
    return int(text) if text else None


def _give_up(message: str) -> None:
    tell(f"{message}; are they all up, and is that address the same for all and reachable?")
    os._exit(2)
