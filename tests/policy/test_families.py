import dataclasses
import json

import jax
import numpy as np
import pytest

from dots_jax import policy
from dots_jax.core.errors import UserError
from dots_jax.policy import families

LLAMA3 = {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0}
LLAMA3 |= {"original_max_position_embeddings": 16, "rope_theta": 100.0}
SHAPE = {
    "vocab_size": 40,
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "intermediate_size": 24,
    "max_position_embeddings": 128,
}


@pytest.mark.parametrize("max_shard_bytes", [2**30, 4000])
@pytest.mark.parametrize(
    ("model_type", "fields"),
    [
        ("qwen2", {"tie_word_embeddings": True}),
        ("qwen2", {}),
        ("llama", {"rms_norm_eps": 1e-5}),
        ("llama", {"tie_word_embeddings": True, "rope_parameters": LLAMA3, "head_dim": 6}),
        ("qwen3", {"head_dim": 12}),
    ],
)
def test_equals_transformers(tmp_path, model_type, fields, max_shard_bytes):
    """Logits of a random checkpoint; and our export of it is the same model there."""
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    config = transformers.AutoConfig.for_model(model_type, **SHAPE | fields)
    theirs = transformers.AutoModelForCausalLM.from_config(config).eval()
    torch.manual_seed(0)
    tokens = np.random.default_rng(0).integers(0, 40, (3, 19))
    with torch.no_grad():
        for x in theirs.parameters():  # biases and norms too
            x += 0.2 * torch.randn(x.shape)
        expected = theirs(torch.from_numpy(tokens)).logits.numpy()
    theirs.save_pretrained(tmp_path / "theirs", max_shard_size=max_shard_bytes)
    model_config, params = policy.load(tmp_path / "theirs")
    np.testing.assert_allclose(policy.logits(params, model_config, tokens), expected, rtol=0, atol=2e-4)
    policy.save(tmp_path / "ours", model_config, params, max_shard_bytes=max_shard_bytes)
    ours, info = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "ours", output_loading_info=True)
    assert not any(info[key] for key in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    assert ours.dtype == torch.float32
    for name, x in theirs.state_dict().items():
        assert torch.equal(ours.state_dict()[name], x)
    with torch.no_grad():
        np.testing.assert_array_equal(ours(torch.from_numpy(tokens)).logits.numpy(), expected)


@pytest.fixture
def llama(tiny_config):
    """The tiny shape as a Llama."""
    scaling = families.RopeScaling(8.0, 1.0, 4.0, 16)
    return dataclasses.replace(tiny_config, family=families.LLAMA, head_dim=6, rope_scaling=scaling)


def test_both_spellings_of_the_scaling(llama):
    fields = llama.to_hf("float32")
    assert fields["head_dim"] == 6
    for spelling in ("rope_scaling", "rope_parameters"):
        others = {key: value for key, value in fields.items() if key != spelling}
        assert policy.ModelConfig.from_hf(others, 37) == llama


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"attention_bias": True}, "attention_bias=True is not supported"),
        ({"head_dim": 7}, "head_dim=7 must be even"),
        ({"head_dim": "6"}, "head_dim='6' must be a whole number"),
        ({"rope_scaling": {"rope_type": "llama3", "factor": 8.0}, "rope_parameters": None}, "must be numbers above 0"),
        ({"rope_scaling": {"rope_type": "yarn"}}, "rope scaling 'yarn' is not supported, only 'llama3'"),
        ({"rope_scaling": []}, "rope_scaling is list, not an object"),
    ],
)
def test_config_that_is_not_supported(llama, change, message):
    with pytest.raises(UserError, match=message):
        policy.ModelConfig.from_hf(llama.to_hf("float32") | change)


def test_a_family_of_ones_own(tmp_path, monkeypatch, tiny_config):
    code = "from dots_jax.policy.families import Family\nMINE, OTHER = Family('mine', 'Mine', qkv_bias=True), 1\n"
    (tmp_path / "mine.py").write_text(code)
    monkeypatch.chdir(tmp_path)
    mine = families.find("mine.py:MINE")
    model_config = dataclasses.replace(tiny_config, family=mine)
    params = policy.init(model_config, jax.random.key(0))
    policy.save(tmp_path / "out", model_config, params)
    assert json.loads((tmp_path / "out" / "config.json").read_text())["architectures"] == ["Mine"]
    assert policy.load(tmp_path / "out", family=mine)[0].family is mine
    with pytest.raises(UserError, match="model_type is 'mine': known are qwen2, qwen3, llama; "):
        policy.load(tmp_path / "out")
    with pytest.raises(UserError, match="model_type is 'mine', but the named family is for 'llama'"):
        policy.load(tmp_path / "out", family=families.LLAMA)
    with pytest.raises(UserError, match="config.policy.family=mine.py:OTHER: OTHER is not a dots_jax.policy"):
        families.find("mine.py:OTHER")
    (tmp_path / "wrong.py").write_text(code.replace("qkv_bias=True", "tensors={'query': 'q'}"))
    with pytest.raises(UserError, match="wrong.py cannot be loaded .ValueError: tensors has 'query', but is of embed"):
        families.find("wrong.py:MINE")
    without = families.Family("mine", "Mine")
    with pytest.raises(
        UserError, match="has the tensor model.layers.0.self_attn.q_proj.bias, which the family mine lacks"
    ):
        policy.load(tmp_path / "out", family=without)
