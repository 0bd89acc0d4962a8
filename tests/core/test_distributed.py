"""Several processes as one run: real ones on this machine, each with devices of its own."""

import functools
import json
import os
import shutil
import signal
import socket
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from test_train import FIELDS, QUICKSTART, rows

from dots_jax import evaluate, main
from dots_jax.core import distributed, files, sharding
from dots_jax.core.errors import UserError
from dots_jax.data import arithmetic
from dots_jax.run import checkpoint, settings
from dots_jax.run.metrics import Lines

# Everything that is sampled is of one shape, and every update too: what takes time here is compilation.
SMALL = FIELDS | {
    "train.steps": 4,
    "train.eval_every": 2,
    "train.checkpoint_every": 2,
    "data.num_heldout": 6,
    "eval.samples": 4,
    "eval.greedy": False,
    "selection.references": 6,
    "selection.reuse_references": 0,
    "replay.fresh_fraction": 0.75,
    "replay.capacity": 12,
    "replay.start": "full",
    "embedding.dtype": "float32",
}


@pytest.fixture(scope="module")
def start(compiled):
    """Starts one run as some processes; returns them."""
    started = []

    def start(workdir, processes, devices, fields, each=lambda i: [], program="main"):
        env = os.environ | compiled
        env["XLA_FLAGS"] += f" --xla_force_host_platform_device_count={devices}"
        fields = ({"embedding.cache": f"{workdir}-embeddings"} if program == "main" else {}) | fields
        command = [sys.executable, "-m", f"dots_jax.{program}", f"--workdir={workdir}"]
        command += [f"--config.{name}={value}" for name, value in fields.items()]
        if processes > 1:
            command += [f"--coordinator=localhost:{free_port()}", f"--num_processes={processes}"]
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
        for i in range(processes):
            own = [f"--process_id={i}"] if processes > 1 else []
            started.append(subprocess.Popen([*command, *own, *each(i)], cwd=files.ROOT, env=env, **pipes))
        return started[-processes:]

    yield start
    for process in started:
        process.kill()


def free_port():
    with socket.socket() as s:
        s.bind(("localhost", 0))
        return s.getsockname()[1]


def finish(processes, codes):
    said = [process.communicate(timeout=600) for process in processes]
    got = [process.returncode for process in processes]
    expected = all(code in allowed for code, allowed in zip(got, codes, strict=True))
    assert expected, (got, [err[-9000:] for _, err in said])
    return said


def assert_same_runs(a, b):
    """Bit for bit, all but seconds: sums over two devices are of two terms, in whatever order."""
    assert rows(a) == rows(b)
    for name in (
        "groups.jsonl",
        "completions.jsonl",
        "predictor.safetensors",
        "policy/model.safetensors",
        "policy/config.json",
    ):
        assert (a / name).read_bytes() == (b / name).read_bytes(), name


def test_two_processes_continue_what_one_with_two_devices_began(start, tmp_path):
    """Every parameter lies in halves on the two. From the first step, and on other meshes: the slow test."""
    fields = SMALL | {"mesh.data": 1, "mesh.fsdp": 2}
    one, two = tmp_path / "one", tmp_path / "two"
    finish(start(one, 1, 2, fields), [[0]])
    shutil.copytree(one, two)
    shutil.rmtree(two / "checkpoints" / "4")
    (main_out, main_err), (out, err) = finish(start(two, 2, 1, fields), [[0], [0]])
    assert "continues after step 2" in main_out and "of 2 processes" in main_out and "step 4/4" in main_err
    assert "step" not in out + err  # only the main process speaks
    assert_same_runs(one, two)
    log = rows(two)
    assert log[-1]["replay/share"] > 0 and max(row["train/grad_norm"] for row in log[3:]) > 0
    assert "eval/by_level" in log[-1]
    assert not [name for name in os.listdir(two) if "partial" in name]
    assert checkpoint.damage(str(two / "checkpoints" / "4")) == ""
    wanted = json.loads((two / "checkpoints" / "4" / "crc32.json").read_text())["files"]
    assert any("ocdbt.process_1" in name for name in wanted), list(wanted)


def test_two_processes_evaluate_as_one_with_two_devices(start, tmp_path, monkeypatch):
    """Also what an interrupted evaluation has left."""
    pool, _ = arithmetic.make(5, 0, 0)
    questions = [{"problem": p, "answer": a} for p, a in zip(pool.texts, pool.answers, strict=True)]
    (tmp_path / "q.json").write_text(json.dumps(questions))
    fields = {"model": QUICKSTART, "sets": tmp_path / "q.json", "samples": 2, "batch": 2, "max_tokens": 16, "chunk": 15}
    fields |= {"system": "", "reward": "exact", "dtype": "float32"}
    one, two = tmp_path / "one", tmp_path / "two"
    monkeypatch.setattr(sharding, "make_mesh", functools.partial(sharding.make_mesh, devices=jax.devices()[:2]))
    assert evaluate.main([f"--workdir={one}", *(f"--{name}={value}" for name, value in fields.items())]) == 0
    two.mkdir()
    shutil.copy(one / "config.json", two)
    lines = (one / "completions.jsonl").read_text().splitlines(keepends=True)
    (two / "completions.jsonl").write_text("".join(lines[:5]))  # a batch and a part
    (out, _), (other, _) = finish(start(two, 2, 1, fields, program="evaluate"), [[0], [0]])
    assert "in 3 batches, of which 1 are there" in out and "batch 3 of 3" in out and "pass@2" in out
    assert "batch" not in other  # only the main process speaks
    for name in ("completions.jsonl", "results.json", "config.json"):
        assert (one / name).read_text() == (two / name).read_text(), name


@pytest.mark.slow
@pytest.mark.parametrize("axis", ["data", "tensor"])
def test_two_processes_are_one_with_two_devices(start, tmp_path, axis):
    """From the first step; the two also stop after half of the steps, within a selection round, and continue."""
    fields = FIELDS | {"eval.greedy": False, "train.checkpoint_every": 1, "mesh.data": 1} | {f"mesh.{axis}": 2}
    fields |= {"train.steps": 6, "train.eval_every": 3}
    one, two = tmp_path / "one", tmp_path / "two"
    finish(start(one, 1, 2, fields), [[0]])
    said = finish(start(two, 2, 1, fields | {"train.steps": 3}), [[0], [0]])
    assert ["step 3/3" in err for _, err in said] == [True, False]
    said = finish(start(two, 2, 1, fields), [[0], [0]])
    assert ["continues after step 3" in out for out, _ in said] == [True, False]
    assert_same_runs(one, two)
    assert rows(two)[-1]["replay/share"] > 0


def test_what_fails_on_one_ends_the_others(start, tmp_path):
    said = start(tmp_path / "run", 2, 1, SMALL, lambda i: ["--config.policy.path=nowhere"] if i else [])
    (_, other), (_, failed) = finish(said, [[1, -signal.SIGABRT], [2]])
    assert "error: policy directory nowhere does not exist" in failed and "Traceback" not in failed
    assert "error: policy directory" not in other
    assert "heartbeat" not in other  # it ends by itself and does not wait until JAX misses the other
    assert not (tmp_path / "run").exists()


def test_the_workdir_must_be_the_same_for_all(start, tmp_path, monkeypatch):
    (tmp_path / "1" / "checkpoints").mkdir(parents=True)
    said = finish(start(tmp_path, 2, 1, SMALL, lambda i: [f"--workdir={tmp_path / str(i)}"]), [[2], [2]])
    for i, (_, err) in enumerate(said):
        assert f"error: not all processes see the same in {tmp_path / str(i)};" in err
    monkeypatch.setattr(settings.time, "sleep", lambda seconds: None)
    with pytest.raises(UserError, match="all processes share"):
        settings.check_shared(str(tmp_path))


@pytest.mark.parametrize(
    ("args", "environ", "said"),
    [
        (["--coordinator=localhost:1"], {}, "--num_processes (or DOTS_NUM_PROCESSES) is missing"),
        (["--num_processes=2", "--process_id=0"], {}, "--coordinator (or DOTS_COORDINATOR) is missing"),
        ([], {"DOTS_COORDINATOR": "a:1", "DOTS_NUM_PROCESSES": "2"}, "--process_id (or DOTS_PROCESS_ID) is missing"),
        (["--process_id=0"], {"DOTS_COORDINATOR": "a", "DOTS_NUM_PROCESSES": "2"}, "--coordinator=a must be HOST:PORT"),
        (["--coordinator=a:0", "--num_processes=2", "--process_id=0"], {}, "must be HOST:PORT"),
        (["--coordinator=a:1", "--num_processes=2", "--process_id=2"], {}, "--process_id=2 must be from 0 to below"),
        (["--num_processes=0"], {}, "--num_processes=0"),
        (["--process_id=first"], {}, "--process_id=first"),
        (["--num_process=2"], {}, "did you mean --num_processes?"),
        ([], {"DOTS_NUM_PROCESSES": "two"}, "DOTS_NUM_PROCESSES=two must be a whole number of at least 1"),
        ([], {"DOTS_DISTRIBUTED": "yes"}, "DOTS_DISTRIBUTED=yes must be 1 or 0"),
        (["--distributed"], {"DOTS_JOIN_SECONDS": "0"}, "DOTS_JOIN_SECONDS=0"),
    ],
)
def test_mistakes_are_one_line(args, environ, said, monkeypatch, capsys, tmp_path):
    for name, value in environ.items():
        monkeypatch.setenv(name, value)
    assert main.main([f"--workdir={tmp_path / 'run'}", *args]) == 2
    err = capsys.readouterr().err
    assert err.startswith("error: ") and err.count("\n") == 1 and said in err
    assert not (tmp_path / "run").exists() and not jax.distributed.is_initialized()


def test_where_nobody_answers(tmp_path):
    for args, said in (
        (["--distributed"], "error: cannot join the other processes: coordinator_address"),
        ([f"--coordinator=a:{free_port()}", "--num_processes=2", "--process_id=1"], "process 1 has not met all others"),
    ):
        command = [sys.executable, "-m", "dots_jax.main", f"--workdir={tmp_path / 'run'}", *args]
        env = os.environ | {"DOTS_JOIN_SECONDS": "2"}
        done = subprocess.run(command, cwd=files.ROOT, env=env, capture_output=True, text=True, timeout=600)
        assert done.returncode == 2 and said in done.stderr and "Traceback" not in done.stderr
        assert done.stderr.splitlines()[-1].startswith("error: ") and not (tmp_path / "run").exists()


def test_one_process_alone():
    tree = {"a": jnp.arange(3), "b": np.float32(2), "c": 1.5}
    host = distributed.to_host(tree)
    assert all(isinstance(x, np.ndarray) for x in jax.tree.leaves(host))
    jax.tree.map(np.testing.assert_array_equal, host, tree)
    assert distributed.is_main() and distributed.main_only(len) is len and distributed.leave(3) == 3
    assert distributed.gather(True).tolist() == [True] and distributed.barrier("here") is None
    assert distributed.from_main(lambda: np.ones(2), np.zeros(2)).tolist() == [1, 1]


def test_silent(monkeypatch, capsys):
    monkeypatch.setattr(distributed, "is_main", lambda: False)
    assert distributed.main_only(print)("not said") is None and capsys.readouterr().out == ""
    with distributed.main_only(Lines)("no/path") as quiet:
        quiet.write(1, {"key": 2})
        assert quiet.sum == 0
    with pytest.raises(AttributeError):
        quiet.wrote()
