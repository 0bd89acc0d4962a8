"""Exact match on the final answer."""

from dots_jax.reward.types import Question


def score(completion: str, question: Question) -> float:
    """What follows the last '>' is the answer.

    1 where it is (the whole text without a '>'), else 0. Nothing is stripped or normalised.
    """
    return _after(completion) == question.answer


def _after(completion: str) -> str:
    return completion.rpartition(">")[2]


score.extracted = _after
