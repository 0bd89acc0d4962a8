"""Graders: one file each. `make` loads the one that a config names; `grade` grades mathematics in one call."""

import enum
import importlib
from collections.abc import Callable, Sequence
from typing import Protocol

import numpy as np

from dots_jax.errors import UserError
from dots_jax.reward import exact

__all__ = ["ABOUT", "GRADERS", "Grader", "Immediate", "Verdict", "against", "exact", "grade", "make", "readable"]


class Verdict(enum.IntEnum):
    """What became of one completion; only CORRECT earns the full reward."""

    CORRECT = 0
    WRONG = 1
    NO_ANSWER = 2  # nothing that could be graded
    TIMEOUT = 3  # grading took too long
    CRASHED = 4  # grading killed its process


class Grader(Protocol):
    """Grades completions, where it can in the background."""

    slow: bool  # worth starting while others are still generated

    def submit(self, completions: Sequence[str], answers: Sequence[str]) -> Callable[[], tuple[np.ndarray, np.ndarray]]:
        """Starts grading; the function returned waits for rewards float32 [R] and verdicts int8 [R] of `Verdict`.

        Raises ValueError if the two differ in length.
        """

    def close(self) -> None:
        """Ends whatever runs in the background."""


class Immediate:
    """A grader that is done when `submit` returns, from a function of (completions, answers) to rewards [R].

    A reward of at least one half is CORRECT, any other WRONG.
    """

    slow = False

    def __init__(self, function: Callable[[Sequence[str], Sequence[str]], np.ndarray]):
        self.function = function

    def submit(self, completions: Sequence[str], answers: Sequence[str]) -> Callable[[], tuple[np.ndarray, np.ndarray]]:
        """See `Grader.submit`."""
        rewards = self.function(completions, answers)
        verdicts = np.where(rewards >= 0.5, Verdict.CORRECT, Verdict.WRONG).astype(np.int8)
        return lambda: (rewards, verdicts)

    def close(self) -> None:
        """Nothing to end."""


def _immediate(module: str) -> Callable[[int], Grader]:
    return lambda workers: Immediate(importlib.import_module(f"dots_jax.reward.{module}").grade)


def _math(workers: int) -> Grader:
    from dots_jax.reward import mathematics

    return mathematics.Pool(workers)


GRADERS: dict[str, Callable[[int], Grader]] = {
    "exact": _immediate("exact"),
    "math": _math,
    "proxy": _immediate("proxy"),
}


ABOUT = {
    "exact": "exact: what follows the last '>' is the answer",
    "math": "math: the last \\boxed{} equals the answer",
    "proxy": "proxy: not mathematics, but letters of the question; accuracies are its mean",
}


def make(name: str, workers: int = 0) -> Grader:
    """The grader that `config.reward` names; `workers` processes (0: one per core) where it needs any.

    Raises UserError for an unknown name, and where the grader's packages are not installed.
    """
    if name not in GRADERS:
        raise UserError(f"config.reward is {name!r}; choose one of: {', '.join(GRADERS)}")
    return GRADERS[name](workers)


def grade(completions: Sequence[str], answers: Sequence[str]) -> list[Verdict]:
    """Verdicts on the boxed answers of mathematical completions, by processes that end with the call."""
    grader = make("math")
    try:
        _, verdicts = grader.submit(completions, answers)()
    finally:
        grader.close()
    return [Verdict(v) for v in verdicts]


def against(name: str, questions) -> Sequence[str]:
    """What the grader `name` compares completions with: the questions' answers, or for the proxy their texts."""
    return questions.texts if name == "proxy" else questions.answers


def readable(grader: Grader, golds: Sequence[str]) -> np.ndarray | None:
    """Which gold answers the grader understands, bool [N]; the others match only as text; None: unknown."""
    ask = getattr(grader, "readable", None)
    return ask(golds) if ask else None
