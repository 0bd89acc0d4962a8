"""Published selectors and the posterior, by examples worked by hand."""

import jax
import numpy as np
import pytest
from scipy import integrate, stats

from dots_jax import selection
from dots_jax.core import command_line, sharding
from dots_jax.core.errors import UserError
from dots_jax.difficulty import features
from dots_jax.selection import graph, greso
from dots_jax.selection.counts import Counts, log_likelihood, mixed_chance

G = 8
RNG = np.random.default_rng(0)


@pytest.fixture(scope="module")
def make():
    mesh = sharding.make_mesh(devices=jax.devices()[:1])

    def build(name, n=40, embeddings=None, texts=None, **fields):
        config = command_line.load("configs/quickstart.py:grpo")
        config.train.batch_size, config.selection.interval = 4, 1
        config.selection.name, config.selection.references, config.selection.reuse_references = name, 6, 0
        config.update_from_flattened_dict(fields)
        x = RNG.standard_normal((n, 5)).astype(np.float32) if embeddings is None else embeddings
        texts = [f"{i} and {i}" for i in range(n)] if texts is None else texts
        key = jax.device_put(jax.random.key(1), sharding.replicated(mesh))
        return selection.make(config, selection.Context(n, texts, np.zeros(n), None, lambda: x, 9, mesh, key))

    return build


def measured(ids, successes, step=1, is_reference=False, tokens=10.0, rollouts=G):
    ids = np.asarray(ids, np.int32)
    tokens = np.broadcast_to(np.float64(tokens), ids.shape)
    return selection.Measured(ids, np.asarray(successes, float), rollouts, tokens, step, is_reference)


def test_counts_decay_by_the_step():
    counts = Counts.none(3).add(measured([0, 2, 2], [8, 4, 2], step=1), 0.5)
    counts = counts.add(measured([0], [0], step=3), 0.5)
    np.testing.assert_allclose(counts.successes, [2, 0, 1.5])
    np.testing.assert_allclose(counts.rollouts, [10, 0, 4])
    np.testing.assert_allclose(counts.at(4, 0.5).tokens, [50, 0, 20])


@pytest.mark.parametrize("a, b", [(1.0, 1.0), (0.3, 5.0), (40.0, 2.5)])
def test_chances_under_a_beta(a, b):
    """Against numerical integrals."""
    density = stats.beta(a, b).pdf
    want = integrate.quad(lambda p: (1 - p**G - (1 - p) ** G) * density(p), 0, 1, limit=200)[0]
    assert mixed_chance(np.array([a]), np.array([b]), G)[0] == pytest.approx(want, abs=1e-6)
    mean, kappa, s, n = a / (a + b), a + b, 3.0, 5.0
    want = np.log(integrate.quad(lambda p: p**s * (1 - p) ** (n - s) * density(p), 0, 1, limit=200)[0])
    got = log_likelihood(np.array([s]), np.array([n]), np.array([mean]), kappa)
    assert got == pytest.approx(want, abs=1e-5)


def test_mopps(make):
    """Beta(1, 1), then 0.5 a + 0.5 + s; and a draw that is as sharp as the counts are many."""
    selector = make("mopps", **{"selection.decay": 0.5})
    state = selector.observe(selector.init(), measured([3, 5], [8, 2]))
    state = selector.observe(state, measured([3], [0], 2))
    assert state["alpha"][[3, 5, 0]].tolist() == [0.5 * 9 + 0.5, 3, 1]
    assert state["beta"][[3, 5, 0]].tolist() == [0.5 * 1 + 0.5 + 8, 7, 1]
    difficulty, spread = selector.predict(state)
    assert difficulty[3] == pytest.approx(9 / 14) and spread[5] == pytest.approx(stats.beta(3, 7).std())
    state = {"alpha": np.full(40, 1e5, np.float32), "beta": np.where(np.arange(40) < 4, 1e5, 1e7).astype(np.float32)}
    assert sorted(selector.propose(state, jax.random.key(0), 4, 3)[0]) == [0, 1, 2, 3]


def test_bots(make, tmp_path):
    """With a weak policy at 0.2 and a strong one at 0.6 a mean of 0.5 lies three quarters on the way."""
    selector = make("bots", **{"selection.decay": 0.9})
    state = selector.observe(selector.init(), measured([1], [6]))
    assert state["alpha"][[0, 1]] == pytest.approx([1, 7]) and state["beta"][[0, 1]] == pytest.approx([1, 3])
    np.save(tmp_path / "rates.npy", np.tile(np.float32([0.2, 0.6]), (40, 1)))
    selector = make("bots", **{"selection.decay": 0.9, "selection.rates": str(tmp_path / "rates.npy")})
    state = selector.observe(selector.init(), measured([1], [4]))
    assert state["alpha"][[0, 1]] == pytest.approx([1 + 0.1 * 8 * 0.5, 1 + 0.9 * 4 + 0.1 * 8 * 0.5])
    assert state["beta"][0] == pytest.approx(1 + 0.1 * 8 * 0.5)
    for bad in (np.zeros((40, 3)), np.full((40, 2), 1.5), np.zeros((3, 2))):
        np.save(tmp_path / "bad.npy", np.float32(bad))
        with pytest.raises(UserError, match=r"config\.selection\.rates"):
            make("bots", **{"selection.rates": str(tmp_path / "bad.npy")})


def test_greso(make):
    """Streaks by kind; chances of a hundredth a batch; what was three times all wrong comes an eighth as often."""
    selector = make("greso", n=400)
    state = selector.init()
    for step, wins in ((1, [8, 0, 4, 8]), (2, [8, 0, 4, 1])):
        state = selector.observe(state, measured([0, 1, 2, 3], wins, step))
    assert state["streak"][:4].tolist() == [2, 2, 0, 0] and state["kind"][:5].tolist() == [0, 1, -1, -1, -1]
    state = selector.observe(state, measured([3], [0], 3))
    assert state["kind"][3] == 1 and state["streak"][3] == 1
    # Shares of easy 1/2, 1/4, 0 and of hard 1/4, 1/4, 1, where a twelfth and a sixth are aimed at.
    assert state["chance"].tolist() == pytest.approx([0.5 - 0.01, 0.5 - 0.03])
    half = np.arange(400) < 200
    state |= {"kind": np.where(half, 1, -1).astype(np.int8), "streak": np.where(half, 3, 0).astype(np.int32)}
    state |= {"chance": np.float32([0.5, 0.5])}
    drawn = []
    for step in range(60):
        ids, state = selector.propose(state, jax.random.key(step), 7, step)
        drawn += ids.tolist()
    share = np.mean(np.array(drawn) < 200)
    assert abs(share - 1 / 9) < 4 * np.sqrt(1 / 9 * 8 / 9 / len(drawn))
    first = [i for i in drawn[:200] if i >= 200]
    assert len(set(first)) == len(first)  # an epoch's questions come once
    counts = np.bincount(drawn, minlength=400)[200:]  # 420 draws: two epochs of these, and the end of one is no end
    assert set(counts) <= {1, 2, 3} and np.ptp(counts) <= 1
    assert greso._AIM.tolist() == pytest.approx([1 / 12, 1 / 6])


def test_pcl_learns_the_value(make):
    x = RNG.standard_normal((200, 5)).astype(np.float32)
    rate = 1 / (1 + np.exp(-2 * x[:, 0]))
    selector = make("pcl", n=200, embeddings=x, **{"predictor.learning_rate": 3e-3})
    state = selector.init()
    assert set(selector.predict(state)[0]) == {0.5}
    for step in range(30):
        ids = RNG.choice(150, 16, replace=False)
        state = selector.observe(state, measured(ids, G * rate[ids], step))
    unseen = np.arange(150, 200)
    assert np.corrcoef(selector.predict(state)[0][unseen], 1 - rate[unseen])[0, 1] > 0.9
    ids, _ = selector.propose(state, jax.random.key(0), 4, 31)
    among = np.asarray(jax.random.permutation(jax.random.key(0), 200)[:16])
    assert set(ids) == set(among[np.argsort(np.abs(state["predicted"][among] - 0.5))[:4]])


def test_snis(make):
    """Weights 1 and e^2 of a right and a wrong completion; one completion alone is no estimate; clipped at e^4."""
    fields = {"predictor.width": 8, "predictor.window": 40, "replay.fresh_fraction": 0.5}
    selector = make("snis", **fields)
    rewards = np.array([[1.0, 0, 1, 0], [1, 0, 0, 0], [0, 1, 0, 0]])
    moved = np.array([[0.0, 2, 0, 2], [50, 0, 0, 0], [0, 0, 0, 0]])
    state = selector.reweigh(selector.init(), np.array([4, 5, 6]), rewards, moved)
    e = np.exp(2)
    assert state["stored"][4] == pytest.approx(1 - 2 / (2 + 2 * e), rel=1e-5)
    assert state["stored"][[5, 6]].tolist() == [0.75, 0.75] and np.isnan(state["stored"]).sum() == 37
    ids, state = selector.propose(state, jax.random.key(0), 4, 1)
    assert len(set(ids)) == 4 and selector.predict(state)[0][5] == 0.75
    stored = np.where(np.arange(40) < 3, [0.5, 0.27, 0.1] + [9] * 37, 9).clip(0, 1).astype(np.float32)
    first = [selector.propose(state | {"stored": stored}, jax.random.key(i), 1, 1)[0][0] for i in range(300)]
    density = stats.beta(5, 5).pdf(np.clip(1 - stored, 1e-3, 1 - 1e-3))
    wanted = density[:3] / density.sum()
    found = np.bincount(first, minlength=40)[:3] / len(first)
    assert np.abs(found - wanted).max() < 4 * np.sqrt(0.25 / len(first))
    with pytest.raises(UserError, match="snis estimates from the replay buffer"):
        selection.find("snis").check(_config(4))


def test_prompt_replay(make):
    """The newest mixed groups' questions are kept; half of what is proposed are of them."""
    selector = make("prompt_replay", **{"replay.capacity": 3})
    state = selector.observe(selector.init(), measured([5, 6, 7, 8], [4, 8, 1, 2]))
    assert state["kept"].tolist() == [5, 7, 8]
    state = selector.observe(state, measured([7, 9, 8], [1, 3, 0]))
    assert state["kept"].tolist() == [5, 7, 9]
    ids, state = selector.propose(state, jax.random.key(0), 8, 2)
    assert {5, 7, 9} <= set(ids) and state["used"] == 5
    ids, _ = selector.propose(state, jax.random.key(1), 4, 3)
    assert len(set(ids) & {5, 7, 9}) >= 2


def test_graph(make):
    """Two clusters: what was measured of three questions of each tells the rest; neighbours are mutual."""
    centre = np.repeat(np.eye(2), 30, axis=0) * 5
    x = np.concatenate([centre, np.zeros((60, 3))], 1).astype(np.float32)
    x += 0.1 * np.random.default_rng(1).standard_normal(x.shape).astype(np.float32)
    selector = make("graph", n=60, embeddings=x)
    state = selector.observe(selector.init(), measured([0, 1, 2, 30, 31, 32], [8, 8, 7, 0, 1, 0]))
    _, state = selector.propose(state, jax.random.key(0), 4, 2)
    difficulty, spread = selector.predict(state)
    edges = graph._mutual(x).toarray()
    linked = edges.any(1)  # others have no neighbour that holds them for one
    assert (
        linked.sum() > 50 and np.abs(difficulty[~linked & (state["counts"].rollouts == 0)] - 0.5).max(initial=0) < 0.01
    )
    assert np.median(difficulty[:30]) < 0.2 < 0.8 < np.median(difficulty[30:])
    assert difficulty[:30].max() < 0.51 and difficulty[30:].min() > 0.49
    np.testing.assert_array_equal(edges, edges.T)
    assert edges.diagonal().sum() == 0 and edges[:30, 30:].sum() == 0 and edges.sum(1).max() <= graph._NEIGHBOURS


@pytest.fixture(scope="module")
def plane():
    """400 questions whose success rate depends on an embedding, and on something of each that nothing shows."""
    x = RNG.standard_normal((400, 5)).astype(np.float32)
    return x, 1 / (1 + np.exp(-2 * x[:, 0] - RNG.standard_normal(400)))


@pytest.mark.parametrize("head", ["ridge", "kernel", "adapter"])
def test_the_posterior_knows_what_was_measured_and_what_is_alike(make, plane, head):
    x, rate = plane
    fields = {"selection.head": head, "predictor.width": 8, "predictor.window": 200, "predictor.context": "window"}
    selector = make("posterior", n=400, embeddings=x, **fields)
    state = selector.init()
    for step in range(1, 11):
        key = jax.random.key(step)
        for ids, is_reference in ((selector.queries(state, key), True), (RNG.choice(200, 14, False), False)):
            wins = RNG.binomial(G, rate[ids])
            state = selector.observe(state, measured(ids, wins, step, is_reference))
        ids, state = selector.propose(state, key, 20, step)
        assert len(set(ids)) == 20
    difficulty, spread = selector.predict(state)
    seen = state["counts"].rollouts > 0
    assert np.corrcoef(difficulty[seen], 1 - rate[seen])[0, 1] > 0.85
    assert np.corrcoef(difficulty[~seen], 1 - rate[~seen])[0, 1] > (0.4 if head == "adapter" else 0.6)
    assert spread[seen].mean() < 0.8 * spread[~seen].mean()
    assert np.abs(rate[ids] - 0.5).mean() < 0.75 * np.abs(rate - 0.5).mean()


def test_a_prior_leaves_its_own_question_out(make, plane):
    """In closed form, against regressions without each."""
    x, rate = plane
    selector = make("posterior", n=400, embeddings=x)._selector
    n = np.where(np.arange(400) < 30, 8.0, 0.0)
    s, weights = n * rate, 1 + np.arange(400) / 100
    got = selector._regress({}, s, n, weights, 0.5, 0.05)
    for i in (0, 11, 29):
        keep = np.arange(30) != i
        F, w = np.concatenate([selector._features[:30], np.full((30, 1), 0.5)], 1), weights[:30][keep]
        prior = np.diag([20.0] * (F.shape[1] - 1) + [1])  # 1 / 0.05, and a level of 0.5 give or take as much
        line = np.linalg.solve(F[keep].T * w @ F[keep] + prior, F[keep].T * w @ (rate[:30][keep] - 0.5))
        assert got[i] == pytest.approx(0.5 + F[i] @ line, abs=1e-9)


def test_the_policy_knows_what_no_embedding_shows(make, plane):
    """Its states at the prompts, and its log-prob of them, come in by `read`."""
    x, rate = plane
    hidden = np.concatenate([RNG.standard_normal((400, 6)), 2 * np.log(rate / (1 - rate))[:, None]], 1)
    prompts = np.concatenate([hidden, RNG.standard_normal((400, 1))], 1).astype(np.float32)
    pearson = {}
    for reads in (False, True):
        selector = make("posterior", n=400, embeddings=x, **{"selection.policy_features": reads})
        assert selector.reads_policy == reads
        state = selector.init()
        for kept in (
            prompts,
            np.concatenate([prompts[:, -1:], prompts[:, -1:]], 1),
            prompts,
        ):  # fewer numbers than kept
            state = selector.read(state, kept) if reads else state
        ids = np.arange(0, 400, 4)
        state = selector.observe(state, measured(ids, np.round(G * rate[ids])))
        _, state = selector.propose(state, jax.random.key(0), 4, 1)
        unseen = np.arange(400) % 4 > 0
        pearson[reads] = np.corrcoef(selector.predict(state)[0][unseen], 1 - rate[unseen])[0, 1]
    assert pearson[True] > pearson[False] + 0.05


def test_kappa_is_large_where_features_say_all(make):
    """And small where questions differ in what features do not show."""
    x = RNG.standard_normal((400, 5)).astype(np.float32)
    kappas = []
    for noise in (0.0, 3.0):
        rate = 1 / (1 + np.exp(-x[:, 0] - noise * RNG.standard_normal(400)))
        selector = make("posterior", n=400, embeddings=x)
        state = selector.observe(selector.init(), measured(np.arange(400), RNG.binomial(G, rate)))
        kappas.append(selector.propose(state, jax.random.key(0), 4, 1)[1]["kappa"])
    assert kappas[0] > 3 * kappas[1]
    fixed = make("posterior", n=400, embeddings=x, **{"selection.kappa": 4.0})
    assert fixed.propose(state, jax.random.key(0), 4, 1)[1]["kappa"] == 4


def test_per_token(make):
    """Of questions that are alike but for their length the short ones; what is always solved is worth nothing."""
    x = np.zeros((40, 5), np.float32)
    selector = make("posterior", embeddings=x, texts=["a"] * 40, **{"selection.per_token": True})
    ids, length = np.arange(40), np.where(np.arange(40) % 2, 100.0, 10.0)
    wins = np.where(ids < 20, 4, 8)
    state = selector.init()
    for step in (1, 2, 3):
        state = selector.observe(state, measured(ids, wins, step, tokens=length))
    ids, state = selector.propose(state, jax.random.key(0), 10, 3)
    assert sorted(ids) == list(range(0, 20, 2))


def test_surface_features():
    texts = ["Is 12.5% of 80 equal to 10? Yes.", r"$\frac{1}{2}$", ""]
    assert features._counts(texts[0])[2:] == (3, 3, np.log1p(80), 2, 1, 0, 0, 0)
    assert features._counts(texts[1])[2:] == (2, 2, np.log1p(2), 0, 0, 1, 1, 2)
    x = features.surface(texts)
    assert x.shape == (3, 10) and np.abs(x.mean(0)).max() < 1e-6 and np.isfinite(features.surface(["a", "a"])).all()


def test_kernel_features_are_the_kernel(plane):
    """With every question a landmark their products are the kernel's, 1 on the diagonal."""
    x = plane[0][:50]
    F = features.kernel(x, [f"{i} {'x' * i}" for i in range(50)], 50)
    np.testing.assert_allclose((F**2).sum(1), 1, atol=1e-4)
    assert features.kernel(x, ["a"] * 50, 10).shape == (50, 10)


@pytest.mark.parametrize("n", [1, 8])
def test_speed_screens_a_part(make, n):
    with pytest.raises(UserError, match="selection.screening"):
        selection.find("speed").check(_config(n))


def _config(screening):
    config = command_line.load("configs/quickstart.py:grpo")
    config.selection.screening = screening
    return config
