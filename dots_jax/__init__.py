"""dots_jax: data-efficient reinforcement fine-tuning of language models in JAX."""

__version__ = "0.1.0"
