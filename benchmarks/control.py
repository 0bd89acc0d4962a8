"""A control for comparisons: whether a completion is reinforced is chance, all else stays."""

import jax
import jax.numpy as jnp

from dots_jax.learner import losses


def signs(logp, behaviour, proximal, advantage, clip, cap):
    """The paper's loss with every completion's advantage multiplied by 1 or -1, by a hash of its log-probs."""
    bits = jax.lax.bitcast_convert_type(behaviour.sum(1, keepdims=True), jnp.uint32) * jnp.uint32(2654435761)
    sign = jnp.where(bits >> 31, 1.0, -1.0)
    return losses.plain(logp, behaviour, proximal, sign * advantage, clip, cap)


signs.needs_proximal = False
