"""What the tests of grading share."""

import numpy as np

from dots_jax.reward import Question, Verdict


def asked(answers):
    return [Question("", answer) for answer in answers]


def verdicts(pool, completions, answers):
    rewards, verdicts = pool.submit(completions, asked(answers))()
    assert rewards.dtype == np.float32 and verdicts.dtype == np.int8 and rewards.shape == verdicts.shape
    np.testing.assert_array_equal(rewards, verdicts == Verdict.CORRECT)
    return [Verdict(v) for v in verdicts]
