import numpy as np
import pytest

from dots_jax import policy, pretrain
from dots_jax.core import command_line
from dots_jax.data import arithmetic
from dots_jax.policy import tokenizer as tok

CONFIG = "configs/quickstart_pretrain.py"
SMALL = (
    "model.width=16",
    "model.mlp_width=16",
    "model.num_layers=1",
    "batch=16",
    "steps=40",
    "warmup=10",
    "num_heldout=36",
)


def run(directory, *extra):
    flags = [f"--config.{field}" for field in (*SMALL, *extra)]
    return pretrain.main([f"--workdir={directory}", *flags])


def test_learns_and_is_reproducible(tmp_path, capsys):
    assert run(tmp_path / "a") == run(tmp_path / "b") == 0
    losses = [float(line.split()[-1]) for line in capsys.readouterr().out.splitlines() if "loss" in line]
    assert len(losses) == 40 and losses[19] < losses[0] - 0.1 and losses[:20] == losses[20:]
    a, b = ((tmp_path / name / "model.safetensors").read_bytes() for name in "ab")
    assert a == b
    config, _ = policy.load(tmp_path / "a")
    tokenizer = tok.load(tmp_path / "a")
    assert config.num_tokens == config.vocab_size == len(tokenizer) and tok.stop_ids(tmp_path / "a", tokenizer) == (0,)


def test_rows_hold_prompt_completion_and_end(tmp_path):
    tokenizer = tok.build_characters(arithmetic.ALPHABET, tmp_path / "tokenizer")
    config = command_line.load(CONFIG)
    config.batch = 8
    _, heldout = arithmetic.make(100, 36, 0)
    for mistakes in (None, (9.0,) * 6):
        right = 0
        for rows, prompt_lengths, lengths in pretrain._batches(
            np.random.default_rng(0), tokenizer, config, set(heldout.texts), mistakes
        ):
            for row, k, n in zip(rows, prompt_lengths, lengths, strict=True):
                prompt, completion = tokenizer.decode(row[:k]), tokenizer.decode(row[k : n - 1])
                assert prompt.endswith("=") and prompt not in heldout.texts and not row[n - 1 :].any()
                right += prompt[0] == "r" and completion == prompt[-2:0:-1]
        assert (right > 0) == (mistakes is None)


def test_refuses_a_directory_of_something_else(tmp_path, capsys):
    (tmp_path / "notes.txt").write_text("mine")
    assert run(tmp_path) == 2
    assert "not an exported policy" in capsys.readouterr().err


@pytest.mark.parametrize("field", ["level_weights=(1.0, 2.0)", "batch=0", "warmup=40"])
def test_bad_config(tmp_path, capsys, field):
    assert run(tmp_path / "a", field) == 2
    assert capsys.readouterr().err.startswith("error:") and not (tmp_path / "a").exists()
