import jax
import numpy as np
import pytest
from ml_collections import ConfigDict

from dots_jax import selection
from dots_jax.errors import UserError


def uniform(n):
    return selection.make(ConfigDict({"name": "uniform"}), n)


def draw(selector, state, steps, n, seed=0):
    ids = []
    for step in steps:
        chosen, state = selector.propose(state, jax.random.fold_in(jax.random.key(seed), step), n)
        assert chosen.shape == (n,) and chosen.dtype == np.int32
        ids.append(chosen)
    return np.concatenate(ids), state


@pytest.mark.parametrize("n", [3, 10, 25])
def test_uniform_draws_every_question_once_per_epoch(n):
    selector = uniform(10)
    ids, _ = draw(selector, selector.init(), range(20), n)
    epochs = ids[: len(ids) // 10 * 10].reshape(-1, 10)
    assert (np.sort(epochs, axis=1) == np.arange(10)).all()
    assert len({tuple(e) for e in epochs}) > len(epochs) / 2  # each in an order of its own


def test_uniform_continues_from_its_state():
    selector = uniform(10)
    whole, _ = draw(selector, selector.init(), range(8), 4)
    first, state = draw(selector, selector.init(), range(3), 4)
    rest, _ = draw(uniform(10), jax.tree.map(np.array, state), range(3, 8), 4)
    np.testing.assert_array_equal(np.concatenate([first, rest]), whole)
    assert (draw(selector, selector.init(), range(8), 4, seed=1)[0] != whole).any()


def test_unknown_name():
    with pytest.raises(UserError, match="best.*uniform"):
        selection.make(ConfigDict({"name": "best"}), 3)
