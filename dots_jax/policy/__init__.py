"""The policy: Qwen2.5 as a pytree of parameters and pure functions."""

from dots_jax.policy.huggingface import load, save
from dots_jax.policy.qwen2 import Config, hidden, init
from dots_jax.policy.scoring import logits, token_logprobs

__all__ = ["Config", "hidden", "init", "load", "logits", "save", "token_logprobs"]
