"""What `docs/results/quickstart.md` and `docs/recipes.md` say, measured again: minutes of training, so marked slow."""

import json
import os
import subprocess
import sys

import jax
import numpy as np
import pytest

from dots_jax import data, evaluation, reward
from dots_jax.core import command_line, files, sharding
from dots_jax.policy import source

POLICY = os.path.join(files.ROOT, "assets", "quickstart_policy")


def first_and_last(workdir, *flags):
    """Metrics of a run before its first and after its last step."""
    env = {name: value for name, value in os.environ.items() if name != "XLA_FLAGS"}
    command = [sys.executable, "-m", "dots_jax.main", f"--workdir={workdir}", *flags]
    subprocess.run(command, cwd=files.ROOT, env=env, check=True, capture_output=True)
    rows = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
    return rows[0], rows[-1]


@pytest.mark.slow
@pytest.mark.parametrize("method", ["grpo", "dots"])
def test_the_countdown_twin_learns(tmp_path, method):
    """At least 0.12 of held-out accuracy, at least 0.2 where three or four numbers are added and subtracted."""
    first, last = first_and_last(tmp_path, f"--config=configs/countdown.py:twin,{method}")
    assert last["eval/accuracy"] - first["eval/accuracy"] >= 0.12
    gains = np.subtract(*(row["eval/by_level"]["countdown"] for row in (last, first)))
    assert min(gains[2], gains[4]) >= 0.2


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(5))
def test_the_quickstart_learns(tmp_path, seed):
    """At least 0.12 of held-out accuracy, at least 0.05 in three families."""
    first, last = first_and_last(tmp_path, f"--config.seed={seed}")
    assert last["eval/accuracy"] - first["eval/accuracy"] >= 0.12
    gains = [np.mean(last["eval/by_level"][f]) - np.mean(cells) for f, cells in first["eval/by_level"].items()]
    assert len(gains) >= 5 and sum(gain >= 0.05 for gain in gains) >= 3, gains


@pytest.mark.slow
def test_where_it_starts():
    """Of the held-out set at least 10% trivial and 40 to 65% nearly impossible, over 8 completions each."""
    config = command_line.load("configs/quickstart.py")
    _, heldout = data.load(config, None)
    start, params = source.load(POLICY, sharding.make_mesh(1), "float32")
    prompts = start.encode(heldout.texts, "", config.data.max_prompt_tokens)
    sampling = {"temperature": config.rollout.temperature}
    evaluator = evaluation.Evaluator(
        start,
        heldout,
        heldout.rows(),
        *prompts,
        heldout.answers,
        reward.make("exact"),
        8,
        0,
        config.rollout.max_tokens,
        sampling,
    )
    success = evaluator.evaluate_all(params, jax.random.key(0)).rewards.mean(1)
    assert (success >= 7 / 8).mean() >= 0.1 and 0.4 <= (success <= 1 / 8).mean() <= 0.65
    assert len(set(heldout.families)) >= 5 and len(set(heldout.levels.tolist())) >= 5
