import itertools
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dots_jax import selection
from dots_jax.core import command_line, files, sharding
from dots_jax.core.errors import UserError
from dots_jax.difficulty import predictor
from dots_jax.selection import draw
from dots_jax.selection.checked import Checked

N, G = 60, 8


@pytest.fixture(scope="module")
def mesh():
    return sharding.make_mesh(devices=jax.devices()[:1])


def make(mesh, name, n=N, labels=None, steps=9, embeddings=None, **fields):
    config = command_line.load("configs/quickstart.py")
    config.selection.name = name
    small = {"selection.references": 6, "predictor.width": 8, "predictor.window": 40, "predictor.batch": 16}
    small |= {"predictor.steps": 30, "selection.reuse_references": 0}  # the same in all tests: one program to compile
    for field, value in (small | fields).items():
        config.update_from_flattened_dict({field: value})
    key = jax.device_put(jax.random.key(5), sharding.replicated(mesh))
    embeddings = np.zeros((n, 4), np.float32) if embeddings is None else embeddings
    labels = np.zeros(n) if labels is None else labels
    texts = [f"What is {i} plus {i % 7}?" for i in range(n)]
    context = selection.Context(n, texts, labels, None, lambda: embeddings, steps, mesh, key)
    return selection.make(config, context)


def measured(ids, successes, step, is_reference=False, tokens=None):
    tokens = np.full(len(ids), 9.0) if tokens is None else tokens
    return selection.Measured(ids, successes, G, tokens, step, is_reference)


def play(selector, state, steps, n, difficulty=None, seed=0):
    """Rounds of one step each: what is proposed, and the state."""
    difficulty = np.full(N, 0.5) if difficulty is None else difficulty
    successes = np.round((1 - difficulty) * G)
    ids = []
    for step in steps:
        key = jax.random.fold_in(jax.random.key(seed), step)
        queries = selector.queries(state, key)
        if len(queries):
            state = selector.observe(state, measured(queries, successes[queries], step, True))
        proposed, state = selector.propose(state, key, n, step)
        assert proposed.shape == (n,) and proposed.dtype == np.int32
        state = selector.observe(state, measured(proposed, successes[proposed], step))
        ids.append(proposed)
    return np.array(ids), state


@pytest.mark.parametrize("n", [3, 10, 25])
def test_uniform_draws_every_question_once_per_epoch(mesh, n):
    selector = make(mesh, "uniform", 10)
    ids, _ = play(selector, selector.init(), range(20), n)
    epochs = ids.ravel()[: ids.size // 10 * 10].reshape(-1, 10)
    assert (np.sort(epochs, axis=1) == np.arange(10)).all()
    assert len({tuple(e) for e in epochs}) > len(epochs) / 2  # each in an order of its own


def test_static_goes_from_easy_to_hard(mesh):
    labels = np.random.default_rng(0).permutation(np.repeat(np.arange(6), 10))
    selector = make(mesh, "static", labels=labels, steps=9)
    ids, _ = play(selector, selector.init(), range(1, 10), 10)
    for third in range(3):
        part = ids[3 * third : 3 * third + 3].ravel()
        assert set(labels[part]) == {2 * third, 2 * third + 1}
        assert len(set(part[:20])) == 20 and len(set(part)) == 20  # an epoch of the third, and half of another


@pytest.mark.parametrize("name", selection.SELECTORS)
def test_continues_from_its_state(mesh, name):
    rng = np.random.default_rng(1)
    labels, embeddings = rng.random(N), rng.standard_normal((N, 4)).astype(np.float32)
    fields = {"labels": labels, "embeddings": embeddings}
    selector = make(mesh, name, **fields)
    whole, _ = play(selector, selector.init(), range(1, 7), 7, labels)
    _, state = play(selector, selector.init(), range(1, 4), 7, labels)
    again = make(mesh, name, **fields)
    state = jax.tree.map(lambda x: jax.device_put(np.array(x), x.sharding) if isinstance(x, jax.Array) else x, state)
    assert jax.tree.map(np.shape, state) == jax.tree.map(np.shape, again.init())
    rest, _ = play(again, state, range(4, 7), 7, labels)
    np.testing.assert_array_equal(rest, whole[3:])
    assert (play(selector, selector.init(), range(1, 7), 7, labels, seed=1)[0] != whole).any()


def test_the_draw_is_exact():
    """Ordered draws of 2 out of 4 against the products of the renormalised weights."""
    difficulty, target, temperature = jnp.array([0.1, 0.45, 0.6, 0.9]), 0.5, 0.2
    weights = np.exp(-np.abs(np.array(difficulty) - target) / temperature)
    runs = 40000
    one = jax.vmap(lambda key: draw.near(key, difficulty, target, temperature, 2))
    pairs = np.asarray(one(jax.random.split(jax.random.key(0), runs)))
    for a, b in itertools.permutations(range(4), 2):
        expected = weights[a] / weights.sum() * weights[b] / (weights.sum() - weights[a])
        found = (pairs == (a, b)).all(1).mean()
        assert abs(found - expected) < 4 * np.sqrt(expected * (1 - expected) / runs), (a, b)


@pytest.mark.parametrize("temperature", [1e-3, 1e-6])
def test_the_draw_never_fails(temperature):
    difficulty = np.random.default_rng(0).uniform(0, 1, 1000).astype(np.float32)
    difficulty[7] = np.inf
    ids = np.asarray(draw.near(jax.random.key(0), difficulty, 0.5, temperature, 999))
    assert sorted(ids) == [i for i in range(1000) if i != 7]
    few = np.asarray(draw.near(jax.random.key(0), difficulty, 0.5, temperature, 50))
    assert np.abs(difficulty[few] - 0.5).max() <= np.sort(np.abs(difficulty - 0.5))[60]


def test_the_oracle_draws_by_what_it_measured(mesh):
    difficulty = np.linspace(0, 1, N)
    selector = make(mesh, "oracle", **{"selection.temperature": 1e-3})
    assert selector.cost_excluded
    ids, state = play(selector, selector.init(), [1], 8, difficulty)
    assert np.abs(difficulty[ids] - 0.5).max() < 0.15
    predicted, error = selector.predict(state)
    np.testing.assert_allclose(predicted, np.round(difficulty * G) / G, atol=1e-6)
    np.testing.assert_allclose(error, np.sqrt(predicted * (1 - predicted) / G), atol=1e-6)


@pytest.fixture(scope="module")
def plane():
    """Questions on a plane whose difficulty rises along one direction, one as good as unknown to raw attention."""
    embeddings = np.random.default_rng(2).standard_normal((N, 4)).astype(np.float32)
    return embeddings, 1 / (1 + np.exp(-3 * embeddings[:, 1]))


@pytest.mark.parametrize("learn_from, attend", [("groups", "window"), ("reference", "window"), ("groups", "reference")])
def test_dots_learns_to_predict(mesh, plane, learn_from, attend):
    embeddings, difficulty = plane
    how = {"predictor.labels": learn_from, "predictor.context": attend}
    selector = make(mesh, "dots", embeddings=embeddings, **how)
    assert not selector.cost_excluded
    ids, state = play(selector, selector.init(), range(1, 8), 6, difficulty)
    predicted, spread = selector.predict(state)
    labelled = set(state["labels"]["ids"].tolist())
    others = np.array([i for i in range(N) if i not in labelled])
    assert len(others) > 10 and np.corrcoef(predicted[others], difficulty[others])[0, 1] > 0.8
    assert np.abs(difficulty[ids[-1]] - 0.5).mean() < np.abs(difficulty - 0.5).mean()
    assert predicted.shape == spread.shape == (N,) and (spread >= 0).all() and spread.max() > 0


def test_dots_keeps_the_newest_labels(mesh):
    selector = make(mesh, "dots", **{"predictor.window": 10})
    state = selector.init()
    for step in range(1, 5):
        state = selector.observe(state, measured(np.arange(4) + 4 * step, np.full(4, step), step, step % 2 == 1))
    labels = state["labels"]
    assert sorted(labels["ids"]) == list(range(10, 20)) and labels["written"] == 16
    np.testing.assert_array_equal(labels["step"], labels["ids"] // 4)
    np.testing.assert_allclose(labels["difficulty"], 1 - labels["step"] / G)
    np.testing.assert_array_equal(labels["is_reference"], labels["step"] % 2 == 1)
    deaf = make(mesh, "dots", **{"predictor.labels": "reference"})
    state = deaf.init()
    assert deaf.observe(state, measured(np.arange(4), np.ones(4), 1)) is state


def test_references_are_distinct_and_reused_ones_come_first(mesh, plane):
    embeddings, difficulty = plane
    selector = make(mesh, "dots", embeddings=embeddings, **{"selection.reuse_references": 3})
    state = selector.init()
    for step in range(1, 4):
        key = jax.random.key(step)
        queries = selector.queries(state, key)
        assert len(set(queries)) == 6
        state = selector.observe(state, measured(queries, (1 - difficulty[queries]) * G, step, True))
        ids, state = selector.propose(state, key, 12, step)
        assert len(set(ids)) == 12 and set(ids[:3]) <= set(queries)


def test_a_trained_predictor_stays_as_it_is(mesh, plane, tmp_path):
    embeddings, difficulty = plane
    params = predictor.init(jax.random.key(1), 4, 8)
    predictor.save(tmp_path / "p.safetensors", params)
    how = {
        "predictor.labels": "none",
        "predictor.context": "reference",
        "predictor.path": str(tmp_path / "p.safetensors"),
    }
    selector = make(mesh, "dots", embeddings=embeddings, **how)
    _, state = play(selector, selector.init(), range(1, 4), 6, difficulty)
    jax.tree.map(np.testing.assert_array_equal, state["params"], params)
    at = state["labels"]["is_reference"] & (state["labels"]["step"] == 3)
    ids = state["labels"]["ids"][at]
    wanted = predictor.predict(params, embeddings, embeddings[ids], np.float32(state["labels"]["difficulty"][at]))
    np.testing.assert_allclose(selector.predict(state)[0], wanted, atol=1e-5)
    with pytest.raises(UserError, match="5"):
        make(mesh, "dots", embeddings=np.zeros((N, 5), np.float32), **how)


def test_a_predictor_that_diverges_is_refused(mesh, plane):
    selector = make(mesh, "dots", embeddings=plane[0])
    state = selector.init()
    state["params"]["head"]["dense_0"]["bias"] *= jnp.nan
    with pytest.raises(UserError, match="step 1: .*predictor.learning_rate"):
        play(selector, state, [1], 6)


@pytest.mark.parametrize("name", selection.SELECTORS)
def test_proposing_leaves_the_state_alone(mesh, plane, name):
    selector = make(mesh, name, embeddings=plane[0], labels=plane[1])
    state = selector.init()
    before = jax.tree.map(np.array, state)
    play(selector, state, [1, 2], 6, plane[1])
    jax.tree.map(np.testing.assert_array_equal, state, before)


def test_only_dots_loads_flax():
    code = "import sys, dots_jax.train as t; t.experiment.selection.find('uniform'); sys.exit('flax' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=files.ROOT).returncode == 0


def test_unknown_name(mesh):
    with pytest.raises(UserError, match="best.*uniform"):
        make(mesh, "best")


class Few(selection.Selector):
    @classmethod
    def num_queries(cls, config):
        return 4

    def queries(self, state, key):
        return np.arange(3)


@pytest.mark.parametrize(
    ("ids", "said"),
    [
        (np.arange(5), r"int64 \[5\]"),
        (np.arange(6.0), r"float64 \[6\]"),
        (np.arange(4, 10), r"int64 \[6\] from 4 to 9"),
        ([0, 1, 2, 3, 4, -1], "from -1 to 4"),
        (None, "object"),
    ],
)
def test_what_is_proposed_must_be_questions(ids, said):
    selector = selection.Selector(None, selection.Context(9, (), None, None, None, 9, None, None))
    selector.propose = lambda state, key, n, step: (ids, state)
    with pytest.raises(UserError, match=f"Selector.propose must return an array of 6 ids.*returned .*{said}"):
        Checked(selector).propose({}, None, 6, 1)
    ids = jnp.arange(6)
    assert Checked(selector).propose({}, None, 6, 1)[0].tolist() == [0, 1, 2, 3, 4, 5]


def test_a_selector_asks_for_as_many_as_it_says():
    with pytest.raises(UserError, match=r"Few.queries must return an array of 4 ids.*num_queries says.*int64 \[3\]"):
        Checked(Few(None, selection.Context(9, (), None, None, None, 9, None, None))).queries({}, None)
