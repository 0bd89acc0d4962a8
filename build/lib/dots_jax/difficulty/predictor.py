"""The difficulty predictor: two towers, attention over references of known difficulty, a calibration head.

The paper's (arXiv 2506.05316). Difficulty is a failure rate everywhere here. The head was published for success rates,
and its temperature and shift mean something else for their complements: success = 1 - difficulty is used inside.
Parameters are a tree of float32: "query" and "reference" (towers), "head". Shapes: Q queries, M references, N
questions, D numbers in an embedding, W the towers' width.
"""

import functools
import os
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec
from safetensors.numpy import load_file, save_file

from dots_jax.core import distributed, files
from dots_jax.core.errors import UserError, first_line

FILE = "predictor.safetensors"  # in a workdir
_BLOCK = 4096  # questions whose hidden activations, or attention weights, exist at a time
_EXACT = jax.lax.Precision.HIGHEST  # accelerators would otherwise round the factors of a product to 8 or 11 bits


class Tower(nn.Module):
    """Embeddings [..., D] -> features [..., W]."""

    width: int
    dropout: float = 0.0

    @nn.compact
    def __call__(self, x: jax.Array):
        """The dropout is on where `dropout` > 0; it then needs the key collection "dropout"."""
        norm = functools.partial(nn.LayerNorm, epsilon=1e-5, use_fast_variance=False)
        x = norm(name="norm_0")(x)
        for i in range(3):
            x = nn.Dense(self.width, precision=_EXACT, name=f"dense_{i}")(x)
            if i < 2:
                x = nn.gelu(x, approximate=False)
                x = nn.Dropout(self.dropout, deterministic=not self.dropout)(x)
        return norm(name="norm_1")(x)


class Head(nn.Module):
    """Mean and standard deviation of the references' success [..., 2] -> the two numbers of the calibration."""

    @nn.compact
    def __call__(self, x: jax.Array):
        """2 -> 10 -> 2 with a ReLU between."""
        x = nn.relu(nn.Dense(10, precision=_EXACT, name="dense_0")(x))
        return nn.Dense(2, precision=_EXACT, name="dense_1")(x)


def init(key: jax.Array, embedding_width: int, width: int = 896) -> dict:
    """Random parameters: Flax's default initialisers."""
    keys, x = jax.random.split(key, 3), jnp.zeros((1, embedding_width))
    return {
        "query": Tower(width).init(keys[0], x)["params"],
        "reference": Tower(width).init(keys[1], x)["params"],
        "head": Head().init(keys[2], jnp.zeros((1, 2)))["params"],
    }


def forward(
    params: dict,
    query: jax.Array,
    reference: jax.Array,
    difficulty: jax.Array,
    calibration: str,
    *,
    mask: jax.Array | None = None,
    dropout_key: jax.Array | None = None,
    dropout: float = 0.1,
) -> jax.Array:
    """Difficulty [Q] of `query` [Q, D] from `reference` [M, D] of known `difficulty` [M], before any refit.

    mask, bool [M] or [Q, M]: which references may be looked at; the calibration counts only those as well. A query
    without any gets 0.5. Dropout is on where `dropout_key` is given. Differentiable; not jitted itself.
    """
    keys = (None, None) if dropout_key is None else jax.random.split(dropout_key)
    mask = _mask(mask, len(difficulty))
    features = _tower(params["query"], query, keys[0], dropout)
    encoded = _tower(params["reference"], reference, keys[1], dropout)
    return _predict(params["head"], _attend(features, encoded, mask), difficulty, calibration, mask)


def cross_entropy(predicted: jax.Array, difficulty: jax.Array) -> jax.Array:
    """Mean soft-label binary cross-entropy, the training loss."""
    p = jnp.clip(predicted, 1e-4, 1 - 1e-4)
    return -(difficulty * jnp.log(p) + (1 - difficulty) * jnp.log1p(-p)).mean()


@jax.jit
def attention(params: dict, query: jax.Array, reference: jax.Array, mask: jax.Array | None = None) -> jax.Array:
    """The weights [Q, M] with which `query` [Q, D] looks at `reference` [M, D]; `mask` as in `forward`."""
    features = _tower(params["query"], query), _tower(params["reference"], reference)
    return _attend(*features, _mask(mask, len(reference)))


def encode(params: dict, query: jax.Array) -> jax.Array:
    """Features [N, W] of `query` [N, D] for `score`. Rows that are split over a mesh stay where they are."""
    return _by_rows(_tower, _layout(query), query, params["query"])


def score(
    params: dict, features: jax.Array, reference: jax.Array, difficulty: jax.Array, calibration: str, refit: bool,
    mask: jax.Array | None = None,
) -> tuple[jax.Array, jax.Array]:  # fmt: skip
    """Difficulty [N] from features [N, W] (of `encode`), `reference` [M, D] and its `difficulty` [M]; one jitted call.

    Also the standard deviation [N] of the references' difficulty under a question's attention: how much they differ.
    mask, bool [M]: which references count. refit: the least-squares line from what is predicted for the references
    (each looking at all of them, itself included) to what was measured, applied to every prediction and not
    clipped; where all of these predictions agree, a shift of their mean to the measured one. Features that are split
    over a mesh by rows stay where they are, and so do the results.
    """
    return _score(params, features, reference, difficulty, mask, calibration, refit, _layout(features))


def predict(
    params: dict,
    query: jax.Array,
    reference: jax.Array,
    difficulty: jax.Array,
    calibration: str = "code",
    refit: bool = True,
) -> jax.Array:
    """Difficulty [Q] of `query` [Q, D]: `encode` and `score`."""
    return score(params, encode(params, query), reference, difficulty, calibration, refit)[0]


@functools.partial(jax.jit, static_argnames=("calibration", "refit", "layout"))
def _score(
    params: dict,
    features: jax.Array,
    reference: jax.Array,
    difficulty: jax.Array,
    mask: jax.Array | None,
    calibration: str,
    refit: bool,
    layout: Any,
):
    encoded, difficulty = _tower(params["reference"], reference), jnp.asarray(difficulty, jnp.float32)
    mask = _mask(mask, len(reference))
    line = (jnp.ones(()), jnp.zeros(()))
    if refit:
        weights = _attend(_tower(params["query"], reference), encoded, mask)
        line = _least_squares(_predict(params["head"], weights, difficulty, calibration, mask), difficulty, mask[0])

    def score_row(shared: tuple, row: jax.Array):
        head, encoded, difficulty, mask, (slope, intercept) = shared
        weights = _attend(row[None], encoded, mask)
        mean = jnp.einsum("qm,m->q", weights, difficulty, precision=_EXACT)
        variance = jnp.einsum("qm,qm->q", weights, (difficulty - mean[:, None]) ** 2, precision=_EXACT)
        predicted = slope * _predict(head, weights, difficulty, calibration, mask) + intercept
        return predicted[0], jnp.sqrt(variance)[0]

    return _by_rows(score_row, layout, features, (params["head"], encoded, difficulty, mask, line))


def _layout(rows: np.ndarray | jax.Array):
    """(mesh, axes) over which an array on devices is split by rows; None for any other and inside a jit."""
    if not isinstance(rows, jax.Array) or isinstance(rows, jax.core.Tracer):
        return None
    s = rows.sharding
    return (s.mesh, s.spec[0]) if isinstance(s, NamedSharding) and len(s.spec) and s.spec[0] else None


@functools.partial(jax.jit, static_argnames=("function", "layout"))
def _by_rows(function: Callable, layout: Any, rows: jax.Array, shared: Any):
    """`function(shared, row)` of each of `rows`, a block at a time; on a mesh each device does its own."""

    def local(rows: jax.Array, shared: Any):
        return jax.lax.map(functools.partial(function, shared), rows, batch_size=_BLOCK)

    if layout is None:
        return local(rows, shared)
    mesh, axes = layout
    split = PartitionSpec(axes)
    return jax.shard_map(local, mesh=mesh, in_specs=(split, PartitionSpec()), out_specs=split)(rows, shared)


def _tower(tower: dict, x: jax.Array, key: jax.Array | None = None, dropout: float = 0.1):
    module = Tower(tower["dense_0"]["bias"].shape[0], 0.0 if key is None else dropout)
    return module.apply({"params": tower}, jnp.asarray(x, jnp.float32), rngs=None if key is None else {"dropout": key})


def _mask(mask: jax.Array | None, size: int):
    """The mask as [1 or Q, M]."""
    return jnp.ones((1, size), bool) if mask is None else jnp.atleast_2d(mask)


def _attend(features: jax.Array, references: jax.Array, mask: jax.Array):
    logits = jnp.einsum("qw,mw->qm", features, references, precision=_EXACT) / features.shape[-1] ** 0.5
    # Finite where masked: a row without any reference then has finite gradients.
    return jax.nn.softmax(jnp.where(mask, logits, jnp.finfo(logits.dtype).min), axis=-1) * mask


def _predict(head: dict, weights: jax.Array, difficulty: jax.Array, calibration: str, mask: jax.Array):
    """Difficulty [Q] from the attention's weights [Q, M]; mask [1 or Q, M]."""
    success = 1 - jnp.asarray(difficulty, jnp.float32)
    p = jnp.einsum("qm,m->q", weights, success, precision=_EXACT)
    if calibration != "none":
        count = mask.sum(-1)
        mean = (mask * success).sum(-1) / jnp.maximum(count, 1)
        squares = (mask * (success - mean[:, None]) ** 2).sum(-1)
        variance = squares / jnp.maximum(count - (calibration == "code"), 1)
        std = jnp.where(variance > 0, jnp.sqrt(jnp.where(variance > 0, variance, 1.0)), 0.0)
        x = Head().apply({"params": head}, jnp.stack([mean, std], -1))
        scale, shift = jax.nn.softplus(x[:, 0]), jnp.tanh(x[:, 1])
        p = jnp.clip(p, 1e-4, 1 - 1e-4)
        logit = jnp.log(p) - jnp.log1p(-p)
        logit = logit / jnp.clip(scale, 1e-2, 10.0) if calibration == "code" else scale * logit
        p = jax.nn.sigmoid(logit + shift)
    return jnp.where(mask.any(-1), 1 - p, 0.5)


def _least_squares(predicted: jax.Array, measured: jax.Array, mask: jax.Array):
    """Slope and intercept of the line from `predicted` [M] to `measured` [M]."""
    count = jnp.maximum(mask.sum(), 1)
    x, y = (mask * predicted).sum() / count, (mask * measured).sum() / count
    variance = (mask * (predicted - x) ** 2).sum() / count
    covariance = (mask * (predicted - x) * (measured - y)).sum() / count
    varied = variance > 1e-12  # below lies the rounding of predictions that are equal
    slope = jnp.where(varied, covariance / jnp.where(varied, variance, 1.0), 1.0)
    return slope, jnp.where(mask.any(), y - slope * x, 0.0)


# Released name -> where it lies in the tree. Weights of linear layers are [out, in] there, kernels [in, out] here.
_LAYERS = (("0", "norm_0"), ("1", "dense_0"), ("4", "dense_1"), ("7", "dense_2"), ("8", "norm_1"))
_NAMES = {
    f"{released}.{index}.{kind}": (part, layer, kind if kind == "bias" else "scale" if "norm" in layer else "kernel")
    for released, part, layers in (
        ("sim_head.query_proj", "query", _LAYERS),
        ("sim_head.ref_proj", "reference", _LAYERS),
        ("mlp", "head", (("0", "dense_0"), ("2", "dense_1"))),
    )
    for index, layer in layers
    for kind in ("weight", "bias")
}


def load_released(state: dict, embedding_width: int | None = None) -> dict:
    """Parameters from arrays under the released names; the widths are those of the query tower's first layer.

    Raises UserError where a name is missing or unknown, a shape differs, a value is not finite, or the predictor takes
    embeddings of another width than `embedding_width`.
    """
    for name in sorted(_NAMES.keys() ^ state.keys()):
        what = "lack the tensor that the released ones have" if name in _NAMES else "have a tensor of another name"
        raise UserError(f"the predictor's weights {what}: {name}")
    first = "sim_head.query_proj.1.weight"
    shape = np.shape(state[first])
    if len(shape) != 2:
        raise UserError(f"tensor {first} of the predictor has shape {list(shape)}, expected [width, embedding width]")
    width, embedding = shape
    if embedding_width not in (None, embedding):
        raise UserError(
            f"the predictor takes embeddings of {embedding} numbers ({first} is [{width}, {embedding}]), "
            f"expected [{width}, {embedding_width}]: the embeddings given have {embedding_width}"
        )
    expected = jax.eval_shape(lambda: to_released(init(jax.random.key(0), embedding, width)))
    params: dict = {}
    for name, (part, layer, kind) in _NAMES.items():
        x = np.asarray(state[name])
        shapes = list(x.shape), list(expected[name].shape)
        if shapes[0] != shapes[1]:
            raise UserError(f"tensor {name} of the predictor has shape {shapes[0]}, expected {shapes[1]}")
        x = x.astype(np.float32) if x.dtype.kind in "fiu" or x.dtype == jnp.bfloat16 else np.float32([np.nan])
        if not np.isfinite(x).all():
            raise UserError(f"tensor {name} of the predictor holds NaN, infinity or no numbers")
        params.setdefault(part, {}).setdefault(layer, {})[kind] = jnp.asarray(x.T if kind == "kernel" else x)
    return params


def to_released(params: dict) -> dict:
    """The parameters under the released names, linear weights as [out, in]."""
    tensors = {name: params[part][layer][kind] for name, (part, layer, kind) in _NAMES.items()}
    return {name: x.T if _NAMES[name][2] == "kernel" else x for name, x in tensors.items()}


def load(path: str, embedding_width: int | None = None) -> dict:
    """Parameters from a .safetensors, .npz, or (where torch is installed) .pt, .pth or .bin file of released names.

    Names in an npz may begin with "weights/", and are then the only ones read; a torch file holds the state dict, or
    has it under "state_dict" or "model". No code in a file is run. Raises UserError where the file cannot be read, and
    as `load_released`.
    """
    kind = os.path.splitext(path)[1]
    if kind not in _READERS:
        raise UserError(f"predictor {path}: its name must end in one of {', '.join(_READERS)}")
    if not os.path.isfile(path):
        raise UserError(f"there is no predictor file {path}")
    try:
        state = _READERS[kind](path)
    except UserError:
        raise
    except Exception as error:
        raise UserError(f"predictor {path} cannot be read ({first_line(error, typed=True)})") from error
    try:
        return load_released(state, embedding_width)
    except UserError as error:
        raise UserError(f"{path}: {error}") from None


def save(path: str, params: dict) -> None:
    """Writes safetensors with the released names; a reader never sees half a file."""
    tensors = {name: np.ascontiguousarray(x) for name, x in to_released(params).items()}
    if distributed.is_main():
        files.replace(path, lambda partial: save_file(tensors, partial))


def _read_npz(path: str) -> dict:
    with np.load(path, allow_pickle=False) as file:
        prefixed = [name for name in file if name.startswith("weights/")]
        return {name.removeprefix("weights/"): file[name] for name in prefixed or file}


def _read_torch(path: str) -> dict:
    try:
        import torch
    except ImportError:
        raise UserError(f"reading {path} needs torch, which is not installed; convert it to .safetensors") from None
    state = torch.load(path, weights_only=True, map_location="cpu")
    for name in ("state_dict", "model"):
        if isinstance(state, dict) and isinstance(state.get(name), dict):
            state = state[name]
    if not isinstance(state, dict) or not all(torch.is_tensor(x) for x in state.values()):
        raise UserError(f"{path} does not hold a dictionary of tensors")
    return {name: x.float().numpy() for name, x in state.items()}


_READERS = {".safetensors": load_file, ".npz": _read_npz, ".pt": _read_torch, ".pth": _read_torch, ".bin": _read_torch}
