"""The main job as a user runs it, in processes of its own where it takes one: the quickstart's policy, few steps."""

import io
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from contextlib import redirect_stderr, redirect_stdout

import jax
import numpy as np
import pytest

from benchmarks import faults
from dots_jax import explore, main, policy
from dots_jax.core.files import ROOT
from dots_jax.difficulty import measures
from dots_jax.policy import tokenizer as tok
from dots_jax.run.workdir import Claim

QUICKSTART = os.path.join(ROOT, "assets", "quickstart_policy")
STEPS = 12
FIELDS = faults.FIELDS | {"train.steps": STEPS, "data.num_heldout": 66, "eval.greedy": True}


@pytest.fixture(scope="module")
def flags(tmp_path_factory):
    """The arguments of `python -m dots_jax.main`."""
    cache = {"embedding.cache": tmp_path_factory.mktemp("embeddings")}

    def flags(workdir, *extra, **fields):
        return [f"--workdir={workdir}", *(f"--config.{k}={v}" for k, v in (FIELDS | cache | fields).items()), *extra]

    return flags


@pytest.fixture(scope="module")
def start(compiled, flags):
    """Starts `python -m dots_jax.main`; returns the process."""

    def start(workdir, *extra, **fields):
        env = os.environ | compiled
        command = [sys.executable, "-m", "dots_jax.main", *flags(workdir, *extra, **fields)]
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
        # Under a job in the background Ctrl-C is ignored.
        return subprocess.Popen(command, cwd=ROOT, env=env, preexec_fn=interruptible, **pipes)

    return start


@pytest.fixture(scope="module")
def here(flags):
    """Runs it in this process, where each program is traced and compiled once; returns what it printed."""

    def here(workdir, *extra, code=0, devices=1, **fields):
        out, err, found = io.StringIO(), io.StringIO(), jax.devices()[:devices]
        with pytest.MonkeyPatch.context() as patch, redirect_stdout(out), redirect_stderr(err):
            patch.chdir(ROOT)
            patch.setattr(jax, "devices", lambda *_: found)
            patch.setattr(jax, "device_count", lambda *_: devices)
            got = main.main(flags(workdir, *extra, **fields))
        assert got == code, err.getvalue()[-2000:]
        return out.getvalue(), err.getvalue()

    return here


def interruptible():
    signal.signal(signal.SIGINT, signal.default_int_handler)


def finish(process, code=0):
    out, err = process.communicate(timeout=600)
    assert process.returncode == code, err[-2000:]
    return out, err


def rows(workdir):
    """The lines of metrics.jsonl without what time and machine decide."""
    lines = (workdir / "metrics.jsonl").read_text().splitlines()
    return [{k: v for k, v in json.loads(line).items() if "seconds" not in k} for line in lines]


def assert_same(workdir, other):
    """Bit for bit: metrics, groups, completions, predictor and policy."""
    assert rows(workdir) == rows(other)
    for name in ("groups.jsonl", "completions.jsonl", "predictor.safetensors", "policy/model.safetensors"):
        assert (workdir / name).read_bytes() == (other / name).read_bytes(), name


@pytest.fixture(scope="module")
def whole(start, tmp_path_factory):
    """An uninterrupted run: its workdir and what it printed."""
    workdir = tmp_path_factory.mktemp("runs") / "whole"
    return workdir, *finish(start(workdir))


def test_what_a_run_leaves(whole):
    workdir, out, err = whole
    assert {
        "config.json",
        "metrics.jsonl",
        "curves.png",
        "tensorboard",
        "checkpoints",
        "policy",
        "groups.jsonl",
        "completions.jsonl",
        "questions.jsonl",
        "page.html",
        "predictor.safetensors",
    } <= set(os.listdir(workdir))
    log = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
    assert [row["step"] for row in log] == list(range(STEPS + 1))
    assert [row["step"] for row in log if "eval/accuracy" in row] == [0, 4, 8, 12]
    for row in log[1:]:
        assert {"seconds", "train/reward", "train/useful_groups", "ledger/generated_tokens"} <= row.keys()
        assert row["train/logprob_diff_max"] < 1e-4
    assert max(row["train/useful_groups"] for row in log[1:]) > 0 and max(row["train/grad_norm"] for row in log[1:]) > 0
    # Replay: nothing in the first round, then half of each batch, from steps before.
    share = [row["replay/share"] for row in log[1:]]
    assert share[:2] == [0, 0] and max(share[2:]) == 0.5 and log[-1]["ledger/scored_tokens"] > 0
    assert [len(made(workdir, step)["ids"]) for step in range(1, STEPS + 1)] == [8, 8] + [4] * 10
    for row in log[1:]:
        drawn = replayed(made(workdir, row["step"]))
        assert sum(row["replay/ages"]) == len(drawn) == len(set(drawn)) <= 4
        assert all(at < row["step"] and i in mixed(made(workdir, at)) for i, at in drawn)
    said_of_ages = [row["replay/kl_by_age"] for row in log[3:]]
    assert all(len(ages) == 9 for ages in said_of_ages) and any(ages[1] > 0 for ages in said_of_ages if ages[1])
    for name in ("seconds", "ledger/generated_tokens"):
        assert (np.diff([row[name] for row in log]) > 0).all()
    for said in ("held-out accuracy", "metrics.jsonl", "curves.png", "compiling", "sort", str(workdir / "policy")):
        assert said in out
    assert f"step {STEPS}/{STEPS}" in err and "useful" in err
    config, params = policy.load(workdir / "policy")
    was, before = policy.load(QUICKSTART)
    assert config == was and jax.tree.structure(params) == jax.tree.structure(before)
    transformers = pytest.importorskip("transformers")
    assert transformers.AutoTokenizer.from_pretrained(workdir / "policy").decode([5]) == tok.load(QUICKSTART).decode(
        [5]
    )


def test_completions_to_read(whole):
    """Of each step a fresh group and, where there are, a reference and a replayed one; of each evaluation all."""
    log = rows(whole[0])
    kept = [json.loads(line) for line in (whole[0] / "completions.jsonl").read_text().splitlines()]
    questions = [json.loads(line) for line in (whole[0] / "questions.jsonl").read_text().splitlines()]
    found = {}
    for row in kept:
        found.setdefault((row["step"], row["kind"]), []).append(row)
        question = questions[row["question"] + (128 if row["kind"] in ("evaluation", "greedy") else 0)]
        assert row["reward"] == (row["verdict"] == "correct") == (row["extracted"] == question["answer"])
        assert row["completion"].endswith(row["extracted"]) and ("age" in row) == (row["kind"] == "replayed")
    assert [step for step, kind in found if kind == "fresh"] == list(range(1, STEPS + 1))
    assert [step for step, kind in found if kind == "reference"] == [1, 3, 5, 7, 9, 11]
    assert [at for at in found if at[1] == "greedy"] == [(0, "greedy"), (STEPS, "greedy")]
    assert any(kind == "replayed" for _, kind in found)
    for (step, kind), part in found.items():
        rewards = [row["reward"] for row in part]
        if kind == "evaluation":
            assert len(part) == 66 * 2
            assert log[step]["eval/accuracy"] == pytest.approx(np.mean(rewards), abs=1e-6)
        elif kind in ("fresh", "reference"):
            record, prefix = made(whole[0], step), "reference_" if kind == "reference" else ""
            (question,) = {row["question"] for row in part}
            measured = dict(zip(record[f"{prefix}ids"], record[f"{prefix}successes"], strict=True))
            assert len(part) == 4 and sum(rewards) == measured[question]
            for row in part:
                assert sum(row["token_lengths"]) == len(row["completion"])
                assert max(np.abs(row["token_logprob_diffs"])) < 1e-4
                for name, sign in (("logprobs", -1), ("entropies", 1)):
                    values = np.array(row[f"token_{name}"])
                    assert len(values) == row["tokens"] and (sign * values >= -1e-6).all()
        elif kind == "replayed":
            (origin,) = {(row["question"], step - row["age"]) for row in part}
            assert origin in replayed(made(whole[0], step))
            as_fresh = [{**row, "step": step, "kind": kind, "age": part[0]["age"]} for row in found[origin[1], "fresh"]]
            assert part == [{k: x for k, x in row.items() if "token_" not in k} for row in as_fresh]


def test_what_a_run_tells_about_its_predictions(whole, capsys, tmp_path):
    """Every pair was measured after its prediction, on questions that the fit had not seen as such."""
    run = explore.Run(str(whole[0]))
    rows = [json.loads(line) for line in (whole[0] / "metrics.jsonl").read_text().splitlines()]
    assert [r.step for r in run.rounds] == [1, 3, 5, 7, 9, 11]
    every, reuse, K = 2, FIELDS["selection.reuse_references"], FIELDS["selection.references"]
    judged = 0  # rounds with questions that were new
    for at, r in enumerate(run.rounds):
        rounds = [every * FIELDS["train.batch_size"]] + 5 * [every * FIELDS["train.batch_size"] // 2]
        trained = rounds[at] - reuse
        assert len(r.labels) == min(FIELDS["predictor.window"], K * (at + 1) + sum(rounds[:at]) - reuse * at)
        assert len(r.ids) == len(r.predicted) == trained + K * (at < 5) and (~r.uniform).sum() == trained
        assert r.pool.sum() == len(run.questions) == FIELDS["data.num_questions"]
        assert r.ages.min() == 0 and (r.ages[-K:] == 0).all() and (np.diff(r.ages) <= 0).all()
        trained = r.new & ~r.uniform
        report, said = measures.report(r.predicted[trained], r.measured[trained]), rows[r.step + 1]["predictor/mae"]
        assert said == pytest.approx(report["mae"], abs=1e-5) if trained.any() else said is None
        judged += trained.any()
    assert judged >= 4
    seen = set()  # what is judged had never been measured before
    for r in run.rounds:
        seen |= set(r.labels[r.ages == 0].tolist())
        for i, new in zip(r.ids.tolist(), r.new, strict=True):
            assert new == (i not in seen)
            seen.add(i)
    assert any(r.new.any() for r in run.rounds) and not all(r.new.all() for r in run.rounds)
    one = run.rounds[1]
    row = run.groups[2]
    assert row["step"] == 3 and one.difficulty[-K:] == pytest.approx(1 - np.array(row["reference_successes"]) / 4)
    places, weights = run.attention(7)
    assert (
        weights.sum() == pytest.approx(1, abs=1e-4)
        and (np.diff(weights) <= 0).all()
        and len(set(places)) == len(places)
    )
    table = run.compare()
    assert set(table) == {"adapter", "raw attention", "ridge"} and all(0 <= r["mae"] <= 1 for r in table.values())
    capsys.readouterr()
    assert explore.main([run.workdir, run.workdir]) == 0
    assert f"| ridge | {table['ridge']['uniform_pearson']:.3f} ± 0.000 |" in capsys.readouterr().out
    assert explore.main([str(whole[0] / "checkpoints")]) == 2 and "error: " in capsys.readouterr().err
    torn = tmp_path / "torn"
    torn.mkdir()
    for name in ("config.json", "metrics.jsonl"):
        shutil.copy(whole[0] / name, torn)
    (torn / "groups.jsonl").write_bytes((whole[0] / "groups.jsonl").read_bytes()[:2000])
    assert explore.main([str(torn)]) == 2 and "lacks steps" in capsys.readouterr().err
    # A selector that predicts without asking for references.
    records = [{k: x for k, x in row.items() if not k.startswith("reference_")} for row in run.groups]
    (torn / "groups.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
    assert explore.main([str(torn)]) == 0 and "| ridge |" in capsys.readouterr().out
    assert rows[-1]["ledger/generated_reference"] > 0
    assert rows[-1]["ledger/generated_tokens"] == sum(
        rows[-1][f"ledger/generated_{phase}"] for phase in ("reference", "fresh")
    )


def test_every_key_is_described(whole):
    """docs/metrics.md names every key of the three files."""
    with open(os.path.join(ROOT, "docs", "metrics.md"), encoding="utf-8") as file:
        text = file.read()
    for name in ("metrics.jsonl", "groups.jsonl", "completions.jsonl"):
        keys = {key for line in (whole[0] / name).read_text().splitlines() for key in json.loads(line)}
        for key in keys:
            group, _, leaf = key.rpartition("/")
            families = (f"{group}/*", "predictor/reference_*", "ledger/seconds_*")
            names = {key, leaf, f"_{leaf.rpartition('_')[2]}"} | {f for f in families if key.startswith(f[:-1])}
            assert key.startswith("step/") or any(f"`{name}`" in text for name in names), key


def test_the_notebook_runs(whole, monkeypatch, tmp_path):
    nbclient, nbformat = pytest.importorskip("nbclient"), pytest.importorskip("nbformat")
    monkeypatch.setenv("DOTS_WORKDIR", str(whole[0]))
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path))
    notebook = nbformat.read(os.path.join(ROOT, "colabs", "difficulty_predictions.ipynb"), as_version=4)
    assert not any(cell.get("outputs") for cell in notebook.cells)
    nbclient.NotebookClient(notebook, timeout=600, resources={"metadata": {"path": ROOT}}).execute()
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    assert sum("image/png" in output.get("data", {}) for output in outputs) == 4
    text = "".join(output.get("text", "") for output in outputs)
    assert all(word in text for word in ("6 selection rounds", "raw attention", "hold", "fresh: ", "greso: useful"))


@pytest.mark.parametrize(
    "moment", ["between steps", pytest.param("while a checkpoint is written", marks=pytest.mark.slow)]
)
def test_killed_and_continued_equals_uninterrupted(whole, start, tmp_path, moment):
    """The start after the kill has time for one step, which has no checkpoint due."""
    workdir = tmp_path / "killed"
    process = start(workdir)
    for _ in range(20000):
        time.sleep(0.005)
        names = os.listdir(workdir / "checkpoints") if (workdir / "checkpoints").is_dir() else []
        complete = [int(name) for name in names if name.isdigit()]
        if moment == "between steps":
            ready = complete and len((workdir / "metrics.jsonl").read_text().splitlines()) > max(complete) + 2
        else:
            ready = complete and len(complete) < len(names)
        if ready or process.poll() is not None:
            break
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL, "the run was over before it could be killed"
    process.communicate()
    out, _ = finish(start(workdir, "--minutes=0.01"))
    (at,) = re.findall(r"continues after step (\d+)", out)
    assert f"stopped after step {int(at) + 1} of {STEPS}" in out and not (workdir / "policy").exists()
    out, _ = finish(start(workdir, "--minutes=60"))
    assert f"continues after step {int(at) + 1}" in out and "stopped after" not in out
    assert_same(workdir, whole[0])
    assert len(json.loads((workdir / "versions.json").read_text())) == 3


@pytest.mark.parametrize(
    "method, fields",
    [
        ("grpo", {}),
        pytest.param("rr", {"selection.name": "static"}, marks=pytest.mark.slow),
        pytest.param("dots", {"selection.name": "oracle"}, marks=pytest.mark.slow),
    ],
    ids=["uniform", "static", "oracle"],
)
def test_other_methods(here, tmp_path, method, fields, capsys):
    config = f"--config=configs/quickstart.py:{method}"
    few = {"completions.groups": 2, "completions.evaluations": 5}
    out, _ = here(tmp_path / "run", config, **fields, **few, **{"train.steps": 3})
    name, replays = fields.get("selection.name", "uniform"), method == "rr"
    log, groups, kept = (
        [json.loads(line) for line in (tmp_path / "run" / file).read_text().splitlines()]
        for file in ("metrics.jsonl", "groups.jsonl", "completions.jsonl")
    )
    assert [row["step"] for row in groups] == [1, 2, 3]
    assert [row["step"] for row in kept if row["kind"] == "fresh"] == [1] * 8 + [2] * 8 + [3] * 8
    assert [row["question"] for row in kept if row["kind"] == "greedy"] == 2 * [0, 16, 32, 48, 65]
    assert [len(set(row["ids"])) for row in groups] == [8, 8, 4 if replays else 8]
    assert ("replay/share" in log[-1]) == ("replayed" in groups[-1]) == ("4 of 8 groups replayed" in out) == replays
    assert f"{name} selection" in out and not (tmp_path / "run" / "predictor.safetensors").exists()
    last, oracle = log[-1], name == "oracle"
    assert last["ledger/generated_tokens"] == last["ledger/generated_fresh"] > 0
    assert (last["ledger/cost_excluded_tokens"] > last["ledger/generated_fresh"]) == oracle
    assert ("its cost is not counted" in out) == oracle
    assert [len(row.get("reference_ids", ())) for row in groups] == ([128, 0, 128] if oracle else [0, 0, 0])
    if oracle:  # it draws what it has measured near one half
        difficulty = 1 - np.array(groups[0]["reference_successes"]) / FIELDS["rollout.group_size"]
        chosen = groups[0]["ids"] + groups[1]["ids"]
        assert np.abs(difficulty[chosen] - 0.5).mean() < np.abs(difficulty - 0.5).mean()
        assert groups[0]["predicted"] == pytest.approx(difficulty[groups[0]["ids"]], abs=1e-6)
    capsys.readouterr()
    assert explore.main([str(tmp_path / "run")]) == 2
    said = "fewer than two whole selection rounds" if oracle else "whose selector predicts difficulty"
    assert said in capsys.readouterr().err


@pytest.mark.parametrize("name, references", [("posterior", 0), pytest.param("snis", 4, marks=pytest.mark.slow)])
def test_selectors_continue(name, references, here, tmp_path):
    """A run of six steps that began as one of four draws the same questions with the same results."""
    fields = {"selection.name": name, "train.checkpoint_every": 2, "eval.greedy": False, "eval.samples": 1}
    fields |= {"selection.references": references, "selection.reuse_references": references // 2}
    lines = []
    for workdir, steps in (("whole", 6), ("parts", 4), ("parts", 6)):
        here(tmp_path / workdir, **fields, **{"train.steps": steps, "replay.last_step": 0})
        lines.append((tmp_path / workdir / "groups.jsonl").read_text())
    assert lines[0] == lines[2] and lines[0].startswith(lines[1]) and len(lines[0].splitlines()) == 6
    scored = json.loads((tmp_path / "whole" / "metrics.jsonl").read_text().splitlines()[-1])["ledger/scored_tokens"]
    plain = name != "snis"
    assert scored > 0 and (plain or json.loads(lines[0].splitlines()[-1])["predicted"])


SPEED = {"selection.name": "speed", "selection.screening": 2, "selection.max_draws": 3}


@pytest.mark.slow
def test_draws_on_eight_devices_are_those_of_one(here, tmp_path):
    lines = []
    for devices in (1, 8):
        workdir = tmp_path / str(devices)
        fields = SPEED | {"train.steps": 1}
        here(workdir, "--config=configs/quickstart.py:grpo", devices=devices, **fields)
        lines.append((workdir / "groups.jsonl").read_text())
    assert lines[0] == lines[1]


def test_draws_until_all_groups_are_mixed(here, tmp_path):
    """By two completions of each question of up to three batches; the others are then sampled of eight questions."""
    fields = SPEED | {"train.steps": 2}
    here(tmp_path / "run", "--config=configs/quickstart.py:grpo", **fields)
    G = FIELDS["rollout.group_size"]
    log, groups = (
        [json.loads(line) for line in (tmp_path / "run" / file).read_text().splitlines()]
        for file in ("metrics.jsonl", "groups.jsonl")
    )
    for row, record in zip(log[1:], groups, strict=True):
        ids, discarded = record["ids"], record.get("discarded_ids", [])
        assert len(set(ids)) == len(ids) == 8 and not set(ids) & set(discarded)
        assert len(discarded) in (0, 8, 16) and row["train/discarded_groups"] == len(discarded)
        drawn = record.get("discarded_successes", [])
        assert all(0 <= n <= 2 for n in drawn)
        if len(discarded) < 16:  # there were enough, so that all are mixed
            assert all(0 < n < G for n in record["successes"])
        silent = sum(n in (0, 2) for n in drawn) + sum(n in (0, G) for n in record["successes"])
        assert (row["train/groups"], row["train/silent_groups"]) == (8 + len(discarded), silent)
        assert len(record["tokens"]) == 8 and len(record.get("discarded_tokens", [])) == len(discarded)
    assert any(record.get("discarded_ids") for record in groups)
    tokens = {name: log[-1][f"ledger/generated_{name}"] for name in ("tokens", "fresh", "screening", "reference")}
    assert tokens.pop("tokens") == sum(tokens.values()) and tokens["screening"] > 0


def test_started_again(whole, here, tmp_path):
    """On a finished run, with another setting, without its lines, on other files: each says so in a line."""
    workdir = tmp_path / "copy"
    shutil.copytree(whole[0], workdir)
    out, _ = here(workdir)
    assert "is finished" in out and "held-out accuracy" in out
    _, err = here(workdir, **{"learner.clip": 0.3, "train.steps": STEPS + 2}, code=2)
    assert err.startswith("error:") and err.count("\n") == 1 and "config.learner.clip=[0.2, 0.2], not [0.3]" in err
    log = (workdir / "metrics.jsonl").read_text()
    (workdir / "metrics.jsonl").write_text("")
    _, err = here(workdir, code=2)
    assert err.count("\n") == 1 and "metrics.jsonl lacks steps" in err
    (workdir / "metrics.jsonl").write_text(log)
    (workdir / "checkpoints" / str(STEPS)).rename(tmp_path / "newest")
    config = json.loads((workdir / "config.json").read_text())
    for name, value in config["fingerprints"].items():
        config["fingerprints"][name] = "other"
        (workdir / "config.json").write_text(json.dumps(config))
        _, err = here(workdir, code=2)
        assert err.count("\n") == 1 and f"began with another {name.replace('_', ' ')} than is there" in err
        config["fingerprints"][name] = value
    (workdir / "config.json").write_text(json.dumps(config))
    (tmp_path / "newest").rename(workdir / "checkpoints" / str(STEPS))


def test_a_torn_checkpoint_falls_back_to_the_one_before(whole, here, tmp_path):
    """The run goes on from there and ends as it had."""
    workdir = tmp_path / "copy"
    shutil.copytree(whole[0], workdir)
    newest = workdir / "checkpoints" / str(STEPS)
    file = max((f for f in newest.rglob("*") if f.is_file()), key=lambda f: f.stat().st_size)
    file.write_bytes(file.read_bytes()[:100])
    before = sorted(f.name for f in newest.iterdir())
    out, err = here(workdir)
    (line,) = [line for line in err.splitlines() if line.startswith("warning: checkpoint")]
    assert f"{file.name} is damaged" in line and f"continues from step {STEPS - 3}" in line
    assert f"(continues after step {STEPS - 3})" in out
    assert sorted(f.name for f in (workdir / "checkpoints_aside" / str(STEPS)).iterdir()) == before
    assert_same(workdir, whole[0])


def test_a_workdir_has_one_run_at_a_time(whole, start, tmp_path):
    workdir = tmp_path / "copy"
    shutil.copytree(whole[0], workdir)
    with Claim(str(workdir)):
        _, err = finish(start(workdir), 2)
    assert err.count("\n") == 1 and f"is in use by process {os.getpid()} on " in err
    assert not (workdir / "lock").exists()
    (workdir / "lock").write_text("process 1 on elsewhere\n")  # of one that was killed
    out, _ = finish(start(workdir))
    assert "is finished" in out


@pytest.mark.parametrize(
    "fields, said",
    [
        ({"data.max_prompt_tokens": 7}, "question"),
        ({"train.batch_size": 7}, "train.batch_size=7"),
        ({"rollout.max_tokens": 120}, "positions"),
        ({"policy.path": "nowhere"}, "nowhere"),
        ({"selection.name": "best"}, "uniform"),
        ({"mesh.data": 3}, "mesh data=3"),
        ({"policy.path": ""}, "policy.path is empty"),
    ],
    ids=str,
)
def test_mistakes_leave_nothing(here, tmp_path, fields, said):
    _, err = here(tmp_path / "run", **fields, code=2)
    assert err.startswith("error:") and err.count("\n") == 1 and said in err
    assert not (tmp_path / "run").exists()


def test_a_run_that_diverges_stops(here, tmp_path):
    _, err = here(tmp_path / "run", **{"learner.learning_rate": 1e30}, code=2)
    said = err.splitlines()[-1]
    assert said.startswith("error: step") and "not finite" in said and "checkpoint" in said and "Traceback" not in err


def test_the_users_model_is_not_overwritten(here, tmp_path):
    shutil.copytree(QUICKSTART, tmp_path / "run" / "policy")
    before = {file.name: file.read_bytes() for file in (tmp_path / "run" / "policy").iterdir()}
    _, err = here(tmp_path / "run", **{"policy.path": tmp_path / "run" / "policy"}, code=2)
    assert err.count("\n") == 1 and "policy.path" in err and os.listdir(tmp_path / "run") == ["policy"]
    assert {file.name: file.read_bytes() for file in (tmp_path / "run" / "policy").iterdir()} == before


def test_weights_that_are_not_finite(here, tmp_path):
    config, params = policy.load(QUICKSTART)
    params["norm"] = params["norm"].at[3].set(np.nan)
    policy.save(tmp_path / "nan", config, params, tokenizer_dir=QUICKSTART)
    _, err = here(tmp_path / "run", **{"policy.path": tmp_path / "nan"}, code=2)
    assert err.count("\n") == 1 and "NaN" in err and not (tmp_path / "run").exists()


def test_interrupted_in_the_last_export(whole, start, tmp_path):
    """One line, and what is half-written does not stay."""
    workdir = tmp_path / "copy"
    shutil.copytree(whole[0], workdir)
    shutil.rmtree(workdir / "checkpoints" / str(STEPS))
    process = start(workdir)
    while not (workdir / ".policy.partial").exists() and process.poll() is None:
        time.sleep(0.0005)
    process.send_signal(signal.SIGINT)
    _, err = finish(process, 130)
    assert err.count("interrupted; the same command continues") == 1 and "Traceback" not in err
    assert not (workdir / ".policy.partial").exists()


@pytest.mark.slow
def test_weights_that_are_dead_are_said_once(here, tmp_path):
    config, params = policy.load(QUICKSTART)
    policy.save(tmp_path / "dead", config, jax.tree.map(lambda x: x * 0, params), tokenizer_dir=QUICKSTART)
    _, err = here(tmp_path / "run", **{"policy.path": tmp_path / "dead", "train.steps": 5})
    (line,) = [line for line in err.splitlines() if line.startswith("warning")]
    assert line.startswith("warning: step 2: in the last 2 steps no completion earned a reward; take an easier pool")
    assert line.endswith("; no new group taught anything")


def test_a_workdir_of_something_else_is_left_alone(here, tmp_path):
    (tmp_path / "metrics.jsonl").write_text("mine")
    _, err = here(tmp_path, code=2)
    assert err.count("\n") == 1 and "config.json" in err and os.listdir(tmp_path) == ["metrics.jsonl"]


@pytest.fixture(scope="module")
def emptied(whole, here, tmp_path_factory):
    """The whole run continued by two steps with an empty, larger buffer."""
    workdir = tmp_path_factory.mktemp("runs") / "emptied"
    shutil.copytree(whole[0], workdir)
    more = {"train.steps": STEPS + 2, "replay.capacity": 16}
    _, err = here(workdir, **more, code=2)
    assert err.count("\n") == 1 and "config.replay.capacity=8, not 16" in err and "train.empty_buffer=True" in err
    _, err = here(workdir, **more | {"rollout.group_size": 2}, code=2)
    assert err.count("\n") == 1 and "train.empty_buffer=True" in err
    out, _ = here(workdir, **more, **{"train.empty_buffer": True})
    assert "starts with an empty buffer" in out
    return workdir


def made(workdir, step):
    """The line of groups.jsonl."""
    return json.loads((workdir / "groups.jsonl").read_text().splitlines()[step - 1])


def replayed(group):
    """(question, step) of the groups that were drawn."""
    return [(i, at) for i, at in zip(group["replayed"], group["replayed_from"], strict=True) if i >= 0]


def mixed(group):
    """Questions whose rewards differed."""
    return [i for i, n in zip(group["ids"], group["successes"], strict=True) if 0 < n < group["rollouts"]]


def test_continued_with_an_empty_buffer(whole, emptied):
    log, useful = rows(emptied), mixed(made(emptied, STEPS + 1))
    assert log[: STEPS + 1] == rows(whole[0]) and [row["step"] for row in log] == list(range(STEPS + 3))
    assert log[-2]["replay/share"] == 0 and log[-2]["replay/size"] == len(useful)
    assert sum(log[-1]["replay/ages"]) == log[-1]["replay/ages"][0] == min(4, len(useful))


def test_continued_on_eight_devices(whole, emptied, here, tmp_path):
    """A step on data 2 x fsdp 2 x tensor 2: the same fresh groups as on one, replay from the buffer cut in four."""
    workdir = tmp_path / "eight"
    shutil.copytree(whole[0], workdir)
    mesh = {"mesh.data": 2, "mesh.fsdp": 2, "mesh.tensor": 2}
    here(workdir, devices=8, **mesh, **{"train.steps": STEPS + 1})
    many, one = rows(workdir)[-1], rows(emptied)[STEPS + 1]
    for name in ("ledger/generated_tokens", "train/reward", "train/useful_groups", "train/completion_tokens"):
        assert many[name] == pytest.approx(one[name]), name
    got, want = made(workdir, STEPS + 1), made(emptied, STEPS + 1)
    assert got["ids"] == want["ids"] and got["successes"] == want["successes"]
    there = {(i, step) for step in range(1, STEPS + 1) for i in mixed(made(workdir, step))}
    assert replayed(got) and set(replayed(got)) <= there
    assert many["train/logprob_diff_max"] < 1e-3 and many["replay/effective_sample_size"] > 0.1


@pytest.mark.slow
def test_the_fault_bench_itself():
    """A case or two of each kind as it is started by hand."""
    command = [sys.executable, "-m", "benchmarks.faults", "--kills=1", "--only"]
    for only, ends in (
        ("crc32.json cut", "| damaged files | 1 | 1 | 0 | 0 |"),
        ("two at once", "| two at once | 2 | 1 | 1 | 0 |"),
    ):
        done = subprocess.run([*command, only], cwd=ROOT, capture_output=True, text=True, timeout=1800)
        assert done.returncode == 0 and ends in done.stdout, done.stdout
