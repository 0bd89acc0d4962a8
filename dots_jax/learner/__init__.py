"""The learner: advantages, clipped losses, the buffer of rollouts and the jitted GRPO-RR update."""

from dots_jax.learner import replay
from dots_jax.learner.losses import advantages, aggregation_weights, kl_penalty, mixed, policy_loss
from dots_jax.learner.types import Gate, Groups, LossScale, TrainState, UpdateSpec, check
from dots_jax.learner.update import init_state, log_weights, token_scores, update

__all__ = [
    "Gate",
    "Groups",
    "LossScale",
    "UpdateSpec",
    "TrainState",
    "advantages",
    "aggregation_weights",
    "check",
    "init_state",
    "kl_penalty",
    "log_weights",
    "mixed",
    "policy_loss",
    "replay",
    "token_scores",
    "update",
]
