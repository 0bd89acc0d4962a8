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
        ("return 1 / 0", "failed on the question 'How many.*'; mend it.* .ZeroDivisionError: division by zero"),
        ("return 'a lot'", "failed on .*ValueError"),
        ("return None", "failed on .*TypeError"),
        ("return float('nan')", "is nan on the question 'How many"),
    ],
)
def test_a_function_of_ones_own_that_fails(body, message, tmp_path, monkeypatch):
    (tmp_path / "own.py").write_text(f"def score(completion, question):\n    {body}\n")
    monkeypatch.setattr(plugins, "FOLDERS", [str(tmp_path)])
    plugins._file.cache_clear()
    with pytest.raises(UserError, match=f"config.reward=own.py:score {message}"):
        reward.make("own.py:score").submit(["5"], [Question("How many apples?", "5")])
    with pytest.raises(UserError, match="config.reward='exakt': did you mean exact"):
        reward.make("exakt")


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
