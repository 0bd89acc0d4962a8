"""A stand-in for a real reward that even a policy with random weights can earn and learn."""

from collections.abc import Sequence

import numpy as np


def grade(completions: Sequence[str], answers: Sequence[str]) -> np.ndarray:
    """Rewards, float32 [R] in [0, 1]: the share of a completion's characters that occur in the text beside it.

    It has nothing to do with mathematics: `answers` are the texts of the questions, and writing with their letters is
    all it takes. It exists so that on real questions, without trained weights, a run from end to end has something to
    learn, and shows it. Case and white space do not count; an empty completion earns 0. Raises ValueError if the two
    differ in length.
    """
    return np.array([_share(c, a) for c, a in zip(completions, answers, strict=True)], np.float32)


def _share(completion: str, text: str) -> float:
    written, known = _characters(completion), set(_characters(text))
    return sum(c in known for c in written) / len(written) if written else 0.0


def _characters(text: str) -> str:
    return "".join(text.casefold().split())
