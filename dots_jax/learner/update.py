"""The jitted GRPO update: one training step, `minibatches` optimizer steps, only on rows that have a gradient.

Everything that depends on lengths happens on the device with fixed shapes: the rows of a minibatch are sorted by length
and cut into micro-batches; each runs the branch compiled for the shortest sufficient padded length, and a
micro-batch in which no row has a gradient runs none. A token's weight in the loss is known beforehand, so skipped
rows still count in the normalisation and accumulation is exact.
"""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import optax

from dots_jax import rng
from dots_jax.learner import losses
from dots_jax.policy import qwen2, scoring, sharding
from dots_jax.rollout.types import Rollouts


@dataclasses.dataclass(frozen=True)
class Hyper:
    """What the update is specialised to; the fields of `config.learner`, and the sampling temperature."""

    minibatches: int
    micro_rows: int
    length_buckets: int
    logits_chunk: int
    clip: float
    advantage_std: bool
    aggregation: str
    kl: float
    learning_rate: float
    warmup: int
    betas: tuple[float, float]
    weight_decay: float
    max_grad_norm: float
    remat: bool
    temperature: float

    def schedule(self, step):
        """Learning rate at an optimizer step: linear warm-up, then constant."""
        return self.learning_rate * jnp.minimum(1.0, (step + 1) / max(self.warmup, 1))

    def optimizer(self) -> optax.GradientTransformation:
        """AdamW after clipping by the global norm."""
        adamw = optax.adamw(self.schedule, *self.betas, weight_decay=self.weight_decay)
        return optax.chain(optax.clip_by_global_norm(self.max_grad_norm), adamw)


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class TrainState:
    """The policy and its optimizer."""

    params: dict  # what sampler and learner read, float32 or bfloat16
    master: dict | None  # float32 copy that the optimizer moves; None where params are float32
    opt_state: optax.OptState  # float32 moments
    step: jax.Array  # int32 [], training steps done


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class _Rows:
    """Rows of a minibatch, or of one of its micro-batches."""

    tokens: jax.Array  # int32 [R, S + T], prompt and completion without a gap
    prompt_lengths: jax.Array  # int32 [R]
    completions: jax.Array  # int32 [R, T]
    lengths: jax.Array  # int32 [R]
    behaviour: jax.Array  # float32 [R, T]
    advantages: jax.Array  # float32 [R]
    weights: jax.Array  # float32 [R], of each token in the loss


def init_state(params: dict, config: qwen2.Config, hyper: Hyper, mesh) -> TrainState:
    """The state before the first step, sharded as the parameters are."""
    is_float32 = all(x.dtype == jnp.float32 for x in jax.tree.leaves(params))
    master = None if is_float32 else jax.tree.map(lambda x: x.astype(jnp.float32), params)
    optimizer = hyper.optimizer()
    target = params if master is None else master
    places = optax.tree_utils.tree_map_params(
        optimizer,
        lambda _, place: place,
        jax.eval_shape(optimizer.init, target),
        qwen2.shardings(config, mesh),
        transform_non_params=lambda _: sharding.replicated(mesh),
    )
    opt_state = jax.jit(optimizer.init, out_shardings=places)(target)
    return TrainState(params, master, opt_state, jax.device_put(jnp.int32(0), sharding.replicated(mesh)))


def buckets(length: int, count: int) -> tuple[int, ...]:
    """Padded lengths that a micro-batch can have: `count` equal steps up to `length`, none without a completion."""
    return tuple(sorted({max(2, -(-length * (i + 1) // count)) for i in range(count)}))


@functools.partial(jax.jit, static_argnames=("config", "hyper", "mesh"), donate_argnames="state")
def update(
    state: TrainState,
    rollouts: Rollouts,
    rewards: jax.Array,
    key: jax.Array,
    config: qwen2.Config,
    hyper: Hyper,
    mesh,
    reference: dict | None = None,
) -> tuple[TrainState, dict]:
    """One training step on P groups; `reference` are the parameters of the KL penalty, needed where hyper.kl > 0.

    P must divide by hyper.minibatches, and the rows of a minibatch by hyper.micro_rows.

    Returns:
      The new state and metrics, each float32 []: loss, grad_norm, clip_fraction and ratio_max over all tokens with a
      gradient; entropy, estimated from the log-probs of all sampled tokens; entropy_useful, exact over those with a
      gradient; logprob_diff_mean and logprob_diff_max, |sampler - learner| before the first
      optimizer step; padding, the share of computed tokens that are padding; skipped, the share of rows not computed;
      tokens, those with a gradient; kl where hyper.kl > 0.
    """
    P, G, T = rollouts.tokens.shape
    rows = _rows(rollouts, losses.advantages(rewards, hyper.advantage_std))
    # Group by group in random order, a minibatch each.
    order = jax.random.permutation(rng.stream(key, rng.Purpose.UPDATE, state.step), P)
    split = (hyper.minibatches, P // hyper.minibatches * G)
    rows = jax.tree.map(lambda x: x.reshape(P, G, *x.shape[1:])[order].reshape(*split, *x.shape[1:]), rows)
    optimizer = hyper.optimizer()

    def optimizer_step(carry, rows):
        params, master, opt_state = carry
        weights = losses.aggregation_weights(rows.lengths, hyper.aggregation, T)
        grads, stats = _gradients(params, dataclasses.replace(rows, weights=weights), config, hyper, reference, mesh)
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
    entropy = -rollouts.logprobs.sum() / rollouts.lengths.sum()
    return TrainState(*carry, state.step + 1), _summary(stats, hyper, rewards.size) | {"entropy": entropy}


def _rows(rollouts: Rollouts, advantages) -> _Rows:
    P, G, T = rollouts.tokens.shape

    def each(x):  # [P, ...] -> [R, ...]
        return jnp.broadcast_to(x[:, None], (P, G, *x.shape[1:])).reshape(P * G, *x.shape[1:])

    prompts, prompt_lengths = each(rollouts.prompts), each(rollouts.prompt_lengths)
    completions = rollouts.tokens.reshape(P * G, T)
    at = jnp.arange(prompts.shape[1] + T) - prompt_lengths[:, None]
    after = jnp.take_along_axis(completions, jnp.clip(at, 0, T - 1), axis=1)
    before = jnp.pad(prompts, ((0, 0), (0, T)))
    lengths = rollouts.lengths.reshape(-1)
    return _Rows(
        jnp.where(at < 0, before, after),
        prompt_lengths,
        completions,
        lengths,
        rollouts.logprobs.reshape(P * G, T),
        advantages.reshape(-1),
        jnp.zeros(lengths.shape, jnp.float32),
    )


def _gradients(params, rows: _Rows, config, hyper: Hyper, reference, mesh):
    """Float32 gradients of a minibatch's loss, and sums for the metrics."""
    sizes = buckets(rows.tokens.shape[1], hyper.length_buckets)
    total = rows.prompt_lengths + rows.lengths
    active = (rows.lengths > 0) if hyper.kl else (rows.advantages != 0)
    order = jnp.argsort(jnp.where(active, -total, 0))
    micro = jax.tree.map(lambda x: x[order].reshape(-1, hyper.micro_rows, *x.shape[1:]), rows)
    longest = jnp.where(active, total, 0)[order].reshape(-1, hyper.micro_rows).max(1)
    branch = jnp.where(longest == 0, 0, 1 + jnp.searchsorted(jnp.array(sizes), longest))

    def compute(size, carry, rows):
        grads, stats = carry
        (loss, new), g = jax.value_and_grad(_loss, has_aux=True)(params, rows, size, config, hyper, reference)
        grads = jax.tree.map(lambda a, b: a + b.astype(a.dtype), grads, g)
        new |= {"loss": loss, "computed": jnp.float32(size * hyper.micro_rows), "rows": jnp.float32(hyper.micro_rows)}
        return grads, {k: (jnp.maximum if k.endswith("_max") else jnp.add)(stats[k], v) for k, v in new.items()}

    branches = [lambda carry, rows: carry] + [functools.partial(compute, size) for size in sizes]

    def step(carry, x):
        index, rows = x
        rows = jax.tree.map(lambda x: sharding.constrain(x, sharding.BATCH), rows)
        return jax.lax.switch(index, branches, carry, rows), None

    names = ("loss", "computed", "rows", "real", "tokens", "clipped", "ratio_max", "entropy", "diff", "diff_max", "kl")
    zeros = jax.tree.map(lambda x: jnp.zeros(x.shape, jnp.float32), params)
    zeros = jax.lax.with_sharding_constraint(zeros, qwen2.shardings(config, mesh))
    return jax.lax.scan(step, (zeros, dict.fromkeys(names, jnp.float32(0))), (branch, micro))[0]


def completion_logprobs(params, config, tokens, prompt_lengths, completions, hyper: Hyper):
    """Log-probs and entropies, float32 [R, T], of completions [R, T] within rows `tokens` [R, S + T]."""
    hidden = qwen2.hidden(params, config, tokens, remat=hyper.remat)
    at = prompt_lengths[:, None] - 1 + jnp.arange(completions.shape[1])
    hidden = jnp.take_along_axis(hidden, jnp.minimum(at, tokens.shape[1] - 1)[..., None], axis=1)
    return scoring.score(
        hidden, qwen2.head(params), completions, hyper.temperature, config.num_tokens, hyper.logits_chunk
    )


def _loss(params, rows: _Rows, size: int, config, hyper: Hyper, reference):
    """The part of the loss that these rows give, all of them at most `size` long, and sums for the metrics."""
    T = min(rows.completions.shape[1], size - 1)
    tokens, completions, behaviour = rows.tokens[:, :size], rows.completions[:, :T], rows.behaviour[:, :T]
    logp, entropy = completion_logprobs(params, config, tokens, rows.prompt_lengths, completions, hyper)
    real = jnp.arange(T) < rows.lengths[:, None]
    if not hyper.kl:
        real &= rows.advantages[:, None] != 0  # rows along for the ride have no part in the metrics either
    mask = jnp.where(real, rows.weights[:, None], 0.0)
    loss, _, info = losses.policy_loss(logp, behaviour, behaviour, rows.advantages, mask, hyper.clip)
    diff = jnp.where(real, jnp.abs(jax.lax.stop_gradient(logp) - behaviour), 0.0)
    info |= {
        "real": (rows.prompt_lengths + rows.lengths).sum(),
        "entropy": jnp.where(real, entropy, 0.0).sum(),
        "diff": diff.sum(),
        "diff_max": diff.max(),
        "kl": 0.0,
    }
    if hyper.kl:
        ref, _ = completion_logprobs(reference, config, tokens, rows.prompt_lengths, completions, hyper)
        kl = losses.kl_penalty(logp, jnp.where(real, jax.lax.stop_gradient(ref), logp))
        loss += hyper.kl * (mask * kl).sum()
        info["kl"] = kl.sum()
    return loss, {k: jax.lax.stop_gradient(jnp.float32(v)) for k, v in info.items()}


def _summary(stats, hyper: Hyper, total_rows: int) -> dict:
    """Metrics of a step from the sums of its minibatches, each [minibatches]."""
    total = {k: v.sum() for k, v in stats.items()}
    tokens = jnp.maximum(total["tokens"], 1)
    metrics = {
        "loss": stats["loss"].mean(),
        "grad_norm": stats["grad_norm"].mean(),
        "clip_fraction": total["clipped"] / tokens,
        "ratio_max": stats["ratio_max"].max(),
        "entropy_useful": total["entropy"] / tokens,
        "logprob_diff_mean": stats["diff"][0] / jnp.maximum(stats["tokens"][0], 1),
        "logprob_diff_max": stats["diff_max"][0],
        "padding": 1 - jnp.maximum(total["real"], 1e-9) / jnp.maximum(total["computed"], 1e-9),
        "skipped": 1 - total["rows"] / total_rows,
        "tokens": total["tokens"],
    }
    return metrics | ({"kl": total["kl"] / tokens} if hyper.kl else {})
