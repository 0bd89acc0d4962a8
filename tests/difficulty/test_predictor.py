import os
import pickle
import warnings

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dots_jax import difficulty
from dots_jax.core import sharding
from dots_jax.core.errors import UserError
from dots_jax.difficulty import measures, predictor

WIDTH, EMBEDDING, M = 12, 20, 24
CALIBRATIONS = "code", "paper", "none"
forward = jax.jit(predictor.forward, static_argnames=("calibration", "dropout"))


@pytest.fixture(scope="module")
def params():
    """Random, norms and biases too, so that every tensor matters."""
    rng = np.random.default_rng(0)
    tree = predictor.init(jax.random.key(0), EMBEDDING, WIDTH)
    return jax.tree.map(lambda x: x + 0.3 * rng.standard_normal(x.shape).astype(np.float32), tree)


@pytest.fixture(scope="module")
def questions():
    rng = np.random.default_rng(1)
    query, reference = rng.standard_normal((40, EMBEDDING), np.float32), rng.standard_normal((M, EMBEDDING), np.float32)
    return query, reference, rng.integers(0, 9, M).astype(np.float32) / 8


# ---- Numbers -----------------------------------------------------------------------------------------------------


def test_matches_the_released_predictor(goldens):
    golden = np.load(goldens / "predictor.npz")
    params = difficulty.load_released({k[8:]: golden[k] for k in golden if k.startswith("weights/")})
    given = golden["query"], golden["reference"], 1 - golden["reference_success"]
    for calibration, refit, stage in (
        ("none", False, "attention_success"),
        ("code", False, "calibrated_success"),
        ("code", True, "refit_success"),
    ):
        success = 1 - difficulty.predict(params, *given, calibration, refit)
        np.testing.assert_allclose(success, golden[stage], atol=1e-5, rtol=0)
        if not refit:
            np.testing.assert_allclose(1 - forward(params, *given, calibration), golden[stage], atol=1e-5, rtol=0)


@pytest.mark.parametrize("calibration", CALIBRATIONS)
def test_matches_torch(params, questions, calibration):
    torch = pytest.importorskip("torch")
    nn = torch.nn

    def tower():
        W = WIDTH
        return nn.Sequential(
            *(nn.LayerNorm(EMBEDDING), nn.Linear(EMBEDDING, W), nn.GELU(), nn.Dropout(0.1), nn.Linear(W, W)),
            *(nn.GELU(), nn.Dropout(0.1), nn.Linear(W, W), nn.LayerNorm(W)),
        )

    class Released(nn.Module):
        def __init__(self):
            super().__init__()
            self.sim_head = nn.ModuleDict({"query_proj": tower(), "ref_proj": tower()})
            self.mlp = nn.Sequential(nn.Linear(2, 10), nn.ReLU(), nn.Linear(10, 2))

        def forward(self, query, reference, success):
            q, k = self.sim_head["query_proj"](query), self.sim_head["ref_proj"](reference)
            p = torch.softmax(q @ k.T / WIDTH**0.5, -1) @ success
            if calibration == "none":
                return p
            x = self.mlp(torch.stack([success.mean(), success.std(unbiased=calibration == "code")]))
            logit = torch.logit(p.clip(1e-4, 1 - 1e-4))
            if calibration == "code":
                return torch.sigmoid(logit / nn.functional.softplus(x[0]).clip(1e-2, 10) + torch.tanh(x[1]))
            return torch.sigmoid(nn.functional.softplus(x[0]) * logit + torch.tanh(x[1]))

    module = Released().eval()
    state = {name: torch.tensor(np.asarray(x)) for name, x in predictor.to_released(params).items()}
    module.load_state_dict(state)
    query, reference, d = questions
    with torch.no_grad():
        wanted = 1 - module(*map(torch.tensor, (query, reference, 1 - d))).numpy()
    np.testing.assert_allclose(forward(params, query, reference, d, calibration), wanted, atol=1e-5)


def test_attention_is_what_the_prediction_is_made_of(params, questions):
    query, reference, d = questions
    weights = predictor.attention(params, query, reference)
    assert weights.shape == (len(query), M)
    np.testing.assert_allclose(weights.sum(1), 1, atol=1e-5)
    np.testing.assert_allclose(weights @ d, forward(params, query, reference, d, "none"), atol=1e-5)


@pytest.mark.parametrize("calibration", CALIBRATIONS)
def test_refit_is_least_squares_on_the_references(params, questions, calibration):
    query, reference, d = questions
    own = forward(params, reference, reference, d, calibration)
    slope, intercept = np.polyfit(np.asarray(own, float), d, 1)
    wanted = slope * forward(params, query, reference, d, calibration) + intercept
    np.testing.assert_allclose(predictor.predict(params, query, reference, d, calibration, True), wanted, atol=1e-4)


def test_refit_of_equal_predictions_is_a_shift(params, questions):
    query, reference, d = questions
    same = np.repeat(reference[:1], M, 0)
    given = params, predictor.encode(params, query), same, d
    np.testing.assert_allclose(predictor.score(*given, "code", True)[0], d.mean(), atol=1e-5)
    assert np.ptp(predictor.score(*given, "code", False)[0]) < 1e-5  # else the above would be luck


# ---- Masks -------------------------------------------------------------------------------------------------------


@settings(max_examples=6, deadline=None)
@given(st.integers(0, 2**32 - 1), st.sampled_from(CALIBRATIONS))
def test_masked_references_are_as_good_as_absent(params, questions, seed, calibration):
    query, reference, d = questions
    keep = np.sort(np.random.default_rng(seed).choice(M, 9, replace=False))
    mask = np.isin(np.arange(M), keep)
    absent = params, query, reference[keep], d[keep], calibration
    garbage = np.where(mask, d, 0.77)
    want = forward(*absent)
    np.testing.assert_allclose(forward(params, query, reference, garbage, calibration, mask=mask), want, atol=1e-5)
    rows = np.tile(mask, (len(query), 1))
    np.testing.assert_allclose(forward(params, query, reference, garbage, calibration, mask=rows), want, atol=1e-5)
    features = predictor.encode(params, query)
    refitted, _ = predictor.score(params, features, reference, garbage, calibration, True, mask)
    np.testing.assert_allclose(refitted, predictor.predict(*absent, True), atol=2e-4)
    weights = predictor.attention(params, query, reference, mask)
    assert not weights[:, ~mask].any()


@pytest.mark.parametrize("calibration", CALIBRATIONS)
def test_a_row_without_references_gets_one_half_and_no_nan(params, questions, calibration):
    query, reference, d = questions
    mask = np.ones((len(query), M), bool)
    mask[3] = False
    mask[5, 1:] = False  # one reference: no standard deviation

    def total(params, query):
        return forward(params, query, reference, d, calibration, mask=mask).sum()

    predicted = forward(params, query, reference, d, calibration, mask=mask)
    assert predicted[3] == 0.5 and np.isfinite(predicted).all()
    gradient, of_query = jax.jit(jax.grad(total, (0, 1)))(params, query)
    assert all(jnp.isfinite(x).all() for x in jax.tree.leaves(gradient))
    assert not of_query[3].any() and np.isfinite(of_query).all() and of_query[4].any()
    features = predictor.encode(params, query)
    nothing, _ = predictor.score(params, features, reference, d, calibration, True, np.zeros(M, bool))
    np.testing.assert_array_equal(nothing, 0.5)


def test_dropout_only_where_asked_for(params, questions):
    plain = forward(params, *questions, "code")
    draws = [forward(params, *questions, "code", dropout_key=jax.random.key(i)) for i in (0, 0, 1)]
    np.testing.assert_array_equal(draws[0], draws[1])
    assert not np.allclose(draws[0], draws[2], atol=1e-4) and not np.allclose(draws[0], plain, atol=1e-4)
    off = forward(params, *questions, "code", dropout_key=jax.random.key(0), dropout=0.0)
    np.testing.assert_array_equal(off, plain)


# ---- Many questions ----------------------------------------------------------------------------------------------


def test_blocks_do_not_change_the_score(params, questions, monkeypatch):
    def forget():
        for program in (predictor._by_rows, predictor._score):
            program.clear_cache()

    query, reference, d = questions
    whole = predictor.predict(params, query, reference, d)
    monkeypatch.setattr(predictor, "_BLOCK", 7)
    forget()
    np.testing.assert_allclose(predictor.predict(params, query, reference, d), whole, atol=1e-6)
    monkeypatch.undo()
    forget()


def test_blocks_bound_the_memory(params):
    n = 64 * predictor._BLOCK
    shapes = jax.ShapeDtypeStruct((n, WIDTH), np.float32), jax.ShapeDtypeStruct((M, EMBEDDING), np.float32)
    labels = jax.ShapeDtypeStruct((M,), np.float32)
    compiled = predictor._score.lower(params, *shapes, labels, None, "code", True, None).compile()
    assert compiled.memory_analysis().temp_size_in_bytes < 4 * n * M / 4


@pytest.mark.parametrize("axes", [{}, {"fsdp": 4, "tensor": 2}])
def test_sharded_rows_stay_where_they_are(params, questions, axes):
    query, reference, d = questions
    mesh = sharding.make_mesh(**{"data": -1} | axes)
    there = jax.device_put(query, sharding.rows(mesh))
    features = predictor.encode(params, there)
    predicted, spread = predictor.score(params, features, reference, d, "code", True)
    weights = np.asarray(predictor.attention(params, query, reference), float)
    np.testing.assert_allclose(spread, np.sqrt(weights @ d**2 - (weights @ d) ** 2), atol=1e-5)
    assert features.sharding.is_equivalent_to(there.sharding, 2)
    assert predicted.sharding.is_equivalent_to(sharding.rows(mesh), 1)
    np.testing.assert_allclose(predicted, predictor.predict(params, query, reference, d), atol=1e-5)
    text = predictor._score.lower(
        params, features, reference, d, None, "code", True, predictor._layout(features)
    ).compile().as_text()  # fmt: skip
    assert "all-gather" not in text and "all-to-all" not in text


def test_predicts_inside_a_jit(params, questions):
    query, reference, d = questions
    inside = jax.jit(lambda query: predictor.predict(params, query, reference, d))(query)
    np.testing.assert_allclose(inside, predictor.predict(params, query, reference, d), atol=1e-5)


# ---- Files -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["safetensors", "npz", "weights.npz", "pt", "state_dict.pth", "model.bin"])
def test_files_round_trip(params, tmp_path, kind):
    path, state = str(tmp_path / f"predictor.{kind}"), predictor.to_released(params)
    if kind == "safetensors":
        predictor.save(path, params)
        assert os.listdir(tmp_path) == ["predictor.safetensors"]
        (tmp_path / "plain").touch()
        assert os.stat(path).st_mode == (tmp_path / "plain").stat().st_mode
    elif kind.endswith("npz"):
        prefix = kind.removesuffix("npz").replace(".", "/")
        extra = {"query": np.zeros(3)} if prefix else {}
        np.savez(path, **extra, **{prefix + name: x for name, x in state.items()})
    else:
        torch = pytest.importorskip("torch")
        tensors = {name: torch.tensor(np.asarray(x)) for name, x in state.items()}
        inside = kind.split(".")[0]
        torch.save({inside: tensors, "epoch": 3} if inside != "pt" else tensors, path)
    loaded = predictor.load(path, EMBEDDING)
    assert jax.tree.structure(loaded) == jax.tree.structure(params)
    jax.tree.map(np.testing.assert_array_equal, loaded, params)


def without(name):
    return lambda state: {k: x for k, x in state.items() if k != name}


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (without("mlp.2.bias"), ("lack", "mlp.2.bias")),
        (lambda s: s | {"mlp.3.weight": np.zeros(2)}, ("mlp.3.weight",)),
        (lambda s: s | {"mlp.0.weight": np.zeros((10, 3))}, ("mlp.0.weight", "[10, 3]", "[10, 2]")),
        (
            lambda s: s | {"sim_head.ref_proj.4.weight": np.zeros((12, 13))},
            ("sim_head.ref_proj.4.weight", "[12, 13]", "[12, 12]"),
        ),
        (lambda s: s | {"sim_head.query_proj.1.weight": np.zeros(4)}, ("sim_head.query_proj.1.weight", "[4]")),
        (lambda s: s | {"mlp.0.bias": np.full(10, np.nan)}, ("mlp.0.bias", "NaN")),
        (lambda s: s | {"mlp.0.bias": np.full(10, "a")}, ("mlp.0.bias", "no numbers")),
    ],
)
def test_other_tensors_are_refused_by_name(params, tmp_path, change, words):
    path = str(tmp_path / "other.npz")
    np.savez(path, **change({name: np.asarray(x) for name, x in predictor.to_released(params).items()}))
    with pytest.raises(UserError) as error:
        predictor.load(path)
    assert all(word in str(error.value) for word in (path, *words)) and "\n" not in str(error.value)


def test_embeddings_of_another_width_are_refused(params, tmp_path):
    path = str(tmp_path / "p.safetensors")
    predictor.save(path, params)
    with pytest.raises(UserError, match=r"sim_head.query_proj.1.weight.*\[12, 20\].*\[12, 384\]"):
        predictor.load(path, 384)


class Evil:
    def __reduce__(self):
        return os.mkdir, ("run",)


@pytest.mark.parametrize("name", ["evil.pt", "evil.npz", "torn.safetensors", "absent.npz", "other.txt", "list.pt"])
def test_unreadable_files_are_one_line_and_run_no_code(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    if name == "evil.npz":
        np.savez(name, **{"mlp.0.bias": np.array([Evil()], object)})
    elif name == "list.pt":
        pytest.importorskip("torch").save([1, 2], name)
    elif name != "absent.npz":
        with open(name, "wb") as file:
            pickle.dump(Evil(), file)
    with warnings.catch_warnings(), pytest.raises(UserError, match=name) as error:
        warnings.simplefilter("ignore")
        predictor.load(name)
    assert "\n" not in str(error.value) and not os.path.exists("run")


# ---- Measures ----------------------------------------------------------------------------------------------------


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(2, 300), st.sampled_from([4, 8, 1000]))
def test_correlations_match_scipy(seed, size, levels):
    stats = pytest.importorskip("scipy.stats")
    rng = np.random.default_rng(seed)
    p, m = (rng.integers(0, levels + 1, size) / levels for _ in "pm")
    got = measures.report(p, m)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        wanted = stats.pearsonr(p, m)[0], stats.spearmanr(p, m)[0]
    np.testing.assert_allclose([got["pearson"], got["spearman"]], wanted, atol=1e-9)


def test_measures_by_hand():
    predicted = np.array([0.1, 0.2, 0.4, 0.55, 0.9, 0.95])
    measured = np.array([0.0, 0.25, 0.5, 0.875, 1.0, 0.9])
    got = difficulty.report(predicted, measured)
    error = np.array([0.1, 0.05, 0.1, 0.325, 0.1, 0.05])
    assert got["mae"] == pytest.approx(error.mean()) and got["calibration"] == pytest.approx(error.mean())
    assert got["precision"] == pytest.approx(3 / 3)  # 0.55, 0.4, 0.2: measured 0.875, 0.5, 0.25
    assert got["spearman"] == pytest.approx(1 - 6 * 2 / (6 * 35))  # the last two are swapped
    assert difficulty.report(predicted, measured + [0, 0, 0, 0.001, 0, 0])["precision"] == pytest.approx(2 / 3)
    ties = difficulty.report([0.0, 0.0, 1.0], [0.0, 1.0, 1.0])
    assert ties["spearman"] == pytest.approx(0.5)


def test_calibration_is_the_error_of_equal_bins():
    predicted = np.repeat(np.arange(10) / 10, 7)
    measured = predicted + np.tile([0.3, -0.3, 0, 0, 0, 0, 0.07], 10)  # errors cancel within a bin but for 0.01
    got = measures.report(predicted, measured)
    assert got["calibration"] == pytest.approx(0.01) and got["mae"] == pytest.approx(0.67 / 7)


@pytest.mark.parametrize(
    ("predicted", "undefined"),
    [
        ([], {"pearson", "spearman", "mae", "calibration", "precision"}),
        ([0.3], {"pearson", "spearman", "precision"}),
        ([0.5, 0.5, 0.5], {"pearson", "spearman"}),
    ],
)
def test_undefined_measures_are_nan(predicted, undefined):
    got = measures.report(np.array(predicted), np.arange(len(predicted)) / 4)
    assert {name for name, x in got.items() if np.isnan(x)} == undefined
