"""The large programs of a run with their arguments as shapes: what a run compiles, without anything being there."""

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from dots_jax import learner
from dots_jax.core import sharding
from dots_jax.difficulty import embed
from dots_jax.plan.footprint import Footprint
from dots_jax.policy import transformer
from dots_jax.rollout import kv, sampler

_OTHER = ("optimizer", "reference policy", "replay buffer", "kept rollouts")
_RESIDENT = ("parameters", *_OTHER)


class Program(NamedTuple):
    """A jitted function and what a run calls it with, its static arguments among them."""

    function: Callable
    args: tuple
    phases: tuple[str, ...]  # of the plan, in which it runs
    beside: tuple[str, ...]  # kinds of the plan that are there and no argument of it

    def lower(self, **how) -> jax.stages.Lowered:
        """The program for the devices of its mesh; for an abstract mesh, for `lowering_platforms`."""
        return self.function.trace(*self.args).lower(**how)


def programs(held: Footprint, mesh: jax.sharding.Mesh | None = None) -> dict[str, Program]:
    """The programs of a run by name; on the plan's own abstract mesh, or on one of as many devices.

    Left out are those of the selector, what takes milliseconds, and what scores the completions that are kept: it
    computes a part of what the update does.
    """
    mesh = mesh or held.mesh
    params = _parameters(held.model_config, mesh, jnp.dtype(held.config.policy.dtype))
    found = _embedding(held, mesh) if held.embeds else {}
    return found | _sampling(held, mesh, params) | {"update": _update(held, mesh, params)}


def _array(place: jax.sharding.Sharding, *shape: int, dtype=jnp.int32) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(shape, dtype, sharding=place)


def _placed(tree: Any, place: jax.sharding.Sharding) -> Any:
    """The shapes of a tree, all at one place."""
    return jax.tree.map(lambda x: _array(place, *x.shape, dtype=x.dtype), tree)


def _parameters(model_config: transformer.ModelConfig, mesh: jax.sharding.Mesh, dtype) -> dict:
    declared, places = transformer.declare(model_config), transformer.shardings(model_config, mesh)
    return jax.tree.map(lambda p, place: _array(place, *p.shape, dtype=dtype), declared, places)


def _key(mesh: jax.sharding.Mesh) -> jax.ShapeDtypeStruct:
    return _placed(jax.eval_shape(lambda: jax.random.key(0)), sharding.replicated(mesh))


def _embedding(held: Footprint, mesh: jax.sharding.Mesh) -> dict[str, Program]:
    """The longest block of the pool's texts."""
    rows, length = held.embedding_block
    rows *= sharding.num_row_shards(mesh)
    params = _parameters(held.model_config, mesh, jnp.dtype(held.config.embedding.dtype))
    tokens, lengths = (jax.ShapeDtypeStruct(shape, jnp.int32) for shape in ((rows, length), (rows,)))
    return {
        "embed": Program(
            embed.mean_hidden, (params, tokens, lengths, held.model_config, mesh), ("score",), (*_RESIDENT, "pool")
        )
    }


def _sampling(held: Footprint, mesh: jax.sharding.Mesh, params: dict) -> dict[str, Program]:
    """Of the call of the sampler with the most rows; each number of slots has its own program."""
    spec, shards = dataclasses.replace(held.sampler_spec, mesh=mesh), sharding.num_row_shards(mesh)
    split, everywhere = sharding.rows(mesh), sharding.replicated(mesh)
    found = {"weights": Program(sampler._decode_weights, (params, spec), ("prefill",), _OTHER)}
    places = []

    def hoist(params: dict):
        weights, where = transformer.decode_weights(params, spec.model_config, mesh)
        places.append(where)
        return weights

    shapes = jax.eval_shape(hoist, params)
    weights = jax.tree.map(lambda x, place: _array(place, *x.shape, dtype=x.dtype), shapes, places[0])
    block = spec.prefill_questions * shards
    for width in spec.prefill_widths:
        args = params, _array(split, block, width), _array(split, block), spec
        beside = *_OTHER, "decode weights", "rollouts", "KV cache"
        found[f"prefill {width}"] = Program(sampler._prefill, args, ("prefill",), beside)
    prompts = _placed(sampler._prefill.eval_shape(*args), kv.split(mesh))
    scalars = [_array(everywhere, dtype=dtype) for dtype in (jnp.float32, bool, jnp.float32)]
    stop_ids = _array(everywhere, 2)
    rows = held.most_rows
    for size in reversed([size for size in spec.sizes if size <= spec.size_for(rows)]):
        slots, cache, _ = jax.eval_shape(lambda size=size: sampler._start(size, rows, spec.max_tokens, spec))
        slots, cache = _placed(slots, split), _placed(cache, kv.split(mesh))
        queue = sampler._Queue(slots, slots.row, _array(split, shards))
        beside = *_RESIDENT, "decode weights", "rollouts"
        found[f"admit {size}"] = Program(sampler._admit, (slots, cache, prompts, queue, spec), ("decode",), beside)
        args = weights, slots, cache, _key(mesh), *scalars, stop_ids, spec
        beside = *_RESIDENT, "rollouts", "prompt KV"
        found[f"decode {size}"] = Program(sampler._decode, args, ("decode",), beside)
    return found


def _update(held: Footprint, mesh: jax.sharding.Mesh, params: dict) -> Program:
    c, replay_spec, spec = held.config, held.replay_spec, learner.UpdateSpec.from_config(held.config)
    split, everywhere = sharding.rows(mesh), sharding.replicated(mesh)
    full = _parameters(held.model_config, mesh, jnp.float32)
    moments = optax.tree_utils.tree_map_params(
        spec.optimizer(),
        lambda x, like: _array(like.sharding, *x.shape, dtype=x.dtype),
        jax.eval_shape(spec.optimizer().init, full),
        full,
        transform_non_params=lambda x: _array(everywhere, *x.shape, dtype=x.dtype),
    )
    master = None if jnp.dtype(c.policy.dtype) == jnp.float32 else full
    scale = _placed(jax.eval_shape(learner.LossScale.start), everywhere) if c.policy.dtype == "float16" else None
    gate = _placed(jax.eval_shape(learner.Gate.start), everywhere) if replay_spec.is_gated else None
    state = learner.TrainState(params, master, moments, _array(everywhere), scale, gate)
    B, sizes = replay_spec.batch_size, (c.rollout.group_size, c.data.max_prompt_tokens, c.rollout.max_tokens)
    groups = _placed(jax.eval_shape(lambda: learner.Groups.empty((B,), *sizes)), everywhere)
    prompts = {"prompts": groups.rollouts.prompts, "prompt_lengths": groups.rollouts.prompt_lengths}
    groups = dataclasses.replace(groups, rollouts=dataclasses.replace(_placed(groups.rollouts, split), **prompts))
    buffer = None
    if replay_spec.num_replayed:
        shards = sharding.num_row_shards(mesh)
        shape = shards, replay_spec.num_slots // shards
        buffer = _placed(jax.eval_shape(lambda: learner.Groups.empty(shape, *sizes)), split)
    reference = params if spec.kl_coef else None
    args = state, buffer, groups, _array(everywhere), _key(mesh)
    args = *args, held.model_config, spec, mesh, replay_spec, reference
    return Program(learner.update, args, ("loss", "backward"), ("kept rollouts",))
