"""The probe before a run: its numbers by hand, and on the quickstart's job with few questions."""

import json

import numpy as np
import pytest

from dots_jax import probe
from dots_jax.analysis import outlook
from dots_jax.analysis.outlook import Beliefs
from dots_jax.core import command_line, fields


def test_silent_groups_by_hand():
    sure = Beliefs(np.array([1e6, 1e6, 1.0]), np.array([1e6, 1e-3, 1.0]))  # 1/2, 1, anything
    silent = outlook.silent(sure, {"one": np.array([0]), "none": np.array([1])}, 2)
    assert silent == pytest.approx({"uniform": 1 - (0.5 + 0 + 1 / 3) / 3, "one": 0.5, "none": 1.0}, abs=1e-4)
    per_1000 = outlook.by_group_size(sure, {"one": np.array([0])})
    assert per_1000[4]["one"] == pytest.approx(1000 * (1 - 2 / 16) / 4, rel=1e-3)
    table = outlook.by_part(sure, ["a", "b", "a"], 2)
    assert list(table) == ["a", "b"] and table["a"]["questions"] == 2
    assert table["a"]["mixed"] == pytest.approx((0.5 + 1 / 3) / 2, abs=1e-4)


def test_beliefs_have_the_moments_of_a_prediction():
    beliefs = Beliefs.of(np.array([0.3, 0.9]), np.array([0.1, 0.05]))
    a, b = beliefs.a, beliefs.b
    np.testing.assert_allclose(beliefs.mean, [0.7, 0.1])
    np.testing.assert_allclose(a * b / ((a + b) ** 2 * (a + b + 1)), [0.01, 0.0025])


def test_a_fifth_is_predicted_from_the_others_alone():
    ids, rate, seen = np.arange(20), np.tile([0.0, 0.5], 10), []

    def predict(rest):
        seen.append(rest)
        return Beliefs(np.full(20, 1.0), np.full(20, 1.0))

    judged = outlook.left_out(predict, ids, rate, 8)
    assert len(seen) == 5 and all(len(rest) == 16 for rest in seen)
    assert not set.intersection(*(set(rest) for rest in seen))
    assert judged["mixed"] == pytest.approx(1 - 2 / 9) and judged["mixed_measured"] == 0.5
    assert np.isnan(outlook.left_out(predict, ids[:9], rate[:9], 8)["pearson"])


@pytest.mark.parametrize(
    ("changes", "groups"),
    [({}, 8 + (8 - 4) / 2), ({"selection.name": "uniform"}, 8), ({"selection.name": "oracle"}, 8)],
)
def test_groups_of_a_step(changes, groups):
    """By hand: half of 16 are fresh; of the 8 references of two steps 4 are trained on."""
    config = fields.replaced(command_line.load("configs/quickstart.py"), changes)
    assert probe.groups_of_step(config) == groups


@pytest.fixture(scope="module")
def probed(tmp_path_factory):
    room = tmp_path_factory.mktemp("probe")
    argv = ["--config.data.num_questions=256", "--questions=24", "--keep=0.1-0.9"]
    assert probe.main([*argv, f"--workdir={room}"]) == 0
    return room / "probe"


def test_what_it_writes(probed):
    results = json.loads((probed / "probe.json").read_text())
    rows = [json.loads(line) for line in (probed / "questions.jsonl").read_text().splitlines()]
    kept = [json.loads(line) for line in (probed / "kept.jsonl").read_text().splitlines()]
    measured = [row for row in rows if "success_rate" in row]
    assert (len(rows), len(measured), results["measured"]) == (256, 24, 24)
    assert [row for row in measured if 0.1 <= row["success_rate"] <= 0.9] == kept and len(kept) == results["kept"] > 0
    assert results["success"] == pytest.approx(np.mean([row["success_rate"] for row in measured]))
    assert sum(results["histogram"]) == 256 and sum(results["histogram_measured"]) == 24
    assert results["silent"]["posterior"] < results["silent"]["uniform"]
    assert results["step"]["tokens"] == pytest.approx(10 * 8 * results["step"]["tokens_per_completion"])
    assert all(results["step"][name] > 0 for name in ("seconds_update", "tokens_per_second"))
    assert all(row["family"] and row["level"] for row in kept)
    assert (probed / "probe.png").stat().st_size > 5000


def test_the_report_has_at_most_100_columns(probed):
    results = json.loads((probed / "probe.json").read_text())
    results["useful_per_1000"] = {int(G): row for G, row in results["useful_per_1000"].items()}
    lines = probe.report(results).splitlines()
    assert max(map(len, lines)) <= 100
    assert any("silent groups expected" in line and "uniform" in line and "dots" in line for line in lines)


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["--keep=0.8-0.2"], "--keep=0.8-0.2 is no range of success rates"),
        (["--keep=some"], "--keep=some is no range"),
        (["--questions=9999"], "--questions=9999 is more than the 4,096 questions"),
        (["--questions=0"], "--questions"),
        (["--config.train.batch_size=0"], "config.train.batch_size"),
    ],
)
def test_bad_flags_are_one_line(argv, message, tmp_path, capsys):
    assert probe.main([*argv, f"--workdir={tmp_path}/new"]) == 2
    said = capsys.readouterr().err
    assert message in said and said.count("\n") == 1
    assert not (tmp_path / "new").exists()
