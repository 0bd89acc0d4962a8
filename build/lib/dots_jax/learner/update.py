"""The jitted GRPO-RR update: one training step, `minibatches` optimizer steps, only on rows that have a gradient.

Part of the groups may be drawn from the buffer of earlier rollouts; the fresh ones go into it afterwards. The rows of
a minibatch are sorted by length and cut into micro-batches. Each runs the branch compiled for the shortest sufficient
padded length; a micro-batch in which no row has a gradient runs none. A token's weight in the loss is known beforehand,
so skipped rows still count in the normalisation and accumulation is exact.
"""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import optax

from dots_jax.core import rng, sharding
from dots_jax.core.arithmetic import round_up
from dots_jax.learner import diagnostics, losses, microbatch, replay
from dots_jax.learner.types import Groups, Rows, TrainState, UpdateSpec
from dots_jax.policy import scoring, transformer
from dots_jax.policy.transformer import ModelConfig
from dots_jax.rollout.types import Rollouts


def init_state(params: dict, model_config: ModelConfig, spec: UpdateSpec, mesh: jax.sharding.Mesh) -> TrainState:
    """The state before the first step, sharded as the parameters are."""
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
    return TrainState(params, master, opt_state, jax.device_put(jnp.int32(0), everywhere))


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

    B must divide by spec.minibatches, and the rows of a minibatch by spec.micro_rows. Where the buffer has too few
    groups the batch has rows without weight: shapes do not depend on how many groups are fresh or there to draw.

    State and buffer are donated; without a buffer all of the B groups are fresh, and none is kept. With one they lie
    as `replay.spread` lays them, `num_fresh` of them, int32 [], are fresh, and `replay_spec` is required. `reference`,
    the parameters of the KL penalty, is required where spec.kl_coef > 0.

    Returns the new state, the buffer with the fresh groups, and metrics, as `diagnostics.summary` has them.
    """
    now, (B, G), batch = state.step + 1, groups.rewards.shape, groups
    order = jax.random.permutation(rng.stream(key, rng.Purpose.UPDATE, state.step), B)
    if buffer is not None:
        shards, num_replayed = len(buffer.ids), replay_spec.num_replayed
        is_fresh = replay.spread_mask(num_fresh, B, shards)
        replay_key = rng.stream(key, rng.Purpose.REPLAY, state.step)
        allowed = (num_fresh < B) & (replay_spec.start != "full" or replay.size(buffer) >= num_replayed)
        drawn, is_drawn, buffer = replay.sample(
            buffer, replay_key, num_replayed, now, mesh, replay_spec.max_age, replay_spec.draw_once, allowed
        )
        batch = replay.fill_with_replayed(groups, drawn, is_drawn, shards)
        # Dealt out in turn, those that exist first: every minibatch has as many of them.
        absent = (batch.rollouts.lengths == 0).all(1)
        order = order[jnp.argsort(absent[order])].reshape(-1, spec.minibatches).T.ravel()
    age = now - batch.step
    advantages = losses.advantages(batch.rewards, spec.advantage_std)
    if buffer is not None and replay_spec.positive_only:
        advantages = jnp.where(age[:, None] > 0, jnp.maximum(advantages, 0), advantages)
    rows = _rows(batch.rollouts, advantages, age, sharding.platform(mesh))
    scored = jnp.float32(0)
    if buffer is not None and losses.needs_proximal(spec.loss) and spec.minibatches > 1:
        rows, scored = _with_proximal(state.params, rows, model_config, spec, mesh)
    # Group by group in random order, a minibatch each.
    split = (spec.minibatches, B // spec.minibatches * G)
    rows = jax.tree.map(lambda x: x.reshape(B, G, *x.shape[1:])[order].reshape(*split, *x.shape[1:]), rows)
    optimizer = spec.optimizer()

    def optimizer_step(carry: tuple, rows: Rows):
        params, master, opt_state = carry
        weights = losses.aggregation_weights(rows.lengths, spec.aggregation, rows.completions.shape[1])
        rows = dataclasses.replace(rows, weights=weights)
        grads, stats = _gradients(params, rows, model_config, spec, reference, mesh)
        target = params if master is None else master
        updates, opt_state = optimizer.update(grads, opt_state, target)
        target = optax.apply_updates(target, updates)
        if master is None:
            params = target
        else:
            params, master = jax.tree.map(lambda p, t: t.astype(p.dtype), params, target), target
        return (params, master, opt_state), stats | {"grad_norm": optax.global_norm(grads)}

    with jax.sharding.use_abstract_mesh(mesh.abstract_mesh):
        carry, stats = jax.lax.scan(optimizer_step, (state.params, state.master, state.opt_state), rows)
    entropy = -groups.rollouts.logprobs.sum() / groups.rollouts.lengths.sum()
    info = diagnostics.summary(stats, spec, batch.rewards.size) | {"entropy": entropy, "scored": scored}
    if buffer is not None:
        # That insertion waits for the loss is what keeps XLA from copying the buffer: it must read before it writes.
        valid = is_fresh & jnp.isfinite(info["loss"])
        valid &= now <= (replay_spec.last_step or now)
        buffer = replay.add(buffer, groups, valid, mesh, replay_spec.num_kept)
        info["replay"] = diagnostics.replay_summary(stats, groups, is_fresh, drawn, is_drawn)
        info["replay"]["size"] = replay.size(buffer)
    return TrainState(*carry, state.step + 1), buffer, info


def row_length(prompt_tokens: int, max_tokens: int, platform: str) -> int:
    """Tokens of a whole padded row: a prompt and its completion."""
    return round_up(prompt_tokens + max_tokens, sharding.length_unit(platform))


def _rows(rollouts: Rollouts, advantages: jax.Array, age: jax.Array, platform: str) -> Rows:
    P, G, T = rollouts.tokens.shape

    def repeat(x: jax.Array):  # [P, ...] -> [R, ...]
        return jnp.broadcast_to(x[:, None], (P, G, *x.shape[1:])).reshape(P * G, *x.shape[1:])

    prompts, prompt_lengths = repeat(rollouts.prompts), repeat(rollouts.prompt_lengths)
    completions = rollouts.tokens.reshape(P * G, T)
    width = row_length(prompts.shape[1], T, platform)
    at = jnp.arange(width) - prompt_lengths[:, None]
    after = jnp.take_along_axis(completions, jnp.clip(at, 0, T - 1), axis=1)
    before = jnp.pad(prompts, ((0, 0), (0, width - prompts.shape[1])))
    tokens = jnp.where(at < 0, before, after)
    lengths, behaviour = rollouts.lengths.reshape(-1), rollouts.logprobs.reshape(P * G, T)
    weights = jnp.zeros(lengths.shape, jnp.float32)
    loss_inputs = behaviour, behaviour, repeat(age), advantages.reshape(-1), weights
    return Rows(tokens, prompt_lengths, completions, lengths, *loss_inputs)


def _with_proximal(
    params: dict, rows: Rows, model_config: ModelConfig, spec: UpdateSpec, mesh: jax.sharding.Mesh
) -> tuple[Rows, jax.Array]:
    """The rows with the log-probs of the policy as it is, and how many tokens that took.

    Computed for replayed rows that have a gradient: the policy that generated a fresh row is the policy as it is.
    """
    active = (rows.age > 0) & (rows.advantages != 0)

    def compute(size: int, carry: None, rows: Rows):
        T = min(rows.completions.shape[1], size - 1)
        logp, _ = _logprobs(params, rows, size, model_config, spec)
        return carry, jnp.pad(logp, ((0, 0), (0, rows.completions.shape[1] - T)))

    with jax.sharding.use_abstract_mesh(mesh.abstract_mesh):
        _, logp = microbatch.scan(rows, active, spec, mesh, None, compute, lambda carry, rows: (carry, rows.behaviour))
    proximal = jnp.where(active[:, None], logp, rows.behaviour)
    return dataclasses.replace(rows, proximal=proximal), jnp.where(active, rows.lengths, 0).sum(dtype=jnp.float32)


def _gradients(
    params: dict, rows: Rows, model_config: ModelConfig, spec: UpdateSpec, reference: dict | None,
    mesh: jax.sharding.Mesh,
):  # fmt: skip
    """Float32 gradients of a minibatch's loss, and sums for the metrics."""
    active = (rows.lengths > 0) if spec.kl_coef else (rows.advantages != 0)

    def compute(size: int, carry: tuple, rows: Rows):
        grads, stats = carry
        (loss, new), g = jax.value_and_grad(_loss, has_aux=True)(params, rows, size, model_config, spec, reference)
        grads = jax.tree.map(lambda a, b: a + b.astype(a.dtype), grads, g)
        new |= {"loss": loss, "computed": jnp.float32(size * spec.micro_rows), "rows": jnp.float32(spec.micro_rows)}
        return (grads, {k: (jnp.maximum if k.endswith("_max") else jnp.add)(stats[k], v) for k, v in new.items()}), None

    start = dict.fromkeys(("loss", "computed", "rows", "real", "entropy", "kl"), jnp.float32(0))
    start |= dict.fromkeys(diagnostics.BY_AGE, jnp.zeros(diagnostics.AGES + 1))
    zeros = jax.tree.map(lambda x: jnp.zeros(x.shape, jnp.float32), params)
    zeros = jax.lax.with_sharding_constraint(zeros, transformer.shardings(model_config, mesh))
    return microbatch.scan(rows, active, spec, mesh, (zeros, start), compute, lambda carry, rows: (carry, None))[0]


def _logprobs(params: dict, rows: Rows, size: int, model_config: ModelConfig, spec: UpdateSpec):
    """Log-probs and entropies, float32 [R, min(T, size - 1)], of completions; no row is longer than `size`."""
    tokens, completions = rows.tokens[:, :size], rows.completions[:, : size - 1]
    hidden = transformer.hidden(params, model_config, tokens, remat=spec.remat)
    at = rows.prompt_lengths[:, None] - 1 + jnp.arange(completions.shape[1])
    hidden = jnp.take_along_axis(hidden, jnp.minimum(at, tokens.shape[1] - 1)[..., None], axis=1)
    return scoring.score(
        hidden, transformer.head(params), completions, spec.temperature, model_config.num_tokens, spec.logits_chunk
    )


def _loss(params: dict, rows: Rows, size: int, model_config: ModelConfig, spec: UpdateSpec, reference: dict | None):
    """The part of the loss that these rows give, all of them at most `size` long, and sums for the metrics."""
    logp, entropy = _logprobs(params, rows, size, model_config, spec)
    T = logp.shape[1]
    behaviour, proximal = rows.behaviour[:, :T], rows.proximal[:, :T]
    real = jnp.arange(T) < rows.lengths[:, None]
    if not spec.kl_coef:
        real &= rows.advantages[:, None] != 0  # rows along for the ride have no part in the metrics either
    mask = jnp.where(real, rows.weights[:, None], 0.0)
    if spec.minibatches == 1:  # nothing has moved yet
        proximal = jnp.where(rows.age[:, None] > 0, jax.lax.stop_gradient(logp), proximal)
    args = (behaviour, proximal, rows.advantages, mask, spec.clip, spec.loss, spec.ratio_cap)
    loss, _, info = losses.policy_loss(logp, *args)
    diff = jnp.where(real, jnp.abs(logp - behaviour), 0.0)
    info = diagnostics.by_age(rows.age, info | {"diff": diff.sum(1), "diff_max": diff.max(1)}) | {
        "real": (rows.prompt_lengths + rows.lengths).sum(),
        "entropy": jnp.where(real, entropy, 0.0).sum(),
        "kl": 0.0,
    }
    if spec.kl_coef:
        ref, _ = _logprobs(reference, rows, size, model_config, spec)
        kl = losses.kl_penalty(logp, jnp.where(real, jax.lax.stop_gradient(ref), logp))
        loss += spec.kl_coef * (mask * kl).sum()
        info["kl"] = kl.sum()
    return loss, {k: jax.lax.stop_gradient(jnp.float32(v)) for k, v in info.items()}
