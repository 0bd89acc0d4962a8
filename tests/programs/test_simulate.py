"""Selectors on recorded histories: small ones made here, and the real one where DOTS_DATA is."""

import json
import math
import re

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from test_bad_inputs import finished

from dots_jax import selection, simulate
from dots_jax.analysis import simulation
from dots_jax.analysis.recording import Recording
from dots_jax.difficulty import measures

N, V, G = 60, 5, 8
NAMES = "uniform,mopps,posterior,posterior:head=kernel:features=8,dapo,speed,oracle"


def history(room, embeddings=None, about=None, **columns):
    """A recorded history whose difficulty stands in the first number of the embeddings; the arguments to read it."""
    rng = np.random.default_rng(0)
    x = rng.standard_normal((N, 4)).astype(np.float32)
    correct = rng.binomial(G, 1 / (1 + np.exp(-3 * x[:, :1])), (N, V)).tolist()
    rows = {"problem": [f"What is {i} plus {i % 7}?" for i in range(N)], "correct": correct} | columns
    pq.write_table(pa.table({name: values for name, values in rows.items() if values}), room / "h.parquet")
    np.save(room / "x.npy", x if embeddings is None else embeddings)
    if about:
        (room / "h.json").write_text(json.dumps(about))
    return [f"--history={room}/h.parquet", f"--embeddings={room}/x.npy", "--batch=12", "--references=6"]


def run(argv, out, *more):
    """The results of a simulation."""
    assert simulate.main([*argv, f"--workdir={out}", *more]) == 0
    return json.loads((out / "results.json").read_text())


@pytest.fixture(scope="module")
def simulated(tmp_path_factory):
    room = tmp_path_factory.mktemp("simulate")
    argv = [*history(room), f"--selectors={NAMES}", "--seeds=2", "--config.selection.temperature=1e-3"]
    return room, argv, run(argv, room / "out")


def test_the_oracle_is_the_best(simulated):
    _, _, results = simulated
    useful = {name: numbers["useful"]["mean"] for name, numbers in results["selectors"].items()}
    assert useful["oracle"] == pytest.approx(results["best"])
    assert max(value for name, value in useful.items() if name not in ("dapo", "speed")) == useful["oracle"]
    assert useful["posterior"] > useful["uniform"] + 0.05
    assert useful["dapo"] > useful["posterior"]


def test_all_pay_for_the_same_groups(simulated):
    _, _, results = simulated
    groups = {name: numbers["groups"] for name, numbers in results["selectors"].items()}
    for name in ("uniform", "mopps", "posterior"):
        assert groups[name] == {"mean": V * 18, "low": V * 18, "high": V * 18}
    assert groups["oracle"]["mean"] == V * 12
    assert groups["dapo"]["mean"] > V * 18
    assert groups["speed"]["mean"] > V * 18


def test_what_is_written(simulated):
    room, _, results = simulated
    for numbers in results["selectors"].values():
        assert len(numbers["by_visit"]) == V
        for name in simulation.NUMBERS:
            mean, low, high = (numbers[name][end] for end in ("mean", "low", "high"))
            assert mean is None or low <= mean <= high
    assert set(results["selectors"]["uniform"]["less_baseline"]["useful"].values()) == {0.0}
    assert results["selectors"]["uniform"]["pearson_seen"]["mean"] is None
    assert results["selectors"]["posterior"]["pearson_unseen"]["mean"] > 0.2
    table = (room / "out" / "results.md").read_text()
    assert all(f"| {name} |" in table for name in results["selectors"])
    assert (room / "out" / "results.png").read_bytes()[:4] == b"\x89PNG"


def test_the_same_seed_gives_the_same_file(simulated):
    room, argv, _ = simulated
    run(argv, room / "again")
    assert (room / "again" / "results.json").read_bytes() == (room / "out" / "results.json").read_bytes()


class Fixed(selection.Selector):
    """Proposes 0, 1, 2 after asking for 2, 5; remembers in `seen` what it is told."""

    seen = []

    @classmethod
    def num_queries(cls, config):
        return 2

    def queries(self, state, key):
        return np.int32([2, 5])

    def propose(self, state, key, n, step):
        return np.arange(n, dtype=np.int32), state

    def observe(self, state, measured):
        self.seen.append((measured.ids.tolist(), measured.successes.tolist(), measured.is_reference, measured.step))
        return state


def recorded(successes, is_sparse=False):
    """A recording of groups of four."""
    successes = np.array(successes, np.float32)
    count = successes.shape[1]
    args = [f"q{i}" for i in range(count)], successes, np.ones_like(successes), 4, np.full(count, np.nan), None
    return Recording(*args, is_sparse)


def test_a_visit_by_hand():
    trial = simulation.Simulation(recorded([[1, 4, 2, 3, 0, 4], [0, 2, 3, 4, 4, np.nan]]), 3, 2)
    Fixed.seen = []
    numbers = trial.play(lambda key: Fixed(None, selection.Context(6, (), None, None, None, 2, None, key)), 0)
    assert Fixed.seen == [
        ([2, 5], [2, 4], True, 1), ([0, 1], [1, 4], False, 1),  # 2 is known, and 5 is not measured at the second visit
        ([2], [3], True, 2), ([0, 1], [0, 2], False, 2),
    ]  # fmt: skip
    assert numbers["by_visit"].tolist() == [0.5, 0.5]  # of 0 and 1: 2 is not judged
    assert numbers["variance"] == pytest.approx((3 / 16 / 2 + 1 / 4 / 2) / 2)
    assert numbers["groups"] == 2 * (3 + 2) and numbers["rollouts"] == 2 * (3 + 2) * 4
    assert numbers["useful_per_rollout"] == pytest.approx(2 * 0.5 * 3 / 40)
    assert numbers["distinct"] == 0.5 and numbers["returns"] == 1.0
    assert math.isnan(numbers["pearson_seen"])
    np.testing.assert_allclose(trial.best, [1, 2 / 3])


class Screened(Fixed):
    """Shows what two of four completions say, and draws 3, 4, 5 where these do not differ."""

    max_draws, screening = 2, 2

    def propose(self, state, key, n, step):
        state = 0 if state == {} else state
        return np.arange(n, dtype=np.int32) + 3 * state, 1 - state

    def queries(self, state, key):
        return np.zeros(0, np.int32)


def test_screened_completions_are_some_of_those_recorded():
    trial = simulation.Simulation(recorded([[2, 0, 4, 2, 3, 1]] * 60), 3, 0)
    Fixed.seen = []
    make = lambda key: Screened(None, selection.Context(6, (), None, None, None, 2, None, key))  # noqa: E731
    assert trial.play(make, 0)["rollouts"] == 60 * (2 * 3 * 2 + 3 * 2)
    shown = {i: [] for i in range(6)}
    for step in range(1, 61):
        first, second, rest = (event for event in Fixed.seen if event[-1] == step)
        assert (first[0], second[0]) == ([0, 1, 2], [3, 4, 5])
        counts = dict(zip(first[0] + second[0], first[1] + second[1], strict=True))
        mixed = [i for i in range(6) if counts[i] == 1]
        assert set(rest[0]) >= set(mixed[:3])
        for i, successes in zip(rest[0], rest[1], strict=True):
            assert counts[i] + successes == [2, 0, 4, 2, 3, 1][i]
        for i, count in counts.items():
            shown[i].append(count)
    assert set(shown[1]) == {0} and set(shown[2]) == {2}
    assert set(shown[0]) == {0, 1, 2} and set(shown[4]) == {1, 2} and set(shown[5]) == {0, 1}


class Repeating(Screened):
    """Draws the same questions again, as batches do that wrap around a pool."""

    max_draws, screening = 3, 0

    def propose(self, state, key, n, step):
        return np.arange(n, dtype=np.int32), state


def test_a_recorded_group_counts_once_a_visit():
    trial = simulation.Simulation(recorded([[2, 0, 4, 2, 3, 1]] * 2), 3, 0)
    make = lambda key: Repeating(None, selection.Context(6, (), None, None, None, 2, None, key))  # noqa: E731
    numbers = trial.play(make, 0)
    assert numbers["rollouts"] == 2 * 3 * 4 and numbers["useful"] == pytest.approx(1 / 3)


def test_of_few_measured_questions_the_first_proposed_are_judged():
    nan = np.nan
    trial = simulation.Simulation(recorded([[nan, 4, nan, 3, 0, 4, 2, nan]], is_sparse=True), 2, 1)
    Fixed.seen = []
    numbers = trial.play(lambda key: Fixed(None, selection.Context(8, (), None, None, None, 1, None, key)), 0)
    (reference,), proposed = Fixed.seen[0][0], Fixed.seen[1][0]
    assert proposed == [i for i in (1, 3, 4, 5, 6) if i != reference][:2]
    assert numbers["groups"] == 3


def test_a_run_of_ones_own(tmp_path, capsys):
    argv = [f"--history={finished(tmp_path)}", "--batch=4", "--references=2", "--seeds=2"]
    results = run(argv, tmp_path / "out", "--selectors=mopps,posterior,oracle", "--config.selection.temperature=1e-3")
    assert (results["questions"], results["visits"], results["rollouts"]) == (64, 3, 4)
    oracle = results["selectors"]["oracle"]
    assert oracle["useful"]["mean"] == results["best"] == 1.0
    assert {s["groups"]["mean"] for n, s in results["selectors"].items() if n != "oracle"} == {3 * 6}
    assert simulate.main([*argv, "--batch=11", f"--workdir={tmp_path}/no"]) == 2
    assert "more than the 12 questions that a round" in capsys.readouterr().err


def test_the_ceiling_is_what_the_true_rates_reach():
    rng = np.random.default_rng(0)
    p = rng.beta(1, 2, 20000)
    for rollouts in (2, 8):
        measured = rng.binomial(rollouts, p) / rollouts
        assert measures.ceiling(measured, rollouts) == pytest.approx(np.corrcoef(p, measured)[0, 1], abs=0.02)
    assert measures.ceiling(rng.binomial(8, np.full(2000, 0.5)) / 8, 8) < 0.2
    assert math.isnan(measures.ceiling(np.ones(9), 8)) and math.isnan(measures.ceiling(np.array([0, 1]), 1))


def test_interval():
    assert simulation.interval([1.0, 3.0]) == pytest.approx({"mean": 2, "low": 2 - 12.7062, "high": 2 + 12.7062})
    assert simulation.interval([1.0, math.nan])["mean"] == 1.0
    assert math.isnan(simulation.interval([])["mean"])


X = np.zeros((N, 4), np.float32)
BAD = {
    "no history": (lambda room: ["--embeddings=x"], "--history is missing"),
    "no file": (lambda room: [*history(room), "--history=/nowhere.parquet"], "/nowhere.parquet cannot be read"),
    "no table": (lambda room: [*history(room), f"--history={room}/x.npy"], "cannot be read"),
    "no run": (lambda room: [*history(room), f"--history={room}"], "config.json"),
    "no problems": (lambda room: history(room, problem=None), "'problem' is missing"),
    "no counts": (lambda room: history(room, correct=None), "'correct' is missing"),
    "one number": (lambda room: history(room, correct=[3] * N), "a list of 1, each a whole number from -1 to 8"),
    "uneven": (lambda room: history(room, correct=[[1, 2]] * (N - 1) + [[1]]), "row 59 .* a list of 2"),
    "too many": (lambda room: history(room, correct=[[1, 9]] * N), "row 0 .* from -1 to 8"),
    "above G": (lambda room: history(room, about={"rollouts": 4}), "from -1 to 4"),
    "bad G": (lambda room: history(room, about={"rollouts": "4"}), "h.json: 'rollouts'"),
    "nothing": (lambda room: history(room, correct=[[-1, -1]] * N), "has measured nothing"),
    "none": (lambda room: history(room, correct=[[]] * N), "'correct'"),
    "no embeddings": (lambda room: history(room)[:1], "--embeddings is missing"),
    "other embeddings": (lambda room: history(room, embeddings=X[1:]), "59 embeddings for 60 questions"),
    "NaN": (lambda room: history(room, embeddings=X * np.nan), "row 0 of the embeddings"),
    "no selector": (lambda room: [*history(room), "--selectors=uniform,best"], "best"),
    "no selectors": (lambda room: [*history(room), "--selectors="], "--selectors names none"),
    "scores": (lambda room: [*history(room), "--selectors=snis"], "snis cannot be simulated"),
    "states": (lambda room: [*history(room), "--selectors=posterior:policy_features=true"], "states are not there"),
    "no field": (lambda room: [*history(room), "--selectors=dots:heads=1"], "unknown field"),
    "bad field": (lambda room: [*history(room), "--selectors=posterior:head=x"], "selection.head must be one of"),
    "bad number": (lambda room: [*history(room), "--selectors=posterior:features=1.5"], "features must be a whole"),
    "not its own": (lambda room: [*history(room), "--selectors=dots:train.batch_size=4"], "train.batch_size"),
    "name": (lambda room: [*history(room), "--selectors=oracle:name=dots"], "selection.name, which is no field of one"),
    "last seed": (
        lambda room: [*history(room), f"--config.seed={2**32 - 1}", "--seeds=2"],
        "--seeds=2: a seed must",
    ),
    "batch": (lambda room: [*history(room), "--batch=61"], "--batch=61 is more than the 60 questions"),
    "references": (lambda room: [*history(room), "--references=61"], "--references=61 is more than the 60"),
    "no labels": (lambda room: [*history(room), "--selectors=static"], "difficulty_column"),
    "no column": (lambda room: [*history(room), "--config.data.difficulty_column=-d"], "no column d"),
    "screening": (lambda room: [*history(room), "--selectors=speed:screening=8"], "selection.screening=8"),
    "no seeds": (lambda room: [*history(room), "--seeds=0"], "seeds"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_input_is_one_line(name, tmp_path, capsys):
    make, said = BAD[name]
    assert simulate.main([*make(tmp_path), f"--workdir={tmp_path}/out"]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ") and error.count("\n") == 1
    assert re.search(said, error), error
    assert not (tmp_path / "out").exists()


def test_what_was_tried_before_a_failure_is_kept(tmp_path, capsys):
    own = (
        "from dots_jax.selection import Selector\nclass Own(Selector):\n    def propose(self, *args):\n        return 1"
    )
    (tmp_path / "own.py").write_text(own)
    argv = [*history(tmp_path), f"--selectors=uniform,{tmp_path}/own.py:Own", "--seeds=1"]
    assert simulate.main([*argv, f"--workdir={tmp_path}/out"]) == 2
    assert "Own.propose must return two things" in capsys.readouterr().err
    assert list(json.loads((tmp_path / "out" / "results.json").read_text())["selectors"]) == ["uniform"]


def test_static_takes_its_labels_from_a_column(tmp_path):
    argv = history(tmp_path, d=[float(i) for i in range(N)])
    more = "--selectors=static", "--seeds=1", "--config.data.difficulty_column=d"
    assert run(argv, tmp_path / "out", *more)["selectors"]["static"]["distinct"]["mean"] > 0.8


@pytest.mark.parametrize(
    ("batch", "least", "ahead"), [pytest.param(80, 0.88, 0.01, marks=pytest.mark.slow), (20, 0.70, 0.10)]
)
def test_the_posterior_on_a_recorded_run(batch, least, ahead, data, tmp_path):
    path = data / "history" / "qwen2.5-math-1.5b_grpo"
    argv = [f"--history={path}.parquet", f"--embeddings={path}_minilm.npy", f"--batch={batch}"]
    others = "mopps,bots:decay=0.9,greso,pcl,graph,prompt_replay"
    argv += [f"--references={batch // 2}", "--seeds=2", f"--selectors=posterior,{others}"]
    useful = {name: row["useful"]["mean"] for name, row in run(argv, tmp_path / "out")["selectors"].items()}
    assert useful["posterior"] > least
    assert useful.pop("posterior") > max(useful.values()) + ahead
