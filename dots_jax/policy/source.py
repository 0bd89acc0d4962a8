"""Where a policy comes from: a directory, the Hugging Face hub, or random weights of a small shape."""

import dataclasses
import json
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np

from dots_jax.core import distributed, files, runtime
from dots_jax.core.errors import UserError, first_line
from dots_jax.policy import families, huggingface, transformer
from dots_jax.policy import tokenizer as tok
from dots_jax.policy.families import QWEN2, Family
from dots_jax.policy.transformer import ModelConfig

if TYPE_CHECKING:  # the GPU check has no config, and runs without the package
    from ml_collections import ConfigDict

_TOKENIZER = ("tokenizer*.json", "vocab.json", "merges.txt", "*.jinja", "generation_config.json", "config.json")


@dataclasses.dataclass(frozen=True)
class Policy:
    """A policy but for its parameters: its shape, and what texts are to it."""

    directory: str
    model_config: ModelConfig
    tokenizer: Any
    stop_ids: tuple[int, ...]

    def encode(
        self, texts: Sequence[str], system: str, instruction_in: str, max_tokens: int = 0
    ) -> tuple[np.ndarray, np.ndarray]:
        """`tokenizer.prompts` int32 [N, S], lengths int32 [N]; at most `max_tokens`, 0: that leave one position.

        Raises UserError for a longer one.
        """
        most = max_tokens or self.model_config.max_positions - 1
        return tok.encode(self.tokenizer, texts, most, system, instruction_in)


def load(directory: str, mesh: jax.sharding.Mesh, dtype: str, family: Family | None = None) -> tuple[Policy, dict]:
    """The policy in a Hugging Face directory, and its parameters on the mesh. Raises UserError where it is none."""
    runtime.full_precision(dtype)
    model_config, params = huggingface.load(directory, mesh, jnp.dtype(dtype), family)
    if not all(jnp.isfinite(x).all() for x in jax.tree.leaves(params)):
        raise UserError(f"the weights in {directory} hold NaN or infinity; use another policy")
    tokenizer = tok.load(directory)
    return Policy(directory, model_config, tokenizer, tok.stop_ids(directory, tokenizer)), params


def find(path: str, directory: str = "", tokenizer_only: bool = False) -> str:
    """The directory of a model: `path` as it stands, beside the package, or below `directory` (that of the data);
    else `path` is a name on the hub, owner/model, and is downloaded.

    With `tokenizer_only` no weights are needed; `directory`/tokenizer/FAMILY then serves for owner/FAMILY-SIZE.
    Raises UserError where there is none.
    """
    here = local(path, directory, tokenizer_only)
    if here or path.endswith(".npy") or not re.fullmatch(r"[\w.-]+/[\w.-]+", path):
        return here or path  # who loads it says what is wrong
    try:
        from huggingface_hub import snapshot_download

        return snapshot_download(path, allow_patterns=[*_TOKENIZER, *(() if tokenizer_only else ("*.safetensors*",))])
    except Exception as error:  # of requests and the hub, many kinds
        needed = f"tokenizer/{_name(path).split('-')[0]}" if tokenizer_only else f"models/{_name(path)}"
        raise UserError(
            f"{path} is no directory here and cannot be had from the Hugging Face hub: {first_line(error)}; go online, "
            "or give a directory with config.json, safetensors and tokenizer files, or set config.data.root or "
            f"DOTS_DATA to one that holds {needed}"
        ) from error


def local(path: str, directory: str = "", tokenizer_only: bool = False) -> str | None:
    """What `find` finds without the hub, if anything; also the `.npy` of embeddings."""
    places = [path, os.path.join(files.ROOT, path)]
    if directory:
        places += [os.path.join(directory, path), os.path.join(directory, "models", _name(path))]
        places += [os.path.join(directory, "tokenizer", _name(path).split("-")[0])] if tokenizer_only else []
    return next((place for place in places if os.path.exists(place)), None)


def _name(path: str) -> str:
    return path.rstrip("/").rpartition("/")[2].lower()


def random_shape(shape: dict, num_tokens: int, family: Family | None) -> ModelConfig:
    """The shape of a policy of random weights, from the fields that the tokenizer does not decide; by default Qwen2."""
    return ModelConfig(**shape, vocab_size=num_tokens, num_tokens=num_tokens, family=family or QWEN2)


def of_config(policy: "ConfigDict", root: str, workdir: str, seed: int) -> str:
    """The directory of the policy that a config's fields `policy` describe, as it starts; `root` is that of the data.

    One of random float32 weights is written to the workdir, unless it lies there. Raises UserError.
    """
    if not policy.path:
        raise UserError("config.policy.path is empty; give a Hugging Face directory of a model such as Qwen2.5")
    shape, directory = policy.random.to_dict(), os.path.join(workdir, "random_policy")
    if not shape["width"]:
        return find(policy.path, root)
    tokenizer = find(policy.path, root, tokenizer_only=True)
    model_config = random_shape(shape, len(tok.load(tokenizer)), families.find(policy.family))
    note, recipe = os.path.join(directory, "random.json"), json.dumps(model_config.to_hf("float32") | {"seed": seed})
    if distributed.gather(_reads(note, recipe)).all():
        return directory
    params = transformer.init(model_config, jax.random.key(seed))
    huggingface.save(directory, model_config, params, tokenizer_dir=tokenizer)
    if distributed.is_main():
        files.write_text(note, recipe)
    distributed.barrier("the random policy is written")
    return directory


def _reads(path: str, text: str) -> bool:
    return os.path.isfile(path) and Path(path).read_text(encoding="utf-8", errors="replace") == text
