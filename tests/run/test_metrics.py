import json
import math
import os

import jax.numpy as jnp
import numpy as np
import pytest

from dots_jax.core.errors import UserError
from dots_jax.core.rules import whole
from dots_jax.core.text import WIDTH
from dots_jax.run import curves
from dots_jax.run.metrics import FILE, GROUPS, Lines, Metrics, read, running_mean
from dots_jax.run.progress import Progress, TimeLimit


def write(workdir, steps):
    metrics = Metrics(str(workdir))
    for step in steps:
        metrics.write(step, {"train/reward": np.float32(0.5), "eval/accuracy": step / 10})
    metrics.close()


def test_each_step_is_one_valid_flushed_line(tmp_path):
    metrics = Metrics(str(tmp_path / "run"))
    assert not (tmp_path / "run").exists()
    values = {"a": float("nan"), "b": jnp.float32(0.5), "c": np.int64(3), "d": float("inf"), "e": "text", "f": True}
    metrics.write(0, values)
    line = (tmp_path / "run" / FILE).read_text()
    assert line.endswith("\n") and "NaN" not in line and "Infinity" not in line
    assert json.loads(line) == {"step": 0, "a": None, "b": 0.5, "c": 3, "d": None, "e": "text", "f": True}
    metrics.close()


def test_a_restart_drops_later_steps_and_a_torn_line(tmp_path):
    write(tmp_path, range(5))
    with open(tmp_path / FILE, "a") as file:
        file.write('{"step": 2, "train/rew')
    assert [row["step"] for row in read(str(tmp_path))] == [0, 1, 2, 3, 4]
    before = (tmp_path / FILE).read_text().splitlines(keepends=True)
    metrics = Metrics(str(tmp_path))
    metrics.restart(read(str(tmp_path))[:3])
    assert (tmp_path / FILE).read_text() == "".join(before[:3])
    metrics.write(3, {"x": 1})
    metrics.close()
    assert [row["step"] for row in read(str(tmp_path))] == [0, 1, 2, 3]
    Metrics(str(tmp_path)).restart([])
    assert read(str(tmp_path)) == [] and not [f for f in os.listdir(tmp_path) if "partial" in f]


def test_lines_hold_arrays_compactly(tmp_path):
    lines = Lines(str(tmp_path / "new" / GROUPS))
    assert not (tmp_path / "new").exists()
    lines.restart([])
    for step in range(3):
        predicted = jnp.array([0.1, np.nan], jnp.float32)
        lines.write(step, {"ids": np.arange(2) + step, "predicted": predicted, "cells": [np.float32(0.7), [3]]})
    text = (tmp_path / "new" / GROUPS).read_text()  # each line is there before the file is closed
    assert text.splitlines()[1] == '{"step":1,"ids":[1,2],"predicted":[0.1,null],"cells":[0.7,[3]]}'
    lines.close()
    with open(tmp_path / "new" / GROUPS, "a") as file:
        file.write('{"step":3,"ids":[4')
    assert [row["step"] for row in read(str(tmp_path / "new"), GROUPS)] == [0, 1, 2]
    lines.restart(read(str(tmp_path / "new"), GROUPS)[:2])
    lines.write(2, {})
    lines.close()
    assert (tmp_path / "new" / GROUPS).read_text() == "".join(text.splitlines(True)[:2]) + '{"step":2}\n'
    assert os.listdir(tmp_path / "new") == [GROUPS]


@pytest.mark.parametrize("number", [1 / 3, 16777217 / 3, 1e-30, 3.4e38, -0.0])
def test_float32_loses_nothing(number, tmp_path):
    Lines(str(tmp_path / FILE)).write(0, {"x": np.float32(number)})
    assert np.float32(read(str(tmp_path))[0]["x"]) == np.float32(number)


def test_read_of_nothing(tmp_path):
    assert read(str(tmp_path)) == []


def test_curves_with_few_and_missing_values(tmp_path):
    write(tmp_path, [0])
    metrics = Metrics(str(tmp_path))
    metrics.write(1, {"train/entropy": float("nan"), "ledger/seconds_fresh": 1.0, "ledger/generated_tokens": 5})
    metrics.close()
    path = curves.draw(read(str(tmp_path)), str(tmp_path))
    with open(path, "rb") as file:
        assert file.read(8) == b"\x89PNG\r\n\x1a\n"
    assert sorted(os.listdir(tmp_path)) == ["curves.png", FILE]


def test_running_mean():
    np.testing.assert_allclose(running_mean(np.array([3.0, 6.0, 0.0, 9.0])), [3, 4.5, 3, 5])
    assert running_mean(np.array([])).size == 0


def test_progress_keeps_the_last_measures_and_one_hundred_columns(capsys):
    bar = Progress(1000)
    row = {"train/reward": 0.5, "train/useful_groups": 1.0, "seconds": 0.0, "ledger/generated_tokens": 0}
    told = {"spearman": 0.8, "mae": 0.125, "calibration": 0.05, "precision": 0.7}
    told = {f"predictor/reference_{name}": value for name, value in told.items()}
    bar.update(970, row)
    bar.update(972, row | told | {"predictor/reference_pearson": 0.874, "seconds": 400.0})
    bar.update(974, row | {"predictor/reference_pearson": float("nan"), "seconds": 800.0})
    late = {"seconds": 2080.0, "ledger/seconds_compile": 80.0, "ledger/generated_tokens": 2e7, "eval/accuracy": 0.25}
    bar.update(980, row | late)
    first, last, told = capsys.readouterr().err.splitlines()
    assert "useful 100%  10k tok/s  ETA 1:06:40" in last and max(map(len, (first, last, told))) <= WIDTH
    measured = "pearson 0.87  spearman 0.80  mae 0.12  calibration 0.05  precision 0.70"
    assert told.strip() == f"predicted difficulty:  {measured}"


@pytest.mark.parametrize(("minutes", "last"), [(0, 1), (10, 3), (12, 3), (13, 4), (100, 9), (None, 9)])
def test_the_last_step_for_which_there_is_time(minutes, last, monkeypatch):
    """Steps of 2 minutes, of which the third has 3; before the first 2 minutes, and 1 of compilation in the second."""
    clock = 0.0
    monkeypatch.setattr("time.monotonic", lambda: 60 * clock)
    limit = TimeLimit(None if minutes is None else 60.0 * minutes)
    clock = 2.0
    limit.note(0.0, is_step=False)
    for step in range(1, 10):
        clock += {2: 3.0, 3: 3.0}.get(step, 2.0)
        limit.note(60.0 if step > 1 else 0.0, is_step=True)
        if limit.is_up():
            break
    assert step == last


def test_collapsed_weights_and_broken_numbers_are_said_once(capsys):
    progress, fine = Progress(100), {"replay/tokens": 500.0, "replay/effective_sample_size": np.float32(0.9)}
    none = {"replay/tokens": 0.0, "replay/effective_sample_size": math.nan, "train/loss": 0.1}
    progress.update(1, none)
    progress.update(2, fine | {"replay/kl_by_age": np.array([0.1, math.nan])})
    for step in (3, 5, 7):
        progress.update(step, fine | {"replay/effective_sample_size": np.float32(0.31)})
        progress.update(step + 1, none)
        if step < 7:
            assert capsys.readouterr().err == ""
    for step in (9, 11):
        progress.update(step, fine | {"replay/effective_sample_size": np.float32(0.3)})
        progress.update(step, fine | {"train/entropy_useful": np.float32(math.nan)})
    lines = capsys.readouterr().err.splitlines()
    assert [line[:17] for line in lines] == ["warning: step 9: "] * 2
    assert "effective sample size 43% in the last 5 steps" in lines[0] and "learning_rate" in lines[0]
    assert lines[1].endswith("train/entropy_useful: not a number")


@pytest.mark.parametrize("seed", range(3))
def test_collapse_is_told_from_a_handful_of_tokens(capsys, seed):
    """Ratios of a policy that has drifted, all of them, against near ones of which a few or a small step's are far."""

    def warns(*steps):
        progress = Progress(100)
        for step, ratio in enumerate(steps, 1):
            size = ratio.sum() ** 2 / (len(ratio) * (ratio**2).sum())
            progress.update(step, {"replay/tokens": float(len(ratio)), "replay/effective_sample_size": size})
        return "have collapsed" in capsys.readouterr().err

    random = np.random.default_rng(seed)
    near, far = ([random.lognormal(0, width, 400) for _ in range(12)] for width in (0.2, 1.5))
    outlier = [*near[:6], np.append(near[6], [120.0, 60.0]), *near[7:]]
    assert not warns(*near)
    assert not warns(*outlier)  # in that step the effective sample size is 5%
    assert not warns(*near[:3], *(ratio[:9] for ratio in far[:4]), near[3])
    assert not warns(*near[:6], *far[:2], *near[6:])  # too short a time
    assert not warns(*far[:4])
    assert warns(*far[:5])
    assert warns(*near[:6], *far[:3])


def test_a_round_that_teaches_nothing_is_said_once(capsys):
    def said(*rows, round_steps=3):
        progress = Progress(100, round_steps)
        for step, row in enumerate(rows, 1):
            progress.update(step, {"train/reward": 0.5, "train/useful_groups": 0.5, "train/truncated": 0.5} | row)
        return capsys.readouterr().err.splitlines()

    dull, truncated = {"train/useful_groups": 0.0}, {"train/truncated": 1.0}
    assert said(dull, dull, {}, dull, dull, {"eval/x": 1}) == said(dull, round_steps=1) == []
    for row, words in (
        (dull, "all right or all wrong"),
        (dull | {"train/reward": np.float32(0)}, "no completion earned a reward"),
        (dull | {"train/reward": np.float32(1)}, "every completion was right"),
        (dull | {"train/reward": 0.0} | truncated, "every completion was truncated"),
        (truncated, "every completion was truncated"),
    ):
        (line,) = said({}, row, row, row, row)
        assert line.startswith("warning: step 4: in the last 3 steps ") and words in line
        assert line.endswith("; no new group taught anything") == (row is not truncated)
    dull |= {"train/reward": 0.0, "verdicts/no_answer": np.float32(0.75)}
    (line,) = said({}, dull, dull, dull, dull)  # at once, and alone
    assert line.startswith(r"warning: step 2: 75% of the completions have no answer in \boxed{}: --config.reward.ans")


@pytest.mark.parametrize("line", ['{"step": "3"}', '{"step": null}', '{"step": 3.5}', "[3]", "[" * 100000])
def test_what_follows_a_line_without_a_step_is_dropped(tmp_path, line):
    write(tmp_path, range(3))
    with open(tmp_path / FILE, "a") as file:
        file.write(f'{line}\n{{"step": 4}}\n')
    Metrics(str(tmp_path)).restart(read(str(tmp_path)))
    assert [row["step"] for row in read(str(tmp_path))] == [0, 1, 2]
    with open(tmp_path / FILE, "a") as file:
        file.write(f'{line}\n{{"step": 4}}\n')
    with pytest.raises(UserError, match=f"line 4 of {tmp_path / FILE}"):
        read(str(tmp_path), kinds={"step": whole()})
