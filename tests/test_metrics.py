import json
import os

import jax.numpy as jnp
import numpy as np

from dots_jax.metrics import FILE, Metrics, draw_curves, read


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
    assert os.listdir(tmp_path / "run" / "tensorboard")
    metrics.close()


def test_truncate_drops_later_steps_and_a_torn_line(tmp_path):
    write(tmp_path, range(5))
    with open(tmp_path / FILE, "a") as file:
        file.write('{"step": 2, "train/rew')
    assert [row["step"] for row in read(str(tmp_path))] == [0, 1, 2, 3, 4]
    before = (tmp_path / FILE).read_text().splitlines(keepends=True)
    metrics = Metrics(str(tmp_path))
    metrics.truncate(2)
    assert (tmp_path / FILE).read_text() == "".join(before[:3])
    metrics.write(3, {"x": 1})
    metrics.close()
    assert [row["step"] for row in read(str(tmp_path))] == [0, 1, 2, 3]
    Metrics(str(tmp_path)).truncate(-1)
    assert read(str(tmp_path)) == [] and not [f for f in os.listdir(tmp_path) if "partial" in f]


def test_truncate_purges_tensorboard_from_the_next_step(tmp_path, monkeypatch):
    import tensorboardX

    asked = []
    real = tensorboardX.SummaryWriter
    monkeypatch.setattr(tensorboardX, "SummaryWriter", lambda *a, **k: asked.append(k) or real(*a, **k))
    metrics = Metrics(str(tmp_path))
    metrics.truncate(7)
    metrics.write(8, {"x": 1.0})
    metrics.close()
    assert asked == [{"purge_step": 8}]


def test_read_of_nothing(tmp_path):
    assert read(str(tmp_path)) == []


def test_curves_with_few_and_missing_values(tmp_path):
    write(tmp_path, [0])
    metrics = Metrics(str(tmp_path))
    metrics.write(1, {"train/entropy": float("nan"), "ledger/seconds_fresh": 1.0, "ledger/generated_tokens": 5})
    metrics.close()
    path = draw_curves(str(tmp_path))
    with open(path, "rb") as file:
        assert file.read(8) == b"\x89PNG\r\n\x1a\n"
    assert sorted(os.listdir(tmp_path)) == ["curves.png", FILE, "tensorboard"]
