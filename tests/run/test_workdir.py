"""What a workdir keeps of a refused, a damaged or a second start."""

import dataclasses
import datetime
import json
import multiprocessing
import os
import random
import shutil

import numpy as np
import pytest

from benchmarks import faults
from dots_jax.core import command_line, config_rules
from dots_jax.core.errors import UserError
from dots_jax.core.files import ROOT
from dots_jax.data.questions import Questions
from dots_jax.run import metrics, settings
from dots_jax.run import workdir as workdirs
from dots_jax.run.checkpoint import Checkpointer
from dots_jax.run.workdir import Claim

POLICY = os.path.join(ROOT, "assets", "quickstart_policy")


@pytest.fixture
def workdir(tmp_path):
    """Of a run that was ended after step 7, with checkpoints of steps 3 and 6."""
    write(tmp_path, 8, 8)
    checkpointer = Checkpointer(str(tmp_path / "checkpoints"), run="r")
    for step in (3, 6):
        lines = {name: metrics.sums(rows)[step] for name, rows in metrics.past(str(tmp_path)).items()}
        checkpointer.save(step, {"a": np.arange(1000) * step}, lines)
    checkpointer.close()
    return tmp_path


def resume_point(workdir):
    """Where the run continues; the lines that it keeps end there."""
    resume = workdirs.resume_point(str(workdir))
    assert all(max((row["step"] for row in rows), default=0) == resume.step for rows in resume.past.values())
    return resume


def write(workdir, end, groups_end):
    """Steps below the two of the files, groups without step 0, of completions two lines for each, and a torn line."""
    kept = sorted([*range(groups_end), *range(groups_end)])
    files = {"metrics.jsonl": range(end), "groups.jsonl": range(1, groups_end), "completions.jsonl": kept}
    for name, steps in files.items():
        (workdir / name).write_text("".join(json.dumps({"step": i}) + "\n" for i in steps) + '{"step":')


@pytest.mark.parametrize("how", faults.DAMAGE)
def test_every_file_of_a_checkpoint_counts(workdir, how, tmp_path_factory, capsys):
    """All but Orbax's empty marks, and a flipped bit in its note of when it was written."""
    files = [f.relative_to(workdir) for f in (workdir / "checkpoints" / "6").rglob("*") if f.is_file()]
    files = [
        f for f in files if f.name != "commit_success.txt" and (how, f.name) != ("flipped", "_CHECKPOINT_METADATA")
    ]
    assert len(files) > 6
    for file in files:
        copy = tmp_path_factory.mktemp("copies") / "run"
        shutil.copytree(workdir, copy)
        faults.damage(copy / file, how, random.Random(0))
        resume = resume_point(copy)
        assert sorted(os.listdir(copy / "checkpoints")) == ["3", "6"]
        workdirs.set_aside(str(copy), resume)
        err = capsys.readouterr().err
        assert err.count("\n") == 1 and file.name in err and "continues from step 3" in err
        assert os.listdir(copy / "checkpoints") == ["3"] and os.listdir(copy / "checkpoints_aside") == ["6"]


@pytest.mark.parametrize(
    ("end", "groups_end", "step", "lacking"),
    [(8, 8, 6, ""), (7, 8, 6, ""), (6, 8, 3, "metrics.jsonl"), (8, 6, 3, "groups.jsonl"), (4, 4, 3, "metrics.jsonl")],
)
def test_the_newest_checkpoint_that_the_lines_reach(workdir, end, groups_end, step, lacking):
    write(workdir, end, groups_end)
    resume = resume_point(workdir)
    assert resume.step == step and list(resume.faults) == [6] * bool(lacking)
    assert all(lacking in fault for fault in resume.faults.values())


@pytest.mark.parametrize("name", ["metrics.jsonl", "groups.jsonl"])
def test_lines_that_have_changed(workdir, name):
    """After the newest checkpoint it does not matter, after the one before that serves."""
    text = (workdir / name).read_text()
    for changed, step in ((7, 6), (5, 3)):
        (workdir / name).write_text(text.replace(f'{{"step": {changed}}}', f'{{"step": {changed}, "x": 1}}'))
        assert resume_point(workdir)[:2] == (step, {} if step == 6 else {6: f"{name} has changed"})
    (workdir / name).write_text(text.replace('{"step": 2}', '{"step": 2, "x": 1}'))
    with pytest.raises(UserError, match=f"3: {name} has changed"):
        resume_point(workdir)


@pytest.mark.parametrize("what", ["metrics.jsonl", "groups.jsonl", "both checkpoints"])
def test_where_nothing_is_left_nothing_is_touched(workdir, what):
    if what == "both checkpoints":
        for step in "36":
            (workdir / "checkpoints" / step / "crc32.json").write_text("{}")
    else:
        (workdir / what).write_text("")
    before = sorted(workdir.rglob("*"))
    with pytest.raises(UserError, match=r"no checkpoint in .* can be continued from \(6: .*; 3: .*--workdir"):
        resume_point(workdir)
    assert sorted(workdir.rglob("*")) == before


def test_completions_are_read_no_more(workdir):
    """A run goes on without them, and with what is left of them."""
    path = workdir / "completions.jsonl"
    path.write_text("".join(path.read_text().splitlines(keepends=True)[3:9]))
    assert resume_point(workdir).step == 6
    path.unlink()
    resume = workdirs.resume_point(str(workdir))
    assert resume.step == 6 and not resume.faults and "completions.jsonl" not in resume.past


def test_no_checkpoint(tmp_path):
    assert resume_point(tmp_path / "new")[:2] == (0, {}) and not workdirs.has_begun(str(tmp_path / "new"))
    write(tmp_path, 0, 0)  # killed within the first line
    assert resume_point(tmp_path)[:2] == (0, {}) and not workdirs.has_begun(str(tmp_path))
    write(tmp_path, 1, 0)
    assert workdirs.has_begun(str(tmp_path))


def test_a_refused_start_leaves_what_was_there(tmp_path):
    new, old = tmp_path / "a" / "b", tmp_path / "old"
    old.mkdir()
    (old / "mine").write_text("")
    for workdir in (new, old):
        with pytest.raises(UserError), Claim(str(workdir)) as claim:
            claim.take()
            (workdir / "random_policy").mkdir()
            (workdir / "config.json").write_text("{}")
            raise UserError("refused")
    assert [p.name for p in tmp_path.rglob("*")] == ["old", "mine"]
    for error in (UserError, OSError):  # a run that has measured something keeps it
        with pytest.raises(error), Claim(str(new)) as claim:
            claim.take()
            (new / "metrics.jsonl").write_text('{"step": 0}\n')
            raise error
    assert os.listdir(new) == ["metrics.jsonl"]
    with Claim(str(tmp_path / "never")):
        pass
    assert not (tmp_path / "never").exists()


def hold(workdir, held, release):
    with Claim(workdir) as claim:
        claim.take()
        held.set()
        release.wait(60)
        os._exit(0)  # as a kill: the lock file stays


def test_one_holder_at_a_time(tmp_path):
    context = multiprocessing.get_context("spawn")
    held, release = context.Event(), context.Event()
    process = context.Process(target=hold, args=(str(tmp_path / "run"), held, release))
    process.start()
    assert held.wait(60)
    for _ in range(2):
        with (
            pytest.raises(UserError, match=f"in use by process {process.pid} on .*--workdir"),
            Claim(str(tmp_path / "run")),
        ):
            pass
    release.set()
    process.join()
    assert os.listdir(tmp_path / "run") == ["lock"]
    with (
        Claim(str(tmp_path / "run")),
        pytest.raises(UserError, match=f"process {os.getpid()} on"),
        Claim(str(tmp_path / "run")),
    ):
        pass
    assert os.listdir(tmp_path / "run") == []


def test_two_starts_in_a_new_workdir(tmp_path):
    """One that has loaded for longer than the other's whole run does not begin it anew."""
    workdir = tmp_path / "run"
    with Claim(str(workdir)) as late:
        with Claim(str(workdir)) as first:
            first.take()
            (workdir / "metrics.jsonl").write_text('{"step": 0}\n')
            (workdir / "x.1.partial").write_text("")
        with pytest.raises(UserError, match="another run has begun"):
            late.take()
    assert sorted(os.listdir(workdir)) == ["metrics.jsonl", "x.1.partial"]
    with Claim(str(workdir)):
        assert not (workdir / "x.1.partial").exists()  # of a killed writer


def test_fingerprints_name_what_has_changed(tmp_path):
    """One changed byte, answer or label each."""
    (tmp_path / "predictor.safetensors").write_text("predictor")
    np.save(tmp_path / "pool.npy", np.zeros((2, 2)))
    shutil.copytree(POLICY, tmp_path / "policy")
    files = {"predictor": str(tmp_path / "predictor.safetensors"), "embeddings": str(tmp_path / "pool.npy")}
    pool = Questions(("a", "b"), ("1", "2"), ("f", "f"), np.ones(2, np.int32), np.array([0.5, np.nan], np.float32))

    def prints(**changed):
        sets = {"pool": pool, "evaluation_set": pool} | changed
        return settings.fingerprints(str(tmp_path / "policy"), files, **sets)

    def differ(before, after):
        return [name for name in before if before[name] != after[name]]

    whole = prints()
    assert list(whole) == ["policy", "tokenizer", "predictor", "embeddings", "pool", "evaluation_set"]
    assert not differ(whole, prints())
    for file, name in (
        ("policy/model.safetensors", "policy"),
        ("policy/config.json", "policy"),
        ("policy/tokenizer.json", "tokenizer"),
        ("policy/generation_config.json", "tokenizer"),
        ("predictor.safetensors", "predictor"),
        ("pool.npy", "embeddings"),
    ):
        data = (tmp_path / file).read_bytes()
        faults.damage(tmp_path / file, "flipped", random.Random(0))
        assert differ(whole, prints()) == [name]
        (tmp_path / file).write_bytes(data)
    columns = ({"unit": "cm"}, {"unit": datetime.date(2026, 11, 28)})  # as parquet has them
    changes = [{"answers": ("1", "3")}, {"texts": ("a", "c")}, {"labels": np.array([0.5, 1], np.float32)}]
    for change in [*changes, {"columns": columns}]:
        other = dataclasses.replace(pool, **change)
        assert differ(whole, prints(pool=other)) == ["pool"]
        assert differ(whole, prints(evaluation_set=other)) == ["evaluation_set"]


def test_an_earlier_versions_names(tmp_path):
    """One line names the field's new name, whoever reads the run."""
    config = command_line.load("configs/quickstart.py").to_dict()
    config["replay"]["fresh"] = config["replay"].pop("fresh_fraction")
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(UserError, match="says replay.fresh for what is now replay.fresh_fraction"):
        settings.read(str(tmp_path))
    config["replay"]["fresh_fraction"] = config["replay"].pop("fresh")
    (tmp_path / "config.json").write_text(json.dumps(config | {"reward": "exact"}))
    assert settings.read(str(tmp_path))["reward"] == config["reward"] == {"name": "exact", "answer": "box"}


def test_what_may_change_are_fields():
    fields = [*config_rules.RUN]
    for name in settings.FREE + settings.BUFFER:
        assert any(field == name or field.startswith(f"{name}.") for field in fields), name


def test_the_evaluation_before_the_first_step_is_no_beginning(tmp_path):
    """A part that failed in its first round may be mended and started again with the same command."""
    lines = metrics.Lines(str(tmp_path / metrics.FILE))
    (tmp_path / "config.json").write_text(json.dumps({"fingerprints": {"selector": "a"}}))
    lines.write(0, {"eval/accuracy": 0.5})
    settings.same_inputs({"selector": "b"}, str(tmp_path))
    lines.write(1, {"train/reward": 0.5})
    with pytest.raises(UserError, match="began with another selector"):
        settings.same_inputs({"selector": "b"}, str(tmp_path))


def test_a_mended_reward_goes_on_where_that_is_asked_for(tmp_path):
    config, began = command_line.load("configs/quickstart.py"), {"reward": "a", "pool": "c"}
    now = began | {"reward": "b"}
    settings.write_config(config, str(tmp_path), began)
    metrics.Lines(str(tmp_path / metrics.FILE)).write(1, {"train/reward": 0.5})
    with pytest.raises(UserError, match="another reward than .*, or --config.train.mended_reward=True to continue"):
        settings.same_inputs(now, str(tmp_path), mended=False)
    with pytest.raises(UserError, match="another pool than .* to continue, or use"):
        settings.same_inputs(now | {"pool": "d"}, str(tmp_path), mended=True)
    settings.same_inputs(now, str(tmp_path), mended=True)
    identity = settings.identity(config, began)
    config.train.mended_reward = True
    assert settings.identity(config, now) == identity != settings.identity(config, now | {"pool": "d"})
