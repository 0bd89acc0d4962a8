"""Families of policies: what their files look like, and which parts their layers have.

A family is one declaration. Its `transformer.ModelConfig` holds it: all that differs between families is read from it.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any, NamedTuple

from dots_jax.core import config_rules, plugins
from dots_jax.core.errors import UserError
from dots_jax.core.rules import is_number, shortened

FAMILIES = {  # model_type in config.json -> declaration
    "qwen2": "dots_jax.policy.families:QWEN2",
    "qwen3": "dots_jax.policy.families:QWEN3",
    "llama": "dots_jax.policy.families:LLAMA",
}
FIELDS = {  # field of `ModelConfig` -> of config.json
    "vocab_size": "vocab_size",
    "width": "hidden_size",
    "num_layers": "num_hidden_layers",
    "num_heads": "num_attention_heads",
    "num_kv_heads": "num_key_value_heads",
    "mlp_width": "intermediate_size",
    "norm_eps": "rms_norm_eps",
    "tie_embeddings": "tie_word_embeddings",
    "max_positions": "max_position_embeddings",
}
_DEFAULTS = {"tie_word_embeddings": False, "head_dim": None, "rope_theta": 10000.0}  # of config.json
TENSORS = {  # parameter -> tensor, with {} for the layer
    "embed": "model.embed_tokens.weight",
    "norm": "model.norm.weight",
    "head": "lm_head.weight",
    "attn_norm": "model.layers.{}.input_layernorm.weight",
    **{name: f"model.layers.{{}}.self_attn.{name}_proj.weight" for name in "qkvo"},
    **{f"{name}_bias": f"model.layers.{{}}.self_attn.{name}_proj.bias" for name in "qkv"},
    **{f"{name}_norm": f"model.layers.{{}}.self_attn.{name}_norm.weight" for name in "qk"},
    "mlp_norm": "model.layers.{}.post_attention_layernorm.weight",
    **{name: f"model.layers.{{}}.mlp.{name}_proj.weight" for name in ("gate", "up", "down")},
}


class RopeScaling(NamedTuple):
    """The "llama3" scaling of rotary frequencies, as config.json has it."""

    factor: float
    low_freq_factor: float
    high_freq_factor: float
    original_max_position_embeddings: float


@dataclasses.dataclass(frozen=True, eq=False)
class Family:
    """A decoder-only architecture in Hugging Face layout; equal to itself alone."""

    model_type: str  # in config.json
    architecture: str  # the class of transformers
    qkv_bias: bool = False  # of queries, keys and values
    qk_norm: bool = False  # RMS norm of each query and key, one scale for all heads
    fixed: Mapping[str, Any] = dataclasses.field(default_factory=dict)  # of config.json; other values are refused
    fields: Mapping[str, str] = dataclasses.field(default_factory=dict)  # unlike FIELDS; "head_dim" where there is one
    tensors: Mapping[str, str] = dataclasses.field(default_factory=dict)  # unlike TENSORS

    def __post_init__(self):
        for name, allowed in (("fields", FIELDS | {"head_dim": "head_dim"}), ("tensors", TENSORS)):
            if unknown := sorted(getattr(self, name).keys() - allowed.keys()):
                raise ValueError(f"{name} has {unknown[0]!r}, but is of {', '.join(allowed)}")
        object.__setattr__(self, "fields", FIELDS | self.fields)
        object.__setattr__(self, "tensors", TENSORS | self.tensors)

    def read(self, fields: dict) -> dict:
        """The fields of `ModelConfig` that those of a config.json mean, rotary base and scaling in either spelling.

        Raises:
          UserError: another architecture, a field that is missing or impossible, or a feature that is not supported.
        """
        if (model_type := fields.get("model_type")) != self.model_type:
            raise UserError(f"model_type is {shortened(model_type)}, but the named family is for {self.model_type!r}")
        for name, value in self.fixed.items():
            if fields.get(name, value) != value:
                given = shortened(fields[name])
                raise UserError(f"{name}={given} is not supported: {value!r} is what {self.model_type} has here")
        fields = _DEFAULTS | fields
        try:
            shape = {ours: fields[theirs] for ours, theirs in self.fields.items()}
        except KeyError as e:
            raise UserError(f"config.json has no field {e}") from None
        if shape.get("head_dim", 0) is None:
            del shape["head_dim"]
        shape["rope_theta"], scaling = _read_rope(fields)
        config_rules.check_shape(shape, lambda field: self.fields.get(field, field))
        return shape | {"rope_theta": float(shape["rope_theta"]), "rope_scaling": scaling}

    def write(self, model_config, dtype: str) -> dict:
        """The fields of config.json, rotary base and scaling in both spellings."""
        theta, scaling = model_config.rope_theta, model_config.rope_scaling
        scaled = scaling._asdict() | {"rope_type": "llama3"} if scaling else {}
        head_dim = {"head_dim": model_config.head_width}
        return {
            "architectures": [self.architecture],
            "model_type": self.model_type,
            "attention_dropout": 0.0,
            **self.fixed,
            **{theirs: (vars(model_config) | head_dim)[ours] for ours, theirs in self.fields.items()},
            "rope_theta": theta,
            "rope_parameters": {"rope_theta": theta, "rope_type": "default"} | scaled,
            **({"rope_scaling": scaled} if scaling else {}),
            "initializer_range": 0.02,
            "use_cache": True,
            "torch_dtype": dtype,
        }


def _read_rope(fields: dict) -> tuple[float, RopeScaling | None]:
    """Rotary base and scaling, in either spelling. Raises UserError."""
    theta, scaling = fields["rope_theta"], None
    for name in ("rope_scaling", "rope_parameters"):
        if (rope := fields.get(name)) is None:
            continue
        if not isinstance(rope, dict):
            raise UserError(f"{name} is {type(rope).__name__}, not an object")
        kind = rope.get("rope_type", rope.get("type"))
        if kind == "llama3":
            scaling = RopeScaling(*(rope.get(field) for field in RopeScaling._fields))
        elif kind not in (None, "default"):
            raise UserError(f"rope scaling {shortened(kind)} is not supported, only 'llama3'")
        theta = rope.get("rope_theta", theta)
    if scaling and not (all(is_number(x) and x > 0 for x in scaling) and scaling[1] < scaling[2]):
        raise UserError(f"rope scaling {shortened(tuple(scaling))} must be numbers above 0, and low below high")
    return theta, scaling


QWEN2 = Family(  # Qwen2.5 too
    "qwen2", "Qwen2ForCausalLM", qkv_bias=True, fixed={"hidden_act": "silu", "use_sliding_window": False}
)
QWEN3 = Family(
    "qwen3",
    "Qwen3ForCausalLM",
    qk_norm=True,
    fixed={"hidden_act": "silu", "use_sliding_window": False, "attention_bias": False},
    fields={"head_dim": "head_dim"},
)
LLAMA = Family(
    "llama",
    "LlamaForCausalLM",
    fixed={"hidden_act": "silu", "attention_bias": False, "mlp_bias": False},
    fields={"head_dim": "head_dim"},
)


def find(name: str, field: str = "policy.family") -> Family | None:
    """The family that the config's `field` names, None for "". Raises UserError where it cannot be had."""
    if not name:
        return None
    expected = "a dots_jax.policy.families.Family"
    return plugins.find(name, FAMILIES, field, lambda value: isinstance(value, Family), expected)


def of(model_type: object) -> Family:
    """The family whose config.json has this `model_type`. Raises UserError where none is known."""
    if model_type not in list(FAMILIES):
        raise UserError(
            f"model_type is {shortened(model_type)}: known are {', '.join(FAMILIES)}; for another one declare a family "
            "and name it by config.policy.family=FILE.py:NAME"
        )
    return find(FAMILIES[model_type])
