import numpy as np
import pytest

from dots_jax import reward

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
