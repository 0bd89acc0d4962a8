import numpy as np
import pytest

from dots_jax import reward
from dots_jax.core.errors import UserError
from dots_jax.reward import Verdict, proxy

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
    assert reward.exact.grade([completion], [answer]).tolist() == [expected]


def test_exact_batch():
    completions, answers, expected = zip(*CASES, strict=True)
    grades = reward.exact.grade(list(completions), list(answers))
    assert grades.dtype == np.float32
    np.testing.assert_array_equal(grades, expected)
    assert reward.exact.grade([], []).shape == (0,)
    with pytest.raises(ValueError, match="shorter"):
        reward.exact.grade(["1", "2"], ["1"])


def test_make():
    with pytest.raises(UserError, match=r"config.reward is 'exakt'; choose one of: exact, math, proxy"):
        reward.make("exakt")
    completions, answers, expected = zip(*CASES, strict=True)
    grader = reward.make("exact")
    rewards, verdicts = grader.submit(completions, answers)()
    assert rewards.dtype == np.float32 and verdicts.dtype == np.int8
    np.testing.assert_array_equal(rewards, expected)
    np.testing.assert_array_equal(verdicts, np.where(expected, Verdict.CORRECT, Verdict.WRONG))
    with pytest.raises(ValueError, match="shorter"):
        grader.submit(["1", "2"], ["1"])
    grader.close()


def test_grade():
    verdicts = reward.grade([r"\boxed{2x}", r"\boxed{5}", "5"], ["x+x", "4", "5"])
    assert verdicts == [Verdict.CORRECT, Verdict.WRONG, Verdict.NO_ANSWER]
    assert all(isinstance(v, Verdict) for v in verdicts)


def test_proxy():
    pairs = [("", "abc"), (" \n", "abc"), ("AB c", "cab"), ("xyz", "abc"), ("aabx", "abc"), ("ax\ny z", "a"), ("a", "")]
    completions, texts = zip(*pairs, strict=True)
    rewards = proxy.grade(completions, texts)
    assert rewards.dtype == np.float32
    np.testing.assert_allclose(rewards, [0, 0, 1 / 2, 0, 1 / 3, 0, 0], rtol=1e-6)
    graded, verdicts = reward.make("proxy").submit(completions, texts)()
    np.testing.assert_array_equal(graded, rewards)
    np.testing.assert_array_equal(verdicts, np.where(rewards >= 0.5, Verdict.CORRECT, Verdict.WRONG))
    with pytest.raises(ValueError, match="shorter"):
        proxy.grade(["a"], [])
