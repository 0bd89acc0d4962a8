"""Hugging Face model directories: weights straight into sharded arrays, and back."""

import dataclasses
import functools
import hashlib
import json
import math
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from safetensors import SafetensorError, safe_open

from dots_jax.core import distributed, sharding
from dots_jax.core.errors import UserError
from dots_jax.core.files import read_json
from dots_jax.policy import transformer
from dots_jax.policy.families import Family
from dots_jax.policy.transformer import ModelConfig, Parameter

_SINGLE = "model.safetensors"
_INDEX = "model.safetensors.index.json"
_CODES = {np.dtype(jnp.float32): "F32", np.dtype(jnp.bfloat16): "BF16", np.dtype(jnp.float16): "F16"}
_COPIED = (
    "tokenizer.json",
    "tokenizer_config.json",
    "vocab.json",
    "merges.txt",
    "added_tokens.json",
    "special_tokens_map.json",
    "chat_template.jinja",
    "generation_config.json",
)


def load(
    directory: str | os.PathLike, mesh: jax.sharding.Mesh | None = None, dtype=jnp.float32, family: Family | None = None
) -> tuple[ModelConfig, dict]:
    """The model in `directory` as (model_config, params), converted to `dtype`.

    With `mesh` every parameter lies as `transformer.shardings` says, and only the parts that this host's devices hold
    are read; otherwise all lie on the default device. The host holds about one parameter (of all layers) at a time.
    The model is of the `family`, or of the one that its config.json names. `model_config.num_tokens` is the number of
    ids of the tokenizer in the directory, or V where there is none.

    Raises:
      UserError: a file or tensor is missing, damaged, of another architecture or of another shape, or the mesh splits
        heads that do not divide.
    """
    directory = Path(directory)
    if not directory.is_dir():
        raise UserError(f"policy directory {directory} does not exist; give a Hugging Face model directory")
    model_config = read_config(directory, family)
    if mesh is not None:
        sharding.check_heads(mesh, model_config.num_kv_heads)
    weights = _Weights(directory)
    declared = transformer.declare(model_config)
    tensors = dict(tensor for p in jax.tree.leaves(declared) for tensor in _stored(p))
    for name, part in tensors.items():
        weights.check(name, part)
    family = model_config.family
    for parameter, tensor in family.tensors.items():
        if parameter != "head" and (name := tensor.format(0)) not in tensors and name in weights:
            raise UserError(f"{directory} has the tensor {name}, which the family {family.model_type} lacks")
    dtype = np.dtype(dtype)

    def make(p: Parameter, where: jax.sharding.Sharding | None = None):
        @functools.cache  # devices that hold the same part share one read
        def read(*bounds):
            return weights.read(p, tuple(slice(*b) for b in bounds), dtype)

        def read_part(index):
            return read(*(s.indices(n)[:2] for s, n in zip(index, p.shape, strict=True)))

        if where is None:
            array = jax.device_put(read(*((0, n) for n in p.shape)))
        else:
            array = jax.make_array_from_callback(p.shape, where, read_part)
        return array.block_until_ready()  # the next parameter is read when this one has left the host

    places = () if mesh is None else (transformer.shardings(model_config, mesh),)
    return model_config, jax.tree.map(make, declared, *places)


def save(
    directory: str | os.PathLike,
    model_config: ModelConfig,
    params: dict,
    tokenizer_dir: str | os.PathLike | None = None,
    *,
    max_shard_bytes: int = 4 * 2**30,
) -> None:
    """Writes a directory that transformers and `load` read; an earlier export there is replaced.

    Weights keep their dtype and come to the host one tensor at a time; several files and an index are written where
    they exceed `max_shard_bytes`. Tokenizer files, generation_config.json and the ids of the begin and end tokens
    come unchanged from `tokenizer_dir`. The directory appears whole or not at all.
    Every process of a run must call it; the main one writes.

    Raises:
      UserError: `directory` holds something else than an export, or `tokenizer_dir` does not exist.
    """
    tensors = list(_tensors(model_config, params))
    if not distributed.is_main():
        for *_, fetch in tensors:
            fetch()
        return
    check_target(directory)
    directory = Path(os.path.abspath(directory))
    fields, copied = model_config.to_hf(np.dtype(params["embed"].dtype).name), []
    if tokenizer_dir is not None:
        if not os.path.isdir(tokenizer_dir):
            raise UserError(f"tokenizer directory {tokenizer_dir} does not exist")
        copied = [path for name in _COPIED if (path := Path(tokenizer_dir, name)).is_file()]
        if (config := Path(tokenizer_dir, "config.json")).is_file():
            fields |= {k: v for k, v in read_json(config).items() if k in ("bos_token_id", "eos_token_id")}
    partial, replaced = (directory.with_name(f".{directory.name}.{word}") for word in ("partial", "replaced"))
    shutil.rmtree(partial, ignore_errors=True)
    try:
        partial.mkdir(parents=True)
        for path in copied:
            shutil.copyfile(path, partial / path.name)
        _write_json(partial / "config.json", fields)
        _write_weights(partial, tensors, max_shard_bytes)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise
    if directory.exists():
        shutil.rmtree(replaced, ignore_errors=True)
        directory.rename(replaced)
    partial.rename(directory)
    shutil.rmtree(replaced, ignore_errors=True)


def fingerprint(path: str | os.PathLike) -> dict[str, str]:
    """Name -> SHA-256 of the file `path`, or of each file that makes the model and tokenizer in a directory."""
    path, names = Path(path), (*_COPIED, "config.json", _INDEX)
    files = [path] if path.is_file() else []
    if path.is_dir():
        files = [f for f in sorted(path.iterdir()) if f.suffix == ".safetensors" or f.name in names]
    return {f.name: _digest(f, f.stat().st_size, f.stat().st_mtime_ns) for f in files}


@functools.cache  # weights are read once, however often a start asks for them
def _digest(file: Path, size: int, changed: int) -> str:
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()


def _write_json(path: Path, fields: dict) -> None:
    path.write_text(json.dumps(fields, indent=2) + "\n", encoding="utf-8")


def read_config(directory: str | os.PathLike, family: Family | None = None) -> ModelConfig:
    """The shape of the model in `directory`; neither weights nor tokenizer need be there. Raises UserError."""
    directory = Path(directory)
    path = directory / "config.json"
    if not path.is_file():
        raise UserError(f"{directory} has no config.json; give a Hugging Face model directory")
    count = _count_tokens(directory)
    try:
        model_config = ModelConfig.from_hf(read_json(path), count, family)
    except UserError as error:
        raise error if str(path) in str(error) else UserError(f"{path}: {error}") from error
    if count is not None and count > model_config.vocab_size:
        raise UserError(
            f"the tokenizer in {directory} has ids up to {count - 1}, but the model's vocabulary only "
            f"{model_config.vocab_size} rows; they do not belong together"
        )
    return model_config


def _count_tokens(directory: Path) -> int | None:
    """Largest id of the tokenizer in `directory`, added tokens included, plus one; None if there is none."""
    names = ("tokenizer.json", "vocab.json", "added_tokens.json", "tokenizer_config.json")
    fast, slow, added, config = (read_json(path) if (path := directory / n).is_file() else {} for n in names)
    if not any((directory / name).is_file() for name in names[:2]):
        return None
    ids = [-1]
    try:
        vocabulary = fast.get("model", {}).get("vocab", {})
        ids += vocabulary.values() if isinstance(vocabulary, dict) else range(len(vocabulary))
        ids += (token["id"] for token in fast.get("added_tokens") or ())
        ids += (*slow.values(), *added.values(), *map(int, config.get("added_tokens_decoder") or ()))
        return max(ids) + 1
    except (TypeError, ValueError, KeyError, AttributeError) as error:
        raise UserError(f"cannot read the tokenizer in {directory}: {error!r}; copy its files again") from error


def _stored(p: Parameter) -> list[tuple[str, Parameter]]:
    """(name, declaration without the layer axis) of every tensor on disk that `p` is made of."""
    if p.axes[0] != "layer":
        return [(p.name, p)]
    layer = dataclasses.replace(p, shape=p.shape[1:], axes=p.axes[1:])
    return [(p.name.format(i), layer) for i in range(p.shape[0])]


def _stored_index(part: Parameter, index: tuple[slice, ...]) -> tuple[slice, ...]:
    """Where `index` into a tensor of ours lies in the one on disk.

    There heads and head width are one axis: an axis without a name belongs to the one at its left, and is whole.
    """
    merged = []
    for size, axis, s in zip(part.shape, part.axes, index, strict=True):
        if axis is None:
            merged[-1] = slice(merged[-1].start * size, merged[-1].stop * size)
        else:
            merged.append(s)
    return tuple(merged[::-1] if part.transpose else merged)


def _stored_shape(part: Parameter) -> list[int]:
    return [s.stop for s in _stored_index(part, tuple(slice(0, n) for n in part.shape))]


class _Weights:
    """The tensors of a directory by name, in one file or several."""

    def __init__(self, directory: Path):
        self._files = {}  # path -> open file
        single, index = directory / _SINGLE, directory / _INDEX
        if single.is_file():
            self._source = single
            self._path = dict.fromkeys(self._open(single).keys(), single)
        elif index.is_file():
            self._source = index
            files = read_json(index).get("weight_map")
            if not isinstance(files, dict) or not all(isinstance(f, str) for f in files.values()):
                raise UserError(f"{index} has no weight_map from tensor to file; copy the file again")
            self._path = {name: directory / file for name, file in files.items()}
        else:
            raise UserError(f"{directory} has no weights: neither {_SINGLE} nor {_INDEX}")

    def _open(self, path: Path):
        if path not in self._files:
            try:
                self._files[path] = safe_open(path, framework="np")
            except (SafetensorError, OSError) as error:
                raise UserError(f"{path} is damaged or cut short ({error}); copy the file again") from error
        return self._files[path]

    def __contains__(self, name: str) -> bool:
        return name in self._path

    def _tensor(self, name: str):
        if name not in self._path:
            raise UserError(f"{self._source} lacks the tensor {name}; the model is incomplete")
        path = self._path[name]
        if not path.is_file():
            raise UserError(f"{path} is missing; it should hold the tensor {name} and others")
        try:
            return self._open(path).get_slice(name)
        except SafetensorError as error:
            raise UserError(f"{path} lacks the tensor {name}; the model is incomplete") from error

    def check(self, name: str, part: Parameter) -> None:
        """Raises UserError unless tensor `name` exists with the declared shape and a dtype that can be read."""
        tensor = self._tensor(name)
        shape, expected = list(tensor.get_shape()), _stored_shape(part)
        if shape != expected:
            raise UserError(f"{self._path[name]}: {name} has shape {shape}, config.json means {expected}")
        if (code := tensor.get_dtype()) not in _CODES.values():
            raise UserError(f"{self._path[name]}: {name} has dtype {code}; only F32, BF16 and F16 can be read")

    def read(self, p: Parameter, index: tuple[slice, ...], dtype: np.dtype) -> np.ndarray:
        """Part `index` of parameter `p`."""
        out = np.empty([s.stop - s.start for s in index], dtype)
        if p.axes[0] == "layer":
            tensors, targets, index = _stored(p)[index[0]], out, index[1:]
        else:
            tensors, targets = _stored(p), out[None]
        for (name, part), target in zip(tensors, targets, strict=True):
            x = self._tensor(name)[_stored_index(part, index)]
            target[...] = (x.T if part.transpose else x).reshape(target.shape)
        return out


def check_target(directory: str | os.PathLike) -> None:
    """Raises UserError if `directory` holds something else than an exported policy."""
    directory = Path(directory)
    if directory.is_dir():
        weights = any((directory / name).is_file() for name in (_SINGLE, _INDEX))
        if not any(directory.iterdir()) or (weights and (directory / "config.json").is_file()):
            return
    if directory.exists():
        raise UserError(f"{directory} exists and is not an exported policy; export to another directory")


def _tensors(model_config: ModelConfig, params: dict) -> Iterator[tuple[str, list[int], np.dtype, Callable]]:
    """(name, shape, dtype, function that fetches it) of every tensor on disk, layer after layer."""

    def describe(name: str, part: Parameter, array: jax.Array, layer: int | None):
        def fetch():
            # A slice or copy, because jax keeps the host's copy of an array as long as the array itself.
            x = distributed.to_host(jnp.copy(array) if layer is None else array[layer])
            shape = _stored_shape(part)
            x = x.reshape(shape[::-1]).T if part.transpose else x.reshape(shape)
            return np.ascontiguousarray(x)

        return name, _stored_shape(part), np.dtype(array.dtype), fetch

    declared = transformer.declare(model_config)
    layers = declared.pop("layers")
    for i in range(model_config.num_layers):
        for key, p in layers.items():
            yield describe(*_stored(p)[i], params["layers"][key], i)
    for key, p in declared.items():
        yield describe(p.name, p, params[key], None)


def _write_weights(directory: Path, tensors: list, max_shard_bytes: int) -> None:
    shards, room = [], 0
    for tensor in tensors:
        size = math.prod(tensor[1]) * tensor[2].itemsize
        if size > room or not shards:
            shards.append([])
            room = max_shard_bytes
        shards[-1].append(tensor)
        room -= size
    if len(shards) == 1:
        _write_safetensors(directory / _SINGLE, tensors)
        return
    files = {f"model-{i:05}-of-{len(shards):05}.safetensors": shard for i, shard in enumerate(shards, start=1)}
    for name, shard in files.items():
        _write_safetensors(directory / name, shard)
    total = sum(math.prod(shape) * dtype.itemsize for _, shape, dtype, _ in tensors)
    where = {tensor[0]: name for name, shard in files.items() for tensor in shard}
    _write_json(directory / _INDEX, {"metadata": {"total_size": total}, "weight_map": where})


def _write_safetensors(path: Path, tensors: list) -> None:
    """Own writer: the library's wants all tensors of a file in memory at once."""
    header, end = {"__metadata__": {"format": "pt"}}, 0
    for name, shape, dtype, _ in tensors:
        start, end = end, end + math.prod(shape) * dtype.itemsize
        header[name] = {"dtype": _CODES[dtype], "shape": shape, "data_offsets": [start, end]}
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with path.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for *_, fetch in tensors:
            file.write(fetch().reshape(-1).view(np.uint8))
