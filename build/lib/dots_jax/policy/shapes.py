"""The published Qwen2.5 shapes by name, for programs that need a policy's shape and not its weights."""

import math
import os

import jax

from dots_jax.core.errors import UserError
from dots_jax.policy import huggingface, transformer
from dots_jax.policy.families import Family
from dots_jax.policy.transformer import ModelConfig

TOKENS = 151665  # ids of the tokenizer that all of them share; the embedding has rows to spare
SHAPES = {  # V, D, L, H, K, F, rotary base, epsilon of norms, tied, positions
    "qwen2.5-0.5b": ModelConfig(151936, 896, 24, 14, 2, 4864, 1e6, 1e-6, True, 32768, TOKENS),
    "qwen2.5-1.5b": ModelConfig(151936, 1536, 28, 12, 2, 8960, 1e6, 1e-6, True, 131072, TOKENS),
    "qwen2.5-3b": ModelConfig(151936, 2048, 36, 16, 2, 11008, 1e6, 1e-6, True, 32768, TOKENS),
    "qwen2.5-7b": ModelConfig(152064, 3584, 28, 28, 4, 18944, 1e6, 1e-6, False, 131072, TOKENS),
    "qwen2.5-math-1.5b": ModelConfig(151936, 1536, 28, 12, 2, 8960, 1e4, 1e-6, True, 4096, TOKENS),
    "qwen2.5-math-7b": ModelConfig(152064, 3584, 28, 28, 4, 18944, 1e4, 1e-6, False, 4096, TOKENS),
}


def find(path: str, family: Family | None = None) -> ModelConfig:
    """The shape of the model that `path` names: by the `config.json` in it, else the published one of that name.

    Raises:
      UserError: a damaged config.json, or a name that is not in `SHAPES`.
    """
    if os.path.isfile(os.path.join(path, "config.json")):
        return huggingface.read_config(path, family)
    name = os.path.basename(path.rstrip("/")).lower()
    if name not in SHAPES:
        raise UserError(
            f"no shape is known for the policy {path!r}: there is no {os.path.join(path, 'config.json')}, and its name "
            f"is none of {', '.join(SHAPES)}"
        )
    return SHAPES[name]


def count(model_config: ModelConfig, embeddings: bool = True) -> int:
    """Parameters of the model; without `embeddings` neither the input nor the output matrix."""
    tree = transformer.declare(model_config)
    tree = {name: part for name, part in tree.items() if embeddings or name not in ("embed", "head")}
    return sum(math.prod(p.shape) for p in jax.tree.leaves(tree))
