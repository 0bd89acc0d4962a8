"""The jitted GRPO-RR update: one training step, `minibatches` optimizer steps, only on rows that have a gradient.

Part of the groups may be drawn from the buffer of earlier rollouts; the fresh ones go into it afterwards. A token's
weight in the loss is known beforehand, so that rows without a gradient need not be computed to count in the
normalisation, and accumulation over micro-batches is exact.
"""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import optax

from dots_jax.core import rng, sharding
from dots_jax.learner import diagnostics, gradients, losses, replay
from dots_jax.learner.types import Batch, Gate, Groups, LossScale, TrainState, UpdateSpec
from dots_jax.policy import transformer
from dots_jax.policy.transformer import ModelConfig
from dots_jax.rollout.types import Rollouts


def init_state(
    params: dict, model_config: ModelConfig, spec: UpdateSpec, mesh: jax.sharding.Mesh, gated: bool = False
) -> TrainState:
    """The state before the first step, sharded as the parameters are; with a `Gate` where it is `gated`."""
    is_float32 = all(x.dtype == jnp.float32 for x in jax.tree.leaves(params))
    master = None if is_float32 else jax.tree.map(lambda x: x.astype(jnp.float32), params)
    target, optimizer, everywhere = params if is_float32 else master, spec.optimizer(), sharding.replicated(mesh)
    shardings = optax.tree_utils.tree_map_params(
        optimizer,
        lambda _, sharding: sharding,
        jax.eval_shape(optimizer.init, target),
        transformer.shardings(model_config, mesh),
        transform_non_params=lambda _: everywhere,
    )
    opt_state = jax.jit(optimizer.init, out_shardings=shardings)(target)
    is_float16 = any(x.dtype == jnp.float16 for x in jax.tree.leaves(params))
    loss_scale = jax.device_put(LossScale.start(), everywhere) if is_float16 else None
    gate = jax.device_put(Gate.start(), everywhere) if gated else None
    return TrainState(params, master, opt_state, jax.device_put(jnp.int32(0), everywhere), loss_scale, gate)


@functools.partial(
    jax.jit, static_argnames=("model_config", "spec", "mesh", "replay_spec"), donate_argnames=("state", "buffer")
)
def update(
    state: TrainState,
    buffer: Groups | None,
    groups: Groups,
    num_fresh: jax.Array,
    key: jax.Array,
    model_config: ModelConfig,
    spec: UpdateSpec,
    mesh: jax.sharding.Mesh,
    replay_spec: replay.ReplaySpec | None = None,
    reference: dict | None = None,
) -> tuple[TrainState, Groups | None, dict]:
    """One training step on B groups: fresh ones and, with a buffer, what is drawn from it for the others.

    B must divide by spec.minibatches. Where the buffer has too few groups the batch has rows without weight: shapes do
    not depend on how many groups are fresh or there to draw.

    State and buffer are donated; without a buffer all of the B groups are fresh, and none is kept. With one they lie
    as `replay.spread` lays them, `num_fresh` of them, int32 [], are fresh, and `replay_spec` is required. `reference`,
    the parameters of the KL penalty, is required where spec.kl_coef > 0.

    A gate requires a buffer. The optimizer step in which it closes changes nothing. From then on nothing is replayed,
    in the other minibatches of the training step neither.

    Returns the new state, the buffer with the fresh groups, and metrics, as `diagnostics.summary` has them.
    """
    now, B, batch, static = state.step + 1, len(groups.ids), groups, (model_config, spec, mesh)
    replay_spec = None if buffer is None else replay_spec
    order = jax.random.permutation(rng.stream(key, rng.Purpose.UPDATE, state.step), B)
    if buffer is not None:
        shards, num_replayed = len(buffer.ids), replay_spec.num_replayed
        is_fresh = replay.spread_mask(num_fresh, B, shards)
        replay_key = rng.stream(key, rng.Purpose.REPLAY, state.step)
        allowed = (num_fresh < B) & (replay_spec.start != "full" or replay.size(buffer) >= num_replayed)
        if state.gate is not None:
            allowed &= state.gate.ended == 0
        drawn, is_drawn, buffer = replay.sample(
            buffer, replay_key, num_replayed, now, mesh, replay_spec.max_age, replay_spec.draw_once, allowed,
            replay_spec.decay,
        )  # fmt: skip
        batch = replay.fill_with_replayed(groups, drawn, is_drawn, shards)
    data = _minibatches(batch, order, now, spec, replay_spec)
    is_first = jnp.arange(spec.minibatches) == 0
    data, scored = jax.lax.map(lambda x: _scored(state.params, *x, reference, *static), (data, is_first))
    optimizer = spec.optimizer()

    def optimizer_step(carry: tuple, inputs: tuple[jax.Array, Batch]):
        (params, master, opt_state, scale, gate), (is_first, data) = carry, inputs
        data = _weighted(data, spec, replay_spec, gate)
        grads, stats = gradients.gradients(params, data, is_first, scale and scale.scale, *static)
        norm = optax.global_norm(grads)
        before = params if master is None else master, opt_state
        updates, opt_state = optimizer.update(grads, opt_state, before[0])
        after, is_taken = (optax.apply_updates(before[0], updates), opt_state), True
        if scale is not None:  # an overflow costs the step
            is_taken = jnp.isfinite(norm)
            scale, norm = scale.after(is_taken), jnp.where(is_taken, norm, 0.0)
        if gate is not None:
            energy, is_replaying = jnp.sum(transformer.head(grads) ** 2), stats["tokens"][1:].sum() > 0
            gate, closes, stats["gate"] = gate.after(energy, is_replaying, replay_spec.gate, now)
            is_taken &= ~closes
        if is_taken is not True:
            after = jax.tree.map(lambda new, old: jnp.where(is_taken, new, old), after, before)
        target, opt_state = after
        if master is None:
            params = target
        else:
            params, master = jax.tree.map(lambda p, t: t.astype(p.dtype), params, target), target
        return (params, master, opt_state, scale, gate), stats | {"grad_norm": norm}

    carry = state.params, state.master, state.opt_state, state.loss_scale, state.gate
    (*carry, loss_scale, gate), stats = jax.lax.scan(optimizer_step, carry, (is_first, data))
    entropy = -groups.rollouts.logprobs.sum() / groups.rollouts.lengths.sum()
    info = diagnostics.summary(stats, spec, batch.rewards.size) | {"entropy": entropy, "scored": scored.sum()}
    if buffer is not None:
        # That insertion waits for the loss is what keeps XLA from copying the buffer: it must read before it writes.
        valid = is_fresh & jnp.isfinite(info["loss"])
        valid &= now <= (replay_spec.last_step or now)
        buffer = replay.add(buffer, groups, valid, mesh, replay_spec.num_kept)
        info["replay"] = diagnostics.replay_summary(stats, groups, is_fresh, drawn, is_drawn)
        info["replay"]["size"] = replay.size(buffer)
        if gate is not None:
            info["replay"] |= {"gate": stats["gate"].max(), "ended": gate.ended}
    if loss_scale is not None:
        info["loss_scale"] = loss_scale.scale
    return TrainState(*carry, now, loss_scale, gate), buffer, info


@functools.partial(jax.jit, static_argnames=("model_config", "spec", "mesh"))
def log_weights(
    params: dict, buffer: Groups, model_config: ModelConfig, spec: UpdateSpec, mesh: jax.sharding.Mesh
) -> tuple[jax.Array, jax.Array]:
    """What the policy makes of the buffer [shards, slots]: of each completion log pi_now - log pi_behaviour, summed
    over its tokens, float32 [C, G], 0 in empty slots; and how many tokens were scored.
    """
    groups = replay.from_shards(buffer)
    active = jnp.broadcast_to((groups.step >= 0)[:, None], groups.rewards.shape)
    batch = _batch(groups.rollouts, groups.rollouts.lengths, groups.rewards, groups.step)
    moved = gradients.logprobs(params, batch, active, model_config, spec, mesh) - groups.rollouts.logprobs
    real = active[..., None] & (jnp.arange(moved.shape[-1]) < groups.rollouts.lengths[..., None])
    return jnp.where(real, moved, 0.0).sum(-1), real.sum()


@functools.partial(jax.jit, static_argnames=("model_config", "spec", "mesh"))
def token_scores(
    params: dict, rollouts: Rollouts, model_config: ModelConfig, spec: UpdateSpec, mesh: jax.sharding.Mesh
) -> tuple[jax.Array, jax.Array]:
    """Log-prob and entropy of each completion's tokens as the learner computes them, float32 [P, G, T] both."""
    active = rollouts.lengths > 0
    # Without a loss advantages and ages do not matter.
    batch = _batch(rollouts, rollouts.lengths, active, rollouts.prompt_lengths)
    return gradients.scores(params, batch, active, model_config, spec, mesh)


def _minibatches(
    groups: Groups, order: jax.Array, now: jax.Array, spec: UpdateSpec, replay_spec: replay.ReplaySpec | None
) -> Batch:
    """The groups [B] of training step `now` in this order, as minibatches: [minibatches, B / minibatches, ..].

    Rows that shall not count have length 0. `replay_spec` None: all groups are fresh.
    """
    age, lengths = now - groups.step, groups.rollouts.lengths
    advantages = losses.advantages(groups.rewards, spec.advantage_std)
    if replay_spec is not None and replay_spec.positive_only:
        advantages = jnp.where(age[:, None] > 0, jnp.maximum(advantages, 0), advantages)
    if spec.mask_truncated:
        lengths = jnp.where(groups.rollouts.finished, lengths, 0)
    useful = ((lengths > 0) & (advantages != 0)).any(1)
    if spec.drop_silent:
        lengths = jnp.where(useful[:, None], lengths, 0)
    if replay_spec is not None or spec.drop_silent or spec.mask_truncated:
        # Dealt out in turn, those that exist first: every minibatch has as many of them.
        absent = (lengths == 0).all(1)
        order = order[jnp.argsort(absent[order])].reshape(-1, spec.minibatches).T.ravel()
    if spec.repeat_useful:
        order = _with_copies(order, ~useful & (groups.rollouts.lengths > 0).any(1), useful)
    # Group by group in random order, a minibatch each.
    data = _batch(groups.rollouts, lengths, advantages, age)
    return jax.tree.map(lambda x: x[order].reshape(spec.minibatches, -1, *x.shape[1:]), data)


def _with_copies(order: jax.Array, silent: jax.Array, useful: jax.Array) -> jax.Array:
    """The order [B] of groups, the useful ones in turn where it has silent ones. Nothing changes if none is useful."""
    silent, first = silent[order], order[jnp.argsort(~useful[order])]
    turn = (jnp.cumsum(silent) - 1) % jnp.maximum(useful.sum(), 1)
    return jnp.where(silent & useful.any(), first[turn], order)


def _weighted(batch: Batch, spec: UpdateSpec, replay_spec: replay.ReplaySpec | None, gate: Gate | None) -> Batch:
    """A minibatch with the weights of its tokens; rows that were drawn before the gate closed do not count."""
    if gate is not None:
        gone = (gate.ended > 0) & (batch.age > 0)
        batch = dataclasses.replace(batch, lengths=jnp.where(gone[:, None], 0, batch.lengths))
    weights = losses.aggregation_weights(batch.lengths.ravel(), spec.aggregation, batch.completions.shape[2])
    weights = weights.reshape(batch.lengths.shape)
    if replay_spec is not None and replay_spec.scale_by_age:
        weights /= 1 + batch.age[:, None]
    return dataclasses.replace(batch, weights=weights)


def _batch(rollouts: Rollouts, lengths: jax.Array, advantages: jax.Array, age: jax.Array) -> Batch:
    r = rollouts
    return Batch(
        r.prompts, r.prompt_lengths, r.tokens, lengths, r.logprobs, r.logprobs, None, age, advantages,
        jnp.zeros(r.lengths.shape, jnp.float32),
    )  # fmt: skip


def _scored(
    params: dict, batch: Batch, is_first: jax.Array, reference: dict | None, model_config: ModelConfig,
    spec: UpdateSpec, mesh: jax.sharding.Mesh,
) -> tuple[Batch, jax.Array]:  # fmt: skip
    """A minibatch with the log-probs of the policy as it is, and of the KL penalty's; how many tokens the first took.

    Rows with a gradient are scored if they are replayed, or if `rescore_fresh`. The first minibatch is not: the forward
    pass of its loss gives the same.
    """
    proximal, count = batch.proximal, jnp.float32(0)
    if spec.kl_coef:
        reference = gradients.logprobs(reference, batch, batch.lengths > 0, model_config, spec, mesh)
        batch = dataclasses.replace(batch, reference=reference)
    replayed = losses.needs_proximal(spec.loss)
    if (replayed or spec.rescore_fresh) and spec.minibatches > 1:
        is_scored = jnp.where(batch.age > 0, replayed, spec.rescore_fresh) & ~is_first
        active = is_scored[:, None] & gradients.has_gradient(batch, spec)
        logp = gradients.logprobs(params, batch, active, model_config, spec, mesh)
        proximal = jnp.where(active[..., None], logp, proximal)
        count = jnp.where(active, batch.lengths, 0).sum(dtype=jnp.float32)
    return dataclasses.replace(batch, proximal=proximal), count
