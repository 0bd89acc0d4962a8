"""`python -m dots_jax.main --plan`: the plan of a run in words."""

import itertools
import math
import re
import textwrap

import jax
from ml_collections import ConfigDict

from dots_jax import experiment
from dots_jax.core import distributed, fields, runtime, sharding
from dots_jax.core.errors import UserError
from dots_jax.core.text import WIDTH, gib, table
from dots_jax.data import sources
from dots_jax.plan import Plan, compiled, footprint, plan
from dots_jax.plan.footprint import UNKNOWN
from dots_jax.policy import families, shapes, source
from dots_jax.policy.transformer import ModelConfig

GIB = 2**30
UNITS = {"GB": 10**9, "GiB": GIB}
_DEVICES, _MEMORY = 8, "80GB"  # where neither flags nor JAX say


def main(config, devices: int | None, device_memory: str | None, topology: str | None = None) -> int:
    """Prints the report of `--plan`; returns the exit code, 0 where it fits and 3 where not.

    With a `topology` its devices are planned for, and all programs are compiled for them.
    """
    if not config.policy.path:
        raise UserError("config.policy.path is empty; name a directory or a model such as Qwen/Qwen2.5-Math-7B")
    config, model_config = _known(config)
    if topology is not None:
        return _compile(config, model_config, device_memory, topology)
    memory, notes = read_memory(device_memory) if device_memory else None, []
    fixed = [config.mesh[axis] for axis in sharding.AXES]
    known = None if -1 in fixed else math.prod(fixed)
    here = [] if memory and (devices or known) else _accelerators()
    if devices is None:
        devices = known or len(here) or (1 if config.policy.random.width else _DEVICES)
        if not known:
            notes.append(
                f"assumed: {devices} devices, {'those here' if here else 'since JAX finds no accelerator'} (--devices)"
            )
    platform = here[0].platform if here else "gpu"
    if memory is None and here and (memory := _limit(here[0])):
        notes.append(f"assumed: {gib(memory)} of memory, what JAX may use of the ones here (--device_memory)")
    else:
        if memory is None:
            memory = read_memory(_MEMORY)
            notes.append(f"assumed: {gib(memory)} of memory, an H100's (--device_memory)")
        if platform == "gpu":
            notes.append(f"a run takes {runtime.MEMORY_FRACTION:.0%} of the {gib(memory)} ({runtime.MEMORY_VARIABLE})")
            memory *= runtime.MEMORY_FRACTION
    made = plan(config, model_config, devices, memory, platform)
    print(*notes, sep="\n")
    print(report(made), end="")
    return 0 if made.fits else 3


def _compile(config, model_config: ModelConfig, device_memory: str | None, topology: str) -> int:
    found, memory = compiled.devices(topology)
    mesh = sharding.make_mesh(**config.mesh, devices=found)
    platform = sharding.platform(mesh)
    runtime.full_precision(config.policy.dtype, platform)
    memory = read_memory(device_memory) if device_memory else memory
    print(report(plan(config, model_config, mesh.size, memory, platform)), end="")
    return 0 if compiled.check(footprint(config, model_config, mesh.size, memory, platform), mesh) else 3


def slots(config) -> int:
    """How many completions a run on the devices here decodes at a time: what suits them, and fits.

    0 where there can be no plan: the run will say why, or its policy is on the hub.
    """
    try:
        here = jax.local_devices()[0]
        slots = footprint(*_known(config), len(jax.devices()), _limit(here) or math.inf, here.platform).slots
    except (UserError, RuntimeError, AssertionError):  # the latter two where JAX finds no device
        slots = 0
    return int(distributed.gather(slots).min())


def _limit(device: jax.Device) -> int | None:
    """Bytes that JAX may use of a device; None where it does not say, as on CPUs."""
    return (device.memory_stats() or {}).get("bytes_limit")


def _known(config) -> tuple[ConfigDict, ModelConfig]:
    """The config with a number of questions, and the shape of its policy. Raises UserError as a run would."""
    experiment.check(config)
    path, shape = config.policy.path, config.policy.random.to_dict()
    family = families.find(config.policy.family)
    if shape["width"]:
        model_config = source.random_shape(shape, shapes.TOKENS, family)
    else:
        model_config = shapes.find(source.local(path, sources.root(config.data.root)) or path, family)
    if not config.data.num_questions:  # all that there are
        known = sources.POOLS.get(config.data.name)
        config = fields.replaced(config, {"data.num_questions": known.size if known else UNKNOWN})
    return config, model_config


def _accelerators() -> list:
    """The devices that JAX finds, unless they are CPUs."""
    try:
        found = jax.devices()
    except (RuntimeError, AssertionError):
        return []
    return [] if found[0].platform == "cpu" else found


def read_memory(text: str) -> float:
    """Bytes of `80GB` or `79.6GiB`. Raises UserError."""
    match = re.fullmatch(r"(\d{1,9}(?:\.\d+)?)\s*([A-Za-z]+)", text)
    units = {name.lower(): size for name, size in UNITS.items()}
    if not match or match[2].lower() not in units or not float(match[1]):
        raise UserError(f"--device_memory={text} is not a size; give one such as 80GB (10^9 bytes each) or 79.6GiB")
    return float(match[1]) * units[match[2].lower()]


def report(plan: Plan) -> str:
    """The plan in at most 100 columns."""
    mesh = " x ".join(f"{axis} {size}" for axis, size in plan.mesh.items())
    count = math.prod(plan.mesh.values())
    unit, name = (GIB, "GiB") if plan.peak > GIB / 10 else (2**20, "MiB")
    kinds = dict.fromkeys(kind for parts in plan.phases.values() for kind, size in parts.items() if size)
    rows = [[f"{name} per device", *plan.phases]]
    for kind in kinds:
        sizes = (parts.get(kind) for parts in plan.phases.values())
        rows.append([kind, *(f"{size / unit:.2f}" if size else "" for size in sizes)])
    rows.append(["total", *(f"{total / unit:.2f}" for total in plan.totals.values())])
    share, left = plan.peak / plan.device_bytes, plan.device_bytes - plan.peak
    peak = f"peak {gib(plan.peak)} in {max(plan.totals, key=plan.totals.get)}, {share:.0%} of a device: "
    peak += f"fits, {gib(left)} are left" if plan.fits else f"does not fit, {gib(-left)} are lacking"
    flops = dict(plan.flops)
    evaluation = flops.pop("evaluation")
    costs = [[f"  tokens {name}", f"{value:,.0f}"] for name, value in plan.tokens.items() if value]
    costs += [[f"  FLOPs of {name}", f"{value:.3g}"] for name, value in flops.items() if value]
    costs += [["  FLOPs in all", f"{sum(flops.values()):.3g}"]]
    costs += [["an evaluation apart from that, FLOPs", f"{evaluation:.3g}"]]
    how = {"subsequent_indent": " " * 6, "break_long_words": False, "break_on_hyphens": False}
    lines = [
        f"{plan.parameters:,} parameters on {count} device(s) of {gib(plan.device_bytes)}, {mesh}\n",
        table(rows),
        peak,
        f"{plan.slots:,} completions are decoded at a time (rollout.slots)",
        *itertools.chain(*(textwrap.wrap(f"  {line}", WIDTH, **how) for line in plan.advice)),
        "\na training step, if all completions are as long as they may be",
    ]
    return "\n".join(lines) + "\n" + table(costs)
