"""The evaluation as a program, on the quickstart's policy and a file of arithmetic."""

import itertools
import json
import os

import numpy as np
import pytest

from dots_jax import evaluate, evaluation
from dots_jax.core.files import ROOT
from dots_jax.data import arithmetic
from dots_jax.reward import Verdict
from dots_jax.rollout import Grading
from dots_jax.run import metrics

POLICY = os.path.join(ROOT, "assets", "quickstart_policy")
N, SAMPLES, BATCH = 22, 3, 8


@pytest.fixture(scope="module")
def sets(tmp_path_factory):
    """Two files of questions, named with a comma between."""
    folder, (pool, _) = tmp_path_factory.mktemp("sets"), arithmetic.make(N, 0, 3)
    rows = [{"problem": p, "answer": a} for p, a in zip(pool.texts, pool.answers, strict=True)]
    (folder / "first.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows[:15]))
    (folder / "second.json").write_text(json.dumps(rows[15:]))
    return f"{folder}/first.jsonl,{folder}/second.json"


@pytest.fixture(scope="module")
def run(sets):
    def run(workdir, **fields):
        fields = {
            "model": POLICY,
            "sets": sets,
            "samples": SAMPLES,
            "batch": BATCH,
            "max_tokens": 32,
            "chunk": 31,
        } | fields
        fields = {"system": "", "reward": "exact", "dtype": "float32", "temperature": 1.0, "top_p": 1.0} | fields
        return evaluate.main([f"--workdir={workdir}", *(f"--{name}={value}" for name, value in fields.items())])

    return run


@pytest.fixture(scope="module")
def whole(run, tmp_path_factory):
    workdir = tmp_path_factory.mktemp("evaluation") / "whole"
    assert run(workdir) == 0
    return workdir


def completions(workdir):
    return [json.loads(line) for line in (workdir / metrics.COMPLETIONS).read_text().splitlines()]


def test_completions_and_table(whole):
    rows = completions(whole)
    names = [f"first:{i}" for i in range(15)] + [f"second:{i}" for i in range(N - 15)]
    asked = dict(zip(names, arithmetic.make(N, 0, 3)[0].texts, strict=True))
    assert [(row["question"], row["sample"]) for row in rows] == [(n, j) for n in names for j in range(SAMPLES)]
    assert [row["batch"] for row in rows[:: SAMPLES * BATCH]] == [0, 1, 2]
    for row in rows:
        assert row["extracted"] == row["completion"].rpartition(">")[2] and row["problem"] == asked[row["question"]]
        right = row["extracted"] == row["answer"]
        assert row["reward"] == right and row["verdict"] == ("correct" if right else "wrong")
        assert 1 <= row["tokens"] <= 32 and row["truncated"] == (row["tokens"] == len(row["completion"]))
    table = json.loads((whole / evaluate.RESULTS).read_text())
    assert list(table) == ["first", "second", "average"]
    for name in ("first", "second"):
        mine = [row["reward"] for row in rows if row["question"].startswith(name)]
        assert table[name]["accuracy"] == pytest.approx(np.mean(mine)) and 0 < table[name]["correct"] == sum(mine)
        assert table[name]["low"] < table[name]["accuracy"] < table[name]["high"]
    both = [table[name]["accuracy"] for name in ("first", "second")]
    assert table["average"]["accuracy"] == pytest.approx(np.mean(both))  # of the sets, not of the questions
    of_question = np.reshape([row["reward"] for row in rows], (N, SAMPLES))
    for name, part in (("first", of_question[:15]), ("second", of_question[15:])):
        row, solved = table[name], part.sum(1)
        assert row["standard_error"] == pytest.approx(part.mean(1).std(ddof=1) / len(part) ** 0.5)
        assert row["smallest_difference"] == pytest.approx(3.962 * row["standard_error"], rel=1e-3)
        assert [key for key in row if "@" in key] == ["pass@1", "pass@2", "pass@3", "maj@3"]
        assert row["pass@1"] == pytest.approx(row["accuracy"]) and row["pass@3"] == pytest.approx((solved > 0).mean())
        assert (
            (solved >= 2).mean() <= row["maj@3"] <= row["pass@3"]
        )  # of three a majority decides, of two ones the first
    both = [table[name]["standard_error"] for name in ("first", "second")]
    assert table["average"]["standard_error"] == pytest.approx(np.hypot(*both) / 2)


def test_tables_of_many_samples_fit_the_screen():
    row = {"accuracy": 0.5, "low": 0.4, "high": 0.6, "standard_error": 0.05, "smallest_difference": np.nan}
    row |= {f"pass@{2**i}": 0.9 for i in range(14)} | {"maj@8192": 0.7}
    text = evaluate.show({"a_long_name_of_a_set": row, "b": row | {"pass@3": 0.8}, "average": {**row}})
    assert all(len(line) <= 100 for line in text.splitlines())
    for shown in ("pass@1 ", "pass@8192", "maj@8192", "a_long_name_of", "0.050", " -"):
        assert shown in text


@pytest.mark.parametrize("correct", range(6))
def test_pass_at_k_is_the_mean_over_all_draws(correct):
    for k in range(1, 6):
        draws = list(itertools.combinations([1] * correct + [0] * (5 - correct), k))
        assert evaluation.pass_at(k, 5, correct) == pytest.approx(np.mean([max(draw) for draw in draws]))


@pytest.mark.parametrize(
    ("answers", "rewards", "reward"),
    [
        (["2", "3", "3"], [1, 0, 0], 0),
        (["0.5", "3", r"\frac{1}{2}", "4"], [1, 0, 1, 0], 1),  # one number, two texts
        (["2", "3"], [1, 0], 1),  # the first of equally frequent ones
        ([None, None, "2"], [0, 0, 1], 1),  # no answer is no vote
        ([None, None], [0, 0], 0),
        (["07", "7", "x"], [0, 1, 0], 0),  # two answers to a grader that compares texts
    ],
)
def test_majority(answers, rewards, reward):
    assert evaluation.majority(answers, rewards) == reward


def test_the_smallest_difference_is_seen_in_eight_of_ten():
    """Two policies whose success rates, question by question, differ by it on average."""
    rng, N, seen = np.random.default_rng(0), 200, []
    for _ in range(2000):
        a, b = rng.binomial(1, rng.beta(1, 1, N)), rng.binomial(1, rng.beta(1, 1, N))
        errors = [evaluation.standard_error(x) for x in (a, b)]
        shift = evaluation.SMALLEST * np.mean(errors)
        seen.append(abs(a.mean() + shift - b.mean()) > 1.96 * np.hypot(*errors))
    assert 0.77 < np.mean(seen) < 0.83
    assert np.isnan(evaluation.standard_error(np.ones(1)))


def test_a_stopped_evaluation_continues(run, whole, tmp_path, capsys):
    text = (whole / metrics.COMPLETIONS).read_text()
    (tmp_path / "config.json").write_text((whole / "config.json").read_text())
    (tmp_path / metrics.COMPLETIONS).write_text(text[: int(0.7 * len(text))])  # torn within the second or third batch
    assert run(tmp_path) == 0
    assert (tmp_path / metrics.COMPLETIONS).read_text() == text
    assert "of which 0" not in capsys.readouterr().out
    assert run(tmp_path) == 0 and "of which 3 are there" in capsys.readouterr().out  # nothing is left to do
    assert run(tmp_path, samples=4) == 2
    assert "an evaluation with samples=3, not 4" in capsys.readouterr().err
    (tmp_path / metrics.COMPLETIONS).write_text(text.replace('"problem"', '"text"'))
    assert run(tmp_path) == 2 and "of an earlier version" in capsys.readouterr().err


def test_repeated_questions_are_samples(run, tmp_path, capsys):
    pool, _ = arithmetic.make(4, 0, 3)
    rows = [{"problem": p, "answer": a} for p, a in zip(pool.texts, pool.answers, strict=True)]
    (tmp_path / "q.json").write_text(json.dumps(rows * 3 + rows[:1] * 2))
    fields = {"sets": tmp_path / "q.json", "samples": 2, "batch": 3}  # batches begin amid a question
    assert run(tmp_path / "run", **fields) == 0
    assert "4 questions, 2 completions of each of their 14 rows" in capsys.readouterr().out
    lines = completions(tmp_path / "run")
    samples = {"q:0": 10, "q:1": 6, "q:2": 6, "q:3": 6}
    assert [(r["question"], r["sample"]) for r in lines] == [(q, j) for q, n in samples.items() for j in range(n)]
    answers = [rows[int(line["question"][2:])]["answer"] for line in lines]
    assert [line["answer"] for line in lines] == answers
    assert len({line["completion"] for line in lines[:10]}) > 2  # drawn anew
    table = json.loads((tmp_path / "run" / evaluate.RESULTS).read_text())["q"]
    means = [np.mean([line["reward"] for line in lines if line["question"] == q]) for q in samples]
    assert table["questions"] == 4
    assert table["accuracy"] == pytest.approx(np.mean(means))  # of the questions, not of the rows
    text = (tmp_path / "run" / metrics.COMPLETIONS).read_text()
    (tmp_path / "run" / metrics.COMPLETIONS).write_text(text[: len(text) // 2])
    assert run(tmp_path / "run", **fields) == 0
    assert (tmp_path / "run" / metrics.COMPLETIONS).read_text() == text


def test_verdicts_of_the_mathematical_grader_and_greedy(run, tmp_path, capsys):
    greedy = {"reward": "math", "temperature": 0.0, "samples": 1}
    assert run(tmp_path / "run", **greedy) == 0
    rows = completions(tmp_path / "run")
    assert {(row["verdict"], row["extracted"]) for row in rows} == {("no_answer", None)}
    said = r"warning: 100% of the completions have no answer in \boxed{}: --config.reward.answer=last takes the last"
    assert [line for line in capsys.readouterr().err.splitlines() if line.startswith(said)]
    assert run(tmp_path / "last", **greedy | {"reward.answer": "last"}) == 0
    assert {row["verdict"] for row in completions(tmp_path / "last")} == {"correct", "wrong"}
    assert "have no answer" not in capsys.readouterr().err


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"model": ""}, "--model is missing"),
        ({"model": "/nowhere"}, "policy directory /nowhere does not exist"),
        ({"sets": "gsm9k"}, "unknown questions 'gsm9k'; choose one of: aime24"),
        ({"sets": ","}, "names no evaluation set"),
        ({"samples": 0}, "config.samples=0 must be a whole number from 1 to 100,000"),
        ({"top_p": 0.0}, "above 0 and at most 1"),
        ({"temperature": -1.0}, "0 (greedy) or above"),
        ({"reward": "oracle"}, "one of countdown, exact, math, proxy"),
        ({"max_token": 3}, "did you mean"),
        ({"system": "Think."}, "has no chat template"),
    ],
)
def test_mistakes_are_one_line(run, tmp_path, capsys, fields, said):
    assert run(tmp_path / "run", **fields) == 2
    err = capsys.readouterr().err
    assert err.count("\n") == 1 and said in err and not (tmp_path / "run").exists()


@pytest.mark.parametrize(("samples", "sharpness"), [(1, 2.0), (4, 2.0), (4, 0.2), (16, 20.0)])
def test_interval_covers(samples, sharpness):
    rng, inside = np.random.default_rng(0), []
    for _ in range(2000):
        p = rng.beta(0.3 * sharpness, 0.7 * sharpness, 60)
        low, high = evaluation.interval(rng.binomial(samples, p) / samples, samples)
        inside.append(low <= 0.3 <= high)
    assert 0.92 < np.mean(inside) < 0.985
    low, high = evaluation.interval(np.zeros(30), samples)
    assert low == 0 and 0.05 < high < 0.15


def test_grading_keeps_rows_in_place():
    class Slow:
        """Answers in the end, the last batch first."""

        def submit(self, texts, answers):
            found = np.array([t == a for t, a in zip(texts, answers, strict=True)])
            return lambda: (found.astype(np.float32), np.where(found, Verdict.CORRECT, Verdict.WRONG))

    class Words:
        def batch_decode(self, rows, **_):
            return [",".join(map(str, row)) for row in rows]

    rng = np.random.default_rng(0)
    tokens, lengths = rng.integers(0, 3, (5, 4, 3)), rng.integers(1, 4, (5, 4))
    answers = ["0", "1,1", "2", "0,0,1", "1"]
    grading = Grading(Slow(), Words(), answers, 4)
    for rows in ([3, 12, 4], [], [19, 5]):
        grading.on_rows(np.array(rows, int), tokens.reshape(-1, 3)[rows], lengths.ravel()[rows])
    rollouts = type("", (), {"tokens": tokens, "lengths": lengths, "finished": lengths > 1})
    found = grading.finish(rollouts)()
    texts = [[",".join(map(str, tokens[p, g, : lengths[p, g]])) for g in range(4)] for p in range(5)]
    assert found.texts.tolist() == texts
    assert found.rewards.tolist() == [[float(t == a) for t in row] for row, a in zip(texts, answers, strict=True)]
    assert (found.verdicts == np.where(found.rewards == 1, Verdict.CORRECT, Verdict.WRONG)).all()
