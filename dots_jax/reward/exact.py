"""Exact match on the final answer."""

from collections.abc import Sequence

import numpy as np


def grade(completions: Sequence[str], answers: Sequence[str]) -> np.ndarray:
    """Rewards, float32 [R]: 1 where what follows the last '>' (the whole text without one) is the answer.

    Nothing is stripped or normalised. Raises ValueError if the two differ in length.
    """
    pairs = zip(completions, answers, strict=True)
    return np.array([completion.rpartition(">")[2] == answer for completion, answer in pairs], np.float32)
