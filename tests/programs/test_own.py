"""docs/own.md, as written, but for a few more questions and a tiny policy."""

import contextlib
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from dots_jax import evaluate, experiment, main
from dots_jax.core import command_line, fields, files
from dots_jax.core.errors import UserError
from dots_jax.reward import Question

TEXT = Path(files.ROOT, "docs", "own.md").read_text()
TINY = {
    "policy.random.width": 16,
    "policy.random.num_layers": 1,
    "policy.dtype": "float32",
    "selection.references": 4,
    "predictor.width": 8,
    "predictor.steps": 2,
    "predictor.batch": 8,
    "rollout.max_tokens": 9,
    "rollout.chunk": 8,
    "rollout.group_size": 4,
    "replay.fresh_fraction": 1.0,
    "learner.minibatches": 1,
    "learner.micro_tokens": 512,
    "learner.remat": "none",
    "train.steps": 2,
    "train.batch_size": 4,
    "eval.samples": 4,
    "eval.top_p": 1.0,
    "eval.greedy": False,
}


def block(start):
    """The lines of a block of the page that begins with `start`, without it."""
    return re.search(f"```{re.escape(start)}\n(.*?)```", TEXT, re.DOTALL)[1]


def flags(program):
    """Of the page's command."""
    return re.search(rf"^    python -m dots_jax.{program} (.*)$", TEXT, re.MULTILINE)[1].split()


def write_tokenizer(directory):
    """Of the visible characters, space and line break, with a chat template."""
    from transformers import Qwen2Tokenizer

    end, characters = "<|endoftext|>", [*map(chr, range(33, 127)), "Ġ", "Ċ"]
    vocabulary = {end: 0} | {c: i for i, c in enumerate(characters, 1)}
    tokenizer = Qwen2Tokenizer(vocab=vocabulary, merges=[], eos_token=end, pad_token=end, unk_token=end)
    tokenizer.save_pretrained(directory)
    template = "{% for m in messages %}[{{ m.role }}]{{ m.content }}{% endfor %}[assistant]"
    (directory / "chat_template.jinja").write_text(template)


@pytest.fixture
def room(tmp_path, monkeypatch):
    """The page's files, and what stands for its policy."""
    monkeypatch.chdir(tmp_path)
    shown = [json.loads(line) for line in block("json").splitlines()]
    rows = [row | {"problem": f"{row['problem']} ({i})"} for i in range(6) for row in shown]
    (tmp_path / "my.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (tmp_path / "my_reward.py").write_text(block("python\n# my_reward.py"))
    write_tokenizer(tmp_path / "DIR")
    return tmp_path


def test_the_command(room, compiled):
    tiny = [f"--config.{name}={value}" for name, value in TINY.items()]
    done = subprocess.run(
        [sys.executable, "-m", "dots_jax.main", *flags("main"), *tiny],
        env=os.environ | compiled | {"PYTHONPATH": files.ROOT},
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    screen = " ".join(done.stdout.split())
    for said in ("my_reward.py:score: 1 for a number", "questions 14, prompts of", "4 held out", "held out 4,"):
        assert said in screen
    rows, groups = (
        [json.loads(line) for line in (room / "runs" / "own" / name).read_text().splitlines()]
        for name in ("metrics.jsonl", "groups.jsonl")
    )
    assert [row["step"] for row in rows] == [0, 1, 2]
    assert all(list(row["eval/by_level"]) == ["my"] for row in rows[::2])
    assert {0} < {round(sum_, 3) for group in groups for sum_ in group["successes"]}  # some characters are digits


def test_what_must_be_named(room, capsys):
    for given, lacking in ((flags("main")[:1], "data.name"), (flags("main")[:2], "policy.path")):
        assert main.main(given) == 2
        err = capsys.readouterr().err
        assert err.startswith(f"error: config.{lacking} is empty; ") and err.count("\n") == 1
    assert not (room / "runs").exists()


def test_the_fewest_questions(room):
    """Of which a quarter is held out."""
    few = int(re.search(r"suit (\d+) questions and more", TEXT)[1])
    config, _ = command_line.parse(flags("main"), "configs/quickstart.py")
    for count in (few, few - 1):
        pool = fields.replaced(config, {"data.num_questions": count - count // 4})
        with contextlib.nullcontext() if count == few else pytest.raises(UserError, match="lower"):
            experiment.check(pool)


def test_the_reward(room):
    names, question = {}, Question("", "27.3", {"tolerance": 0.5})
    exec((room / "my_reward.py").read_text(), names)
    for completion, reward in {"": 0, r"\boxed{27.5}": 1, "It takes 27.3 days, or 28.": 0.1, "27": 1}.items():
        assert names["score"](completion, question) == reward
    with pytest.raises(ValueError, match="3/4"):  # as the page says
        names["score"]("3/4", question)


def test_the_evaluation(room, monkeypatch):
    """Its flags are those of the program."""
    asked = []
    monkeypatch.setattr(evaluate, "evaluate", lambda config, _: asked.append(config))
    assert evaluate.main(flags("evaluate")) == 0
    assert asked[0].reward.to_dict() == {"name": "my_reward.py:score", "answer": "box"}
