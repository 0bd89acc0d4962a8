"""`--compile`: the run's programs compiled for devices that need not be there, and what XLA says of their memory."""

import contextlib
import importlib.util
import os
import re
import time

import jax
from jax.experimental import topologies

from dots_jax.core.errors import UserError, first_line
from dots_jax.core.text import gib
from dots_jax.plan.footprint import Footprint
from dots_jax.plan.programs import Program, programs

GIB = 2**30
MEMORY = {"v5e": 15.75 * GIB, "v6e": 31.24 * GIB, "v5p": 95.73 * GIB}  # of a chip, that XLA may use
_KNOWN = "give v5e, v6e or v5p with its chips along each axis, such as v6e:2x4 or v5p:2x2x2, or up to 99 devices, cpu:8"
# Libtpu asks the cloud for what is not set here, and takes a lock as if there were a chip.
_ENVIRONMENT = {
    "TPU_SKIP_MDS_QUERY": "1",
    "TPU_WORKER_HOSTNAMES": "localhost",
    "TPU_ACCELERATOR_TYPE": "v5litepod-8",
    "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",
}
_COLUMNS = ("arguments", "temporaries", "code", "beside", "total", "plan", "seconds")


def devices(topology: str) -> tuple[list[jax.Device], float]:
    """The devices to compile for, and the bytes of each that a run may use.

    To be called before JAX looks for devices: it then waits for no accelerator.

    Raises:
      UserError: there is no such topology, or no compiler for it.
    """
    match = re.fullmatch(r"(v5e|v6e|v5p):[1-9]\d?(?:x[1-9]\d?){1,2}|cpu:([1-9]\d?)", topology)
    if match is None:
        raise UserError(f"--compile={topology} is no topology; {_KNOWN}")
    jax.config.update("jax_platforms", "cpu")
    if match[2]:
        return _host_devices(int(match[2]))
    if "TPU_LIBRARY_PATH" not in os.environ and importlib.util.find_spec("libtpu") is None:
        raise UserError(f"--compile={topology} needs the TPU's compiler: pip install -e '.[tpu]', on any Linux machine")
    for name, value in _ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    try:
        found = topologies.get_topology_desc(platform="tpu", topology_name=topology).devices
    except Exception as error:  # of libtpu and its loader, many kinds
        raise UserError(f"--compile={topology} cannot be had from libtpu: {first_line(error)}; {_KNOWN}") from error
    return found, MEMORY[match[1]]


def _host_devices(count: int) -> tuple[list[jax.Device], float]:
    """So many devices of this host, with a part of its memory each."""
    with contextlib.suppress(RuntimeError):  # of a process that has its devices already
        jax.config.update("jax_num_cpu_devices", count)
    found = jax.devices("cpu")
    if len(found) < count:
        raise UserError(f"--compile=cpu:{count} comes too late: this process has {len(found)} devices")
    return found[:count], os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / count


def check(held: Footprint, mesh: jax.sharding.Mesh) -> bool:
    """Compiles the run's programs for the mesh and prints a line for each; returns whether all compile and fit."""
    jax.config.update("jax_enable_compilation_cache", False)  # seconds are those of a first start
    print(f"\n{'GiB per device':16}" + "".join(f"{name:>12}" for name in _COLUMNS))
    phases, lacking = held.phases(), []
    for name, program in programs(held, mesh).items():
        started = time.time()
        try:
            compiled = program.lower().compile()
        except Exception as error:  # of the compiler, many kinds
            print(f"{name:16}  not compiled: {_reason(error)}", flush=True)
            lacking.append(name)
            continue
        seconds, sizes = time.time() - started, _sizes(program, compiled, phases)
        print(f"{name:16}" + "".join(f"{size / GIB:12.2f}" for size in sizes) + f"{seconds:12.0f}", flush=True)
        if sizes[_COLUMNS.index("total")] > held.device_bytes:
            lacking.append(name)
    print(f"on devices of {gib(held.device_bytes)} " + (f"do not fit: {', '.join(lacking)}" if lacking else "all fit"))
    return not lacking


def _reason(error: Exception) -> str:
    """In one line."""
    memory = re.search(r"Ran out of memory[^\n]* exceeds [^)\n]*\)", str(error))
    return memory[0] if memory else first_line(error, typed=True)


def _sizes(program: Program, compiled: jax.stages.Compiled, phases: dict[str, dict[str, int]]) -> list[float]:
    """Bytes, as in `_COLUMNS`; results that take no argument's place count as temporaries."""
    memory = compiled.memory_analysis()
    made = memory.temp_size_in_bytes + memory.output_size_in_bytes - memory.alias_size_in_bytes
    kinds = phases[program.phases[0]]
    beside = sum(kinds.get(kind, 0) for kind in program.beside)
    parts = [memory.argument_size_in_bytes, made, memory.generated_code_size_in_bytes, beside]
    return [*parts, sum(parts), max(sum(phases[phase].values()) for phase in program.phases)]
