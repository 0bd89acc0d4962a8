"""What only an NVIDIA GPU can show: `python -m pytest -m gpu -n 0 tests/programs/test_gpu.py`.

Without a GPU all of it is skipped. `DOTS_TEST_GPU=cpu` before the command runs it on the CPU, with XLA's attention in
cuDNN's place: that shows that the tests run, and nothing about a GPU.
"""

import dataclasses
import os

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dots_jax import learner, policy, rollout
from dots_jax.core import runtime, sharding
from dots_jax.learner import losses
from dots_jax.policy import attention
from dots_jax.rollout import Rollouts

pytestmark = pytest.mark.gpu
ON_CPU = os.environ.get("DOTS_TEST_GPU") == "cpu"
P, G, S, T = 4, 4, 90, 70
CONFIG = policy.ModelConfig(1000, 256, 2, 4, 2, 512, 1e4, 1e-6, True, 1024, 990)  # heads of 64 numbers
STOP = (7, 11, 13)


@pytest.fixture(autouse=True)
def device(monkeypatch):
    if ON_CPU:
        kernel = jax.nn.dot_product_attention

        def xla(*args, implementation, **how):
            return kernel(*args, implementation="xla", **how)

        monkeypatch.setattr(jax.nn, "dot_product_attention", xla)
        monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
        monkeypatch.setattr(sharding, "platform", lambda mesh: "gpu")
        monkeypatch.setattr(sharding, "current_platform", lambda: "gpu")
    elif jax.default_backend() != "gpu":
        pytest.skip("JAX finds no GPU")


@pytest.fixture(scope="module")
def mesh():
    return sharding.make_mesh(devices=jax.devices()[:1])


def init(mesh, dtype):
    """Random parameters, of layers that matter: deviations four times those of a policy before training."""
    params = policy.init(CONFIG, jax.random.key(0), jnp.float32, mesh)
    return jax.tree.map(lambda x: (4 * x).astype(dtype) if x.ndim > 2 else x.astype(dtype), params)


@pytest.fixture(scope="module")
def prompts():
    random = np.random.default_rng(0)
    lengths = np.array([S, 1, 40, 65], np.int32)
    return random.integers(1, 990, (P, S)).astype(np.int32) * (np.arange(S) < lengths[:, None]), lengths


def assert_close(got, want, share):
    """Within a share of the largest number."""
    got, want = np.asarray(got, np.float32), np.asarray(want, np.float32)
    assert np.isfinite(got).all()
    assert abs(got - want).max() <= share * abs(want).max(), (abs(got - want).max(), abs(want).max())


@pytest.mark.parametrize("length", [64, 993, 1024])
def test_fused_attention_equals_blocks(length):
    """Forward and backward, six query heads on each key head, lengths that cuDNN takes and that it does not."""
    random = np.random.default_rng(0)
    q, k, v, weight = (
        jnp.asarray(random.standard_normal((2, length, heads, 128)), jnp.bfloat16) for heads in (12, 2, 2, 12)
    )

    def loss(q, k, v):
        out = attention.causal(q, k, v)
        return (out.astype(jnp.float32) * weight).sum(), out

    value_and_grad = jax.jit(jax.grad(loss, argnums=(0, 1, 2), has_aux=True))
    if not ON_CPU:
        assert "__cudnn$fmhaSoftmaxBackward" in value_and_grad.lower(q, k, v).as_text()
    grads, out = value_and_grad(q, k, v)
    with jax.default_matmul_precision("highest"):  # float32: by blocks
        exact_grads, exact = value_and_grad(*(x.astype(jnp.float32) for x in (q, k, v)))
    assert_close(out, exact, 0.02)
    for got, want in zip(grads, exact_grads, strict=True):
        assert_close(got, want, 0.03)


@pytest.mark.parametrize("how", [{"chunk": 128}, {"chunk": 16, "slots": 8}], ids=str)
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_logprobs_of_cached_decode_are_those_of_the_full_forward(mesh, prompts, dtype, how):
    params = init(mesh, dtype)
    with jax.default_matmul_precision("highest" if dtype == "float32" else None):
        out = rollout.sample(params, CONFIG, *prompts, jax.random.key(1), G, T, 1.0, STOP, mesh=mesh, **how)
        out = jax.tree.map(np.asarray, out)
        rows, lengths = joined(out)
        logp = np.asarray(jax.jit(policy.token_logprobs, static_argnums=1)(params, CONFIG, rows, lengths)[0])
    differences = []
    for i, (p, g) in enumerate(np.ndindex(P, G)):
        completion = slice(prompts[1][p], lengths[i])
        differences.append(abs(logp[i, completion] - out.logprobs[p, g, : out.lengths[p, g]]))
    differences = np.concatenate(differences)
    assert len(differences) > P * G and out.logprobs.min() < -3
    assert differences.mean() < (1e-5 if dtype == "float32" else 0.03)
    assert differences.max() < (1e-3 if dtype == "float32" else 0.3)


def test_greedy_decode_takes_the_likeliest_token_of_the_full_forward(mesh, prompts):
    params = init(mesh, "float32")
    with jax.default_matmul_precision("highest"):
        out = rollout.sample(params, CONFIG, *prompts, jax.random.key(1), 1, T, 0, (), mesh=mesh)
        rows, _ = joined(jax.tree.map(np.asarray, out))
        logits = np.array(jax.jit(policy.logits, static_argnums=1)(params, CONFIG, rows))
    logits[..., CONFIG.num_tokens :] = -np.inf
    for p, n in enumerate(prompts[1]):
        there = logits[p, n - 1 : n + T - 1]
        chosen = there[np.arange(T), rows[p, n : n + T]]
        np.testing.assert_allclose(chosen, there.max(-1), atol=1e-4)


def joined(out):
    """Prompts and completions without a gap [P x G, S + T], and their lengths."""
    group, width = out.tokens.shape[1:]
    rows = np.zeros((P * group, S + width), np.int32)
    lengths = (out.prompt_lengths[:, None] + out.lengths).ravel()
    for i, (p, g) in enumerate(np.ndindex(P, group)):
        n = out.prompt_lengths[p]
        rows[i, :n], rows[i, n : lengths[i]] = out.prompts[p, :n], out.tokens[p, g, : out.lengths[p, g]]
    return rows, lengths


def test_an_update_in_bfloat16_agrees_with_float32(mesh, prompts):
    random = np.random.default_rng(2)
    lengths = random.integers(5, T + 1, (P, G)).astype(np.int32)
    real = np.arange(T) < lengths[..., None]
    tokens = random.integers(0, 990, (P, G, T)).astype(np.int32) * real
    rollouts = Rollouts(*prompts, tokens, lengths, np.zeros(tokens.shape, np.float32), lengths < T)
    rewards = np.tile(np.float32([1, 0, 0, 1]), (P, 1))
    moved = np.where(real, random.choice([-0.15, 0.15], real.shape), 0).astype(np.float32)  # ratios other than 1
    hyper = learner.UpdateSpec(
        minibatches=1, micro_tokens=512, logits_chunk=128, clip=(0.2, 0.2), loss=losses.plain, ratio_cap=2.0,
        advantage_std=True, aggregation="token", kl_coef=0.0, learning_rate=1e-3, warmup=0, betas=(0.9, 0.999),
        weight_decay=0.0, max_grad_norm=1.0, remat="full", rescore_fresh=False, temperature=1.0,
    )  # fmt: skip
    score = jax.jit(policy.token_logprobs, static_argnums=1)
    infos = {}
    for dtype, precision in (("float32", "highest"), ("bfloat16", None)):
        params = init(mesh, dtype)
        with jax.default_matmul_precision(precision):
            rows, ends = joined(rollouts)
            logp, behaviour = np.asarray(score(params, CONFIG, rows, ends)[0]), np.zeros(tokens.shape, np.float32)
            for i, (p, g) in enumerate(np.ndindex(P, G)):
                behaviour[p, g, : lengths[p, g]] = logp[i, prompts[1][p] : ends[i]]
            batch = dataclasses.replace(rollouts, logprobs=behaviour + moved)
            state = learner.init_state(params, CONFIG, hyper, mesh)
            groups = learner.Groups.fresh(batch, rewards, np.arange(P), 1, mesh)
            args = (jnp.int32(P), jax.random.key(0), CONFIG, hyper, mesh)
            state, _, info = learner.update(state, None, groups, *args)
        infos[dtype] = {name: float(info[name]) for name in ("loss", "grad_norm", "logprob_diff_mean")}
        assert all(np.isfinite(np.asarray(x, np.float32)).all() for x in jax.tree.leaves(state.params))
    exact, rounded = infos["float32"], infos["bfloat16"]
    assert abs(rounded["loss"] - exact["loss"]) < 0.02
    assert rounded["grad_norm"] == pytest.approx(exact["grad_norm"], rel=0.1)
    assert exact["logprob_diff_mean"] == pytest.approx(0.15, abs=1e-3)
    assert rounded["logprob_diff_mean"] == pytest.approx(0.15, abs=0.03)


def test_float32_products_are_exact():
    """TF32 would be wrong by 3e-4 of the largest."""
    random = np.random.default_rng(0)
    a, b = (random.standard_normal((512, 512)).astype(np.float32) for _ in range(2))
    before = jax.config.jax_default_matmul_precision
    try:
        runtime.full_precision("float32")
        product = jax.jit(jnp.matmul)(a, b)
    finally:
        jax.config.update("jax_default_matmul_precision", before)
    assert_close(product, a.astype(np.float64) @ b, 1e-5)
