"""A stand-in for a real reward that even a policy with random weights can earn and learn."""

import itertools

from dots_jax.reward.types import Question


def score(completion: str, question: Question) -> float:
    """Not mathematics, but letters of the question; accuracies are its mean.

    In [0, 1]: of the pairs of neighbouring characters in a completion, the share that also occur in the question.
    Writing with pieces of its words is all it takes; long questions are easy. It exists so that on real questions,
    without trained weights, a run from end to end has something to learn, and shows it. Case and white space do not
    count; a completion of fewer than two characters earns 0.
    """
    written, known = _pairs(completion), set(_pairs(question.problem))
    return sum(pair in known for pair in written) / len(written) if written else 0.0


def _pairs(text: str) -> list[tuple[str, str]]:
    return list(itertools.pairwise("".join(text.casefold().split())))
