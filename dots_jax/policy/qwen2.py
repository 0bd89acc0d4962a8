"""Qwen2.5 as a pytree of parameters and pure functions.

Letters: B rows, T tokens, D width, L layers, H query heads, K key/value heads, E head width, F feed-forward
width, V vocabulary, P questions, G completions per question, S prompt tokens, C completion cache slots.
"""

import dataclasses
import functools
import math
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec

from dots_jax.core import config_rules, sharding
from dots_jax.core.arithmetic import ceil_div
from dots_jax.core.errors import UserError
from dots_jax.policy import attention

_F32 = jnp.float32
_NAMES = {  # fields of `Config` as config.json has them
    "vocab_size": "vocab_size",
    "width": "hidden_size",
    "num_layers": "num_hidden_layers",
    "num_heads": "num_attention_heads",
    "num_kv_heads": "num_key_value_heads",
    "mlp_width": "intermediate_size",
    "norm_eps": "rms_norm_eps",
    "max_positions": "max_position_embeddings",
}


@dataclasses.dataclass(frozen=True)
class Config:
    """The shape of a Qwen2 model (static, hashable)."""

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

    @property
    def head_width(self) -> int:
        """E."""
        return self.width // self.num_heads

    @classmethod
    def from_hf(cls, fields: dict, num_tokens: int | None = None) -> "Config":
        """From the fields of a Hugging Face `config.json`, rotary base in either spelling.

        Raises:
          UserError: another architecture, a field that is missing or impossible, or a feature Qwen2.5 does not use.
        """
        if fields.get("model_type") != "qwen2":
            raise UserError(f"model_type is {fields.get('model_type')!r}: only 'qwen2' (Qwen2, Qwen2.5) is supported")
        rope, scaling = fields.get("rope_parameters"), fields.get("rope_scaling")
        for name, value in (("rope_parameters", rope), ("rope_scaling", scaling)):
            if not isinstance(value, dict | None):
                raise UserError(f"{name} is {type(value).__name__}, not an object")
        rope, scaling = rope or {}, scaling or {}
        kinds = (rope.get("rope_type"), scaling.get("rope_type"), scaling.get("type"))
        if any(kind not in (None, "default") for kind in kinds) or fields.get("use_sliding_window"):
            raise UserError("rope scaling and sliding-window attention are not supported (Qwen2.5 ships without them)")
        theta = rope.get("rope_theta", fields.get("rope_theta", 10000.0))
        tied = fields.get("tie_word_embeddings", False)
        if not isinstance(tied, bool):
            raise UserError(f"tie_word_embeddings={tied!r} must be true or false")
        try:
            shape = {ours: fields[theirs] for ours, theirs in _NAMES.items()}
        except KeyError as e:
            raise UserError(f"config.json has no field {e}") from None
        config_rules.check_shape(shape | {"rope_theta": theta}, lambda field: _NAMES.get(field, field))
        vocabulary = shape["vocab_size"]
        tokens = min(num_tokens or vocabulary, vocabulary)
        return cls(**shape, rope_theta=float(theta), tie_embeddings=tied, num_tokens=tokens)

    def to_hf(self, dtype: str) -> dict:
        """The fields of `config.json`, rotary base in both spellings."""
        return {
            "architectures": ["Qwen2ForCausalLM"],
            "model_type": "qwen2",
            "hidden_act": "silu",
            "attention_dropout": 0.0,
            "vocab_size": self.vocab_size,
            "hidden_size": self.width,
            "num_hidden_layers": self.num_layers,
            "num_attention_heads": self.num_heads,
            "num_key_value_heads": self.num_kv_heads,
            "intermediate_size": self.mlp_width,
            "rope_theta": self.rope_theta,
            "rope_parameters": {"rope_theta": self.rope_theta, "rope_type": "default"},
            "rms_norm_eps": self.norm_eps,
            "tie_word_embeddings": self.tie_embeddings,
            "max_position_embeddings": self.max_positions,
            "initializer_range": 0.02,
            "use_sliding_window": False,
            "use_cache": True,
            "torch_dtype": dtype,
        }


class Parameter(NamedTuple):
    """One parameter: shape, logical axes (`sharding.RULES`), initial deviation and Hugging Face name follow from it."""

    shape: tuple[int, ...]
    axes: tuple[str | None, ...]
    std: float | None  # None: ones (norms); 0: zeros (biases)
    name: str  # with {} for the layer
    transpose: bool = False  # stored [out, in] there, [in, out] here


def declare(config: Config) -> dict:
    """The tree of `Parameter`; those under "layers" have a leading axis L."""
    D, F, E, V = config.width, config.mlp_width, config.head_width, config.vocab_size
    H, K = config.num_heads, config.num_kv_heads
    out = 0.02 / math.sqrt(2 * config.num_layers)
    layer = {
        "attn_norm": Parameter((D,), ("norm",), None, "input_layernorm.weight"),
        "q": Parameter((D, H, E), ("embed", "heads", None), 0.02, "self_attn.q_proj.weight", True),
        "q_bias": Parameter((H, E), ("heads", None), 0.0, "self_attn.q_proj.bias"),
        "k": Parameter((D, K, E), ("embed", "kv_heads", None), 0.02, "self_attn.k_proj.weight", True),
        "k_bias": Parameter((K, E), ("kv_heads", None), 0.0, "self_attn.k_proj.bias"),
        "v": Parameter((D, K, E), ("embed", "kv_heads", None), 0.02, "self_attn.v_proj.weight", True),
        "v_bias": Parameter((K, E), ("kv_heads", None), 0.0, "self_attn.v_proj.bias"),
        "o": Parameter((H, E, D), ("heads", None, "embed"), out, "self_attn.o_proj.weight", True),
        "mlp_norm": Parameter((D,), ("norm",), None, "post_attention_layernorm.weight"),
        "gate": Parameter((D, F), ("embed", "mlp"), 0.02, "mlp.gate_proj.weight", True),
        "up": Parameter((D, F), ("embed", "mlp"), 0.02, "mlp.up_proj.weight", True),
        "down": Parameter((F, D), ("mlp", "embed"), out, "mlp.down_proj.weight", True),
    }
    tree = {
        "embed": Parameter((V, D), ("vocab", "embed"), 0.02, "model.embed_tokens.weight"),
        "layers": {
            key: p._replace(
                shape=(config.num_layers, *p.shape), axes=("layer", *p.axes), name=f"model.layers.{{}}.{p.name}"
            )
            for key, p in layer.items()
        },
        "norm": Parameter((D,), ("norm",), None, "model.norm.weight"),
    }
    if not config.tie_embeddings:
        tree["head"] = Parameter((V, D), ("vocab", "embed"), 0.02, "lm_head.weight")
    return tree


def map_declared(function, *trees):
    """`jax.tree.map` over trees whose first is one of `Parameter`."""
    return jax.tree.map(function, *trees, is_leaf=lambda x: isinstance(x, Parameter))


def shardings(config: Config, mesh: jax.sharding.Mesh, rules=sharding.RULES) -> dict:
    """The tree of NamedShardings of the parameters on `mesh`."""

    def place(p):
        return jax.sharding.NamedSharding(mesh, sharding.spec(mesh, p.shape, p.axes, rules))

    return map_declared(place, declare(config))


def init(config: Config, key: jax.Array, dtype=jnp.float32, mesh: jax.sharding.Mesh | None = None) -> dict:
    """Random parameters of any shape, made where they will lie."""
    tree = declare(config)
    leaves, treedef = jax.tree.flatten(tree, is_leaf=lambda x: isinstance(x, Parameter))

    def make(key: jax.Array):
        def one(i, p):
            if not p.std:
                return jnp.full(p.shape, p.std is None, dtype)
            return (p.std * jax.random.normal(jax.random.fold_in(key, i), p.shape, _F32)).astype(dtype)

        return treedef.unflatten([one(i, p) for i, p in enumerate(leaves)])

    return jax.jit(make, out_shardings=None if mesh is None else shardings(config, mesh))(key)


def head(params: dict) -> jax.Array:
    """The output matrix [V, D], the embedding where they are tied."""
    return params.get("head", params["embed"])


def _norm(x: jax.Array, scale: jax.Array, eps: float):
    y = x.astype(_F32)
    y = y * jax.lax.rsqrt(jnp.mean(y * y, axis=-1, keepdims=True) + eps)
    return y.astype(x.dtype) * scale


def _rotary(positions: jax.Array, config: Config):
    """(cos, sin) [..., 1, E/2] in float32 for positions [...]; the inner axis broadcasts over heads."""
    half = config.head_width // 2
    frequency = config.rope_theta ** (-jnp.arange(half, dtype=_F32) / half)
    angle = positions[..., None, None].astype(_F32) * frequency
    return jnp.cos(angle), jnp.sin(angle)


def _rotate(x: jax.Array, rotary):
    cos, sin = rotary
    a, b = jnp.split(x.astype(_F32), 2, axis=-1)
    return jnp.concatenate([a * cos - b * sin, b * cos + a * sin], axis=-1).astype(x.dtype)


def _block(x: jax.Array, w: dict, config: Config, rotary: tuple, attend: Callable, on_rows: Callable = None):
    """One layer on x [B, T, D]; `attend(q, k, v) -> (values [B, T, H, E], anything)`.

    `on_rows(function, *arrays)` applies a function of arrays [B, ..]; by default it calls it.
    """

    def project(x: jax.Array, *rotary):
        y = _norm(x, w["attn_norm"], config.norm_eps)
        if "qkv" in w:
            qkv = jnp.einsum("btd,dhe->bthe", y, w["qkv"]) + w["qkv_bias"]
            q, k, v = jnp.split(qkv, (config.num_heads, config.num_heads + config.num_kv_heads), axis=2)
        else:
            q, k, v = (jnp.einsum("btd,dhe->bthe", y, w[n]) + w[f"{n}_bias"] for n in "qkv")
        return _rotate(q, rotary), _rotate(k, rotary), v

    def combine(x: jax.Array, values: jax.Array):
        x = x + jnp.einsum("bthe,hed->btd", values, w["o"])
        y = _norm(x, w["mlp_norm"], config.norm_eps)
        if "gate_up" in w:
            gate, up = jnp.split(y @ w["gate_up"], 2, axis=-1)
        else:
            gate, up = y @ w["gate"], y @ w["up"]
        return x + (jax.nn.silu(gate) * up) @ w["down"]

    on_rows = on_rows or (lambda function, *arrays: function(*arrays))
    values, kept = attend(*on_rows(project, x, *rotary))
    return on_rows(combine, x, values), kept


def hidden(params: dict, config: Config, tokens: jax.Array, *, remat: bool = False, keep_kv: bool = False):
    """Hidden states [B, T, D] after the final norm of right-padded tokens [B, T].

    Causal, so that what stands right of a row's last token never reaches it; states there mean nothing.
    With `keep_kv` also the keys and values of all layers, each [L, B, K, T, E], keys rotated.
    `remat` recomputes each layer in the backward pass.
    """
    rotary = _rotary(jnp.arange(tokens.shape[1])[None], config)
    # Rows and the table's width are split over the same mesh axis: gather the table, not its rows' states. The lookup
    # is in float32 for its gradient: a sum over thousands of equal tokens, of which bfloat16 would lose most.
    table = sharding.constrain(params["embed"])
    x = sharding.constrain(table.astype(_F32)[tokens].astype(table.dtype), sharding.BATCH)

    def attend(q: jax.Array, k: jax.Array, v: jax.Array):
        kept = (k.swapaxes(1, 2), v.swapaxes(1, 2)) if keep_kv else None
        return attention.causal(q, k, v), kept

    def layer(x: jax.Array, w):
        x, kept = _block(x, w, config, rotary, attend)
        return sharding.constrain(x, sharding.BATCH), kept

    x, kept = jax.lax.scan(jax.checkpoint(layer) if remat else layer, x, params["layers"])
    x = _norm(x, params["norm"], config.norm_eps)
    return (x, kept) if keep_kv else x


def decode_weights(params: dict, config: Config, mesh: jax.sharding.Mesh) -> tuple[dict, dict]:
    """Parameters as the decode step reads them, and where they lie: whole on every device but for the tensor axis.

    A list over layers instead of a stack (a slice inside the loop would be copied every step); without a tensor axis
    q/k/v and gate/up stand side by side in one matrix each.
    """
    stack, places = dict(params["layers"]), shardings(config, mesh, sharding.RULES | {"embed": None})
    place = {key: p.update(spec=PartitionSpec(*p.spec[1:])) for key, p in places["layers"].items()}
    if mesh.shape["tensor"] == 1:
        stack["qkv"] = jnp.concatenate([stack.pop(n) for n in "qkv"], axis=2)
        stack["qkv_bias"] = jnp.concatenate([stack.pop(f"{n}_bias") for n in "qkv"], axis=1)
        stack["gate_up"] = jnp.concatenate([stack.pop("gate"), stack.pop("up")], axis=2)
        place = dict.fromkeys(stack, sharding.replicated(mesh))
    layers = [{key: x[i] for key, x in stack.items()} for i in range(config.num_layers)]
    return {**params, "layers": layers}, {**places, "layers": [place] * config.num_layers}


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
    return jax.lax.switch(
        jnp.searchsorted(jnp.array(sizes), num_live), [functools.partial(first, n) for n in sizes]
    )


def decode_step(
    weights: dict,
    config: Config,
    tokens: jax.Array,
    positions: jax.Array,
    cache: list,
    starts: jax.Array,
    lengths: jax.Array,
    recent: list,
    step: jax.Array,
    num_live: jax.Array | None,
) -> tuple[jax.Array, list]:
    """One token for every row: hidden states [R, D] after the final norm, and `recent` with the token in it.

    Args:
      weights: from `decode_weights`.
      config: shape of the model.
      tokens: int32 [R], the latest token of each row.
      positions: int32 [R], its position in the sequence.
      cache: list over layers of (keys, values), which `attention.decode` describes.
      starts: int32 [R], the first slot of the cache that is the row's.
      lengths: int32 [R], the slot after its last.
      recent: list over layers of this chunk's (keys [R, K, E, W], values [R, K, W, E]).
      step: int32 [], where among them this token goes.
      num_live: as in `on_live_rows`.
    """
    rotary = _rotary(positions[:, None], config)
    x = weights["embed"][tokens][:, None]
    new_recent = []
    on_rows = functools.partial(on_live_rows, num_live)
    for w, (keys, values), (recent_keys, recent_values) in zip(weights["layers"], cache, recent, strict=True):

        def attend(q, k, v, keys=keys, values=values, rk=recent_keys, rv=recent_values):
            rk = jax.lax.dynamic_update_slice_in_dim(rk, k.transpose(0, 2, 3, 1), step, axis=3)
            rv = jax.lax.dynamic_update_slice_in_dim(rv, v.swapaxes(1, 2), step, axis=2)
            return attention.decode(q[:, 0], keys, values, starts, lengths, rk, rv, step)[:, None], (rk, rv)

        x, kept = _block(x, w, config, rotary, attend, on_rows)
        new_recent.append(kept)
    return _norm(x, weights["norm"], config.norm_eps)[:, 0], new_recent
