"""A stand-in for a real reward that even a policy with random weights can earn and learn."""

import itertools
from collections.abc import Sequence

import numpy as np


def grade(completions: Sequence[str], answers: Sequence[str]) -> np.ndarray:
    """Rewards, float32 [R] in [0, 1]: of the pairs of neighbouring characters in a completion, the share that also
    occur in the text beside it.

    It has nothing to do with mathematics: `answers` are the texts of the questions, and writing with pieces of their
    words is all it takes; long questions are easy. It exists so that on real questions, without trained weights, a run
    from end to end has something to learn, and shows it. Case and white space do not count; a completion of fewer than
    two characters earns 0. Raises ValueError if the two differ in length.
    """
    return np.array([_share(c, a) for c, a in zip(completions, answers, strict=True)], np.float32)


def _share(completion: str, text: str) -> float:
    written, known = _pairs(completion), set(_pairs(text))
    return sum(pair in known for pair in written) / len(written) if written else 0.0


def _pairs(text: str) -> list[tuple[str, str]]:
    return list(itertools.pairwise("".join(text.casefold().split())))
