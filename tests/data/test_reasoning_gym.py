"""On a small imitation of the package; on the package itself where it is installed."""

import importlib.util
import os

import numpy as np
import pytest

from dots_jax import data, reward
from dots_jax.core import command_line
from dots_jax.core.errors import UserError
from dots_jax.reward import Question, Verdict

FAKE = {
    "__init__.py": "from .factory import get_score_answer_fn",
    "coaching/__init__.py": "",
    "coaching/base_curriculum.py": """
import enum, types
RangeAttributeMode = enum.Enum("RangeAttributeMode", "UPPER_BOUND")
DefaultCurriculumContext = types.SimpleNamespace
""",
    "factory.py": """
import random, time, types

class Dataset:
    def __init__(self, config):
        self.config = config

    def __getitem__(self, i):
        print("what a task prints")
        digits, rng = self.config["digits"], random.Random(self.config["seed"] + i)
        if digits == 3 and i > 2:
            raise ValueError("no more")
        a, order = rng.randrange(10**digits), "".join({"p", "q", "r", "s", "t", "u", "v"})
        return {"question": f"{order}{a}?", "answer": str(a), "metadata": {"pair": (a, 1)}}

    def score_answer(self, answer, entry):
        assert isinstance(entry["metadata"]["pair"], tuple)
        return 1.0 if answer == entry["answer"] else 7.0 if answer == "large" else 0.25 if eval(answer) else 0.0

class Curriculum:
    attributes = {"digits": types.SimpleNamespace(levels=[1, 2, 3, -1])}

    def set_global_level(self, level):
        self.digits = self.attributes["digits"].levels[level]

    def generate_configuration(self, fields, context):
        assert context.mode.name == "UPPER_BOUND" and self.digits > 0, "a negative number"
        return fields | {"digits": self.digits}

DATASETS = {"digits": (Dataset, dict), "plain": (Dataset, lambda **fields: fields | {"digits": 4})}
CURRICULA = {"digits": Curriculum}

def get_score_answer_fn(name):
    return Dataset({}).score_answer
""",
}


@pytest.fixture
def fake(tmp_path, monkeypatch):
    for name, text in FAKE.items():
        path = tmp_path / "reasoning_gym" / name
        path.parent.mkdir(exist_ok=True, parents=True)
        path.write_text(text)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))


def load(name, num_questions=10, num_heldout=6, most=10):
    """The pool and the held-out set; a text has as many tokens as characters."""
    config = command_line.load("configs/reasoning_gym.py:tiny")
    config.data.update(name=name, num_questions=num_questions, num_heldout=num_heldout, max_prompt_tokens=most)
    config.data.system = ""
    return data.load(config, Characters())


class Characters:
    longest_token = 1

    def __call__(self, texts, **_):
        return {"input_ids": [[0] * len(text) for text in texts]}


def test_imitation(fake):
    pool, heldout = load("reasoning_gym:digits, digits")
    assert (len(pool), len(heldout)) == (10, 6) and len({*pool.texts, *heldout.texts}) == 16
    assert set(pool.families) == {"digits"} and set(pool.levels) == {1, 2}  # at most 10 characters
    np.testing.assert_allclose(pool.labels, pool.levels / 4)
    assert all(len(answer) <= level for answer, level in zip(pool.answers, pool.levels, strict=True))
    assert len({*pool.names, *heldout.names}) == 16 and pool.names[0].startswith("digits:")
    why = dict(pool.left_out)
    assert "too long" in why["digits:3"] or "no more" in why["digits:3"]
    assert why["digits:4"] == "ended: its configuration is refused (a negative number)"
    again, _ = load("reasoning_gym:digits")
    assert (again.texts, again.answers, again.columns) == (pool.texts, pool.answers, pool.columns)
    both, _ = load("reasoning_gym:digits,plain", most=20)
    assert set(both.families) == {"digits", "plain"}
    assert np.isnan(both.labels[np.array(both.families) == "plain"]).all()


def test_scores_of_the_imitation(fake, tmp_path):
    pool, _ = load("reasoning_gym:digits", num_questions=4)
    grader = reward.make("reasoning_gym")
    answers = [f"<answer>{pool.answers[0]}</answer>", r"\boxed{1==1}", "so\nlarge", "0", "one", ""]
    x, y = str(tmp_path / "x"), str(tmp_path / "y")
    answers += [f"<answer>open({x!r}, 'w')</answer>", f"__import__('os').mkdir({y!r})", "__import__('os')._exit(3)"]
    rewards, verdicts = grader.submit(answers, [pool.items()[0]] * len(answers))()
    assert rewards.tolist() == [1, 0.25, 1, 0, 0, 0, 0, 0, 0]
    right, wrong = Verdict.CORRECT, Verdict.WRONG
    assert verdicts.tolist() == [right, wrong, right, wrong, wrong, Verdict.NO_ANSWER, wrong, wrong, Verdict.CRASHED]
    assert not {"x", "y"} & set(os.listdir(tmp_path)) and grader.readable(pool.items()) is None
    with pytest.raises(UserError, match="config.data.name=reasoning_gym:TASK alone"):
        grader.submit(["1"], [Question("How many?", "1")])
    grader.close()


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("reasoning_gym:digit", "reasoning-gym has no task 'digit'; did you mean digits?"),
        ("reasoning_gym:", "give tasks and a number"),
        ("reasoning_gym:digits", "num_heldout is 1,006, but reasoning_gym:digits has only about"),
    ],
)
def test_refused(fake, name, said):
    with pytest.raises(UserError, match=said.replace("?", r"\?")) as error:
        load(name, 1000)
    assert "\n" not in str(error.value)


def test_not_installed(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    for call in (lambda: load("reasoning_gym:gcd"), lambda: reward.make("reasoning_gym")):
        with pytest.raises(UserError, match="not installed: pip install reasoning-gym"):
            call()


def test_the_package_itself():
    pytest.importorskip("reasoning_gym")
    pool, heldout = load("reasoning_gym:gcd,ransom_note", 24, 8, most=2000)
    again, _ = load("reasoning_gym:gcd,ransom_note", 24, 8, most=2000)
    assert pool.texts == again.texts and not set(pool.texts) & set(heldout.texts)
    assert len(set(zip(pool.families, pool.levels.tolist(), strict=True))) == 8
    grader = reward.make("reasoning_gym")
    rewards, _ = grader.submit(list(pool.answers), pool.items())()
    assert rewards.tolist() == [1] * 24
    rewards, _ = grader.submit(["<answer>-7</answer>"] * 24, pool.items())()
    assert rewards.max() < 0.5
    grader.close()
