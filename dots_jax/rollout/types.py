"""The type of a batch of groups of rollouts."""

import dataclasses
import functools

import jax
import jax.numpy as jnp

from dots_jax.core import sharding


@dataclasses.dataclass(frozen=True)
class RolloutSpec:
    """How completions are sampled; the fields of `config.rollout`, and arguments of `rollout.sample`."""

    group_size: int  # G
    max_tokens: int  # T
    temperature: float
    chunk: int
    slots: int
    capacity: tuple[int, int]  # prompt and completion tokens, for which its calls share their programs


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Rollouts:
    """G completions for each of P questions; padding is 0 and stands right of the length."""

    prompts: jax.Array  # int32 [P, S]
    prompt_lengths: jax.Array  # int32 [P]
    tokens: jax.Array  # int32 [P, G, T], end token included
    lengths: jax.Array  # int32 [P, G], end token counted
    logprobs: jax.Array  # float32 [P, G, T], behaviour log-probs at the sampling temperature
    finished: jax.Array  # bool [P, G], ended by a stop id; False: truncated at T


@jax.jit
def concat_groups(first: Rollouts, second: Rollouts, indices: jax.Array) -> Rollouts:
    """The groups `indices` int32 [n] of `first` and `second` together; G, S and T are the same in both."""
    return jax.tree.map(lambda a, b: jnp.concatenate([a, b])[indices], first, second)


@functools.partial(jax.jit, static_argnames="mesh")
def take_groups(rollouts: Rollouts, indices: jax.Array, mesh: jax.sharding.Mesh) -> Rollouts:
    """The groups `indices` int32 [n], whole on every device."""
    return jax.lax.with_sharding_constraint(jax.tree.map(lambda x: x[indices], rollouts), sharding.replicated(mesh))


@jax.jit
def concat_completions(first: Rollouts, second: Rollouts) -> Rollouts:
    """The completions of both, of the same prompts; T is the same."""
    both = jax.tree.map(lambda a, b: jnp.concatenate([a, b], 1) if a.ndim > 1 else a, first, second)
    return dataclasses.replace(both, prompts=first.prompts)
