import dataclasses
import functools
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dots_jax import policy
from dots_jax.core import sharding
from dots_jax.core.errors import UserError


@pytest.fixture(scope="module")
def params(tiny_params):
    """On the first device."""
    return jax.device_put(tiny_params)


@functools.partial(jax.jit, static_argnums=1)
def cast(params, dtype):
    return jax.tree.map(lambda x: x.astype(dtype), params)


def without_head(params, tie):
    return {key: x for key, x in params.items() if key != "head" or not tie}


@pytest.fixture
def source(tmp_path):
    """A directory with a tokenizer of 37 ids, two of them added."""
    directory = tmp_path / "source"
    directory.mkdir()
    (directory / "vocab.json").write_text(json.dumps({f"t{i}": i for i in range(35)}))
    added = {str(i): {"content": f"<{i}>"} for i in (35, 36)}
    (directory / "tokenizer_config.json").write_text(json.dumps({"added_tokens_decoder": added}))
    (directory / "generation_config.json").write_text('{"eos_token_id": [35, 36]}')
    (directory / "config.json").write_text('{"bos_token_id": 35, "eos_token_id": 36}')
    return directory


@pytest.fixture
def export(tmp_path, tiny_config, params):
    """A single-file export."""
    policy.save(tmp_path / "export", tiny_config, params)
    return tmp_path / "export"


@pytest.fixture
def shards(tmp_path, tiny_config, params):
    """An export of several files."""
    policy.save(tmp_path / "shards", tiny_config, params, max_shard_bytes=4000)
    return tmp_path / "shards"


def assert_same(a, b):
    def same(a, b):
        assert a.dtype == b.dtype
        np.testing.assert_array_equal(np.asarray(a).view(np.uint8), np.asarray(b).view(np.uint8))

    jax.tree.map(same, a, b)


@pytest.mark.parametrize("tie", [True, False])
@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
@pytest.mark.parametrize("max_shard_bytes", [2**30, 4000])
def test_round_trip_is_bit_equal(tmp_path, tiny_config, params, source, tie, dtype, max_shard_bytes):
    config = dataclasses.replace(tiny_config, tie_embeddings=tie)
    params = cast(without_head(params, tie), dtype)
    policy.save(tmp_path / "out", config, params, source, max_shard_bytes=max_shard_bytes)
    loaded_config, loaded = policy.load(tmp_path / "out", dtype=dtype)
    assert loaded_config == config
    assert_same(loaded, params)
    files = sorted(path.name for path in (tmp_path / "out").glob("*.safetensors"))
    assert (files == ["model.safetensors"]) == (max_shard_bytes > 4000) and files
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out", "source"]


def test_conversion_of_dtypes(tmp_path, tiny_config, params, export):
    half = policy.load(export, dtype=jnp.bfloat16)[1]
    assert_same(half, cast(params, jnp.bfloat16))
    policy.save(tmp_path / "half", tiny_config, cast(params, jnp.float16))
    assert_same(
        policy.load(tmp_path / "half")[1],
        cast(cast(params, jnp.float16), jnp.float32),
    )


def test_loaded_onto_a_mesh(tmp_path, tiny_config, params, shards):
    if len(jax.devices()) != 8:
        pytest.skip("needs 8 devices")
    mesh = sharding.make_mesh(data=2, fsdp=2, tensor=2)
    config, loaded = policy.load(shards, mesh)
    assert_same(loaded, params)
    split = loaded["layers"]["o"].sharding
    assert split.spec == jax.P(None, "tensor", None, "fsdp") and split.mesh == mesh
    policy.save(tmp_path / "again", config, loaded)
    assert_same(policy.load(tmp_path / "again")[1], params)


def test_tokenizer_files_and_ids_come_from_the_source(tmp_path, tiny_config, params, source):
    policy.save(tmp_path / "out", tiny_config, params, source)
    for name in ("vocab.json", "tokenizer_config.json", "generation_config.json"):
        assert (tmp_path / "out" / name).read_bytes() == (source / name).read_bytes()
    fields = json.loads((tmp_path / "out" / "config.json").read_text())
    assert (fields["bos_token_id"], fields["eos_token_id"]) == (35, 36)
    assert policy.load(tmp_path / "out")[0].num_tokens == 37


def test_an_export_is_replaced(tmp_path, tiny_config, params, export, source):
    other = jax.tree.map(lambda x: np.asarray(x) + 1, params)
    policy.save(export, tiny_config, params, max_shard_bytes=4000)
    assert not (export / "model.safetensors").exists()
    policy.save(export, tiny_config, other, source)
    assert_same(policy.load(export)[1], other)
    assert not list(export.glob("model-*")) and not (export / "model.safetensors.index.json").exists()


def test_a_save_that_dies_leaves_the_earlier_export(tiny_config, params, export):
    broken = {**params, "norm": None}
    with pytest.raises(AttributeError):
        policy.save(export, tiny_config, broken)
    assert_same(policy.load(export)[1], params)
    policy.save(export, tiny_config, params)
    assert [path.name for path in export.parent.iterdir()] == ["export"]


def test_save_refuses(tmp_path, tiny_config, params):
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(UserError, match="not an exported policy"):
        policy.save(tmp_path, tiny_config, params)
    with pytest.raises(UserError, match=r"nowhere does not exist"):
        policy.save(tmp_path / "out", tiny_config, params, tmp_path / "nowhere")
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]


def test_tied_model_ignores_a_head(export):
    edit(export / "config.json", tie_word_embeddings=True)
    assert "head" not in policy.load(export)[1]


def test_number_of_tokens_of_qwen(data):
    from dots_jax.policy.huggingface import _count_tokens

    assert _count_tokens(data / "tokenizer" / "qwen2.5") == 151665


def test_number_of_tokens_of_a_tokenizer_json(export):
    assert policy.load(export)[0].num_tokens == 40
    fields = {"model": {"vocab": {"a": 0, "b": 1}}, "added_tokens": [{"id": 3, "content": "<end>"}]}
    (export / "tokenizer.json").write_text(json.dumps(fields))
    assert policy.load(export)[0].num_tokens == 4


def edit(path, **fields):
    path.write_text(json.dumps({**json.loads(path.read_text()), **fields}))


def refused(directory, *parts):
    """`load` raises one line that names all `parts`."""
    with pytest.raises(UserError) as error:
        policy.load(directory)
    message = str(error.value)
    assert "\n" not in message
    for part in parts:
        assert part in message


def test_missing_directory(tmp_path):
    refused(tmp_path / "nowhere", str(tmp_path / "nowhere"), "does not exist")


def test_missing_config(export):
    (export / "config.json").unlink()
    refused(export, str(export), "config.json")


@pytest.mark.parametrize("text", ["{", "[1]", "\xff"])
def test_broken_config(export, text):
    (export / "config.json").write_bytes(text.encode("latin1"))
    refused(export, str(export / "config.json"), "JSON")


@pytest.mark.parametrize(
    "fields, part",
    [
        ({"model_type": "gpt2"}, "model_type is 'gpt2': known are qwen2, qwen3, llama"),
        ({"hidden_size": None}, "hidden_size=None must be a whole number"),
        ({"num_attention_heads": 0}, "num_attention_heads=0 must be a whole number from 1 to 1,024"),
        ({"rope_theta": "big", "rope_parameters": None}, "rope_theta='big' must be a number"),
    ],
)
def test_other_config(export, fields, part):
    edit(export / "config.json", **fields)
    refused(export, str(export / "config.json"), part)


def test_missing_weights(export):
    (export / "model.safetensors").unlink()
    refused(export, str(export), "model.safetensors.index.json")


def test_missing_tensor(export):
    edit(export / "config.json", num_hidden_layers=3)
    refused(export, str(export / "model.safetensors"), "model.layers.2.")


def test_missing_tensor_of_the_index(shards):
    index = shards / "model.safetensors.index.json"
    files = json.loads(index.read_text())["weight_map"]
    other = files["model.norm.weight"]
    edit(index, weight_map={**files, "model.layers.0.mlp.up_proj.weight": other})
    refused(shards, str(shards / other), "model.layers.0.mlp.up_proj.weight")
    del files["model.norm.weight"]
    edit(index, weight_map=files)
    refused(shards, str(index), "model.norm.weight")
    edit(index, weight_map=None)
    refused(shards, str(index), "weight_map")


def test_shape_mismatch(export):
    edit(export / "config.json", intermediate_size=26)
    refused(export, str(export / "model.safetensors"), "mlp.", "24", "26")


def test_missing_shard(shards):
    path = next(shards.glob("model-00002-*"))
    path.unlink()
    refused(shards, str(path), "missing", "model.layers.")


@pytest.mark.parametrize("damage", [lambda b: b[:-8], lambda b: b[:50], lambda b: b"", lambda b: b"x" * 100])
def test_damaged_weights(export, shards, damage):
    for path in (export / "model.safetensors", next(shards.glob("model-00002-*"))):
        path.write_bytes(damage(path.read_bytes()))
        refused(path.parent, str(path), "damaged")


def test_unreadable_dtype(export):
    path = export / "model.safetensors"
    path.write_bytes(path.read_bytes().replace(b'"F32"', b'"I32"'))
    refused(export, str(path), "I32", "model.embed_tokens.weight")


def test_tokenizer_of_another_model(export):
    (export / "vocab.json").write_text('{"a": 0, "b": 40}')
    refused(export, str(export), "40")
    (export / "vocab.json").write_text('{"a": "b"}')
    refused(export, str(export), "tokenizer")
