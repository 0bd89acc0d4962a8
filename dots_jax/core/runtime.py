"""What the programs tell JAX before it touches a device: the memory to take, and where compiled programs are kept."""

import functools
import hashlib
import os
import platform
import re
import warnings
from pathlib import Path

import jax
import jax.numpy as jnp

from dots_jax.core.errors import tell

MEMORY_FRACTION = 0.92  # of a GPU, that JAX takes at once; NCCL, CUDA's libraries and autotuning need the rest
MEMORY_VARIABLE = "XLA_CLIENT_MEM_FRACTION"
_CACHE_VARIABLE = "JAX_COMPILATION_CACHE_DIR"
_SECONDS_VARIABLE = "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"


def start(cache: str | None) -> None:
    """Sets the memory fraction and the compilation cache; what the environment says goes before both.

    Args:
      cache: directory of compiled programs, or "off"; None: one in the user's cache.
    """
    if "XLA_PYTHON_CLIENT_MEM_FRACTION" not in os.environ:  # the old name; JAX refuses both
        os.environ.setdefault(MEMORY_VARIABLE, str(MEMORY_FRACTION))
    if _SECONDS_VARIABLE not in os.environ:  # a run has hundreds of programs that each compile within a second
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
    named = os.environ.get(_CACHE_VARIABLE, cache)
    directory = _of_the_user() if named is None else os.path.expanduser(named)
    _keep(None if directory in ("", "off") else directory)


def start_several(cache: str | None) -> None:
    """Keeps no compiled programs for several processes, unless a directory was named for it.

    Only process 0 writes. Where the others do not see its files they compile what it reads, and on GPUs they may wait
    for its part of the autotuning, which does not come.
    """
    if cache is None and _CACHE_VARIABLE not in os.environ:
        _keep(None)


def compilation_cache() -> str | None:
    """Returns the directory of compiled programs, None where they are not kept or it cannot be written."""
    directory = jax.config.jax_compilation_cache_dir if jax.config.jax_enable_compilation_cache else None
    if not directory or "://" in directory:
        return directory
    nearest = next(path for path in (Path(directory), *Path(directory).absolute().parents) if path.exists())
    return directory if nearest.is_dir() and os.access(nearest, os.W_OK) else None


def full_precision(dtype, platform: str | None = None) -> None:
    """Makes products of a float32 policy exact on accelerators, which round their factors to 8 or 11 bits otherwise.

    To be called before anything is compiled for the `platform`, None: where JAX runs by default. Products in 16 bits
    are left as they are.
    """
    if jnp.dtype(dtype) == jnp.float32 and (platform or jax.default_backend()) != "cpu":
        jax.config.update("jax_default_matmul_precision", "highest")


def _keep(directory: str | None) -> None:
    jax.config.update("jax_compilation_cache_dir", directory)
    if directory:
        _report_in_one_line()


def _of_the_user() -> str:
    """The directory for machines of this kind: a program for CPUs holds instructions that another may lack."""
    base = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    try:
        with open("/proc/cpuinfo", encoding="utf-8", errors="replace") as file:
            features = next((line for line in file if line.startswith(("flags", "Features"))), "")
    except OSError:
        features = platform.processor()
    kind = hashlib.sha256(f"{platform.machine()} {features}".encode()).hexdigest()[:8]
    return os.path.join(base, "dots_jax", "compiled", kind)


@functools.cache
def _report_in_one_line() -> None:
    """Says once that the cache cannot be read or written, in place of JAX's warning for each program.

    A damaged entry is deleted: JAX compiles the program anew, but never overwrites an entry.
    """
    show, reported = warnings.showwarning, []

    def report(message, *where, **how):
        match = re.match(r"Error (\w+) persistent compilation cache entry for '(.*?)': (.*)", str(message), re.DOTALL)
        directory = jax.config.jax_compilation_cache_dir
        if match is None or directory is None:
            return show(message, *where, **how)
        if not reported:
            why = " ".join(match[3].split())[:200]
            tell(f"compilation cache {directory}: {why}; programs are compiled anew", "warning")
            reported.append(why)
        if match[1] == "reading" and "://" not in directory and os.path.isdir(directory):
            for entry in Path(directory).glob(f"{match[2]}-*-cache"):
                try:
                    entry.unlink()
                except OSError:
                    return

    warnings.showwarning = report
