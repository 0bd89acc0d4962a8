"""TensorBoard, and Weights & Biases by a stand-in for its package."""

import contextlib
import struct
import sys
import types

import pytest

from dots_jax import main
from dots_jax.core import command_line, fields
from dots_jax.core.errors import UserError
from dots_jax.run import mirrors, provenance
from dots_jax.run.metrics import Metrics


def test_tensorboard_has_the_scalars_and_hides_steps_that_are_made_again(tmp_path):
    from tensorboardX.proto.event_pb2 import Event, SessionLog

    metrics = Metrics(str(tmp_path), [mirrors.TensorBoard(str(tmp_path))])
    metrics.restart([{"step": 7}])
    metrics.write(8, {"x": 1.5, "list": [1], "text": "a"})
    (file,) = (tmp_path / "tensorboard").iterdir()
    data, events = file.read_bytes(), []  # flushed: a kill loses nothing
    metrics.close()
    while data:  # records: length, its checksum, the event, its checksum
        (length,) = struct.unpack("<Q", data[:8])
        events.append(Event.FromString(data[12 : 12 + length]))
        data = data[16 + length :]
    assert [(e.step, e.session_log.status) for e in events[1:2]] == [(8, SessionLog.START)]
    assert [(e.step, v.tag, v.simple_value) for e in events for v in e.summary.value] == [(8, "x", 1.5)]


@pytest.fixture
def wandb(monkeypatch):
    """What is called, in order."""
    calls = []

    def init(**settings):
        calls.append(("init", settings))
        log = lambda scalars, step: calls.append((step, scalars))  # noqa: E731
        finish = lambda exit_code: calls.append(("finish", exit_code))  # noqa: E731
        return types.SimpleNamespace(url="https://here", log=log, finish=finish)

    monkeypatch.setitem(sys.modules, "wandb", types.SimpleNamespace(init=init))
    for name in ("WANDB_SILENT", "WANDB_CONSOLE"):
        monkeypatch.setenv(name, "")
    return calls


def test_wandb_has_the_scalars_and_one_run_for_all_starts(wandb, tmp_path, capsys):
    config = fields.replaced(command_line.load("configs/quickstart.py"), {"log": "wandb"})
    for first, past in ((0, []), (3, [{"step": 2}])):
        provenance.record(str(tmp_path))
        metrics = Metrics(str(tmp_path), mirrors.make(config, str(tmp_path)))
        metrics.restart(past)
        metrics.write(first, {"x": 1.5, "list": [1], "text": "a"})
        metrics.close()
    assert [name for name, _ in wandb] == ["init", 0, "finish", "init", 3, "finish"]
    assert wandb[1][1] == wandb[4][1] == {"x": 1.5} and wandb[2][1] == wandb[5][1] == 0
    with pytest.raises(UserError), contextlib.ExitStack() as stack:  # as a run's log is one
        metrics = Metrics(str(tmp_path), mirrors.make(config, str(tmp_path)))
        stack.callback(metrics.close)
        metrics.restart([])
        raise UserError("a step failed")
    assert wandb[-1] == ("finish", 1)
    settings = wandb[0][1]
    assert settings == wandb[3][1] and settings["resume"] == "allow" and settings["project"] == "dots_jax"
    assert settings["name"] == f"quickstart:dots_rr {tmp_path.name}" and settings["config"]["train"]["steps"] == 120
    assert "https://here" in capsys.readouterr().err
    other = tmp_path / "other"
    other.mkdir()
    provenance.record(str(other))
    assert provenance.run_id(str(other)) != settings["id"] == provenance.run_id(str(tmp_path))


def test_wandb_that_cannot_start_is_one_line(wandb, tmp_path, monkeypatch, capsys):
    def init(**settings):
        raise ValueError("no API key\nat all")

    monkeypatch.setattr(sys.modules["wandb"], "init", init)
    provenance.record(str(tmp_path))
    with pytest.raises(UserError, match="does not start: no API key; .*WANDB_MODE=offline"):
        mirrors.WandB(command_line.load("configs/quickstart.py"), str(tmp_path)).start(0)
    monkeypatch.setitem(sys.modules, "wandb", None)
    for log, message in (("wandb", "pip install wandb"), ("board", "must be tensorboard, wandb, both")):
        assert main.main([f"--workdir={tmp_path / 'run'}", f"--config.log={log}"]) == 2
        err = capsys.readouterr().err
        assert err.count("\n") == 1 and message in err
    assert not (tmp_path / "run").exists()


def test_nowhere_but_in_metrics_jsonl():
    config = fields.replaced(command_line.load("configs/quickstart.py"), {"log": ""})
    assert mirrors.make(config, "anywhere") == []
    config.log = "tensorboard,wandb"
    assert [type(mirror) for mirror in mirrors.make(config, "anywhere")] == [mirrors.TensorBoard, mirrors.WandB]
