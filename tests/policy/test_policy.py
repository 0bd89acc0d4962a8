import json
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dots_jax import policy
from dots_jax.core import sharding
from dots_jax.core.errors import UserError
from dots_jax.policy import attention, scoring, transformer

PARAMETERS = {  # billions
    "qwen2.5-0.5b": 0.494,
    "qwen2.5-1.5b": 1.544,
    "qwen2.5-3b": 3.086,
    "qwen2.5-7b": 7.616,
    "qwen2.5-math-1.5b": 1.544,
    "qwen2.5-math-7b": 7.616,
}

logits = jax.jit(policy.logits, static_argnums=1)
hidden = jax.jit(policy.hidden, static_argnums=1)


@pytest.fixture(scope="module", params=["qwen2_tied", "qwen2_untied"])
def golden(request, goldens):
    directory = goldens / request.param
    return (*policy.load(directory), np.load(directory / "golden.npz"))


def test_logits_and_hidden_match_goldens(golden):
    config, params, expected = golden
    tokens = jnp.asarray(expected["tokens"], jnp.int32)
    real = np.arange(tokens.shape[1]) < expected["lengths"][:, None]
    np.testing.assert_allclose(logits(params, config, tokens)[real], expected["logits"][real], rtol=0, atol=2e-4)
    states = hidden(params, config, tokens)
    np.testing.assert_allclose(states[real], expected["last_hidden"][real], rtol=0, atol=2e-4)


def test_greedy_continuation_by_full_forward(golden):
    config, params, expected = golden
    continuation, lengths = expected["greedy_continuation"], expected["lengths"].copy()
    rows = np.arange(len(lengths))
    tokens = np.pad(expected["tokens"], ((0, 0), (0, continuation.shape[1])))
    for step in range(continuation.shape[1]):
        best = np.asarray(logits(params, config, tokens))[rows, lengths - 1].argmax(-1)
        np.testing.assert_array_equal(best, continuation[:, step])
        tokens[rows, lengths] = best
        lengths += 1


def test_padding_does_not_change_a_row(tiny_config, tiny_params):
    tokens = np.random.default_rng(0).integers(0, 37, (2, 12))
    other = tokens.copy()
    other[:, 7:] = 5
    a, b = hidden(tiny_params, tiny_config, tokens), hidden(tiny_params, tiny_config, other)
    np.testing.assert_array_equal(a[:, :7], b[:, :7])


def test_both_spellings_of_the_rotary_base(tiny_config):
    fields = tiny_config.to_hf("float32")
    top = {k: v for k, v in fields.items() if k != "rope_parameters"}
    nested = {k: v for k, v in fields.items() if k != "rope_theta"}
    for spelling in (fields, top, nested):
        assert policy.ModelConfig.from_hf(spelling, tiny_config.num_tokens) == tiny_config


@pytest.mark.parametrize(
    "change, message",
    [
        ({"model_type": "gpt2"}, "gpt2"),
        ({"rope_scaling": {"type": "yarn", "factor": 4.0}}, "scaling"),
        ({"use_sliding_window": True}, "sliding"),
        ({"num_key_value_heads": 3}, "divide"),
        ({"hidden_size": 18}, "divide"),
    ],
)
def test_config_that_is_not_supported(tiny_config, change, message):
    with pytest.raises(UserError, match=message):
        policy.ModelConfig.from_hf({**tiny_config.to_hf("float32"), **change})


def test_config_without_a_field(tiny_config):
    fields = tiny_config.to_hf("float32")
    del fields["rms_norm_eps"]
    with pytest.raises(UserError, match="rms_norm_eps"):
        policy.ModelConfig.from_hf(fields)


@pytest.mark.parametrize("name", PARAMETERS)
def test_parameter_counts_of_published_shapes(data, name):
    config = policy.ModelConfig.from_hf(json.loads((data / "model_configs" / f"{name}.json").read_text()))
    declared = jax.tree.leaves(transformer.declare(config))
    assert round(sum(math.prod(p.shape) for p in declared) / 1e9, 3) == PARAMETERS[name]


def test_causal_blocks_equal_plain_attention(monkeypatch):
    length = 21  # not a multiple of the block
    rng = np.random.default_rng(0)
    q, k, v, weight = (rng.standard_normal((2, length, heads, 8), np.float32) for heads in (6, 2, 2, 6))

    def plain(q, k, v):
        scores = jnp.einsum("bqhe,bshe->bhqs", q, jnp.repeat(k, 3, axis=2)) / math.sqrt(8)
        scores = jnp.where(jnp.tril(jnp.ones((length, length), bool)), scores, -jnp.inf)
        return jnp.einsum("bhqs,bshe->bqhe", jax.nn.softmax(scores), jnp.repeat(v, 3, axis=2))

    def value_and_grad(f):
        def loss(q, k, v):
            out = f(q, k, v)
            return (out * weight).sum(), out

        return jax.jit(jax.grad(loss, argnums=(0, 1, 2), has_aux=True))(q, k, v)

    expected = value_and_grad(plain)
    for block in (8, 512):
        monkeypatch.setattr(attention, "QUERY_BLOCK", block)
        jax.tree.map(
            lambda a, b: np.testing.assert_allclose(a, b, atol=2e-5), value_and_grad(attention.causal), expected
        )
    shapes, kernel = [], jax.nn.dot_product_attention

    def xla(q, *args, implementation, **how):  # in cuDNN's place
        shapes.append((implementation, q.shape[1]))
        return kernel(q, *args, implementation="xla", **how)

    monkeypatch.setattr(jax.nn, "dot_product_attention", xla)
    monkeypatch.setattr(sharding, "current_platform", lambda: "gpu")
    monkeypatch.setattr(attention, "kernel", lambda *_: "cudnn")
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=2e-5), value_and_grad(attention.causal), expected)
    assert set(shapes) == {("cudnn", 128)}


@pytest.mark.parametrize("sizes", [(1, 1, 1), (2, 2, 2)])
def test_splash_attention_equals_blocks(sizes):
    """After prompts of several lengths and none, with gradients; interpreted, on one device and on eight."""
    rng, after = np.random.default_rng(0), jnp.array([0, 5, 128, 77])
    q, k, v, weight = (
        jnp.asarray(rng.standard_normal((4, n, heads, 64)), jnp.float32)
        for n, heads in ((256, 4), (384, 2), (384, 2), (256, 4))
    )

    def value_and_grads(function):
        out, back = jax.vjp(jax.jit(lambda q, k, v: function(q, k, v, after)), q, k, v)
        return out, *back(weight)

    expected = value_and_grads(attention.in_blocks)
    mesh = sharding.make_mesh(*sizes, devices=jax.devices()[: math.prod(sizes)])
    q, k, v, weight, after = jax.device_put((q, k, v, weight, after), sharding.rows(mesh))
    with jax.sharding.use_abstract_mesh(mesh.abstract_mesh):
        found = value_and_grads(attention.splash)
    for x, y in zip(found, expected, strict=True):
        np.testing.assert_allclose(x, y, atol=2e-5)


@pytest.mark.parametrize("dtype, calls", [("bfloat16", 1), ("float32", 0)])
def test_causal_attention_is_chosen_by_the_mesh(monkeypatch, dtype, calls):
    """Lowered for CUDA, forward and backward, on a machine without it."""
    monkeypatch.setattr("jax._src.cudnn.fused_attention_stablehlo.check_cudnn_version", lambda: 91000)
    device = jax.sharding.AbstractDevice(device_kind="NVIDIA H100 80GB HBM3", num_cores=132, platform="gpu")
    mesh = jax.sharding.AbstractMesh((1, 1, 1), sharding.AXES, abstract_device=device)
    q, k = (jax.ShapeDtypeStruct((2, 21, heads, 8), dtype) for heads in (6, 2))

    def loss(q, k, v):
        with jax.sharding.use_abstract_mesh(mesh):
            return attention.causal(q, k, v).sum()

    def count(platform):
        program = jax.jit(jax.grad(loss, argnums=(0, 1, 2))).trace(q, k, k).lower(lowering_platforms=(platform,))
        return program.as_text().count("custom_call @__cudnn$fmhaSoftmax")

    assert count("cuda") == 2 * calls
    mesh = sharding.make_mesh(1, 1, 1, devices=jax.devices()[:1]).abstract_mesh
    assert count("cpu") == 0


def plain_logprobs(params, config, tokens, lengths, temperature):
    """(log-probs, entropy) as `token_logprobs`, with all logits at once."""
    x = policy.logits(params, config, tokens)[:, :-1, : config.num_tokens] / temperature
    logp = jax.nn.log_softmax(x)
    real = jnp.arange(1, tokens.shape[1]) < lengths[:, None]
    chosen = jnp.take_along_axis(logp, tokens[:, 1:, None], axis=-1)[..., 0]
    out = chosen, -(jnp.exp(logp) * logp).sum(-1)
    return tuple(jnp.pad(jnp.where(real, x, 0.0), ((0, 0), (1, 0))) for x in out)


def score_and_gradient(function, params, config, **options):
    tokens = np.random.default_rng(0).integers(0, 37, (3, 14)).astype(np.int32)
    lengths = np.array([14, 9, 2], np.int32)
    weight = np.random.default_rng(1).standard_normal((3, 14))

    def loss(params):
        out = function(params, config, tokens, lengths, 0.7, **options)
        return (out[0] * weight).sum(), out

    return jax.jit(jax.grad(loss, has_aux=True))(params)


@pytest.fixture(scope="module")
def plain(tiny_config, tiny_params):
    return score_and_gradient(plain_logprobs, tiny_params, tiny_config)


@pytest.mark.parametrize("chunk", [4, 128])
def test_token_logprobs_and_their_gradient(tiny_config, tiny_params, plain, chunk):
    gradient, (logp, entropy) = score_and_gradient(policy.token_logprobs, tiny_params, tiny_config, chunk=chunk)
    expected_gradient, (expected_logp, expected_entropy) = plain
    np.testing.assert_allclose(logp, expected_logp, atol=1e-5)
    np.testing.assert_allclose(entropy, expected_entropy, atol=1e-5)
    assert not logp[:, 0].any() and not logp[1, 9:].any() and not entropy[2, 2:].any()
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5), gradient, expected_gradient)


def test_ids_past_the_tokenizer_are_impossible(tiny_config, tiny_params):
    states = np.random.default_rng(0).standard_normal((3, 16), np.float32)
    x = scoring.distribution(states, tiny_params["head"], 1.0, tiny_config.num_tokens)
    assert (x[..., 37:] == -jnp.inf).all() and np.isfinite(x[..., :37]).all()
    logp, entropy = scoring.score(states, tiny_params["head"], np.array([38, 1, 36]), 1.0, tiny_config.num_tokens)
    assert logp[0] == -jnp.inf
    assert np.isfinite(logp[1:]).all() and np.isfinite(entropy).all()


def test_prompt_states(tiny_config, tiny_params):
    """The last token's hidden state and the mean log-prob, whatever stands behind the row."""
    tokens, lengths = jax.random.randint(jax.random.key(3), (3, 9), 1, 37), np.array([9, 4, 1])
    mesh = sharding.make_mesh(devices=jax.devices()[:1])
    states = scoring.prompt_states(tiny_params, tokens, lengths, tiny_config, mesh)
    logp, _ = policy.token_logprobs(tiny_params, tiny_config, tokens, lengths)
    for i, n in enumerate(lengths):
        last = hidden(tiny_params, tiny_config, tokens[i : i + 1, :n])[0, -1]
        np.testing.assert_allclose(states[i, :-1], last, atol=1e-5)
        np.testing.assert_allclose(states[i, -1], logp[i, 1:n].sum() / max(n - 1, 1), atol=1e-5)
