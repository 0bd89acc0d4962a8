import numpy as np
import pytest

from dots_jax import reward
from dots_jax.core import plugins
from dots_jax.core.errors import UserError
from dots_jax.reward import Question, Verdict, exact, proxy

CASES = [
    ("919", "919", 1),
    ("7+2=9,3+8=11,2+6+1=9>919", "919", 1),
    ("wrong working>919", "919", 1),  # only the answer counts
    ("918>917>919", "919", 1),  # the last '>'
    (">919", "919", 1),
    ("919>918", "919", 0),
    ("919>", "919", 0),
    ("919", "91", 0),
    ("91", "919", 0),
    ("", "919", 0),
    (" 919", "919", 0),
    ("0919", "919", 0),
    ("-5", "5", 0),
    ("11,9,13>-13", "-13", 1),
    ("5,7,16", "5,7,16", 1),
    ("7+2=9,3+8=11", "919", 0),  # cut off before the answer
]


@pytest.fixture
def own(tmp_path, monkeypatch):
    """Makes a grader of `score` in a file own.py of this code."""

    def make(code):
        (tmp_path / "own.py").write_text(code)
        monkeypatch.setattr(plugins, "FOLDERS", [str(tmp_path)])
        plugins._file.cache_clear()
        return reward.make("own.py:score")

    return make


@pytest.mark.parametrize(("completion", "answer", "expected"), CASES)
def test_exact(completion, answer, expected):
    assert exact.score(completion, Question("", answer)) == expected


def test_make():
    completions, answers, expected = zip(*CASES, strict=True)
    questions = [Question("", answer) for answer in answers]
    grader = reward.make("exact")
    rewards, verdicts = grader.submit(completions, questions)()
    assert rewards.dtype == np.float32 and verdicts.dtype == np.int8
    np.testing.assert_array_equal(rewards, expected)
    np.testing.assert_array_equal(verdicts, np.where(expected, Verdict.CORRECT, Verdict.WRONG))
    with pytest.raises(ValueError, match="shorter"):
        grader.submit(["1", "2"], questions[:1])
    assert grader.readable(questions) is None
    assert [reward.extracted(grader, text) for text in ("1>2", "3")] == ["2", "3"]
    grader.close()


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("1 / 0", "failed on all 1 completions, such as .* 'How many.*' .ZeroDivisionError: .*, own.py line 2.; mend"),
        (
            "'0.5'",
            "failed on all 1 completions, such as .* 'How many.*' .returned '0.5', not a number in .0, 1..; mend",
        ),
        ("None", ".* .returned None,"),
        ("float('nan')", ".* .returned nan,"),
        ("1.5", ".* .returned 1.5,"),
        ("-0.1", ".* .returned -0.1,"),
    ],
)
def test_a_function_of_ones_own_that_fails(own, body, message):
    grader = own(f"def score(completion, question):\n    return {body}\n")
    with pytest.raises(UserError, match=f"config.reward=own.py:score {message}"):
        grader.submit(["5"], [Question("How many apples?", "5")])


def test_names():
    with pytest.raises(UserError, match="config.reward='exakt': did you mean exact"):
        reward.check("exakt", "box")
    with pytest.raises(UserError, match="config.reward.answer=last has no effect with config.reward=exact"):
        reward.check("exact", "last")
    reward.check("math", "last")
    assert reward.describe("math", "last").endswith("or as a last number")


@pytest.mark.parametrize("value", [True, np.True_, np.float32(0.25), np.int64(1), np.array(0.5), 1 + 1e-9, 0])
def test_what_is_a_number(own, value):
    grader = own("def score(completion, question):\n    return question.columns['value']\n")
    rewards, _ = grader.submit(["5"], [Question("", "5", {"value": value})])()
    assert rewards.dtype == np.float32 and rewards[0] == np.float32(min(value, 1))


def test_a_function_that_raises_now_and_then(own, capsys):
    """Its other rewards count; each place is told once; the run ends where nothing is graded three times in a row."""
    code = "def score(completion, question):\n    if completion:\n        return 1 / float(completion)\n"
    grader = own(code + "    return question.columns['none']\n")
    a, b = Question("a", "", name="my:1"), Question("b", "", name="my:2")
    for _ in range(2):
        rewards, verdicts = grader.submit(["1", "", "0", "x", "4", "0"], [a, a, b, b, b, b])()
        assert rewards.tolist() == [1, 0, 0, 0, 0.25, 0]
        assert "".join(Verdict(v).name[:2] for v in verdicts) == "COCRCRCRWRCR"
    lines = capsys.readouterr().err.splitlines()
    assert [line.partition(" (")[0] for line in lines] == [
        f"warning: config.reward=own.py:score failed on a completion of the question my:{i}" for i in (1, 2, 2)
    ]
    causes = "KeyError: 'none', own.py line 4", "ZeroDivisionError: float division by zero, own.py line 3", "ValueError"
    assert all(cause in line for cause, line in zip(causes, lines, strict=True))
    for _ in range(2):
        assert (grader.submit(["0", "x"], [a, a])()[1] == Verdict.CRASHED).all()
    grader.submit(["0", "1"], [a, b])
    for _ in range(2):
        grader.submit(["0", "x"], [a, b])
    with pytest.raises(
        UserError, match="failed on 3 batches in a row, on all 2 completions, such as one of .* my:1 .Zero"
    ):
        grader.submit(["0", "x"], [a, b])


def test_a_class_that_fails(own):
    code = "class score:\n    slow = True\n    def submit(self, completions, questions):\n"
    grader = own(code + "        return lambda: 1 / len(questions[1:])\n")
    assert grader.slow and grader.submit(["", ""], [Question("", "")] * 2)() == 1
    with pytest.raises(UserError, match="config.reward=own.py:score failed; .*ZeroDivisionError.*own.py line 4"):
        grader.submit([""], [Question("", "")])()


def test_most_completions_without_an_answer():
    assert reward.no_answers(0.5, 0.0, "math", "box") == reward.no_answers(np.nan, 0.0, "math", "box") == ""
    for truncated, name, answer, words in (
        (0.5, "math", "box", r"97% of the completions have no answer in \boxed{}: --config.reward.answer=last"),
        (0.6, "math", "box", r"in \boxed{}: most are truncated"),
        (0.0, "math", "marked", 'behind #### or "answer is": --config.reward.answer=last'),
        (0.0, "math", "last", "last number: see whether the policy follows"),
        (0.0, "own.py:Grader", "box", "no answer to config.reward=own.py:Grader: see whether"),
    ):
        assert words in reward.no_answers(0.97, truncated, name, answer)


def test_grade():
    verdicts = reward.grade([r"\boxed{2x}", r"\boxed{5}", "5"], ["x+x", "4", "5"])
    assert verdicts == [Verdict.CORRECT, Verdict.WRONG, Verdict.NO_ANSWER]
    assert all(isinstance(v, Verdict) for v in verdicts)


def test_proxy():
    pairs = [("", "abc"), (" \n", "abc"), ("AB c", "cab"), ("xyz", "abc"), ("aabx", "abc"), ("ax\ny z", "a"), ("a", "")]
    rewards = [proxy.score(completion, Question(text, "")) for completion, text in pairs]
    np.testing.assert_allclose(rewards, [0, 0, 1 / 2, 0, 1 / 3, 0, 0], rtol=1e-6)
    completions, questions = [c for c, _ in pairs], [Question(text, "") for _, text in pairs]
    graded, verdicts = reward.make("proxy").submit(completions, questions)()
    np.testing.assert_allclose(graded, rewards, rtol=1e-6)
    np.testing.assert_array_equal(verdicts, np.where(graded >= 0.5, Verdict.CORRECT, Verdict.WRONG))
