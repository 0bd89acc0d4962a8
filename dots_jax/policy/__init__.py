"""The policy: Qwen2.5 as a pytree of parameters and pure functions."""

from dots_jax.policy.huggingface import check_target, load, save
from dots_jax.policy.qwen2 import Config, hidden, init
from dots_jax.policy.scoring import logits, token_logprobs

__all__ = ["Config", "check_target", "hidden", "init", "load", "logits", "save", "token_logprobs"]
