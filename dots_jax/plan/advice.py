"""What to change where a run does not fit: every change is planned again."""

import bisect
import itertools
import math
from collections.abc import Iterator

from dots_jax.core import sharding
from dots_jax.core.errors import UserError
from dots_jax.core.text import gib
from dots_jax.policy import transformer

_MOST_DEVICES = 1024  # that a search for enough of them tries
_SAMPLING, _UPDATE = ("prefill", "decode"), ("loss", "backward")


def lines(config, made, attempt) -> Iterator[str]:
    """Yields single changes that mend what does not fit, then changes that together do.

    Args:
      config: of the run.
      made: its plan, which does not fit.
      attempt: (changes, devices) -> the plan with values of fields changed, None where they do not go together.
    """
    devices, memory = math.prod(made.mesh.values()), made.device_bytes

    def fit(plan, phases) -> bool:
        return plan is not None and all(total <= memory for name, total in plan.totals.items() if name in phases)

    def first_fit(candidates, phases, devices=devices):
        """The first of the dicts of changes with which the phases fit, or None; in a long list each needs less."""

        def fits(changes) -> bool:
            return fit(attempt(changes, devices), phases)

        start = bisect.bisect_left(candidates, True, key=fits) if len(candidates) > 32 else 0
        return next(filter(fits, candidates[start:]), None)

    for title, phases in (("sampling", _SAMPLING), ("the update", _UPDATE)):
        if fit(made, phases):
            continue
        for candidates in _singles(config, made, phases):
            changes = first_fit(candidates, phases)
            if changes is not None:
                plan = attempt(changes, devices)
                top = max(total for name, total in plan.totals.items() if name in phases)
                rest = f"mends {title}, {gib(top)}; elsewhere {gib(plan.peak)} are needed"
                yield f"{_flags(changes)} {f'fits: {gib(plan.peak)}' if plan.fits else rest}"

    def together(base: dict, devices):
        """`base` and the largest slots, rows and chunk with which all fits, and the plan; None: there are none."""
        sizes = (base.get(f"mesh.{axis}", config.mesh[axis]) for axis in sharding.AXES)
        try:
            shards = math.prod(sharding.axis_sizes(*sizes, devices)[:2])
        except UserError:
            return None
        changes, sampling = base, (_SAMPLING, _slots(config, shards, made))
        for phases, choices in ((_UPDATE, _remats(config)), (_UPDATE, _micro_tokens(config)), sampling):
            if fit(attempt(changes, devices), phases):
                continue
            candidates = [changes | more for more in choices]
            changes = first_fit(candidates, phases, devices)
            if changes is None:  # no value is enough: go on from the least
                changes = next((least for least in reversed(candidates) if attempt(least, devices)), None)
            if changes is None:
                return None
        plan = attempt(changes, devices)
        return (changes, plan) if plan and plan.fits else None

    bases = [{}, {"policy.dtype": "bfloat16"}] if config.policy.dtype == "float32" else [{}]
    for base, mesh in itertools.product(bases, [{}, *_meshes(made.mesh)]):
        if fitting := together(base | mesh, devices):
            changes, plan = fitting
            if len(changes) > 1:
                yield f"together {_flags(changes)} fit: {gib(plan.peak)}"
            return
    count = 2 * devices
    while count <= _MOST_DEVICES:
        for tensor in (1, 2, 4, 8):  # its devices share the weights that sampling copies to all others
            mesh = {"mesh.data": 1, "mesh.fsdp": count // tensor, "mesh.tensor": tensor}
            if count % tensor == 0 and (fitting := together(bases[-1] | mesh, count)):
                changes, plan = fitting
                yield f"{count} such devices are needed: --devices={count} {_flags(changes)} fits: {gib(plan.peak)}"
                return
        count *= 2
    yield f"nothing that was tried fits, not even {_MOST_DEVICES} such devices"


def _singles(config, made, phases):
    """Yields, field by field, candidates from the mildest change on."""
    mesh, shards = made.mesh, made.mesh["data"] * made.mesh["fsdp"]
    if phases == _SAMPLING:
        yield _slots(config, shards, made)
    if phases == _UPDATE:
        yield _micro_tokens(config)
        yield _chunks(config)
        yield _remats(config)
    yield _capacities(config, shards)
    for axis in ("fsdp", "tensor"):
        yield [changes for changes in _meshes(mesh) if changes[f"mesh.{axis}"] > mesh[axis]]
    if config.policy.dtype == "float32":
        yield [{"policy.dtype": "bfloat16"}]


def _slots(config, shards: int, made) -> list[dict]:
    return [{"rollout.slots": n} for n in range(made.slots - shards, 0, -shards)]


def _remats(config) -> list[dict]:
    kinds = list(transformer.REMAT)
    return [{"learner.remat": kind} for kind in kinds[kinds.index(config.learner.remat) + 1 :]]


def _micro_tokens(config) -> list[dict]:
    row = min(config.rollout.max_tokens, config.learner.micro_tokens)  # less than a row's changes nothing
    return [{"learner.micro_tokens": n} for n in _halves(config.learner.micro_tokens) if 2 * n > row]


def _chunks(config) -> list[dict]:
    return [{"learner.logits_chunk": n} for n in _halves(config.learner.logits_chunk) if n >= 64]


def _halves(size: int) -> list[int]:
    """Powers of two below it, the largest first."""
    first = 2 ** ((size - 1).bit_length() - 1)
    return [first >> i for i in range(first.bit_length())]


def _capacities(config, shards: int) -> list[dict]:
    if config.replay.fresh_fraction == 1:
        return []
    return [{"replay.capacity": n} for n in range(config.replay.capacity - shards, 0, -shards)]


def _meshes(mesh: dict) -> list[dict]:
    """Meshes of as many devices with more of them along fsdp or tensor."""
    count = math.prod(mesh.values())
    sizes = [n for n in range(1, count + 1) if count % n == 0]
    meshes = [
        {"mesh.data": count // (f * t), "mesh.fsdp": f, "mesh.tensor": t}
        for t, f in itertools.product(sizes, sizes)
        if count % (f * t) == 0 and f >= mesh["fsdp"] and t >= mesh["tensor"]
    ]
    return [changes for changes in meshes if list(changes.values()) != list(mesh.values())]


def _flags(changes: dict) -> str:
    return " ".join(f"--config.{field}={value}" for field, value in changes.items())
