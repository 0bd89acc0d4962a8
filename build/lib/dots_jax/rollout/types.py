"""The type of a batch of groups of rollouts."""

import dataclasses

import jax
import jax.numpy as jnp


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
def concat_groups(first: Rollouts, indices: jax.Array, second: Rollouts) -> Rollouts:
    """The groups `indices` int32 [n] of `first`, and then all of `second`; S and T are the same in both."""
    return jax.tree.map(lambda a, b: jnp.concatenate([a[indices], b]), first, second)
