"""The types of the learner: groups, rows, the state, and what an update is specialised to."""

import dataclasses
from collections.abc import Callable
from typing import TYPE_CHECKING

import jax
import jax.numpy as jnp
import numpy as np
import optax

from dots_jax.core import sharding
from dots_jax.core.errors import UserError
from dots_jax.learner import losses
from dots_jax.rollout.types import Rollouts

if TYPE_CHECKING:  # the GPU check has no config, and runs without the package
    from ml_collections import ConfigDict


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Groups:
    """Rollouts of P questions with all that replay must know of them. The buffer is [shards, slots] in place of [P]."""

    rollouts: Rollouts
    rewards: jax.Array  # float32 [P, G]
    ids: jax.Array  # int32 [P], of the questions
    step: jax.Array  # int32 [P], training step that generated them; -1: an empty slot
    batch_index: jax.Array  # int32 [P], in that step's batch

    @classmethod
    def fresh(
        cls, rollouts: Rollouts, rewards: np.ndarray, ids: np.ndarray, step: int, mesh: jax.sharding.Mesh
    ) -> "Groups":
        """The groups [P] that training step `step` has generated, on the device."""
        steps, indices = np.full(len(ids), step, np.int32), np.arange(len(ids), dtype=np.int32)
        return cls(rollouts, *jax.device_put((rewards, ids, steps, indices), sharding.replicated(mesh)))

    @classmethod
    def empty(cls, shape: tuple[int, ...], group_size: int, prompt_tokens: int, max_tokens: int) -> "Groups":
        """Empty slots, an array of this `shape` in place of [P]; `jax.eval_shape` of it says what they take."""
        G, S, T = group_size, prompt_tokens, max_tokens

        def zeros(*of_each: int, dtype=jnp.int32):
            return jnp.zeros((*shape, *of_each), dtype)

        logprobs, finished = zeros(G, T, dtype=jnp.float32), zeros(G, dtype=bool)
        rollouts = Rollouts(zeros(S), zeros(), zeros(G, T), zeros(G), logprobs, finished)
        return cls(rollouts, zeros(G, dtype=jnp.float32), zeros(), zeros() - 1, zeros())


@dataclasses.dataclass(frozen=True)
class UpdateSpec:
    """What the update is specialised to; the fields of `config.learner`, and the sampling temperature."""

    minibatches: int
    micro_tokens: int  # of each device
    logits_chunk: int
    clip: losses.Clip
    loss: Callable  # as `losses.policy_loss` calls it
    ratio_cap: float
    advantage_std: bool
    aggregation: str
    kl_coef: float
    learning_rate: float
    warmup: int
    betas: tuple[float, float]
    weight_decay: float
    max_grad_norm: float
    remat: str
    rescore_fresh: bool
    temperature: float
    drop_silent: bool = False
    repeat_useful: bool = False
    mask_truncated: bool = False

    @classmethod
    def from_config(cls, config: "ConfigDict") -> "UpdateSpec":
        """The spec of a run. Raises UserError where `config.learner.loss` names no loss."""
        loss = losses.find(config.learner.loss)
        rescore = config.learner.rescore_fresh and config.policy.dtype != "float32"
        clip = config.learner.clip[0], config.learner.clip[-1]  # one number stands for both
        fields = {**config.learner, "clip": clip, "loss": loss, "rescore_fresh": rescore}
        return cls(**fields, temperature=config.rollout.temperature)

    def schedule(self, step: jax.Array | int):
        """Learning rate at an optimizer step: linear warm-up, then constant."""
        return self.learning_rate * jnp.minimum(1.0, (step + 1) / max(self.warmup, 1))

    def optimizer(self) -> optax.GradientTransformation:
        """AdamW after clipping by the global norm."""
        adamw = optax.adamw(self.schedule, *self.betas, weight_decay=self.weight_decay)
        return optax.chain(optax.clip_by_global_norm(self.max_grad_norm), adamw)


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class LossScale:
    """What the loss is multiplied by so that no gradient is too small for float16, as large as none overflows."""

    scale: jax.Array  # float32 []
    steps: jax.Array  # int32 [], optimizer steps since it changed

    @classmethod
    def start(cls) -> "LossScale":
        """The scale before the first step."""
        return cls(jnp.float32(2**15), jnp.int32(0))

    def after(self, is_finite: jax.Array) -> "LossScale":
        """Half of it where a gradient has overflowed; twice it after so many steps in which none has."""
        steps = jnp.where(is_finite, self.steps + 1, 0)
        grown = steps == 500
        scale = jnp.where(is_finite, jnp.where(grown, 2 * self.scale, self.scale), self.scale / 2)
        return LossScale(jnp.clip(scale, 1.0, 2.0**24), jnp.where(grown, 0, steps))


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Gate:
    """What tells that replay harms: leaps in the energy of the output matrix's gradient (arXiv 2605.19425).

    The energy is the squared norm, of the embedding's gradient where the two are tied.
    """

    energy: jax.Array  # float32 [], of the last optimizer step that had a gradient
    count: jax.Array  # int32 [], increments of it so far; -1: there is no energy yet
    mean: jax.Array  # float32 [], of the increments
    squares: jax.Array  # float32 [], sum of the squares of their distances from it
    ended: jax.Array  # int32 [], training step in which replay ended; 0: it goes on

    @classmethod
    def start(cls) -> "Gate":
        """The gate before the first step."""
        return cls(jnp.float32(0), jnp.int32(-1), jnp.float32(0), jnp.float32(0), jnp.int32(0))

    def after(
        self, energy: jax.Array, is_replaying: jax.Array, threshold: float, step: jax.Array
    ) -> tuple["Gate", jax.Array, jax.Array]:
        """The gate after one more optimizer step, in training step `step`; whether it has just closed; the z-score.

        The z-score is that of the increment to `energy` among those before it, 0 where these are fewer than eight. The
        gate closes where it is above the threshold, if the optimizer step `is_replaying`. It does not count that
        energy, none afterwards, and none that is 0 or not finite.
        """
        is_watched = (self.ended == 0) & (energy > 0) & jnp.isfinite(energy)
        increment = energy - self.energy
        deviation = jnp.sqrt(self.squares / jnp.maximum(self.count - 1, 1))
        z = (increment - self.mean) / jnp.maximum(deviation, 1e-30)
        z = jnp.where(is_watched & (self.count >= 8), z, 0.0)
        closes = is_replaying & (z > threshold)
        count = self.count + 1
        distance = jnp.where(count > 0, increment - self.mean, 0.0)  # the first energy has none before it
        mean = self.mean + distance / jnp.maximum(count, 1)
        seen = Gate(energy, count, mean, self.squares + distance * (increment - mean), self.ended)
        closed = dataclasses.replace(self, ended=jnp.where(closes, step, self.ended))
        return jax.tree.map(lambda a, b: jnp.where(is_watched & ~closes, a, b), seen, closed), closes, z


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class TrainState:
    """The policy and its optimizer."""

    params: dict  # what sampler and learner read, float32, bfloat16 or float16
    master: dict | None  # float32 copy that the optimizer moves; None where params are float32
    opt_state: optax.OptState  # float32 moments
    step: jax.Array  # int32 [], training steps done
    loss_scale: LossScale | None = None  # where params are float16
    gate: Gate | None = None  # where replay.gate > 0


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Batch:
    """The groups [B] of an update, or of one of its minibatches, as the loss wants them."""

    prompts: jax.Array  # int32 [B, S]
    prompt_lengths: jax.Array  # int32 [B]
    completions: jax.Array  # int32 [B, G, T]
    lengths: jax.Array  # int32 [B, G]; 0: a row that does not count
    behaviour: jax.Array  # float32 [B, G, T]
    proximal: jax.Array  # float32 [B, G, T], log-probs before this step's updates where they differ from behaviour
    reference: jax.Array | None  # float32 [B, G, T], log-probs of the KL penalty's policy
    age: jax.Array  # int32 [B], training steps since the group was generated; 0: fresh
    advantages: jax.Array  # float32 [B, G]
    weights: jax.Array  # float32 [B, G], of each token in the loss


def check(config: "ConfigDict") -> None:
    """Raises UserError where a batch does not divide into minibatches, or the loss is none."""
    batch, parts = config.train.batch_size, config.learner.minibatches
    if batch % parts:
        raise UserError(
            f"config.train.batch_size={batch} does not divide into config.learner.minibatches={parts} equal parts; "
            f"use {max(1, batch // parts) * parts} questions or another number of minibatches"
        )
    losses.find(config.learner.loss)
