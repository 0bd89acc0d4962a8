"""The policy: a decoder-only transformer as a pytree of parameters and pure functions."""

from dots_jax.policy.huggingface import check_target, load, save
from dots_jax.policy.scoring import logits, token_logprobs
from dots_jax.policy.transformer import ModelConfig, hidden, init

__all__ = ["ModelConfig", "check_target", "hidden", "init", "load", "logits", "save", "token_logprobs"]
