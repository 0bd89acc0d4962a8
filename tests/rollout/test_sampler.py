import dataclasses
import functools
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dots_jax import policy, rollout
from dots_jax.core import sharding
from dots_jax.policy import attention, families
from dots_jax.rollout import draw as drawing
from dots_jax.rollout import layout, sampler

P, S, G, T = 6, 9, 4, 14
STOP = (3, 7, 11)
TOLERANCE = 1e-5  # of log-probs of order 1, float32


@pytest.fixture(scope="module")
def prompts():
    rng = np.random.default_rng(1)
    lengths = np.array([9, 1, 5, 2, 7, 3], np.int32)
    return rng.integers(1, 37, (P, S)).astype(np.int32) * (np.arange(S) < lengths[:, None]), lengths


def place(params, config, *sizes):
    mesh = sharding.make_mesh(*sizes, devices=jax.devices()[: int(np.prod(sizes))])
    return jax.device_put(params, policy.transformer.shardings(config, mesh)), mesh


@pytest.fixture(scope="module")
def draw(tiny_config, tiny_params, prompts):
    """`sample` on a mesh of the given sizes, results on the host."""

    @functools.cache
    def placed(sizes):
        return place(tiny_params, tiny_config, *sizes)

    def draw(sizes=(1, 1, 1), prompts=prompts, temperature=0.8, stop=STOP, max_tokens=T, group=G, chunk=8, **kw):
        params, mesh = placed(sizes)
        out = rollout.sample(
            params,
            tiny_config,
            *prompts,
            jax.random.key(2),
            group,
            max_tokens,
            temperature,
            stop,
            mesh=mesh,
            chunk=chunk,
            **kw,
        )
        return jax.tree.map(np.asarray, out)

    return draw


@pytest.fixture(scope="module")
def base(draw):
    return draw()


def assert_same(a, b):
    np.testing.assert_array_equal(a.tokens, b.tokens)
    np.testing.assert_array_equal(a.lengths, b.lengths)
    np.testing.assert_array_equal(a.finished, b.finished)
    np.testing.assert_allclose(a.logprobs, b.logprobs, atol=TOLERANCE)


def test_lengths_flags_and_padding(base):
    assert base.tokens.shape == base.logprobs.shape == (P, G, T) and base.lengths.shape == (P, G)
    assert 0 < base.finished.mean() < 1  # both kinds are there to be tested
    for tokens, logp, n, finished in zip(
        base.tokens.reshape(-1, T),
        base.logprobs.reshape(-1, T),
        base.lengths.ravel(),
        base.finished.ravel(),
        strict=True,
    ):
        stops = np.isin(tokens[:n], STOP)
        assert finished == stops[-1] and not stops[:-1].any()
        assert finished or n == T
        assert not tokens[n:].any() and not logp[n:].any() and (logp[:n] < 0).all()
    ended = base.tokens[np.arange(P)[:, None], np.arange(G), base.lengths - 1][base.finished]
    assert set(ended) == set(STOP)  # every stop id stops


_score = jax.jit(policy.token_logprobs, static_argnums=1)


def apart(params, config, prompts, out, temperature):
    """|log-prob of the learner - that of the sampler| of every token drawn."""
    rows = np.zeros((P * G, S + T), np.int32)
    lengths = (prompts[1][:, None] + out.lengths).ravel()
    for i, (p, g) in enumerate(np.ndindex(P, G)):
        n = prompts[1][p]
        rows[i, :n], rows[i, n : lengths[i]] = prompts[0][p, :n], out.tokens[p, g, : out.lengths[p, g]]
    logp = np.asarray(_score(params, config, rows, lengths, temperature)[0])
    return np.concatenate(
        [
            np.abs(logp[i, prompts[1][p] : lengths[i]] - out.logprobs[p, g, : out.lengths[p, g]])
            for i, (p, g) in enumerate(np.ndindex(P, G))
        ]
    )


@pytest.mark.parametrize(("temperature", "top_p"), [(0.8, 1.0), (1.7, 1.0), (0.8, 0.5)])
def test_logprobs_are_the_learners(draw, tiny_config, tiny_params, prompts, temperature, top_p):
    out = draw(temperature=temperature, top_p=top_p)
    assert apart(tiny_params, tiny_config, prompts, out, temperature).max() <= 1e-4
    assert apart(tiny_params, tiny_config, prompts, out, temperature * 1.3).max() > 1e-4


@pytest.mark.parametrize(
    "how",
    [
        {"chunk": 3},
        {"chunk": 4, "slots": 5},
        {"capacity": (20, 70)},
        {"sizes": (4, 1, 1)},
        {"sizes": (2, 2, 2), "chunk": 5, "slots": 8},
    ],
    ids=str,
)
def test_sample_does_not_depend_on(draw, base, how):
    """Chunks and slots, so when rows get one and when fewer are decoded; what the programs are compiled for; devices (6
    questions do not divide by 4); a tensor axis.
    """
    assert_same(draw(**how), base)


def test_sample_does_not_depend_on_padding_and_neighbours(draw, base, prompts):
    others = prompts[0].copy(), prompts[1].copy()
    others[0][1:], others[1][1:] = 5, 4
    wider = np.pad(others[0], ((0, 0), (0, 6)), constant_values=9), others[1]
    a, b = jax.tree.map(lambda x: x[:1], (draw(prompts=wider), base))
    assert_same(a, b)


@pytest.mark.parametrize("platform", ["gpu", "tpu"])
def test_what_is_done_for_accelerators_changes_nothing(draw, base, monkeypatch, platform):
    """Prompts of 9 tokens padded to 128; dead rows computed with the others; a TPU's way to write a chunk."""
    monkeypatch.setattr(sharding, "platform", lambda mesh: platform)
    shapes, prefill = [], sampler._prefill
    monkeypatch.setattr(sampler, "_prefill", lambda *args: shapes.append(args[1].shape) or prefill(*args))
    assert_same(draw(chunk=4, slots=5), base)
    assert shapes == [(16, 128)]


@pytest.fixture
def fused(monkeypatch):
    """The whole cache of NVIDIA GPUs in 16 bits, in every dtype; XLA's attention in cuDNN's place.

    Tests with it have slots and chunks that those of a GPU without it do not have: programs are kept by their spec.
    """
    monkeypatch.setattr(sharding, "platform", lambda mesh: "gpu")
    monkeypatch.setattr(attention, "kernel", lambda platform, *_: "cudnn" if platform == "gpu" else "")


@pytest.mark.parametrize(
    "how",
    [
        {"chunk": 3},
        {"chunk": 4, "slots": 6},
        {"capacity": (20, 130)},
        {"sizes": (4, 1, 1), "chunk": 5},
    ],
    ids=str,
)
def test_a_whole_cache_changes_nothing(draw, base, fused, how):
    """Rows that get a slot late, that move and that are dead; a cache of 128 slots and of 256; several devices."""
    assert_same(draw(**how), base)


def test_a_whole_cache_does_not_depend_on_padding_and_neighbours(draw, base, prompts, fused):
    others = prompts[0].copy(), prompts[1].copy()
    others[0][1:], others[1][1:] = 5, 4
    wider = np.pad(others[0], ((0, 0), (0, 6)), constant_values=9), others[1]
    a, b = jax.tree.map(lambda x: x[:1], (draw(prompts=wider, slots=7), base))
    assert_same(a, b)


@pytest.mark.parametrize(
    "platform, dtype, head_dim, tensor, expected",
    [
        ("gpu", "bfloat16", 128, 1, True),
        ("gpu", "float16", 64, 1, True),
        ("gpu", "float32", 64, 1, False),
        ("gpu", "bfloat16", 60, 1, False),
        ("gpu", "bfloat16", 256, 1, False),
        ("gpu", "bfloat16", 64, 2, False),
        ("tpu", "bfloat16", 64, 1, False),
        ("cpu", "bfloat16", 64, 1, False),
    ],
)
def test_which_runs_have_a_whole_cache(tiny_config, platform, dtype, head_dim, tensor, expected):
    mesh = jax.sharding.AbstractMesh((1, 1, tensor), sharding.AXES)
    config = dataclasses.replace(tiny_config, head_dim=head_dim)
    spec = layout.SamplerSpec(config, mesh, platform, jnp.dtype(dtype), 8, 100, 200, 16)
    assert spec.fused == expected
    assert (spec.pieces == (384,)) == expected
    assert (spec.first_slot(99) == 0) == expected


@pytest.mark.parametrize("how", [{"chunk": 14}, {"chunk": 4, "slots": 6}], ids=str)
def test_a_whole_cache_in_16_bits(tiny_config, tiny_params, prompts, monkeypatch, how):
    """Log-probs are the learner's, as `benchmarks/gpu_sections.py` asks for it."""
    monkeypatch.setattr(sharding, "platform", lambda mesh: "gpu")
    monkeypatch.setattr(attention, "decode", None)  # is not called
    config = dataclasses.replace(tiny_config, head_dim=8)
    params = jax.tree.map(lambda x: 5 * x, policy.init(config, jax.random.key(0), jnp.bfloat16))
    params, mesh = place(params, config, 1, 1, 1)
    out = rollout.sample(params, config, *prompts, jax.random.key(2), G, T, 0.8, STOP, mesh=mesh, **how)
    differences = apart(params, config, prompts, jax.tree.map(np.asarray, out), 0.8)
    assert differences.mean() < 0.03
    assert differences.max() < 0.3


@pytest.mark.parametrize("tied", ["qwen2_tied", "qwen2_untied"])
def test_greedy_continuation_by_cached_decode(goldens, tied):
    config, params = policy.load(goldens / tied)
    golden = np.load(goldens / tied / "golden.npz")
    want = golden["greedy_continuation"]
    args = (golden["tokens"].astype(np.int32), golden["lengths"].astype(np.int32), jax.random.key(0))
    out = rollout.sample(params, config, *args, 2, want.shape[1], 0, (), chunk=5)
    np.testing.assert_array_equal(out.tokens, np.repeat(want[:, None], 2, 1))
    assert (np.asarray(out.lengths) == want.shape[1]).all() and not np.asarray(out.finished).any()


def test_one_token(draw, base):
    out = draw(max_tokens=1)
    np.testing.assert_array_equal(out.tokens[..., 0], base.tokens[..., 0])
    assert (out.lengths == 1).all() and (out.finished == np.isin(out.tokens[..., 0], STOP)).all()


def test_limits_of_single_rows(draw, base):
    limits = np.random.default_rng(3).integers(1, T + 3, (P, G))
    out = draw(limits=limits)
    np.testing.assert_array_equal(out.lengths, np.minimum(base.lengths, limits))
    np.testing.assert_array_equal(out.finished, base.finished & (base.lengths <= limits))
    np.testing.assert_array_equal(out.tokens, base.tokens * (np.arange(T) < out.lengths[..., None]))


def chi_square(counts, p):
    """In standard deviations from its mean, over cells expected often enough."""
    n, cells = counts.sum(), p * counts.sum() >= 5
    p, counts = np.append(p[cells], p[~cells].sum()), np.append(counts[cells], counts[~cells].sum())
    p, counts = p[p > 0], counts[p > 0]
    return (((counts - n * p) ** 2 / (n * p)).sum() - (len(p) - 1)) / np.sqrt(2 * (len(p) - 1))


def nucleus(p, top_p):
    """Which of p [V] are kept, by sorting."""
    ordered = np.sort(p.astype(np.float64))[::-1]
    return p >= ordered[np.searchsorted(ordered.cumsum(), top_p * ordered.sum())]


@pytest.mark.parametrize("top_p", [1.0, 0.7])
def test_frequencies_match_the_softmax(draw, tiny_config, tiny_params, prompts, top_p):
    """The first token, and the second given the commonest first, at temperature 0.8."""
    one = prompts[0][:1], prompts[1][:1]
    many = draw(prompts=one, group=4000, max_tokens=2, chunk=1, stop=(), top_p=top_p).tokens[0]
    row = prompts[0][0, : prompts[1][0]]
    common = np.bincount(many[:, 0]).argmax()
    for prefix, tokens in ((row, many[:, 0]), (np.append(row, common), many[many[:, 0] == common, 1])):
        logits = np.asarray(policy.logits(tiny_params, tiny_config, prefix[None]))[0, -1, : tiny_config.num_tokens]
        p = np.asarray(jax.nn.softmax(logits / 0.8), np.float64)
        if top_p < 1:
            p = np.where(nucleus(p, top_p), p, 0) / p[nucleus(p, top_p)].sum()
            assert 2 < (p > 0).sum() < tiny_config.num_tokens / 2
        counts = np.bincount(tokens, minlength=tiny_config.vocab_size)
        assert not counts[tiny_config.num_tokens :].any()  # rows that the tokenizer does not have
        assert not counts[: tiny_config.num_tokens][p == 0].any()
        assert abs(chi_square(counts[: tiny_config.num_tokens], p)) < 4
        assert chi_square(counts[: tiny_config.num_tokens], np.roll(p, 1)) > 10  # the test can fail


@pytest.mark.parametrize("size", [100, 1000])
def test_two_level_inverse_cdf(size):
    rng = np.random.default_rng(0)
    x = rng.normal(0, 2, size).astype(np.float32)
    x[rng.random(size) < 0.3] = -np.inf
    u = np.append(rng.random(20000).astype(np.float32), [0.0, np.nextafter(np.float32(1), 0)])
    token, logp = drawing.choose(jnp.broadcast_to(x, (len(u), size)), jnp.asarray(u), False, jnp.float32(1))
    token, p = np.asarray(token), np.asarray(jax.nn.softmax(x), np.float64)
    assert (p[token] > 0).all()
    np.testing.assert_allclose(logp, np.log(p[token]), atol=1e-5)
    assert abs(chi_square(np.bincount(token, minlength=size), p)) < 4
    assert (np.diff(token[np.argsort(u)]) >= 0).all()  # an inverse CDF is monotone


@pytest.mark.parametrize("scale", [0.1, 2, 20])
@pytest.mark.parametrize("top_p", [1e-6, 0.3, 0.9, 0.999])
def test_nucleus(scale, top_p):
    x = np.random.default_rng(0).normal(0, scale, (60, 300)).astype(np.float32)
    x[:, :50] = -np.inf
    p = np.asarray(jax.nn.softmax(x))
    least = np.asarray(jax.jit(drawing.nucleus)(p, top_p))
    want = np.apply_along_axis(nucleus, -1, p, top_p)
    np.testing.assert_array_equal(p >= least[:, None], want)
    assert (want.sum(-1) == 1).all() or top_p > 1e-6


def test_nucleus_keeps_ties_with_its_last_token_and_nothing_near():
    below = np.nextafter(np.float32(0.125), 0)
    p = np.array([0.125, 0.375, 0.125, 0.0, 0.25, below], np.float32)
    for top_p, kept in ((0.3, [1]), (0.375, [1]), (0.6, [1, 4]), (0.7, [0, 1, 2, 4]), (0.9, [0, 1, 2, 4, 5])):
        assert np.flatnonzero(p >= drawing.nucleus(p[None], top_p)).tolist() == kept


def test_top_p(draw, base):
    out = draw(top_p=0.5)
    assert (out.tokens != base.tokens).any()
    assert_same(draw(sizes=(2, 2, 2), chunk=5, slots=8, top_p=0.5), out)
    np.testing.assert_array_equal(draw(top_p=1e-6).tokens, draw(temperature=0).tokens)


@pytest.mark.parametrize(
    "how", [{"chunk": 3}, {"chunk": 4, "slots": 5}, {"sizes": (2, 2, 2), "chunk": 5, "slots": 8}], ids=str
)
def test_on_rows(draw, how):
    """Every row is handed over once, as it is in the end, but for those that end last."""
    seen = []
    limits = np.random.default_rng(3).integers(1, T + 3, (P, G))
    plain = draw(limits=limits, **how)
    out = draw(limits=limits, on_rows=lambda *rows: seen.append(rows), **how)
    for a, b in zip(jax.tree.leaves(out), jax.tree.leaves(plain), strict=True):
        np.testing.assert_array_equal(a, b)
    rows, tokens, lengths = (np.concatenate(x) for x in zip(*seen, strict=True))
    assert len(set(rows)) == len(rows)
    assert P * G / 2 < len(rows) < P * G
    np.testing.assert_array_equal(tokens, out.tokens.reshape(-1, T)[rows])
    np.testing.assert_array_equal(lengths, out.lengths.ravel()[rows])


def test_calls_of_a_run_share_their_programs(tiny_config, tiny_params, prompts):
    """Calls of all sizes, greedy or not, with and without top-p and limits: one program prefills and three decode."""
    jax.clear_caches()
    shared = {"slots": 16, "chunk": 4, "capacity": (12, 20)}
    for count, group, temperature, top_p in (
        (6, 4, 1.0, 1.0),
        (2, 8, 0.8, 1.0),
        (1, 3, 0.8, 1.0),
        (6, 1, 0, 1.0),
        (5, 2, 1.0, 0.9),
    ):
        rollout.sample(
            tiny_params, tiny_config, prompts[0][:count], prompts[1][:count], jax.random.key(count), group, T - count,
            temperature, STOP, top_p=top_p, **shared,
        )  # fmt: skip
    assert sampler._prefill._cache_size() == 1
    assert sampler._decode._cache_size() == 3


def test_rows_that_ended_cost_no_steps(draw, monkeypatch):
    """When no row waits, fewer slots are decoded."""
    sizes, decode = [], sampler._decode
    monkeypatch.setattr(sampler, "_decode", lambda *args: sizes.append(len(args[1].row)) or decode(*args))
    limits = np.repeat(np.arange(1, P + 1)[:, None] * 2, G, 1)
    draw(limits=limits, stop=(), chunk=2, slots=16)
    assert sizes == [16, 16, 16, 16, 8, 8, 4, 4]


def decode_program(config, params, platform, sizes=(1, 1, 1), dtype=jnp.float32):
    """A decode chunk as it is traced, and its cache."""
    params, mesh = place(params, config, *sizes)
    spec = layout.SamplerSpec(config, mesh, platform, jnp.dtype(dtype), 128, 8, 1024, 16)
    slots, cache, _ = jax.eval_shape(functools.partial(sampler._start, 128, 128, 1024, spec))
    weights = jax.eval_shape(functools.partial(sampler._decode_weights, spec=spec), params)
    scalars = jax.random.key(0), np.float32(1), np.bool_(False), np.float32(1), np.array(STOP)
    return sampler._decode.trace(weights, slots, cache, *scalars, spec), cache


@pytest.mark.parametrize("platform", ["cpu", "gpu"])
def test_cache_is_updated_in_place(tiny_config, tiny_params, fused, platform):
    """A decode chunk's temporary memory is a fraction of the cache: donated, and no copy per step."""
    program, cache = decode_program(tiny_config, tiny_params, platform)
    compiled = program.lower().compile()
    memory, size = compiled.memory_analysis(), sum(x.size * x.dtype.itemsize for x in jax.tree.leaves(cache))
    assert memory.alias_size_in_bytes >= size
    if platform == "cpu":
        assert memory.temp_size_in_bytes < size / 2, (memory.temp_size_in_bytes, size)
    else:  # of XLA's attention the scores are large
        (shape,) = {",".join(map(str, x.shape)) for x in jax.tree.leaves(cache)}
        found = re.findall(rf"= f32\[{shape}\]\S* ([\w-]+)\(", compiled.as_text())
        written = found.count("scatter") + found.count("dynamic-update-slice")  # as XLA likes
        assert written == 2 * tiny_config.num_layers
        assert {"copy", "copy-start", "transpose"}.isdisjoint(found)


@pytest.mark.parametrize("sizes", [(1, 1, 1), (2, 2, 1)])
def test_decoding_on_gpus_calls_the_kernel(tiny_config, monkeypatch, sizes):
    """Lowered for CUDA on a machine without it: once for each layer, and not for XLA to split over devices."""
    monkeypatch.setattr(sharding, "current_platform", lambda: "gpu")
    monkeypatch.setattr("jax._src.cudnn.fused_attention_stablehlo.check_cudnn_version", lambda: 91000)
    config = dataclasses.replace(tiny_config, head_dim=8)
    params = policy.init(config, jax.random.key(0), jnp.bfloat16)
    program, _ = decode_program(config, params, "gpu", sizes, jnp.bfloat16)
    text = program.lower(lowering_platforms=("cuda",)).as_text()
    assert text.count("custom_call @__cudnn$fmhaSoftmax(") == config.num_layers
    assert "CustomSPMDPartitioning" not in text


@pytest.mark.parametrize("sizes, heads", [((1, 1, 1), 4), ((1, 1, 2), 4), ((1, 1, 1), 1)])
def test_other_families(tiny_config, prompts, sizes, heads):
    """No biases, norms of queries and keys, heads of their own width or a single one, scaled rotary frequencies."""
    family = families.Family("mine", "Mine", qk_norm=True)
    scaling = families.RopeScaling(8.0, 1.0, 4.0, 16)
    config = dataclasses.replace(
        tiny_config, family=family, head_dim=6, rope_scaling=scaling, num_heads=heads, num_kv_heads=min(heads, 2)
    )
    params = jax.tree.map(lambda x: 5 * x, policy.init(config, jax.random.key(0)))
    params, mesh = place(params, config, *sizes)
    score = jax.jit(policy.token_logprobs, static_argnums=1)
    out = rollout.sample(params, config, *prompts, jax.random.key(2), 1, T, 0.8, (), mesh=mesh, chunk=8)
    for tokens, n, drawn, logp in zip(*prompts, out.tokens[:, 0], out.logprobs[:, 0], strict=True):
        row = np.concatenate([tokens[:n], drawn])[None]
        row = np.pad(row, ((0, 0), (0, S - n)))
        scored, _ = score(params, config, row, np.array([n + T]), 0.8)
        np.testing.assert_allclose(scored[0, n : n + T], logp, atol=1e-4)
