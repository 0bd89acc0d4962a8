import dataclasses
import json
import os

import jax
import numpy as np
import pytest

from benchmarks import common, rollout, update
from dots_jax.core.files import ROOT
from dots_jax.policy import transformer
from dots_jax.rollout import layout

# D 4, L 2, H 2, K 1, E 2, F 6, V 10. A layer: q 4x4 + 4, k and v 4x2 + 2 each, o 4x4, MLP 3 x 4x6, norms 2 x 4.
CONFIG = transformer.ModelConfig(10, 4, 2, 2, 1, 6, 1e4, 1e-6, False, 64, 10)
LAYER = (16 + 4) + 2 * (8 + 2) + 16 + 72 + 8
BODY = 2 * LAYER + 4  # and the last norm


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    path = tmp_path_factory.mktemp("model") / "config.json"
    path.write_text(json.dumps(dataclasses.replace(CONFIG, num_layers=1).to_hf("float32")))
    return ["--model", str(path), "--mesh=1,1,1"]


def test_parameters():
    assert common.count(CONFIG, embeddings=False) == BODY
    assert common.count(CONFIG) == BODY + 2 * 10 * 4
    # As published: 0.49B, 1.54B, 3.09B and 7.61B parameters.
    published = {"0.5b": 494_032_768, "1.5b": 1_543_714_304, "3b": 3_085_938_688, "7b": 7_615_616_512}
    assert {k: common.count(common.SHAPES[k]) for k in published} == published


def test_useful_flops_by_hand():
    # One row, prompt 2, completion 1: three tokens that see 1, 2 and 3 keys. Per key 2 H E for the score and 2 H E
    # for the value, in 2 layers; the head at one token.
    attention = (1 + 2 + 3) * (4 * 4) * 2
    forward = 2 * BODY * 3 + attention + 2 * 4 * 10 * 1
    assert update.useful_flops(CONFIG, [2], [[1]]) == 3 * forward
    assert update.useful_flops(CONFIG, [2, 2], [[1], [1]]) == 2 * 3 * forward
    once = 2 * BODY * 2 + (1 + 2) * (4 * 4) * 2  # the prompt counts once
    assert update.useful_flops(CONFIG, [2], [[1, 1]]) == 3 * (2 * forward - once)


def test_decode_bytes_by_hand():
    # Two questions with two rows each, prompts of 5 and 3 tokens. Keys and values of a token: 2 x 2 layers x 1 x 2 = 8.
    lengths = np.array([[3, 1], [2, 2]])
    weights = 3 * (BODY + 40)
    prompts = 8 * (3 * 5 + 2 * 3)  # the first question lives for three steps, the second for two
    own = 8 * ((1 + 2) + 0 + 1 + 1)
    assert rollout.decode_bytes(CONFIG, [5, 3], lengths, 3, itemsize=2) == 2 * (weights + prompts + own)


def test_limit_by_hand():
    # Two questions with two rows each: 3, 1, 2 and 2 decode steps, so four ideal steps of two rows.
    lengths = np.array([[3, 1], [2, 2]])
    moved = rollout.decode_bytes(CONFIG, [5, 3], lengths, 4, itemsize=2)
    keys = (5 + 6 + 7) + 5 + (3 + 4) + (3 + 4)  # seen by each: the prompt, and the row's tokens so far
    flops = 2 * 8 * (BODY + 40) + 2 * (4 * 4) * keys
    args = (CONFIG, [5, 3], lengths, 2, 2)
    assert rollout.limit_seconds(*args, bandwidth=10.0, peak=1e9) == moved / 10
    assert rollout.limit_seconds(*args, bandwidth=1e9, peak=10.0) == flops / 10


def test_decode_steps_by_hand(monkeypatch):
    lengths = np.array([[5, 2], [2, 1]])

    def steps(slots, spares):
        monkeypatch.setattr(layout.SamplerSpec, "spares_rows", spares)
        return rollout.decode_steps(lengths, layout.SamplerSpec(CONFIG, None, "cpu", None, slots, 1, 5, 2))

    # All four in chunks of 2: (5, 2, 2, 1) -> (3, 0, 0, 0) -> (1) with one row computed.
    assert steps(4, False) == (5, 4 * 2 + 2 + 1)
    # Two slots: (5, 2) -> (3, 2), and no row waits when the last has a slot -> (1, 1) -> none is left.
    assert steps(2, False) == (5, 2 * 5)
    # Eight slots for rows that live 1 to 5 chunks: 8, 6 of 8 and so on where eighths are spared.
    lengths = np.array([[2, 2, 4, 4, 4, 6, 6, 10]])
    assert steps(8, False) == (10, 2 * (8 + 8 + 4 + 2 + 2))
    assert steps(8, True) == (10, 2 * (8 + 6 + 3 + 2 + 2))


def test_rows_are_alive_with_lengths_like_the_papers():
    """512 x 8 completions of 800 tokens on average, at most 3,072, on an accelerator."""
    lengths = common.lognormal(np.random.default_rng(0), (512, 8), 800, 0.8, 3072)
    spec = layout.SamplerSpec(CONFIG, None, "gpu", None, layout.default_slots("gpu"), 256, 3072, 32)
    _, computed = rollout.decode_steps(lengths, spec)
    assert lengths.sum() / computed > 0.9


def test_lognormal_lengths():
    x = common.lognormal(np.random.default_rng(0), 100_000, mean=50, sigma=0.5, limit=10_000)
    assert abs(x.mean() - 50) < 0.5
    assert abs(np.log(x).std() - 0.5) < 0.02
    x = common.lognormal(np.random.default_rng(0), 1000, mean=50, sigma=2, limit=60)
    assert x.min() >= 1 and x.max() == 60


def _check(record, capsys):
    assert json.loads(capsys.readouterr().out) == record
    seconds = record["seconds"]
    assert 0 < seconds["min"] <= seconds["median"] <= seconds["max"] < record["compile_seconds"]
    assert (record["backend"], record["devices"], record["jax"]) == ("cpu", 1, jax.__version__)


def test_rollout(model, monkeypatch, capsys):
    sampled = []
    sample = rollout.rollout.sample

    def spy(*args, **kwargs):
        sampled.append(sample(*args, **kwargs))
        return sampled[-1]

    monkeypatch.setattr(rollout.rollout, "sample", spy)
    flags = ["--questions=3", "--group=2", "--prompt=5", "--max-tokens=9", "--repeats=2"]
    record = rollout.main(
        model + flags + ["--lengths=geometric", "--mean=4", "--slots=2", "--bandwidth=10", "--peak=0.1"]
    )
    _check(record, capsys)
    totals = [int(r.lengths.sum()) for r in sampled if r.tokens.shape[-1] == 9]
    counted = record["generated_tokens"]
    assert {counted["min"], counted["max"]} <= set(totals)
    assert counted["min"] + counted["max"] == pytest.approx(12 * record["mean_length"], abs=0.1)
    assert len({np.asarray(r.tokens).tobytes() for r in sampled if r.tokens.shape[-1] == 9}) == len(totals)
    assert record["bandwidth_source"] == "flag" and 0 < record["bandwidth_share"]["median"] < 1
    assert 0 < record["alive_share"]["median"] < 1 and 0 < record["limit_share"]["median"] < 1
    rate = record["tokens_per_second"]
    assert counted["min"] / record["seconds"]["max"] <= rate["median"] * 1.01
    assert rate["median"] <= counted["max"] / record["seconds"]["min"] * 1.01


def test_rollout_of_full_length(model, monkeypatch, capsys, tmp_path):
    monkeypatch.setattr(common, "measure_bandwidth", lambda: 1e10)
    monkeypatch.setattr(common, "measure_matmul", lambda dtype: 1e11)
    out = tmp_path / "results.jsonl"
    flags = ["--questions=2", "--group=2", "--prompt=3", "--max-tokens=5", "--repeats=1", f"--output={out}"]
    record = rollout.main(model + flags + ["--no-prefill"])
    _check(record, capsys)
    assert json.loads(out.read_text()) == record
    assert record["generated_tokens"]["median"] == 2 * 2 * 5
    assert record["decode_steps"]["median"] == 5 and record["alive_share"]["median"] == 1
    assert record["prefill_seconds"] is None and record["step_milliseconds"] is None


def test_update(model, capsys):
    flags = ["--questions=4", "--group=4", "--prompt=3", "--max-tokens=6", "--minibatches=1", "--micro-tokens=32"]
    flags += ["--remat=none", "--repeats=1", "--useful=0.5", "--peak=0.1"]
    record = update.main(model + flags)
    _check(record, capsys)
    assert record["trained_rows"]["median"] == 8
    assert record["trained_tokens"]["median"] == 2 * (3 + 4 * 6)  # a prompt once for its group
    assert record["skipped"]["median"] == 0.5 and 0 <= record["padding"]["median"] < 0.5
    assert record["useful_tflops"]["median"] == pytest.approx(
        update.useful_flops(dataclasses.replace(CONFIG, num_layers=1), [3] * 2, [[6] * 4] * 2)
        / record["seconds"]["median"]
        / 1e12,
        rel=0.01,
    )
    assert 0 < record["peak_share"]["median"] < 1


def test_measured_limits_are_plausible():
    assert 1e7 < common.measure_bandwidth(2**16) < 1e13
    assert 1e6 < common.measure_matmul("float32", 64) < 1e15


def test_timed_leaves_out_calls_that_compile():
    function = jax.jit(lambda x: x + 1)
    results = common.timed(lambda i: np.zeros(1 + i // 2), function, repeats=2)
    assert [len(given) for _, given, _ in results] == [1, 2]


def test_mistakes_are_named(model):
    from dots_jax.core.errors import UserError

    with pytest.raises(UserError, match="--mesh"):
        rollout.main(["--mesh=1,1"])
    with pytest.raises(UserError, match="--minibatches"):
        update.main(model + ["--questions=3", "--minibatches=2"])


def test_tiny_is_the_quickstarts_policy():
    with open(os.path.join(ROOT, "assets", "quickstart_policy", "config.json")) as file:
        assert common.SHAPES["tiny"] == transformer.ModelConfig.from_hf(json.load(file))
