"""The learner: advantages, clipped losses and the jitted GRPO update."""

from dots_jax.learner.losses import advantages, aggregation_weights, kl_penalty, mixed, policy_loss
from dots_jax.learner.update import Hyper, TrainState, init_state, update

__all__ = [
    "Hyper",
    "TrainState",
    "advantages",
    "aggregation_weights",
    "init_state",
    "kl_penalty",
    "mixed",
    "policy_loss",
    "update",
]
