"""What the tests of the update share: specs, and a step with them."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np

from configs import common
from dots_jax import learner, policy
from dots_jax.core import sharding
from dots_jax.learner import losses, replay

P, G, S, T = 8, 4, 5, 9
SPEC = dataclasses.replace(
    learner.UpdateSpec.from_config(common.get_config()), minibatches=2, micro_tokens=24, logits_chunk=10,
    clip=(0.2, 0.28), loss=losses.decoupled, learning_rate=1e-2, weight_decay=0.1, max_grad_norm=0.5, remat="none",
    rescore_fresh=False, temperature=0.8,
)  # fmt: skip
REPLAY = dataclasses.replace(replay.ReplaySpec(P, 2, **common.get_config().replay), capacity=P, insert="useful")


@functools.partial(jax.jit, static_argnums=1)
def logprobs(params, config, tokens, lengths):
    return policy.token_logprobs(params, config, tokens, lengths, SPEC.temperature)[0]


def step(config, params, batch, spec=SPEC, sizes=(1, 1, 1), reference=None, dtype=np.float32, scored=False):
    """Parameters and metrics after one update, on the host."""
    mesh = sharding.make_mesh(*sizes, devices=jax.devices()[: int(np.prod(sizes))])
    place = policy.transformer.shardings(config, mesh)
    params = jax.device_put(jax.tree.map(lambda x: jnp.asarray(x, dtype), params), place)
    state = learner.init_state(params, config, spec, mesh)
    given = learner.Groups.fresh(*batch, np.arange(P), 1, mesh)
    state, _, info = learner.update(
        state, None, given, jnp.int32(P), jax.random.key(0), config, spec, mesh, reference=reference
    )
    assert (info.pop("scored") > 0) == scored and "replay" not in info
    for leaf, where in zip(jax.tree.leaves(state.params), jax.tree.leaves(place), strict=True):
        assert leaf.sharding.is_equivalent_to(where, leaf.ndim)
    return jax.tree.map(np.asarray, state), {k: float(v) for k, v in info.items()}
