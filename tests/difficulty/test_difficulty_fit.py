import json
import os
import subprocess
import sys

import jax
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks import score
from dots_jax.core import command_line
from dots_jax.core.errors import UserError
from dots_jax.core.files import ROOT
from dots_jax.difficulty import baselines, fit, leave_out, measures, predictor, rates

CONFIG = "configs/difficulty_fit.py"
SMALL = ("folds=0", "references=32", "width=16", "batch=32", "epochs=40", "learning_rate=1e-2", "average=0.9")
N, D, POLICIES = 300, 24, ("weak", "middling", "strong")
ROLLOUTS = object()  # 16 for each row


def make(directory, rates=None, embeddings=None, drop=(), **columns):
    """A table of three policies; difficulty depends on two directions of the embeddings, which others drown."""
    rng = np.random.default_rng(0)
    x = rng.standard_normal((N, D)).astype(np.float32) * np.linspace(0.7, 2.0, D, dtype=np.float32)
    score = 1.5 * x[:, 0] + 1.5 * np.abs(x[:, 1])
    rows = {"problem": [], "policy": [], "success_rate": []}
    for i, policy in enumerate(POLICIES):
        p = 1 / (1 + np.exp(-(score - 2 + i)))
        for q in rng.permutation(N) if i else range(N):
            if i == 0 or rng.random() < 0.9:  # not every policy has measured every question
                rows["problem"].append(f"question {q}")
                rows["policy"].append(policy)
                rows["success_rate"].append(rng.binomial(16, p[q]) / 16)
    rows |= {k: [16] * len(rows["problem"]) if v is ROLLOUTS else v for k, v in columns.items()}
    pq.write_table(pa.table({k: v for k, v in rows.items() if k not in drop}), directory / "rates.parquet")
    np.save(directory / "x.npy", x if embeddings is None else embeddings(x))
    return [f"--rates={directory}/rates.parquet", f"--embeddings={directory}/x.npy", f"--workdir={directory}/out"]


def run(*args, small=SMALL):
    return fit.main([*args, *(f"--config.{field}" for field in small)])


@pytest.fixture(scope="module")
def fitted(tmp_path_factory):
    directory = tmp_path_factory.mktemp("fit")
    flags = make(directory)
    assert run(*flags) == 0
    return directory / "out", json.loads((directory / "out" / "report.json").read_text()), flags


def test_adapter_beats_raw_attention_on_several_policies(fitted):
    _, report, _ = fitted
    pearson = {name: row["pearson"] for name, row in report["evaluation"].items()}
    assert set(pearson) == {"predictor", *fit.BASELINES}
    assert pearson["predictor"] > pearson["raw attention"] + 0.05 and pearson["predictor"] > 0.5
    for policy in POLICIES:  # one predictor for all: it takes the level from the policy's references
        row = report["by_policy"]["predictor"][policy]
        assert row["pearson"] > 0.4 and row["calibration"] < 0.2
    assert len(report["by_policy"]["ridge"]) == 3


def test_what_is_written(fitted):
    out, report, _ = fitted
    assert sorted(os.listdir(out)) == sorted(fit.FILES)
    params = predictor.load(str(out / "predictor.safetensors"), D)
    assert params["query"]["dense_0"]["bias"].shape == (16,)
    assert (out / "report.png").read_bytes()[:4] == b"\x89PNG"
    assert report["chosen"]["epochs"] == 1 + int(np.argmax(report["validation_pearson"]))


def test_evaluation_labels_change_nothing_but_the_report(fitted, tmp_path):
    """The property that no held-out question is learned from, from the outside: the predictor stays bit for bit."""
    out, report, _ = fitted
    table = rates.read(f"{out.parent}/rates.parquet", f"{out.parent}/x.npy")
    eval_questions = {f"question {i}" for i in rates.split(N, 0)["evaluation"]}
    assert len(table.embeddings) == N
    old = pq.read_table(f"{out.parent}/rates.parquet").to_pydict()
    flipped = [1 - r if q in eval_questions else r for q, r in zip(old["problem"], old["success_rate"], strict=True)]

    def other(x):
        x[rates.split(N, 0)["evaluation"]] *= -3
        return x

    assert run(*make(tmp_path, embeddings=other, success_rate=flipped)) == 0
    name = "predictor.safetensors"
    assert (tmp_path / "out" / name).read_bytes() == (out / name).read_bytes()
    again = json.loads((tmp_path / "out" / "report.json").read_text())
    assert again["chosen"] == report["chosen"] and again["evaluation"] != report["evaluation"]


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(5, 2000))
def test_split_is_by_question(seed, size):
    parts = rates.split(size, seed)
    whole = np.concatenate(list(parts.values()))
    assert sorted(whole) == list(range(size)) and len(parts["evaluation"]) == size // 5
    assert len(parts["validation"]) == (size - size // 5) // 5


def test_table_follows_first_appearance(tmp_path):
    columns = {"problem": ["b", "a", "b", "b"], "policy": ["p", "p", "q", "q"], "success_rate": [0.0, 0.25, 1.0, 0.5]}
    flags = make(tmp_path, embeddings=lambda x: x[:2], **columns)
    table = rates.read(*(flag.partition("=")[2] for flag in flags[:2]))
    assert table.policies == ["p", "q"]
    np.testing.assert_array_equal(table.difficulty, [[1, 0.75], [0.25, np.nan]])
    assert table.rollouts is None and np.isnan(table.judge(0, np.arange(2), np.arange(2))["ceiling"])
    flags = make(tmp_path, embeddings=lambda x: x[:2], **columns, rollouts=[8, 8, 3, 1])
    table = rates.read(*(flag.partition("=")[2] for flag in flags[:2]))
    np.testing.assert_array_equal(table.rollouts, [[8, 8], [4, 0]])
    assert table.difficulty[1, 0] == (3 * 0 + 1 * 0.5) / 4


def test_ceiling_is_what_the_true_rates_reach():
    rng = np.random.default_rng(0)
    p, rollouts = rng.beta(1, 2, 20000), rng.choice([4, 16], 20000)
    measured = rng.binomial(rollouts, p) / rollouts
    assert measures.ceiling(measured, rollouts) == pytest.approx(np.corrcoef(p, measured)[0, 1], abs=0.01)
    formula = np.sqrt(p.var() / (p.var() + (p * (1 - p) / rollouts).mean()))
    assert measures.ceiling(measured, rollouts) == pytest.approx(formula, abs=0.01)
    assert measures.ceiling(rng.binomial(8, 0.5, 20000) / 8, 8) < 0.15  # all the same question: noise alone
    assert np.isnan(measures.ceiling(rng.binomial(1, p).astype(float), 1))
    assert np.isnan(measures.ceiling(np.full(9, 0.5), 8))


# ---- Leave-policies-out ------------------------------------------------------------------------------------------


def synthetic(num_questions=400):
    """Policies differ in level and slope; half of a question's effect is in its embedding, half in no text."""
    rng = np.random.default_rng(0)
    x = rng.standard_normal((num_questions, 8)).astype(np.float32)
    effect = x[:, 0] + rng.standard_normal(num_questions)
    p = [1 / (1 + np.exp(-slope * (effect - level))) for slope, level in ((1, -1), (1.5, 0), (1, 1), (2, 0.5))]
    difficulty = (rng.binomial(16, p) / 16).astype(np.float32)
    texts = [f"question {i}" for i in range(num_questions)]
    return rates.Table(texts, x, list("abcd"), difficulty, np.full_like(difficulty, 16))


def no_predictor(others):
    return lambda ids, references, labels: np.random.default_rng(0).random(len(ids))


def test_leave_policies_out_finds_the_item_effect_where_it_can():
    table = synthetic()
    kinds = leave_out.report(table, rates.split(400, 0), 5, 64, 0, no_predictor)
    means = {kind: {name: rates.mean(list(rows.values())) for name, rows in kinds[kind].items()} for kind in kinds}
    assert all(list(rows) for rows in kinds["seen"].values()) and set(kinds["seen"]["ridge"]) == set("abcd")
    seen, unseen = means["seen"], means["unseen"]
    assert seen["item mean"]["of_ceiling"] > 0.93
    assert seen["item mean + references"]["mae"] < seen["item mean"]["mae"] - 0.05  # the policies' level and slope
    assert "item mean" not in unseen and "item mean + references" not in unseen
    assert 0.45 < unseen["ridge"]["of_ceiling"] < 0.85  # the text has half of the effect
    assert unseen["ridge"]["pearson"] > unseen["references alone"]["pearson"]
    assert abs(seen["predictor"]["pearson"]) < 0.15 and abs(unseen["predictor"]["pearson"]) < 0.2


def test_labels_of_a_held_out_policy_enter_through_its_references_alone():
    table, parts, handed = synthetic(), rates.split(400, 0), []

    def train(others):
        handed.append(others.difficulty)
        return no_predictor(others)

    first = leave_out.predict(table, parts, np.array([1, 3]), 64, 0, train)
    for policy in (1, 3):
        judged, predicted = first[policy]
        changed = table.difficulty.copy()
        changed[policy, np.concatenate(list(judged.values()))] *= 0.5
        changed[:, parts["evaluation"]] *= 0.5  # nor do those of anybody for questions that count as unseen
        other = rates.Table(table.texts, table.embeddings, table.policies, changed, table.rollouts)
        again = leave_out.predict(other, parts, np.array([1, 3]), 64, 0, train)[policy][1]
        for name, values in predicted.items():
            np.testing.assert_array_equal(again[name], values, err_msg=name)
        references = np.setdiff1d(np.concatenate([parts["train"], parts["validation"]]), judged["seen"])
        changed[policy, references] = 1 - changed[policy, references]
        again = leave_out.predict(other, parts, np.array([1, 3]), 64, 0, train)[policy][1]
        assert not np.allclose(again["ridge + references"], predicted["ridge + references"])
        np.testing.assert_array_equal(again["ridge"], predicted["ridge"])
        assert not set(judged["unseen"]) & {*parts["train"], *parts["validation"]}
    assert all(difficulty.shape == (2, 400) for difficulty in handed)


def test_every_policy_is_held_out_once():
    for num_policies, count, sizes in ((7, 5, {1, 2}), (41, 5, {8, 9}), (2, 5, {1})):
        folds = leave_out.folds(num_policies, count, 0)
        assert sorted(np.concatenate(folds)) == list(range(num_policies))
        assert {len(fold) for fold in folds} == sizes


def test_item_mean_takes_out_who_measured():
    level = np.array([[0.2], [0.6]])
    item = np.array([-0.1, 0.1, -0.2, 0.2])
    difficulty = level + item
    difficulty[0, :2] = np.nan
    difficulty[1, 2:] = np.nan
    np.testing.assert_allclose(leave_out.item_mean(difficulty), 0.4 + item)
    assert np.isnan(leave_out.item_mean(np.array([[0.5, np.nan]]))[1])


def test_policies_held_out_by_the_program(tmp_path, capsys):
    small = ("folds=2", "references=32", "width=8", "batch=32", "epochs=2", "features=False")
    assert run(*make(tmp_path, rollouts=ROLLOUTS), small=small) == 0
    report = json.loads((tmp_path / "out" / "report.json").read_text())
    rows = report["leave_policies_out"]
    assert set(rows) == {"seen", "unseen"}
    assert all(set(by_policy) == set(POLICIES) for by_policy in rows["seen"].values())
    assert {"item mean", "ridge", "kernel ridge + references", "predictor"} <= set(rows["seen"])
    assert rows["seen"]["item mean"]["weak"]["of_ceiling"] > 0.8
    assert set(report["evaluation"]) == {"predictor", "raw attention", "ridge", "kernel ridge"}
    text = capsys.readouterr().out
    assert "held-out policies, questions seen" in text and "held-out policies, questions unseen" in text


# ---- What the text says ------------------------------------------------------------------------------------------


def test_regressions_that_see_the_text_find_what_the_embedding_lacks(tmp_path):
    rng = np.random.default_rng(0)
    hard, length = rng.random(N) < 0.5, rng.integers(1, 40, N)
    texts = [f"{'prove' if h else 'compute'} {'so ' * n}{i}" for i, (h, n) in enumerate(zip(hard, length, strict=True))]
    difficulty = (0.4 * hard + length / 100 + 0.1 * rng.random(N)).astype(np.float32)
    x = rng.standard_normal((N, D)).astype(np.float32)
    table, parts = rates.Table(texts, x, ["p"], difficulty[None]).with_text(), rates.split(N, 0)
    pearson = {}
    for name, (regression, grid) in baselines.REGRESSIONS.items():
        seen = table.sees(name)
        fitted = regression(seen[parts["train"]], difficulty[parts["train"]], *grid[len(grid) // 2])
        pearson[name] = np.corrcoef(fitted(seen[parts["evaluation"]]), difficulty[parts["evaluation"]])[0, 1]
    assert abs(pearson["kernel ridge"]) < 0.4
    assert pearson["ridge, text"] > 0.4
    assert pearson["kernel ridge, text"] > 0.8


def test_kernel_ridge_and_ridge_by_another_route():
    rng = np.random.default_rng(0)
    x, y, q = rng.standard_normal((30, 4)), rng.random(30), rng.standard_normal((5, 4))
    centred = np.concatenate([x - x.mean(0), np.sqrt(2.0) * np.eye(4)])
    weights = np.linalg.lstsq(centred, np.concatenate([y - y.mean(), np.zeros(4)]), rcond=None)[0]
    np.testing.assert_allclose(baselines.ridge(x, y, 2.0)(q), (q - x.mean(0)) @ weights + y.mean())
    twice = baselines.ridge(np.concatenate([x, x[:9]]), np.concatenate([y, y[:9]]), 2.0)(q)
    np.testing.assert_allclose(baselines.ridge(x, y, 2.0, np.repeat([2.0, 1.0], (9, 21)))(q), twice)
    unit = lambda z: z / np.linalg.norm(z, axis=1, keepdims=True)  # noqa: E731
    kernel = lambda a, b: np.exp(-2 * ((unit(a)[:, None] - unit(b)) ** 2).sum(-1))  # noqa: E731
    inverse = np.linalg.inv(kernel(x, x) + 0.5 * np.eye(30))
    wanted = kernel(q, x) @ inverse @ (y - y.mean()) + y.mean()
    np.testing.assert_allclose(baselines.kernel_ridge(x, y, 2.0, 0.5)(q), wanted)


# ---- Mistakes ----------------------------------------------------------------------------------------------------


def nan(x):
    x[7, 3] = np.nan
    return x


@pytest.mark.parametrize(
    ("change", "fields", "words"),
    [
        ({"success_rate": [1.5] * 3}, (), ("success_rate", "1.5", "row 0")),
        ({"success_rate": [0.5, float("nan"), 0.5]}, (), ("success_rate", "row 1")),
        ({"success_rate": [0.5] * 3, "rollouts": [8, 0, 8]}, (), ("rollouts", "row 1", "whole number")),
        ({"success_rate": [0.5] * 3, "rollouts": ["8"] * 3}, (), ("rollouts", "numbers")),
        ({"drop": ["policy"]}, (), ("no column policy", "problem, policy, success_rate")),
        ({"embeddings": nan}, (), ("row 7", "NaN")),
        ({"embeddings": lambda x: x[:-1]}, (), ("299 embeddings for 300 questions", "distinct problem")),
        ({"embeddings": lambda x: x[:, 0]}, (), ("no matrix", "[N, D]")),
        ({}, ("references=256",), ("policy weak", "192 questions", "references=256")),
        ({}, ("calibration=platt",), ("platt", "code, paper, none")),
        ({}, ("folds=-1",), ("config.folds=-1",)),
        ({}, ("features=3",), ("config.features=3",)),
        ({}, ("teacher=1.5",), ("config.teacher=1.5",)),
    ],
)
def test_mistakes_are_one_line(tmp_path, capsys, change, fields, words):
    if len(change.get("success_rate", ())) == 3:
        change = change | {"problem": ["a", "b", "c"], "policy": ["p"] * 3}
    assert run(*make(tmp_path, **change), small=(*SMALL, *fields)) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ") and error.count("\n") == 1 and all(word in error for word in words)
    assert not os.path.exists(tmp_path / "out")


def test_a_run_keeps_its_predictor(tmp_path, capsys):
    flags = make(tmp_path)
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "metrics.jsonl").write_text("")
    assert run(*flags) == 2 and "holds a run" in capsys.readouterr().err
    assert os.listdir(tmp_path / "out") == ["metrics.jsonl"]


def test_a_policy_that_has_not_measured_the_other_questions(tmp_path, capsys):
    flags = make(tmp_path)
    table, parts = rates.read(*(flag.partition("=")[2] for flag in flags[:2])), rates.split(N, 0)
    old = pq.read_table(tmp_path / "rates.parquet").to_pydict()
    train = {f"question {i}" for i in parts["train"]}
    kept = [q in train or p != "strong" for q, p in zip(old["problem"], old["policy"], strict=True)]
    make(tmp_path, **{name: [x for x, keep in zip(column, kept, strict=True) if keep] for name, column in old.items()})
    assert len(table.policies) == 3 and run(*flags) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and "policy strong there are 0 questions for validation" in error


@pytest.mark.parametrize("broken", ["rates", "embeddings", "workdir"])
@pytest.mark.parametrize("how", ["absent", "garbage", "missing"])
def test_unreadable_files_are_one_line(tmp_path, capsys, broken, how):
    flags = dict(flag[2:].split("=") for flag in make(tmp_path))
    if how == "missing" and broken != "workdir":
        del flags[broken]
    elif how == "garbage" or broken == "workdir":
        flags[broken] = str(tmp_path / "garbage")
        (tmp_path / "garbage").write_text("not this")
    else:
        flags[broken] = str(tmp_path / "absent")
    assert run(*(f"--{name}={value}" for name, value in flags.items())) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ") and error.count("\n") == 1 and f"--{broken}" in error


def test_help(capsys):
    assert fit.main(["--help"]) == 0
    text = capsys.readouterr().out
    assert all(word in text for word in ("--rates", "--embeddings", "--workdir", CONFIG))
    small, paper = command_line.load(CONFIG), command_line.load(f"{CONFIG}:paper")
    assert small.references == paper.references == 256 and small.width < paper.width == 896 and paper.teacher == 0
    with pytest.raises(UserError, match="'big'.*paper, small"):
        command_line.load(f"{CONFIG}:big")


# ---- Real data, benchmark ----------------------------------------------------------------------------------------


@pytest.mark.slow
def test_real_rates(data, tmp_path):
    folder = data / "embeddings"
    flags = f"--rates={folder}/deepscaler_rates.parquet", f"--embeddings={folder}/deepscaler_minilm.npy"
    environment = {k: v for k, v in os.environ.items() if k != "XLA_FLAGS"}  # those of the tests make it slow
    command = [sys.executable, "-m", "dots_jax.difficulty.fit", *flags, f"--workdir={tmp_path}"]
    subprocess.run(command, cwd=ROOT, env=environment, check=True, stdout=subprocess.DEVNULL)
    pearson = {k: row["pearson"] for k, row in json.loads((tmp_path / "report.json").read_text())["evaluation"].items()}
    assert pearson["predictor"] >= 0.46 and pearson["kernel ridge, text"] >= 0.50
    assert pearson["predictor"] > pearson["raw attention"] + 0.1


def test_benchmark_of_scoring(capsys):
    sizes = ["--questions=100", "--references=9", "--embedding=12", "--widths=8,4", "--repeats=1"]
    records = score.main(sizes)
    assert [(r["stage"], r["width"]) for r in records] == [("encode", 8), ("score", 8), ("encode", 4), ("score", 4)]
    assert [json.loads(line) for line in capsys.readouterr().out.splitlines()] == records
    assert all(r["seconds"] > 0 for r in records) and jax.default_backend() == records[0]["backend"]
