"""A decoder-only transformer as a pytree of parameters and pure functions.

Letters: B rows, T tokens, D width, L layers, H query heads, K key/value heads, E head width, F feed-forward
width, V vocabulary, P questions, G completions per question, S prompt tokens, R rows being decoded, C slots of a cache.
"""

import dataclasses
import functools
import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax.ad_checkpoint import checkpoint_name
from jax.sharding import PartitionSpec

from dots_jax.core import sharding
from dots_jax.core.arithmetic import ceil_div
from dots_jax.policy import attention, families

_F32 = jnp.float32
FEW = 64  # rows


@dataclasses.dataclass(frozen=True)
class ModelConfig:
    """The shape of a model (static, hashable)."""

    vocab_size: int  # V, rows of the embedding
    width: int  # D
    num_layers: int  # L
    num_heads: int  # H
    num_kv_heads: int  # K
    mlp_width: int  # F
    rope_theta: float
    norm_eps: float
    tie_embeddings: bool
    max_positions: int
    num_tokens: int  # ids the tokenizer has; logits of later rows are -inf wherever a distribution is formed
    head_dim: int | None = None  # E where it is not D / H
    rope_scaling: families.RopeScaling | None = None
    family: families.Family = dataclasses.field(default=families.QWEN2, repr=False)

    @property
    def head_width(self) -> int:
        """E."""
        return self.head_dim or self.width // self.num_heads

    @classmethod
    def from_hf(
        cls, fields: dict, num_tokens: int | None = None, family: families.Family | None = None
    ) -> "ModelConfig":
        """From the fields of a Hugging Face `config.json`; of the family that its `model_type` names if none is given.

        Raises:
          UserError: another architecture, a field that is missing or impossible, or a feature that is not supported.
        """
        family = family or families.of(fields.get("model_type"))
        shape = family.read(fields)
        return cls(**shape, num_tokens=min(num_tokens or shape["vocab_size"], shape["vocab_size"]), family=family)

    def to_hf(self, dtype: str) -> dict:
        """The fields of `config.json`."""
        return self.family.write(self, dtype)


@dataclasses.dataclass(frozen=True)
class Parameter:
    """One parameter: how it is stored, made, and laid over a mesh."""

    name: str  # of the tensor, with {} for the layer
    shape: tuple[int, ...]
    axes: tuple[str | None, ...]  # logical, as in `sharding.RULES`
    std: float | None  # initial deviation; None: ones (norms); 0: zeros (biases)
    transpose: bool = False  # stored [out, in] there, [in, out] here


def declare(model_config: ModelConfig) -> dict:
    """The tree of `Parameter`; those under "layers" have a leading axis L."""
    family, H, K = model_config.family, model_config.num_heads, model_config.num_kv_heads
    D, F, E, V = model_config.width, model_config.mlp_width, model_config.head_width, model_config.vocab_size
    out = 0.02 / math.sqrt(2 * model_config.num_layers)
    layer = {
        "attn_norm": ((D,), ("norm",), None),
        "q": ((D, H, E), ("embed", "heads", None), 0.02, True),
        "k": ((D, K, E), ("embed", "kv_heads", None), 0.02, True),
        "v": ((D, K, E), ("embed", "kv_heads", None), 0.02, True),
        "o": ((H, E, D), ("heads", None, "embed"), out, True),
        "mlp_norm": ((D,), ("norm",), None),
        "gate": ((D, F), ("embed", "mlp"), 0.02, True),
        "up": ((D, F), ("embed", "mlp"), 0.02, True),
        "down": ((F, D), ("mlp", "embed"), out, True),
    }
    if family.qkv_bias:
        layer |= {f"{name}_bias": (layer[name][0][1:], layer[name][1][1:], 0.0) for name in "qkv"}
    if family.qk_norm:
        layer |= {f"{name}_norm": ((E,), ("norm",), None) for name in "qk"}
    tree = {"embed": ((V, D), ("vocab", "embed"), 0.02), "norm": ((D,), ("norm",), None)}
    if not model_config.tie_embeddings:
        tree["head"] = tree["embed"]
    return {
        **{name: Parameter(family.tensors[name], *p) for name, p in tree.items()},
        "layers": {
            name: Parameter(family.tensors[name], (model_config.num_layers, *shape), ("layer", *axes), *more)
            for name, (shape, axes, *more) in layer.items()
        },
    }


def shardings(model_config: ModelConfig, mesh: jax.sharding.Mesh, rules=sharding.RULES) -> dict:
    """The tree of NamedShardings of the parameters on `mesh`."""

    def place(p):
        return jax.sharding.NamedSharding(mesh, sharding.spec(mesh, p.shape, p.axes, rules))

    return jax.tree.map(place, declare(model_config))


def init(model_config: ModelConfig, key: jax.Array, dtype=jnp.float32, mesh: jax.sharding.Mesh | None = None) -> dict:
    """Random parameters of any shape, made where they will lie."""
    leaves, treedef = jax.tree.flatten(declare(model_config))

    def draw(key: jax.Array, p: Parameter):
        if not p.std:
            return jnp.full(p.shape, p.std is None, dtype)
        return (p.std * jax.random.normal(key, p.shape, _F32)).astype(dtype)

    def make(key: jax.Array):
        return treedef.unflatten([draw(jax.random.fold_in(key, i), p) for i, p in enumerate(leaves)])

    return jax.jit(make, out_shardings=None if mesh is None else shardings(model_config, mesh))(key)


def head(params: dict) -> jax.Array:
    """The output matrix [V, D], the embedding where they are tied."""
    return params.get("head", params["embed"])


def _norm(x: jax.Array, scale: jax.Array, eps: float):
    y = x.astype(_F32)
    y = y * jax.lax.rsqrt(jnp.mean(y * y, axis=-1, keepdims=True) + eps)
    return y.astype(x.dtype) * scale


def _rotary(positions: jax.Array, model_config: ModelConfig):
    """(cos, sin) [..., 1, E/2] in float32 for positions [...]; the inner axis broadcasts over heads."""
    half = model_config.head_width // 2
    frequency = model_config.rope_theta ** (-jnp.arange(half, dtype=_F32) / half)
    if scaling := model_config.rope_scaling:  # those of few turns are divided by the factor, some in part
        turns = scaling.original_max_position_embeddings * frequency / (2 * math.pi)
        share = (turns - scaling.low_freq_factor) / (scaling.high_freq_factor - scaling.low_freq_factor)
        share = jnp.clip(share, 0, 1)
        frequency = share * frequency + (1 - share) * frequency / scaling.factor
    angle = positions[..., None, None].astype(_F32) * frequency
    return jnp.cos(angle), jnp.sin(angle)


def _rotate(x: jax.Array, rotary):
    cos, sin = rotary
    a, b = jnp.split(x.astype(_F32), 2, axis=-1)
    return jnp.concatenate([a * cos - b * sin, b * cos + a * sin], axis=-1).astype(x.dtype)


def _project(y: jax.Array, w: dict, name: str) -> jax.Array:
    """States [.., D] times the matrix `name` [D, H, E], with its bias if there is one."""
    out = jnp.einsum("...d,dhe->...he", y, w[name])
    return out + w[f"{name}_bias"] if f"{name}_bias" in w else out


def _multiply(x: jax.Array, w: jax.Array) -> jax.Array:
    """The states [R, 1, ..] times a matrix [.., D] of `decode_weights`, D numbers a state: [R, 1, ..]."""
    rows = x.reshape(len(x), -1)
    matrix = w.reshape(-1, rows.shape[1])
    # On a CPU few columns are faster than few rows, and the barrier keeps XLA from turning them round.
    is_few = len(rows) <= FEW
    out = jax.lax.optimization_barrier(matrix @ rows.T).T if is_few else rows @ matrix.T
    return out.reshape(len(x), 1, *w.shape[:-1])


def _block(
    x: jax.Array, w: dict, model_config: ModelConfig, rotary: tuple, attend: Callable, on_rows: Callable | None = None
):
    """One layer on x [.., D]; `attend(q, k, v) -> (values [.., H, E], anything)`.

    `on_rows(function, *arrays)` applies a function of arrays whose first axis is x's; by default it calls it.
    """

    def project(x: jax.Array, *rotary):
        y = _norm(x, w["attn_norm"], model_config.norm_eps)
        if "qkv" in w:
            heads = model_config.num_heads, model_config.num_heads + model_config.num_kv_heads
            qkv = _multiply(y, w["qkv"])
            q, k, v = jnp.split(qkv + w["qkv_bias"] if "qkv_bias" in w else qkv, heads, axis=2)
        else:
            q, k, v = (checkpoint_name(_project(y, w, name), "qkv") for name in "qkv")
        if model_config.family.qk_norm:
            q, k = _norm(q, w["q_norm"], model_config.norm_eps), _norm(k, w["k_norm"], model_config.norm_eps)
        return _rotate(q, rotary), _rotate(k, rotary), v

    def combine(x: jax.Array, values: jax.Array):
        if "qkv" in w:
            x = x + _multiply(values, w["o"])
            y = _norm(x, w["mlp_norm"], model_config.norm_eps)
            gate, up = jnp.split(_multiply(y, w["gate_up"]), 2, axis=-1)
            return x + _multiply(jax.nn.silu(gate) * up, w["down"])
        values = checkpoint_name(values, "attention")
        x = checkpoint_name(x + jnp.einsum("...he,hed->...d", values, w["o"]), "residual")
        y = _norm(x, w["mlp_norm"], model_config.norm_eps)
        gate, up = checkpoint_name(y @ w["gate"], "gate_up"), checkpoint_name(y @ w["up"], "gate_up")
        return x + (jax.nn.silu(gate) * up) @ w["down"]

    on_rows = on_rows or (lambda function, *arrays: function(*arrays))
    values, kept = attend(*on_rows(project, x, *rotary))
    return on_rows(combine, x, values), kept


_GATHERED = "gathered"
REMAT = {  # what the backward pass finds of a layer: all but whole parameters, what products gave, or what went in
    "none": functools.partial(
        jax.checkpoint,
        policy=jax.checkpoint_policies.save_anything_except_these_names(_GATHERED),
        prevent_cse=False,
    ),
    "named": functools.partial(
        jax.checkpoint,
        policy=jax.checkpoint_policies.save_only_these_names("qkv", "attention", "residual", "gate_up"),
    ),
    "full": jax.checkpoint,
}


def embed(params: dict, tokens: jax.Array) -> jax.Array:
    """The embeddings [.., D] of tokens [..]."""
    # In float32 for the gradient: a sum over thousands of equal tokens, of which bfloat16 would lose most.
    table = params["embed"]
    return table.astype(_F32)[tokens].astype(table.dtype)


def layers(
    params: dict,
    model_config: ModelConfig,
    x: jax.Array,
    positions: jax.Array,
    attend: Callable,
    given=None,
    remat: str = "none",
    whole: Callable = lambda w: w,
):
    """States [.., D] after all layers and the final norm, and over layers what `attend` kept.

    Args:
      params: as `declare` has them.
      model_config: their shape.
      x: [.., D].
      positions: int32 [..].
      attend: (q, k, v, a layer's part of `given`) -> (values, anything).
      given: arrays [L, ..].
      remat: what of each layer is recomputed in the backward pass, a name of `REMAT`.
      whole: makes a layer's parameters whole, where they are split.
    """
    rotary = _rotary(positions, model_config)

    def layer(x: jax.Array, inputs: tuple):
        w, given = inputs
        w = jax.tree.map(lambda x: checkpoint_name(x, _GATHERED), whole(w))
        x, kept = _block(x, w, model_config, rotary, lambda *qkv: attend(*qkv, given))
        return sharding.constrain(x, sharding.BATCH), kept

    x, kept = jax.lax.scan(REMAT[remat](layer), x, (params["layers"], given))
    return _norm(x, params["norm"], model_config.norm_eps), kept


def hidden(params: dict, model_config: ModelConfig, tokens: jax.Array, *, keep_kv: bool = False):
    """Hidden states [B, T, D] after the final norm of right-padded tokens [B, T].

    Causal, so that what stands right of a row's last token never reaches it; states there mean nothing.
    With `keep_kv` also the keys and values of all layers, each [L, B, T, K, E], keys rotated.
    """
    # Rows and the table's width are split over the same mesh axis: gather the table, not its rows' states.
    x = embed({"embed": sharding.constrain(params["embed"])}, tokens)

    def attend(q: jax.Array, k: jax.Array, v: jax.Array, _):
        return attention.causal(q, k, v), (k, v) if keep_kv else None

    x = sharding.constrain(x, sharding.BATCH)
    x, kept = layers(params, model_config, x, jnp.arange(tokens.shape[1])[None], attend)
    return (x, kept) if keep_kv else x


def decode_weights(params: dict, model_config: ModelConfig, mesh: jax.sharding.Mesh) -> tuple[dict, dict]:
    """Parameters as the decode step reads them, and where they lie: whole on every device but for the tensor axis.

    A list over layers instead of a stack (a slice inside the loop would be copied every step). Without a tensor axis
    q/k/v and gate/up stand side by side in one matrix each, and all are [out, in], which a CPU multiplies faster.
    """
    stack, places = dict(params["layers"]), shardings(model_config, mesh, sharding.RULES | {"embed": None})
    place = {key: p.update(spec=PartitionSpec(*p.spec[1:])) for key, p in places["layers"].items()}
    if mesh.shape["tensor"] == 1:
        stack["qkv"] = jnp.concatenate([stack.pop(n) for n in "qkv"], axis=2)
        if model_config.family.qkv_bias:
            stack["qkv_bias"] = jnp.concatenate([stack.pop(f"{n}_bias") for n in "qkv"], axis=1)
        stack["gate_up"] = jnp.concatenate([stack.pop("gate"), stack.pop("up")], axis=2)
        stack["o"] = stack["o"].reshape(model_config.num_layers, -1, model_config.width)
        stack |= {name: jnp.moveaxis(stack[name], 1, -1) for name in ("qkv", "o", "gate_up", "down")}
        place = dict.fromkeys(stack, sharding.replicated(mesh))
    layers = [{key: x[i] for key, x in stack.items()} for i in range(model_config.num_layers)]
    return {**params, "layers": layers}, {**places, "layers": [place] * model_config.num_layers}


def live_sizes(slots: int) -> list[int]:
    """The numbers of rows, from the first on, that `on_live_rows` may be asked to compute."""
    return sorted({ceil_div(slots * n, 8) for n in (5, 6, 7, 8)})


def on_live_rows(num_live: jax.Array | None, function: Callable, *arrays):
    """`function(*arrays)`, of arrays [R, ..] to arrays [R, ..], row by row; zeros for rows that it spares.

    `num_live` int32 [] says behind how many rows all are dead; `live_sizes` are spared as far as they allow. None: all
    rows are computed, which is faster where products of many rows cost what those of a few do.
    """
    if num_live is None:
        return function(*arrays)

    def first(n: int):
        out = function(*(x[:n] for x in arrays))
        return jax.tree.map(lambda y: jnp.pad(y, [(0, R - n)] + [(0, 0)] * (y.ndim - 1)), out)

    R = len(arrays[0])
    sizes = live_sizes(R)
    return jax.lax.switch(jnp.searchsorted(jnp.array(sizes), num_live), [functools.partial(first, n) for n in sizes])


def decode_step(
    weights: dict,
    model_config: ModelConfig,
    tokens: jax.Array,
    positions: jax.Array,
    cache: list,
    attend: Callable,
    num_live: jax.Array | None,
) -> tuple[jax.Array, list]:
    """One token for every row: hidden states [R, D] after the final norm, and the cache with the token in it.

    Args:
      weights: from `decode_weights`.
      model_config: its shape.
      tokens: int32 [R], the latest token of each row.
      positions: int32 [R], its position in the sequence.
      cache: list over layers of what `attend` keeps.
      attend: of a layer of the cache, q [R, 1, H, E], k and v [R, 1, K, E] -> (values [R, 1, H, E], that layer).
      num_live: as in `on_live_rows`.
    """
    rotary = _rotary(positions[:, None], model_config)
    x = weights["embed"][tokens][:, None]
    on_rows, new_cache = functools.partial(on_live_rows, num_live), []
    for w, layer in zip(weights["layers"], cache, strict=True):
        x, layer = _block(x, w, model_config, rotary, functools.partial(attend, layer), on_rows)
        new_cache.append(layer)
    return _norm(x, weights["norm"], model_config.norm_eps)[:, 0], new_cache
