"""What to change where a run does not fit: every change is planned again."""

import bisect
import itertools
import math
from collections.abc import Iterator

from dots_jax.core import sharding
from dots_jax.core.errors import UserError
from dots_jax.core.text import gib

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

    def first(candidates, good, devices=devices):
        """The first of the dicts of changes whose plan is good, and that plan; in a long list each needs less."""
        if len(candidates) > 32 and good is not bool:
            at = bisect.bisect_left(candidates, True, key=lambda x: bool((p := attempt(x, devices)) and good(p)))
            candidates = candidates[at : at + 1]
        for changes in candidates:
            done = attempt(changes, devices)
            if done and good(done):
                return changes, done
        return None

    def all_fit(names):
        return lambda p: all(total <= memory for name, total in p.totals.items() if name in names)

    for title, names in (("sampling", _SAMPLING), ("the update", _UPDATE)):
        if all_fit(names)(made):
            continue
        for candidates in _singles(config, made, names):
            if found := first(candidates, all_fit(names)):
                changes, done = found
                top = max(total for name, total in done.totals.items() if name in names)
                size = gib(done.peak if done.fits else top)
                rest = f"fits: {size}" if done.fits else f"mends {title}, {size}; elsewhere {gib(done.peak)} are needed"
                yield f"{_flags(changes)} {rest}"

    def together(base: dict, devices):
        """`base` and the largest slots, rows and chunk with which all fits."""
        sizes = (base.get(f"mesh.{axis}", config.mesh[axis]) for axis in sharding.AXES)
        try:
            shards = math.prod(sharding.axis_sizes(*sizes, devices)[:2])
        except UserError:
            return None
        changes = dict(base)
        for names, kind in ((_UPDATE, _micro_rows), (_UPDATE, _chunks), (_SAMPLING, _slots)):
            start = attempt(changes, devices)
            if start and all_fit(names)(start):
                continue
            candidates = [changes | more for more in kind(config, shards, made)]
            # Where no value is enough, go on from the least.
            found = first(candidates, all_fit(names), devices) or first(candidates[::-1], bool, devices)
            if found is None:
                return None
            changes = found[0]
        done = attempt(changes, devices)
        return (changes, done) if done and done.fits else None

    bases = [{}] + [{"policy.dtype": "bfloat16"}] * (config.policy.dtype == "float32")
    for base, mesh in itertools.product(bases, [{}, *_meshes(made.mesh)]):
        if found := together(base | mesh, devices):
            changes, done = found
            if len(changes) > 1:
                yield f"together {_flags(changes)} fit: {gib(done.peak)}"
            return
    count = 2 * devices
    while count <= _MOST_DEVICES:
        if found := together(bases[-1] | {"mesh.data": 1, "mesh.fsdp": count, "mesh.tensor": 1}, count):
            changes, done = found
            yield f"{count} such devices are needed: --devices={count} {_flags(changes)} fits: {gib(done.peak)}"
            return
        count *= 2
    yield f"nothing that was tried fits, not even {_MOST_DEVICES} such devices"


def _singles(config, made, names):
    """Yields, field by field, candidates from the mildest change on."""
    mesh, shards = made.mesh, made.mesh["data"] * made.mesh["fsdp"]
    if names == _SAMPLING:
        yield _slots(config, shards, made)
    if names == _UPDATE:
        yield _micro_rows(config, shards, made)
        yield _chunks(config)
        if not config.learner.remat:
            yield [{"learner.remat": True}]
    yield _capacities(config, shards)
    for axis in ("fsdp", "tensor"):
        yield [changes for changes in _meshes(mesh) if changes[f"mesh.{axis}"] > mesh[axis]]
    if config.policy.dtype == "float32":
        yield [{"policy.dtype": "bfloat16"}]


def _slots(config, shards: int, made) -> list[dict]:
    return [{"rollout.slots": n} for n in range(made.slots - shards, 0, -shards)]


def _micro_rows(config, shards: int, _) -> list[dict]:
    rows = config.train.batch_size // config.learner.minibatches * config.rollout.group_size
    below = range(config.learner.micro_rows - 1, 0, -1)
    return [{"learner.micro_rows": n} for n in below if rows % n == 0 and n % shards == 0]


def _chunks(config, *_) -> list[dict]:
    chunk = 2 ** ((config.learner.logits_chunk - 1).bit_length() - 1)
    return [{"learner.logits_chunk": chunk >> i} for i in range(chunk.bit_length()) if chunk >> i >= 8]


def _capacities(config, shards: int) -> list[dict]:
    if config.replay.fresh_fraction == 1:
        return []
    return [{"replay.capacity": n} for n in range(config.replay.capacity - shards, 0, -shards)]


def _meshes(mesh: dict) -> list[dict]:
    """Meshes of as many devices with more of them along fsdp or tensor."""
    count = math.prod(mesh.values())
    sizes = [n for n in range(1, count + 1) if count % n == 0]
    found = [
        {"mesh.data": count // (f * t), "mesh.fsdp": f, "mesh.tensor": t}
        for t, f in itertools.product(sizes, sizes)
        if count % (f * t) == 0 and f >= mesh["fsdp"] and t >= mesh["tensor"]
    ]
    return [changes for changes in found if list(changes.values()) != list(mesh.values())]


def _flags(changes: dict) -> str:
    return " ".join(f"--config.{field}={value}" for field, value in changes.items())
