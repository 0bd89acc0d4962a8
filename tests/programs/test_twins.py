"""The tiny twins of the paper's runs: on a small imitation of the data by default, on the real questions when slow."""

import json
import os
import string
import subprocess
import sys

import numpy as np
import pytest
from test_dependencies import hide_undeclared

from dots_jax import policy
from dots_jax.core.files import ROOT
from dots_jax.policy import tokenizer as tok

TEMPLATE = "{% for m in messages %}[{{ m.role }}]{{ m.content }}{% endfor %}[assistant]"
FIELDS = {
    "data.system": "Think.",
    "data.num_questions": 40,
    "policy.random.width": 16,
    "selection.references": 4,
    "rollout.group_size": 4,
    "rollout.temperature": 1.0,
    "rollout.max_tokens": 9,
    "rollout.chunk": 4,
    "replay.capacity": 8,
    "learner.micro_tokens": 64,
    "predictor.width": 8,
    "predictor.steps": 2,
    "predictor.batch": 8,
    "train.checkpoint_every": 2,
    "eval.sets": "gsm8k,math500",
    "eval.batch": 4,
    "eval.greedy": False,
    "eval.questions": 5,
}


def lines(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """Files as the real ones lie: a tokenizer of characters with a chat template, a pool, two evaluation sets."""
    root = tmp_path_factory.mktemp("root")
    tokenizer = root / "tokenizer" / "qwen2.5"
    tok.build_characters(string.ascii_letters + string.digits + ".?[]\\{}", tokenizer)
    (tokenizer / "chat_template.jinja").write_text(TEMPLATE)
    names = {"train/orz.jsonl": 50, "eval/gsm8k.jsonl": 6, "eval/math500.jsonl": 6}
    for file, count in names.items():
        path = root / file
        path.parent.mkdir(exist_ok=True)
        rows = [
            {"problem": f"What{'Is' * i}{path.stem}?", "answer": str(i), "num_correct": i % 5} for i in range(count)
        ]
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return root


@pytest.fixture(scope="module")
def run(compiled, tmp_path_factory):
    """Runs a tiny twin to its end; returns what it printed and the lines of metrics.jsonl without the seconds.

    Nothing but the distributions that setup.py brings can be imported.
    """
    env = os.environ | compiled | hide_undeclared(tmp_path_factory.mktemp("site"))
    cache = tmp_path_factory.mktemp("embeddings")

    def run(workdir, root, *flags, config="orz", code=0, **fields):
        command = [sys.executable, "-m", "dots_jax.main", f"--config=configs/{config}.py:tiny", f"--workdir={workdir}"]
        fields = {"data.root": root, "embedding.cache": cache} | fields
        command += [*(f"--config.{name}={value}" for name, value in fields.items()), *flags]
        done = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, timeout=1200)
        assert done.returncode == code, done.stderr[-2000:]
        rows = lines(workdir / "metrics.jsonl") if code == 0 else []
        return done, [{k: v for k, v in row.items() if "seconds" not in k} for row in rows]

    return run


def test_the_whole_pipeline_and_its_continuation(run, root, tmp_path):
    workdir = tmp_path / "run"
    done, rows = run(workdir, root, **FIELDS, **{"train.steps": 2})
    for said in ("orz:tiny", "prompts of", "5 gsm8k, 5 math500", "50 rows", "drawn with data.seed"):
        assert said in " ".join(done.stdout.split())
    assert [sum(row["eval/verdicts"].values()) for row in rows if "eval/verdicts" in row] == pytest.approx([1, 1])
    questions = lines(workdir / "questions.jsonl")
    assert [q["id"] for q in questions if "id" in q] == list(range(40))
    text = {f"orz:{i}": f"[system]Think.[user]What{'Is' * i}orz?[assistant]" for i in range(50)}
    assert all(q["prompt_tokens"] == len(text[q["name"]]) for q in questions if "id" in q)

    _, rows = run(workdir, root, **FIELDS, **{"train.steps": 4})
    assert [row["step"] for row in rows] == [0, 1, 2, 3, 4] and lines(workdir / "questions.jsonl") == questions
    assert all(row["verdicts/no_answer"] == 1 for row in rows[1:])  # nothing in a box, as random policies are
    assert set(rows[-1]["eval/by_level"]) == set(rows[-1]["eval/intervals"]) == {"gsm8k", "math500"}
    pool = root / "train" / "orz.jsonl"
    text = pool.read_text()
    pool.write_text(text.replace("WhatIsIsorz?", "WhoIsIsorz?"))
    done, _ = run(workdir, root, **FIELDS, **{"train.steps": 6}, code=2)
    pool.write_text(text)
    model, _ = policy.load(workdir / "policy")  # is still there
    assert "began with another pool than is there now" in done.stderr and done.stderr.count("error") == 1
    assert model.width == 16 and tok.load(workdir / "policy").chat_template == TEMPLATE


def test_the_proxy_is_graded_and_static_takes_the_labels(run, root, tmp_path):
    fields = FIELDS | {"reward": "proxy", "selection.name": "static", "selection.interval": 1, "train.steps": 3}
    fields |= {"replay.fresh_fraction": 1.0}
    _, rows = run(tmp_path / "run", root, **fields)
    assert any(0 < row["train/reward"] < 1 and row["train/useful_groups"] > 0 for row in rows[1:])
    groups = lines(tmp_path / "run" / "groups.jsonl")
    questions = lines(tmp_path / "run" / "questions.jsonl")
    label = [q["label"] for q in questions if "id" in q]
    asked = [[label[i] for i in group["ids"]] for group in groups]
    assert max(asked[0]) <= min(asked[1]) and max(asked[1]) <= min(asked[2])  # easiest third, middle, hardest
    assert any(s != int(s) for group in groups for s in group["successes"])


# ---- The real questions: on two cores some ten minutes each ---------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("config", ["orz", "math", "deepscaler", "deepmath"])
def test_real_twins(run, data, tmp_path, config):
    done, rows = run(tmp_path / "run", data, config=config, reward="proxy")
    assert rows[-1]["step"] == 30 and rows[-1]["replay/share"] > 0 and rows[1]["train/grad_norm"] > 0
    assert set(rows[-1]["eval/by_level"]) == {"gsm8k", "math500", "minerva", "olympiadbench"}
    _, again = run(tmp_path / "run", data, config=config, reward="proxy", **{"train.steps": 32})
    assert [row["step"] for row in again] == list(range(33))
    _, rows = run(tmp_path / "math", data, config=config, **{"train.steps": 2})
    assert all(row["verdicts/no_answer"] + row["verdicts/wrong"] == 1 for row in rows[1:])


@pytest.mark.slow
def test_a_random_policy_learns_the_proxy_on_real_questions(run, data, tmp_path):
    gains = []
    for seed in range(3):
        _, rows = run(tmp_path / str(seed), data, reward="proxy", seed=seed)
        gains.append(rows[-1]["eval/accuracy"] - rows[0]["eval/accuracy"])
    assert min(gains) > 0.1 and np.mean(gains) > 0.2
