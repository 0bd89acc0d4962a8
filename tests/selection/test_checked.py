"""What a selector of the user's own returns by mistake is said in a line."""

import jax
import numpy as np
import pytest

from dots_jax import selection
from dots_jax.core import command_line
from dots_jax.core.errors import UserError

N, IDS = 6, np.arange(2)
MEASURED = selection.Measured(IDS, IDS, 4, IDS, 1, False)


def make(**methods):
    """A selector with the answers given."""
    own = {name: lambda self, *args, answer=answer, **options: answer for name, answer in methods.items()}
    context = selection.Context(N, (), None, None, None, 1, None, None)
    return selection.Checked(type("Mine", (selection.Selector,), own)(None, context))


@pytest.mark.parametrize(
    "proposed", [None, IDS, (IDS,), (IDS, {"count": 1}), (IDS, None), (IDS + N, {}), ([0.5, 1], {})]
)
def test_propose(proposed):
    with pytest.raises(UserError, match="Mine.propose must return"):
        make(propose=proposed).propose({}, jax.random.key(0), 2, 1)


@pytest.mark.parametrize("state", [None, {"count": 1}, IDS])
def test_observe(state):
    with pytest.raises(UserError, match="Mine.observe must return the state.*it returned"):
        make(observe=state).observe({}, MEASURED)


@pytest.mark.parametrize(
    "predicted", [3, np.zeros(N), (np.zeros(N),), (np.zeros(N), np.zeros(N - 1)), (np.zeros(N), 0.1)]
)
def test_predict(predicted):
    with pytest.raises(UserError, match="Mine.predict must return None, or two arrays of 6 numbers"):
        make(predict=predicted).predict({})


def test_good_answers_pass_and_the_rest_is_the_selectors_own():
    selector = make(propose=(IDS, {}), predict=(np.zeros(N), np.ones(N)))
    ids, state = selector.propose({}, jax.random.key(0), 2, 1)
    assert ids.dtype == np.int32 and state == selector.init() == {}
    assert selector.observe({}, MEASURED) == {}
    assert selector.predict({})[1].sum() == N and make().predict({}) is None
    assert selector.num_reused == 0 and not selector.cost_excluded


def test_one_without_propose_is_refused(tmp_path, monkeypatch):
    (tmp_path / "empty.py").write_text("from dots_jax.selection import Selector\nclass Empty(Selector):\n    pass\n")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match="Empty is not a subclass of dots_jax.selection.Selector with its own propose"):
        selection.find("empty.py:Empty")


@pytest.mark.parametrize(
    "call",
    [
        lambda selector: selector.propose({}, jax.random.key(0), 2, 1),
        lambda selector: selector.predict({}),
        lambda selector: selector.init(),
    ],
)
def test_what_a_users_method_raises_is_one_line(call):
    """Of a class that is not in the package: what is raised there passes."""

    def fail(self, *args):
        return self.context.no_such_thing

    own = dict.fromkeys(("propose", "predict", "init"), fail)
    context = selection.Context(N, (), None, None, None, 1, None, None)
    with pytest.raises(UserError, match="Mine.* failed; mend it, and start in another --workdir .AttributeError"):
        call(selection.Checked(type("Mine", (selection.Selector,), own)(None, context)))
    ours = type("Ours", (selection.Selector,), own | {"__module__": "dots_jax.selection.ours"})
    with pytest.raises(AttributeError):
        call(selection.Checked(ours(None, context)))


def test_what_a_checkpoint_cannot_hold_is_refused():
    for state in ({"names": np.array(["a"])}, {"none": np.zeros(0)}):
        with pytest.raises(UserError, match="Mine.init must return arrays of numbers, none empty"):
            make(init=state).init()
    with pytest.raises(UserError, match="of the same shapes and types as `init` makes"):
        make(observe={"n": np.zeros(2)}).observe({"n": np.zeros(2, np.float32)}, MEASURED)


@pytest.mark.parametrize("field, values", [("max_draws", (0, "3", 1.5)), ("screening", (1, 8, 12, -1))])
def test_draws_and_screening_are_checked(field, values):
    config = command_line.load("configs/quickstart.py")
    for value in values:
        mine = type("Mine", (selection.Selector,), {field: value})(config, None)
        with pytest.raises(UserError, match=f"Mine.{field} must be .*; it is"):
            selection.Checked(mine)


def test_reused_references_come_first():
    class Mine(selection.Selector):
        num_reused = 1

        @classmethod
        def num_queries(cls, config):
            return 2

        def queries(self, state, key):
            return np.array([4, 5])

        def propose(self, state, key, n, step):
            return np.array([3, 4]), state

    selector = selection.Checked(Mine(None, selection.Context(N, (), None, None, None, 1, None, None)))
    selector.queries({}, None)
    with pytest.raises(UserError, match="num_reused=1 ids of its queries first"):
        selector.propose({}, None, 2, 1)
