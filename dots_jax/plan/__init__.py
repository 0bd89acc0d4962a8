"""What a run will need of each device, and compute in each step, by arithmetic on its config and the policy's shape.

Nothing is allocated or compiled, and the devices planned for need not exist. Parameters, optimizer, buffer, rollouts
and caches are counted exactly. What the compiler adds (activations, logits, copies that it gathers) is counted in
buffers that XLA was seen to hold at once. Its own analysis of programs compiled for CPUs is 0.7 to 1.5 times that
(tests/plan/test_plan.py has some of them); on other backends it can differ more.

Letters as in `transformer`: P questions, G completions of each, S prompt and T completion tokens, V, D, L, H, K, E, F.
"""

import dataclasses

from dots_jax import experiment
from dots_jax.core import fields, sharding
from dots_jax.core.errors import UserError
from dots_jax.learner import replay
from dots_jax.plan import advice
from dots_jax.plan.footprint import Footprint
from dots_jax.policy import shapes, transformer


@dataclasses.dataclass(frozen=True)
class Plan:
    """Bytes, tokens and FLOPs of a run; all but bytes over all devices."""

    mesh: dict[str, int]
    device_bytes: float  # that the run may use of one device
    parameters: int  # of the policy
    phases: dict[str, dict[str, int]]  # phase -> kind -> bytes on each device
    tokens: dict[str, float]  # of a training step, at most
    flops: dict[str, float]  # of a training step, at most; of one evaluation
    slots: int  # completions decoded at a time, on all devices
    advice: tuple[str, ...] = ()  # changes that make it fit, each planned again

    @property
    def totals(self) -> dict[str, int]:
        """Bytes on each device in each phase."""
        return {phase: sum(kinds.values()) for phase, kinds in self.phases.items()}

    @property
    def peak(self) -> int:
        """The most bytes on each device."""
        return max(self.totals.values())

    @property
    def fits(self) -> bool:
        """Whether the run may use that much of a device."""
        return self.peak <= self.device_bytes


def plan(
    config, model_config: transformer.ModelConfig, devices: int, device_bytes: float, platform: str = "gpu"
) -> Plan:
    """The plan of a run of `config` with a policy of shape `model_config`, with advice where it does not fit.

    Args:
      config: of the run.
      model_config: shape of its policy.
      devices: how many.
      device_bytes: what the run may use of each.
      platform: gpu, tpu or cpu: on GPUs attention in 16 bits never holds scores, and CPUs pad less.

    Raises:
      UserError: the mesh is not of so many devices, or the batch does not divide over it.
    """
    made = _plan(config, model_config, devices, device_bytes, platform)
    if made.fits:
        return made

    def attempt(changes: dict, devices: int) -> Plan | None:
        try:
            other = fields.replaced(config, changes)
            experiment.check(other)
            return _plan(other, model_config, devices, device_bytes, platform)
        except UserError:
            return None

    return dataclasses.replace(made, advice=tuple(advice.lines(config, made, attempt)))


def footprint(
    config, model_config: transformer.ModelConfig, devices: int, device_bytes: float, platform: str
) -> Footprint:
    """What the run holds and computes. Raises UserError as `plan` does."""
    sizes = sharding.axis_sizes(*(config.mesh[axis] for axis in sharding.AXES), devices)
    mesh = sharding.abstract_mesh(sizes, platform)
    sharding.check_heads(mesh, model_config.num_kv_heads)
    spec = replay.ReplaySpec(config.train.batch_size, config.selection.interval, **config.replay)
    experiment.check_loaded(config, spec, sharding.num_row_shards(mesh), model_config, 1, config.data.num_questions)
    return Footprint(config, model_config, mesh, spec, platform, device_bytes)


def _plan(config, model_config, devices, device_bytes, platform) -> Plan:
    held = footprint(config, model_config, devices, device_bytes, platform)
    return Plan(
        mesh=dict(held.mesh.shape),
        device_bytes=device_bytes,
        parameters=shapes.count(model_config),
        phases=held.phases(),
        tokens=held.tokens(),
        flops=held.flops(),
        slots=held.slots,
    )
