"""Frozen embeddings of questions: mean final hidden states of any checkpoint."""

import functools
import hashlib
import json
import os
import shutil
import time
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from dots_jax import policy
from dots_jax.core import distributed, files, sharding
from dots_jax.core.arithmetic import round_up
from dots_jax.core.errors import UserError, tell
from dots_jax.core.files import read_json
from dots_jax.policy import huggingface, transformer
from dots_jax.policy import tokenizer as tok
from dots_jax.policy.families import Family

BATCH_TOKENS = 32768  # at a time, over all devices
_SHORTEST = 16  # tokens of the smallest padded length, on accelerators more; each further one doubles


def load(
    path: str,
    texts: Sequence[str],
    config: ConfigDict,
    mesh: jax.sharding.Mesh | None = None,
    family: Family | None = None,
) -> np.ndarray:
    """The embeddings [N, D] that a run works with: a given `.npy`, else by `make` from the checkpoint `path`.

    `config` holds the configuration's `embedding` fields; with `standardise` each number has mean 0 and deviation 1.
    """
    try:
        if path.endswith(".npy"):
            x = read(path, len(texts), texts)
        else:
            how = {"dtype": config.dtype, "max_tokens": config.max_tokens, "family": family}
            x = make(texts, path, mesh, config.cache, **how)
    except UserError as error:
        raise UserError(f"config.embedding.path: {error}" if config.path else str(error)) from error
    return (x - x.mean(0)) / (x.std(0) + 1e-6) if config.standardise else x


def make(
    texts: Sequence[str],
    directory: str,
    mesh: jax.sharding.Mesh | None = None,
    cache: str = "runs/embeddings",
    *,
    dtype: str = "bfloat16",
    max_tokens: int = 1024,
    batch_tokens: int = BATCH_TOKENS,
    family: Family | None = None,
) -> np.ndarray:
    """Mean over a text's tokens of the checkpoint's hidden states after the final norm, float32 [N, D].

    Raw text, no chat template; of a text longer than `max_tokens` (or than the model's positions) the rest is cut off.
    Rows are split over `mesh`, `batch_tokens` at a time. Kept as KEY.npy in the directory `cache`, KEY from the
    checkpoint's files, the texts, dtype and max_tokens: a second call reads it and loads no model. A call that was
    interrupted continues with the blocks that are missing.

    Raises UserError where the checkpoint cannot be read, a text has no tokens, or an embedding is not finite.
    """
    key = _key(directory, texts, dtype, max_tokens, family)
    path = os.path.join(cache, f"{key}.npy")
    embeddings = _read_cached(path, len(texts), texts)
    if distributed.gather(embeddings is not None).all():
        return embeddings
    mesh = mesh or sharding.make_mesh()
    model_config, params = policy.load(directory, mesh, jnp.dtype(dtype), family)
    limit = min(max_tokens, model_config.max_positions)
    shortest = max(_SHORTEST, sharding.length_unit(sharding.platform(mesh)))
    tokens, lengths = _encode(tok.load(directory), texts, limit, shortest)
    partial, width = os.path.join(cache, f"{key}.partial"), model_config.width
    embeddings, done, started, shown = np.zeros((len(texts), width), np.float32), 0, time.time(), time.time()
    for name, ids, length in _blocks(lengths, batch_tokens, sharding.num_row_shards(mesh), shortest):
        file = os.path.join(partial, f"{name}.npy")
        block = _read_cached(file, len(ids))
        if not distributed.gather(block is not None).all():
            rows = np.maximum(ids, 0)  # rows that fill the block up are computed and dropped
            block = distributed.to_host(mean_hidden(params, tokens[rows, :length], lengths[rows], model_config, mesh))
            _save(file, block)
        embeddings[ids[ids >= 0]] = block[ids >= 0]
        done += (ids >= 0).sum()
        if time.time() - shown > 5 and done < len(texts):
            shown, pace = time.time(), done / (time.time() - started)
            distributed.main_only(tell)(f"{done:,} of {len(texts):,} questions, {pace:.0f} a second", "embedding")
    broken = np.flatnonzero(~np.isfinite(embeddings).all(1))
    if not len(broken):
        about = {"checkpoint": directory, "questions": len(texts), "texts": _digest(texts), "width": width}
        text = json.dumps(about | {"dtype": dtype, "max_tokens": max_tokens})
        if distributed.is_main():
            files.write_text(os.path.join(cache, f"{key}.json"), text)
        _save(path, embeddings)
    if distributed.is_main():
        shutil.rmtree(partial, ignore_errors=True)  # another run may be doing the same
    if len(broken):
        raise UserError(
            f"the embedding of question {broken[0]} by {directory} is not finite; see whether its weights are "
            "sound, use another checkpoint or --config.embedding.dtype=float32"
        )
    return embeddings


def read(path: str, count: int, texts: Sequence[str] | None = None) -> np.ndarray:
    """The embeddings in a `.npy` file, float32 [N, D].

    Raises UserError where it cannot be read, holds something else than `count` finite rows, or was made for other
    texts, as the `.json` beside it says that `make` writes.
    """
    try:
        x = np.load(path, allow_pickle=False)
    except Exception as error:  # whatever a file of another kind makes of numpy's readers
        reason = getattr(error, "strerror", None) or "not a .npy file of numbers"
        raise UserError(f"cannot read the embeddings {path}: {reason}; give a .npy file [N, D]") from error
    if not isinstance(x, np.ndarray) or x.ndim != 2 or x.dtype.kind not in "fiu" or not x.shape[1]:
        raise UserError(f"{path} holds no matrix of numbers; embeddings are a .npy file [N, D]")
    if len(x) != count:
        raise UserError(f"{path} holds {len(x):,} embeddings for {count:,} questions; give those of this pool")
    with np.errstate(over="ignore"):
        x = x.astype(np.float32)
    finite = np.isfinite(x).all(1)
    if not finite.all():
        raise UserError(
            f"row {finite.argmin()} of the embeddings {path} holds NaN or infinity as float32; make them anew"
        )
    about = f"{path.removesuffix('.npy')}.json"
    if texts is not None and os.path.exists(about):
        try:
            made_for = read_json(about).get("texts")
        except UserError as error:
            raise UserError(f"cannot read {about}, which says what {path} is; delete it or make both anew") from error
        if made_for not in (None, _digest(texts)):
            raise UserError(f"{path} was made for other questions, says {about}; give the embeddings of this pool")
    return x


@functools.partial(jax.jit, static_argnames=("model_config", "mesh"))
def mean_hidden(
    params: dict, tokens: jax.Array, lengths: jax.Array, model_config: transformer.ModelConfig, mesh: jax.sharding.Mesh
) -> jax.Array:
    """Mean of the final hidden states over the first `lengths` [B] of `tokens` [B, T], float32 [B, D]."""
    with jax.sharding.use_abstract_mesh(mesh.abstract_mesh):
        tokens, lengths = (sharding.constrain(x, sharding.BATCH) for x in (tokens, lengths))
        x = policy.hidden(params, model_config, tokens).astype(jnp.float32)
        real = jnp.arange(tokens.shape[1]) < lengths[:, None]
        return jnp.where(real[..., None], x, 0.0).sum(1) / lengths[:, None]


def _encode(tokenizer: Any, texts: Sequence[str], limit: int, shortest: int):
    """Right-padded tokens [N, T] and lengths [N], cut at `limit`; T is a padded length of `_blocks`."""
    rows = tokenizer(list(texts), add_special_tokens=False, return_attention_mask=False, verbose=False)["input_ids"]
    for text, row in zip(texts, rows, strict=True):
        if not row:
            raise UserError(f"question {text[:60]!r} has no tokens in the embedding model's tokenizer; remove it")
    longer = sum(len(row) > limit for row in rows)
    if longer:
        distributed.main_only(tell)(
            f"{longer:,} of {len(rows):,} questions are longer than {limit} tokens; the rest is left out", "embedding"
        )
    lengths = np.array([min(len(row), limit) for row in rows], np.int32)
    tokens = np.zeros((len(rows), _padded(lengths.max(), shortest)), np.int32)
    for row, length, out in zip(rows, lengths, tokens, strict=True):
        out[:length] = row[:length]
    return tokens, lengths


def _padded(length: int, shortest: int) -> int:
    return max(shortest, 1 << int(length - 1).bit_length())


def _blocks(lengths: np.ndarray, batch_tokens: int, shards: int, shortest: int):
    """(name, ids int32 [rows], padded length) of blocks of similar lengths; ids of -1 fill the last of each length."""
    padded = np.array([_padded(length, shortest) for length in lengths])
    for length in np.unique(padded):
        ids = np.flatnonzero(padded == length).astype(np.int32)
        rows = round_up(min(max(1, batch_tokens // length), len(ids)), shards)
        ids = np.pad(ids, (0, -len(ids) % rows), constant_values=-1)
        for i, block in enumerate(ids.reshape(-1, rows)):
            yield f"{length}x{rows}-{i}", block, int(length)


def _read_cached(path: str, count: int, texts: Sequence[str] | None = None) -> np.ndarray | None:
    """What an earlier call has left, or None where that is nothing or damaged."""
    try:
        return read(path, count, texts) if os.path.exists(path) else None
    except UserError as error:
        distributed.main_only(tell)(f"embeddings are made anew: {error}", "warning")
        return None


def _key(directory: str, texts: Sequence[str], dtype: str, max_tokens: int, family: Family | None = None) -> str:
    digest = hashlib.sha256(f"{dtype} {max_tokens} {_digest(texts)}".encode())
    digest.update(json.dumps(huggingface.fingerprint(directory)).encode())
    digest.update(repr(family).encode() if family else b"")
    return digest.hexdigest()[:20]


def _digest(texts: Sequence[str]) -> str:
    digest = hashlib.sha256()
    for text in texts:
        data = text.encode()
        digest.update(len(data).to_bytes(8, "little") + data)
    return digest.hexdigest()


def _save(path: str, x: np.ndarray) -> None:
    def write(partial: str):
        with open(partial, "wb") as file:  # by name numpy would add a suffix
            np.save(file, x)

    if distributed.is_main():
        os.makedirs(os.path.dirname(path), exist_ok=True)
        files.replace(path, write)
