"""Gradients and log-probs of a minibatch: each device goes over its own groups in micro-batches of packed tokens.

A group's completions share their prompt. The prompts' keys and values come first. The completions read them, and give
them a gradient, which then goes back through the prompts. A row begins with its prompt's last token: the state there
gives the completion's first.
"""

import functools

import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec

from dots_jax.core import sharding
from dots_jax.learner import diagnostics, losses
from dots_jax.learner.types import Batch, UpdateSpec
from dots_jax.policy import packed, scoring, transformer
from dots_jax.policy.transformer import ModelConfig

_SUMS = ("loss", "computed", "real", "rows", "entropy", "kl")


def has_gradient(batch: Batch, spec: UpdateSpec) -> jax.Array:
    """The rows that there are and that move the policy, bool [B, G]."""
    return (batch.lengths > 0) & ((batch.advantages != 0) | bool(spec.kl_coef))


def gradients(
    params: dict, batch: Batch, is_first: jax.Array, scale: jax.Array | None, model_config: ModelConfig,
    spec: UpdateSpec, mesh: jax.sharding.Mesh,
) -> tuple[dict, dict]:  # fmt: skip
    """Float32 gradients of a minibatch's loss, and sums for the metrics.

    `is_first`: no optimizer step of this update has been taken. `scale` multiplies the loss on the way back, so that
    small gradients are no zeros in float16.
    """
    active = has_gradient(batch, spec)

    def local(params: dict, is_first: jax.Array, scale: jax.Array | None, batch: Batch, active: jax.Array):
        device = _Device(params, batch, active, model_config, spec, mesh)
        grads, stats = device.gradients(is_first, scale)
        return sharding.add_up(grads, device.split), {
            k: jax.lax.pmax(v, sharding.BATCH) if k.endswith("_max") else jax.lax.psum(v, sharding.BATCH)
            for k, v in stats.items()
        }

    deal = _Deal(active, batch, mesh)
    places = sharding.batch_specs(transformer.shardings(model_config, mesh))
    run = sharding.per_device(local, mesh, (places, PartitionSpec(), PartitionSpec()), (places, PartitionSpec()))
    return run(params, is_first, scale, *deal(batch, active))


def logprobs(
    params: dict, batch: Batch, active: jax.Array, model_config: ModelConfig, spec: UpdateSpec,
    mesh: jax.sharding.Mesh,
) -> jax.Array:  # fmt: skip
    """Log-probs [B, G, T] of the completions that are `active`, bool [B, G]; 0 elsewhere."""
    return scores(params, batch, active, model_config, spec, mesh, entropies=False)[0]


def scores(
    params: dict, batch: Batch, active: jax.Array, model_config: ModelConfig, spec: UpdateSpec,
    mesh: jax.sharding.Mesh, entropies: bool = True,
) -> tuple[jax.Array, ...]:  # fmt: skip
    """As `logprobs`, and, with `entropies`, those of the distributions that the tokens are drawn from."""

    def local(params: dict, batch: Batch, active: jax.Array):
        return _Device(params, batch, active, model_config, spec, mesh).scores(entropies)

    deal = _Deal(active, batch, mesh)
    places = sharding.batch_specs(transformer.shardings(model_config, mesh))
    out = sharding.per_device(local, mesh, (places,), PartitionSpec(sharding.BATCH))(params, *deal(batch, active))
    return jax.tree.map(deal.undo, out)


class _Deal:
    """Deals groups out to the devices, so that all have about as many tokens to compute."""

    def __init__(self, active: jax.Array, batch: Batch, mesh: jax.sharding.Mesh):
        shards, count = sharding.num_row_shards(mesh), len(active)
        self.order = None
        if shards > 1:
            tokens = jnp.where(active, batch.lengths, 0).sum(1)
            order = jnp.pad(jnp.argsort(-tokens), (0, -count % shards), constant_values=count)
            self.order = order.reshape(-1, shards).T.ravel()
        self.count, self.mesh = count, mesh

    def __call__(self, *trees):
        if self.order is None:
            return trees
        take = functools.partial(jnp.take, indices=self.order, axis=0, mode="fill", fill_value=0)
        return jax.lax.with_sharding_constraint(jax.tree.map(take, trees), sharding.rows(self.mesh))

    def undo(self, x: jax.Array) -> jax.Array:
        if self.order is None:
            return x
        return jnp.zeros((self.count, *x.shape[1:]), x.dtype).at[self.order].set(x, mode="drop")


class _Device:
    """What one device computes of its own U groups of G completions, R rows in all."""

    def __init__(
        self, params: dict, batch: Batch, active: jax.Array, model_config: ModelConfig, spec: UpdateSpec,
        mesh: jax.sharding.Mesh,
    ):  # fmt: skip
        self.model_config, self.spec, self.mesh, self.batch = model_config, spec, mesh, batch
        U, self.group_size, T = batch.completions.shape
        self.params, self.split = params, sharding.split_axes(params, transformer.declare(model_config))
        self.prompt_lengths = jnp.where(active.any(1), jnp.maximum(batch.prompt_lengths - 1, 0), 0)
        self.lengths = jnp.where(active, batch.lengths, 0).ravel()
        longest = batch.prompts.shape[1] - 1
        platform = sharding.platform(mesh)
        self.rows = packed.PackSpec.of(spec.micro_tokens, len(self.lengths), T, longest, platform)
        # Of prompts there are few tokens: smaller micro-batches waste less of their last one.
        self.prompts = packed.PackSpec.of(spec.micro_tokens // 4, U, longest, 0, platform) if longest else None

    # ---- Loops -----------------------------------------------------------------------------------------------------

    def loop(self, lengths: jax.Array, spec: packed.PackSpec, body, carry):
        """`body(pack, carry) -> carry` for micro-batches of all rows that have a length."""

        def left(waiting: packed.Waiting) -> jax.Array:
            some = waiting.some
            if self.mesh.shape["fsdp"] * self.mesh.shape["tensor"] > 1:  # collectives within: all devices, or none
                some = jax.lax.pmax(some.astype(jnp.int32), sharding.BATCH) > 0
            return some

        def step(state):
            pack, waiting = packed.pack(state[0], spec)
            return waiting, left(waiting), body(pack, state[2])

        waiting = packed.Waiting.of(lengths)
        return jax.lax.while_loop(lambda state: state[1], step, (waiting, left(waiting), carry))[2]

    def gradients(self, is_first: jax.Array, scale: jax.Array | None) -> tuple[dict, dict]:
        shared = self.shared()

        def body(pack: packed.Pack, carry: tuple):
            grads, back, stats = carry
            function = jax.value_and_grad(self.loss, argnums=(0, 1), has_aux=True)
            (_, new), (g, b) = function(self.params, shared, pack, is_first, scale)
            grads, back = _plus(grads, g), _plus(back, b)
            new |= {"computed": jnp.float32(self.rows.tokens)}
            stats = {k: (jnp.maximum if k.endswith("_max") else jnp.add)(stats[k], v) for k, v in new.items()}
            return grads, back, stats

        stats = dict.fromkeys(_SUMS, jnp.float32(0)) | dict.fromkeys(
            diagnostics.BY_AGE, jnp.zeros(diagnostics.AGES + 1)
        )
        carry = *jax.tree.map(lambda x: jnp.zeros(x.shape, jnp.float32), (self.params, shared)), stats
        grads, back, stats = self.loop(self.lengths, self.rows, body, carry)
        if shared is not None:
            grads, computed = self.back_through_prompts(grads, back)
            real = self.prompt_lengths.sum().astype(jnp.float32)
            stats |= {"computed": stats["computed"] + computed, "real": stats["real"] + real}
        if scale is not None:
            grads = jax.tree.map(lambda x: x / scale, grads)
        return grads, stats

    def scores(self, entropies: bool) -> tuple[jax.Array, ...]:
        shared, shape = self.shared(), self.batch.completions.shape
        flat = jnp.zeros((shape[0] * shape[1], shape[2]), jnp.float32)

        def body(pack: packed.Pack, out: tuple):
            new = self.score(self.params, shared, pack)[: len(out)]
            return tuple(x.at[pack.token_row, pack.place].set(y, mode="drop") for x, y in zip(out, new, strict=True))

        out = self.loop(self.lengths, self.rows, body, (flat,) * (1 + entropies))
        return tuple(x.reshape(shape) for x in out)

    # ---- Prompts ---------------------------------------------------------------------------------------------------

    def shared(self):
        """The prompts' (keys, values), [L, U, S, K, E] both, or None where no prompt has more than its last token."""
        if self.prompts is None:
            return None
        m, U = self.model_config, len(self.prompt_lengths)
        shape = (m.num_layers, U, self.prompts.widths[-1], m.num_kv_heads, m.head_width)
        empty = jnp.zeros(shape, jax.tree.leaves(self.params)[0].dtype)

        def body(pack: packed.Pack, shared: tuple):
            new = self.prompt_kv(self.params, pack)
            return tuple(
                x.at[:, pack.token_row, pack.place].set(y, mode="drop") for x, y in zip(shared, new, strict=True)
            )

        return self.loop(self.prompt_lengths, self.prompts, body, (empty, empty))

    def prompt_kv(self, params: dict, pack: packed.Pack):
        tokens = self.batch.prompts.at[pack.token_row, pack.place].get(mode="fill", fill_value=0)

        def attend(q, k, v, _):
            return packed.attend(q, k, v, None, pack, None, self.prompts), (k, v)

        return self.run(self.gathered(params), tokens, pack.place, attend)[1]

    def back_through_prompts(self, grads: dict, back: tuple) -> tuple[dict, jax.Array]:
        def body(pack: packed.Pack, carry: tuple):
            grads, computed = carry
            kv, pull = jax.vjp(lambda params: self.prompt_kv(params, pack), self.params)
            index = (slice(None), pack.token_row, pack.place)
            cotangent = tuple(
                x.at[index].get(mode="fill", fill_value=0).astype(y.dtype) for x, y in zip(back, kv, strict=True)
            )
            return _plus(grads, pull(cotangent)[0]), computed + self.prompts.tokens

        return self.loop(self.prompt_lengths, self.prompts, body, (grads, jnp.float32(0)))

    def gathered(self, params: dict) -> dict:
        """The parameters, those outside the layers whole."""
        top = {name: x for name, x in params.items() if name != "layers"}
        return params | sharding.gather(top, {name: self.split[name] for name in top})

    # ---- Completions -----------------------------------------------------------------------------------------------

    def run(self, params: dict, tokens: jax.Array, positions: jax.Array, attend, given=None):
        """Hidden states [N, D] of packed tokens, and over layers what `attend` kept."""
        whole = functools.partial(sharding.gather, axes=self.split["layers"], without=1)
        x = transformer.embed(params, tokens)
        return transformer.layers(params, self.model_config, x, positions, attend, given, self.spec.remat, whole)

    def score(self, params: dict, shared, pack: packed.Pack) -> tuple[jax.Array, jax.Array]:
        """Log-probs and entropies, float32 [N], of the completions' tokens."""
        batch, params = self.batch, self.gathered(params)
        completions = batch.completions.reshape(-1, batch.completions.shape[2])
        group = jnp.minimum(pack.row // self.group_size, len(self.prompt_lengths) - 1)
        last = jnp.take_along_axis(batch.prompts, jnp.maximum(batch.prompt_lengths - 1, 0)[:, None], axis=1)[:, 0]
        prompts = packed.Prompts(group, jnp.where(pack.length > 0, self.prompt_lengths[group], 0))
        before = completions.at[pack.token_row, jnp.maximum(pack.place - 1, 0)].get(mode="fill", fill_value=0)
        tokens = jnp.where(pack.place == 0, last[group][pack.slot], before)
        targets = completions.at[pack.token_row, pack.place].get(mode="fill", fill_value=0)

        def attend(q, k, v, shared):
            return packed.attend(q, k, v, shared, pack, prompts, self.rows), None

        x, _ = self.run(params, tokens, prompts.length[pack.slot] + pack.place, attend, shared)
        num_tokens, chunk = self.model_config.num_tokens, self.spec.logits_chunk
        return scoring.score(x, transformer.head(params), targets, self.spec.temperature, num_tokens, chunk)

    def loss(self, params: dict, shared, pack: packed.Pack, is_first: jax.Array, scale: jax.Array | None):
        """The part of the loss that these rows give, times `scale`, and sums for the metrics."""
        batch, spec = self.batch, self.spec
        T = batch.completions.shape[2]
        logp, entropy = (packed.side_by_side(x, pack, T) for x in self.score(params, shared, pack))

        def rows(x: jax.Array):  # [U, G, ..] -> [n, ..]
            return x.reshape(-1, *x.shape[2:]).at[pack.row].get(mode="fill", fill_value=0)

        age = rows(jnp.broadcast_to(batch.age[:, None], batch.lengths.shape))
        behaviour, proximal, advantages = map(rows, (batch.behaviour, batch.proximal, batch.advantages))
        real = jnp.arange(T) < pack.length[:, None]
        mask = jnp.where(real, rows(batch.weights)[:, None], 0.0)
        is_fresh = (age == 0)[:, None]
        proximal = jnp.where((~is_fresh | spec.rescore_fresh) & is_first, jax.lax.stop_gradient(logp), proximal)
        diff = jnp.where(real, jax.lax.stop_gradient(logp) - behaviour, 0.0)
        if spec.rescore_fresh:  # the sampler's numbers differ: what that makes of a token's chance is its weight
            weight = jnp.minimum(jnp.exp(jnp.where(real, proximal - behaviour, 0.0)), spec.ratio_cap)
            mask, behaviour = jnp.where(is_fresh, mask * weight, mask), jnp.where(is_fresh, proximal, behaviour)
        loss, _, info = losses.policy_loss(
            logp, behaviour, proximal, advantages, mask, spec.clip, spec.loss, spec.ratio_cap
        )
        moved, (lower, upper) = jnp.expm1(diff), spec.clip
        info |= {
            "diff": jnp.abs(diff).sum(1),
            "diff_max": jnp.abs(diff).max(1),
            "diff_far": ((moved < -lower) | (moved > upper)).sum(1),
            "diff_k3": (moved - diff).sum(1),
        }
        info = diagnostics.by_age(age, info) | {
            "real": pack.length.sum(),
            "rows": (pack.length > 0).sum(),
            "entropy": jnp.where(real, entropy, 0.0).sum(),
            "kl": 0.0,
        }
        if spec.kl_coef:
            kl = losses.kl_penalty(logp, jnp.where(real, rows(batch.reference), logp))
            loss += spec.kl_coef * (mask * kl).sum()
            info["kl"] = kl.sum()
        info["loss"] = loss
        return loss if scale is None else loss * scale, {
            k: jax.lax.stop_gradient(jnp.float32(v)) for k, v in info.items()
        }


def _plus(total, new):
    # Without the barrier XLA for TPUs fails: it tries to move the sums over fsdp out of the loop.
    new = jax.lax.optimization_barrier(new)
    return jax.tree.map(lambda a, b: a + b.astype(a.dtype), total, new)
