"""The jitted GRPO-RR update: one training step, `minibatches` optimizer steps, only on rows that have a gradient.

Part of the groups may be drawn from the buffer of earlier rollouts; the fresh ones go into it afterwards. What the
importance ratios of a group have become is reported by its age.
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

from dots_jax.core import rng, sharding
from dots_jax.learner import losses, replay
from dots_jax.policy import qwen2, scoring
from dots_jax.rollout.types import Rollouts

AGES = 8  # ages of replayed groups are counted as 1, 2, .. and this or more


@dataclasses.dataclass(frozen=True)
class Hyper:
    """What the update is specialised to; the fields of `config.learner`, and the sampling temperature."""

    minibatches: int
    micro_rows: int
    length_buckets: int
    logits_chunk: int
    clip: float
    loss: str
    cap: float
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

    tokens: jax.Array  # int32 [R, S + T or more], prompt and completion without a gap
    prompt_lengths: jax.Array  # int32 [R]
    completions: jax.Array  # int32 [R, T]
    lengths: jax.Array  # int32 [R]
    behaviour: jax.Array  # float32 [R, T]
    proximal: jax.Array  # float32 [R, T], log-probs before this step's updates where they differ from behaviour
    age: jax.Array  # int32 [R], training steps since the row was generated; 0: fresh
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


def buckets(length: int, count: int, unit: int = 1) -> tuple[int, ...]:
    """Returns the padded lengths that a micro-batch can have: at most `count` steps up to `length`, in units.

    None is too short for a completion.
    """
    steps = (-(-length * (i + 1) // count) for i in range(count))
    return tuple(sorted({max(2, sharding.round_up(step, unit)) for step in steps}))


@functools.partial(jax.jit, static_argnames=("config", "hyper", "mesh", "rule"), donate_argnames=("state", "buffer"))
def update(
    state: TrainState,
    buffer: replay.Groups | None,
    rollouts: Rollouts,
    rewards: jax.Array,
    ids: jax.Array,
    fresh: jax.Array,
    key: jax.Array,
    config: qwen2.Config,
    hyper: Hyper,
    mesh,
    rule: replay.Rule | None = None,
    reference: dict | None = None,
) -> tuple[TrainState, replay.Groups | None, dict]:
    """One training step on B groups: `fresh` generated ones and, with a buffer, what is drawn from it for the others.

    B must divide by hyper.minibatches, and the rows of a minibatch by hyper.micro_rows. Where the buffer has too few
    groups the batch has rows without weight: shapes do not depend on how many groups are fresh or there to draw.

    Args:
      state: is donated, as the buffer is.
      buffer: None trains on the fresh groups alone and keeps none.
      rollouts: [B]; with a buffer of which `fresh` are groups, as `replay.spread` lays them, and the others zeros.
      rewards: float32 [B, G].
      ids: int32 [B], their questions.
      fresh: int32 [], rule.generated or B; B where there is no buffer.
      key: of the run.
      config: of the policy.
      hyper: of the update.
      mesh: on which all lies.
      rule: of replay, where there is a buffer.
      reference: parameters of the KL penalty, needed where hyper.kl > 0.

    Returns:
      The new state, the buffer with the fresh groups, and metrics, each float32 []: loss, grad_norm, clip_fraction
      over all tokens with a gradient, clip_fraction_fresh over those of fresh groups, ratio_max; entropy, estimated
      from the log-probs of all fresh tokens; entropy_useful, exact over those with a gradient; logprob_diff_mean and
      logprob_diff_max, |sampler - learner| on fresh rows before the first optimizer step; padding, the share of
      computed tokens that are padding; skipped, the share of rows not computed; tokens, those with a gradient; scored,
      those whose proximal log-probs were computed; kl where hyper.kl > 0. With a buffer also "replay", see
      `_replay_summary`.
    """
    now, B = state.step + 1, len(ids)
    batch = own = replay.Groups(rollouts, rewards, ids, jnp.full_like(ids, now), jnp.arange(B))
    order = jax.random.permutation(rng.stream(key, rng.Purpose.UPDATE, state.step), B)
    if buffer is not None:
        shards, is_fresh = len(buffer.ids), replay.spread_mask(fresh, B, len(buffer.ids))
        draws = rng.stream(key, rng.Purpose.REPLAY, state.step)
        allowed = (fresh < B) & (rule.start != "full" or replay.size(buffer) >= rule.draws)
        drawn, there, buffer = replay.sample(
            buffer, draws, rule.draws, now, mesh, max_age=rule.max_age, once=rule.once, allowed=allowed
        )
        batch = replay.merge(own, drawn, there, shards)
        # Dealt out in turn, those that exist first: every minibatch has as many of them.
        absent = (batch.rollouts.lengths == 0).all(1)
        order = order[jnp.argsort(absent[order])].reshape(-1, hyper.minibatches).T.ravel()
    age = now - batch.step
    advantages = losses.advantages(batch.rewards, hyper.advantage_std)
    if buffer is not None and rule.positive_only:
        advantages = jnp.where(age[:, None] > 0, jnp.maximum(advantages, 0), advantages)
    rows = _rows(batch.rollouts, advantages, age, sharding.length_unit(sharding.platform(mesh)))
    scored = jnp.float32(0)
    if buffer is not None and hyper.loss != "plain" and hyper.minibatches > 1:
        rows, scored = _proximal(state.params, rows, config, hyper, mesh)
    # Group by group in random order, a minibatch each.
    G = rewards.shape[1]
    split = (hyper.minibatches, B // hyper.minibatches * G)
    rows = jax.tree.map(lambda x: x.reshape(B, G, *x.shape[1:])[order].reshape(*split, *x.shape[1:]), rows)
    optimizer = hyper.optimizer()

    def optimizer_step(carry, rows):
        params, master, opt_state = carry
        weights = losses.aggregation_weights(rows.lengths, hyper.aggregation, rows.completions.shape[1])
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
    info = _summary(stats, hyper, batch.rewards.size) | {"entropy": entropy, "scored": scored}
    if buffer is not None:
        # That insertion waits for the loss is what keeps XLA from copying the buffer: it must read before it writes.
        valid = is_fresh & jnp.isfinite(info["loss"])
        if rule.until:
            valid &= now <= rule.until
        buffer = replay.add(buffer, own, valid, mesh, rule.keep)
        info["replay"] = _replay_summary(stats, own, is_fresh, drawn, there) | {"size": replay.size(buffer)}
    return TrainState(*carry, state.step + 1), buffer, info


def _rows(rollouts: Rollouts, advantages, age, unit: int) -> _Rows:
    P, G, T = rollouts.tokens.shape

    def each(x):  # [P, ...] -> [R, ...]
        return jnp.broadcast_to(x[:, None], (P, G, *x.shape[1:])).reshape(P * G, *x.shape[1:])

    prompts, prompt_lengths = each(rollouts.prompts), each(rollouts.prompt_lengths)
    completions = rollouts.tokens.reshape(P * G, T)
    width = sharding.round_up(prompts.shape[1] + T, unit)
    at = jnp.arange(width) - prompt_lengths[:, None]
    after = jnp.take_along_axis(completions, jnp.clip(at, 0, T - 1), axis=1)
    before = jnp.pad(prompts, ((0, 0), (0, width - prompts.shape[1])))
    lengths, behaviour = rollouts.lengths.reshape(-1), rollouts.logprobs.reshape(P * G, T)
    return _Rows(
        jnp.where(at < 0, before, after),
        prompt_lengths,
        completions,
        lengths,
        behaviour,
        behaviour,
        each(age),
        advantages.reshape(-1),
        jnp.zeros(lengths.shape, jnp.float32),
    )


def _micro_batches(rows: _Rows, active, hyper: Hyper, mesh):
    """The rows sorted by length, those not `active` last, in micro-batches of micro_rows.

    Also the order, for each micro-batch its branch: 0 if no row in it is active, else 1 + the place among `buckets` of
    the padded length that it needs; and these lengths.
    """
    total = rows.prompt_lengths + rows.lengths
    order = jnp.argsort(jnp.where(active, -total, 0))
    micro = jax.tree.map(lambda x: x[order].reshape(-1, hyper.micro_rows, *x.shape[1:]), rows)
    longest = jnp.where(active, total, 0)[order].reshape(-1, hyper.micro_rows).max(1)
    sizes = buckets(rows.tokens.shape[1], hyper.length_buckets, sharding.length_unit(sharding.platform(mesh)))
    return micro, order, jnp.where(longest == 0, 0, 1 + jnp.searchsorted(jnp.array(sizes), longest)), sizes


def _proximal(params, rows: _Rows, config, hyper: Hyper, mesh) -> tuple[_Rows, jax.Array]:
    """The rows with the log-probs of the policy as it is, and how many tokens that took.

    Computed for replayed rows that have a gradient: the policy that generated a fresh row is the policy as it is.
    """
    active = (rows.age > 0) & (rows.advantages != 0)
    micro, order, branch, sizes = _micro_batches(rows, active, hyper, mesh)

    def compute(size, rows):
        T = min(rows.completions.shape[1], size - 1)
        logp, _ = completion_logprobs(
            params, config, rows.tokens[:, :size], rows.prompt_lengths, rows.completions[:, :T], hyper
        )
        return jnp.pad(logp, ((0, 0), (0, rows.completions.shape[1] - T)))

    branches = [lambda rows: rows.behaviour] + [functools.partial(compute, size) for size in sizes]

    def step(_, x):
        index, rows = x
        rows = jax.tree.map(lambda x: sharding.constrain(x, sharding.BATCH), rows)
        return None, jax.lax.switch(index, branches, rows)

    with jax.sharding.use_abstract_mesh(mesh.abstract_mesh):
        logp = jax.lax.scan(step, None, (branch, micro))[1]
    logp = logp.reshape(rows.behaviour.shape)[jnp.argsort(order)]
    proximal = jnp.where(active[:, None], logp, rows.behaviour)
    return dataclasses.replace(rows, proximal=proximal), jnp.where(active, rows.lengths, 0).sum(dtype=jnp.float32)


def _gradients(params, rows: _Rows, config, hyper: Hyper, reference, mesh):
    """Float32 gradients of a minibatch's loss, and sums for the metrics."""
    active = (rows.lengths > 0) if hyper.kl else (rows.advantages != 0)
    micro, _, branch, sizes = _micro_batches(rows, active, hyper, mesh)

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

    start = dict.fromkeys(("loss", "computed", "rows", "real", "entropy", "kl"), jnp.float32(0))
    start |= dict.fromkeys(_BY_AGE, jnp.zeros(AGES + 1))
    zeros = jax.tree.map(lambda x: jnp.zeros(x.shape, jnp.float32), params)
    zeros = jax.lax.with_sharding_constraint(zeros, qwen2.shardings(config, mesh))
    return jax.lax.scan(step, (zeros, start), (branch, micro))[0]


# Over the tokens with a gradient in rows of each age: sums, and maxima where the name says so.
_BY_AGE = (
    "tokens",
    "clipped",
    "ratio",
    "ratio_sq",
    "ratio_max",
    "log_ratio_sq",
    "kl_behaviour",
    "diff",
    "diff_max",
)


def _by_age(age, per_row: dict) -> dict:
    """What is known of each row [R] added up, or its maximum, for ages 0 to AGES: float32 [AGES + 1]."""
    member = jnp.minimum(age, AGES)[:, None] == jnp.arange(AGES + 1)

    def reduce(name, x):
        x = jnp.where(member, x[:, None], 0.0)
        return x.max(0) if name.endswith("_max") else x.sum(0)

    return {name: reduce(name, x) for name, x in per_row.items()}


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
    proximal = rows.proximal[:, :T]
    if hyper.minibatches == 1:  # nothing has moved yet
        proximal = jnp.where(rows.age[:, None] > 0, jax.lax.stop_gradient(logp), proximal)
    args = (behaviour, proximal, rows.advantages, mask, hyper.clip, hyper.loss, hyper.cap)
    loss, _, info = losses.policy_loss(logp, *args)
    diff = jnp.where(real, jnp.abs(logp - behaviour), 0.0)
    info = _by_age(rows.age, info | {"diff": diff.sum(1), "diff_max": diff.max(1)}) | {
        "real": (rows.prompt_lengths + rows.lengths).sum(),
        "entropy": jnp.where(real, entropy, 0.0).sum(),
        "kl": 0.0,
    }
    if hyper.kl:
        ref, _ = completion_logprobs(reference, config, tokens, rows.prompt_lengths, completions, hyper)
        kl = losses.kl_penalty(logp, jnp.where(real, jax.lax.stop_gradient(ref), logp))
        loss += hyper.kl * (mask * kl).sum()
        info["kl"] = kl.sum()
    return loss, {k: jax.lax.stop_gradient(jnp.float32(v)) for k, v in info.items()}


def _summary(stats, hyper: Hyper, total_rows: int) -> dict:
    """Metrics of a step from the sums of its minibatches, each [minibatches] or [minibatches, AGES + 1]."""
    total = {k: v.sum(0) for k, v in stats.items()}
    tokens = jnp.maximum(total["tokens"].sum(), 1)
    metrics = {
        "loss": stats["loss"].mean(),
        "grad_norm": stats["grad_norm"].mean(),
        "clip_fraction": total["clipped"].sum() / tokens,
        "clip_fraction_fresh": total["clipped"][0] / jnp.maximum(total["tokens"][0], 1),
        "ratio_max": stats["ratio_max"].max(),
        "entropy_useful": total["entropy"] / tokens,
        "logprob_diff_mean": stats["diff"][0, 0] / jnp.maximum(stats["tokens"][0, 0], 1),
        "logprob_diff_max": stats["diff_max"][0, 0],
        "padding": 1 - jnp.maximum(total["real"], 1e-9) / jnp.maximum(total["computed"], 1e-9),
        "skipped": 1 - total["rows"] / total_rows,
        "tokens": total["tokens"].sum(),
    }
    return metrics | ({"kl": total["kl"] / tokens} if hyper.kl else {})


def _replay_summary(stats, own: replay.Groups, is_fresh, drawn: replay.Groups, there) -> dict:
    """What replay did in a step; NaN stands for a mean or maximum of nothing.

    Returns:
      share: of the trained groups that are replayed ones.
      ages: how many of these are 1, 2, .. AGES or more steps old, int32 [AGES].
      overlap: share of them whose question is also among the fresh.
      ids, steps: of the replayed groups, int32 [n]; -1 where there was none to draw.
      Over their tokens with a gradient, as these enter the loss: clip_fraction; ratio_mean and
      ratio_max of exp(log-prob now - behaviour); effective_sample_size, of these as weights, as a share of the tokens.
      By age, float32 [AGES + 1], age 0 being the fresh groups: log_ratio_sq_by_age, the mean square of the ratio's
      logarithm; kl_by_age, the mean of ratio - 1 - log ratio. That estimates KL(behaviour || policy) per token on the
      questions with a gradient, the policy being that of the minibatch; not so with positive_only.
    """
    total = {name: stats[name].sum(0) for name in _BY_AGE}
    old = {name: x[1:].sum() for name, x in total.items()}
    count, age = there.sum(), jnp.minimum(own.step[0] - drawn.step, AGES)
    same = (drawn.ids[:, None] == own.ids) & is_fresh
    return {
        "share": count / (is_fresh.sum() + count),
        "ages": (there & (age == jnp.arange(1, AGES + 1)[:, None])).sum(1),
        "overlap": (same.any(1) & there).sum() / count,
        "ids": jnp.where(there, drawn.ids, -1),
        "steps": jnp.where(there, drawn.step, -1),
        "clip_fraction": old["clipped"] / old["tokens"],
        "ratio_mean": old["ratio"] / old["tokens"],
        "ratio_max": jnp.where(old["tokens"] > 0, stats["ratio_max"][:, 1:].max(), jnp.nan),
        "effective_sample_size": old["ratio"] ** 2 / (old["tokens"] * old["ratio_sq"]),
        "log_ratio_sq_by_age": total["log_ratio_sq"] / total["tokens"],
        "kl_by_age": total["kl_behaviour"] / total["tokens"],
    }
