"""Rewards, one file each: a function of a completion and its question, or a grader of many at a time."""

import inspect
from collections.abc import Callable, Sequence

import numpy as np

from dots_jax.core import plugins
from dots_jax.core.errors import UserError
from dots_jax.reward.types import Grader, Question, Verdict

__all__ = ["REWARDS", "Grader", "Question", "Verdict", "describe", "find", "grade", "make"]

REWARDS = {
    "countdown": "dots_jax.reward.countdown:score",
    "exact": "dots_jax.reward.exact:score",
    "math": "dots_jax.reward.mathematics:Pool",
    "proxy": "dots_jax.reward.proxy:score",
    "reasoning_gym": "dots_jax.reward.reasoning_gym:Pool",
}


class Function:
    """A grader from a function (completion, question) -> reward, which is done when `submit` returns.

    A reward of at least one half is CORRECT, any other WRONG. What the function raises is a UserError.
    """

    slow = False

    def __init__(self, function: Callable[[str, Question], float], name: str):
        self._function, self._name = function, name

    def submit(
        self, completions: Sequence[str], questions: Sequence[Question]
    ) -> Callable[[], tuple[np.ndarray, np.ndarray]]:
        """See `Grader.submit`."""
        rewards = np.array([self._score(c, q) for c, q in zip(completions, questions, strict=True)], np.float32)
        verdicts = np.where(rewards >= 0.5, Verdict.CORRECT, Verdict.WRONG).astype(np.int8)
        return lambda: (rewards, verdicts)

    def _score(self, completion: str, question: Question) -> float:
        about = f"config.reward={self._name} failed on the question {question.problem[:60]!r}"
        with plugins.guarded(f"{about}; {plugins.AGAIN}"):
            reward = float(self._function(completion, question))
        if not 0 <= reward <= 1:
            raise UserError(
                f"config.reward={self._name} is {reward} on the question {question.problem[:60]!r}; a reward lies in "
                "[0, 1]"
            )
        return reward

    def close(self) -> None:
        """Nothing to end."""

    def readable(self, questions: Sequence[Question]) -> None:
        """Nothing to say."""


def find(name: str) -> Callable:
    """What `config.reward` names. Raises UserError where there is none."""
    return plugins.find(name, REWARDS, "reward", callable, "a function or class")


def make(name: str) -> Grader:
    """The grader that `config.reward` names: a short name, or of a function or a class as `plugins.find` reads it.

    Raises UserError where there is none, or its packages are not installed.
    """
    found = find(name)
    if not inspect.isclass(found):
        return Function(found, name)
    with plugins.guarded(f"config.reward={name} cannot be made"):
        grader = found()
    if not callable(getattr(grader, "submit", None)):
        raise UserError(f"config.reward={name} has no method `submit`; see dots_jax.reward.Grader")
    return grader


def describe(name: str) -> str:
    """A line about a reward: its name, and how its docstring begins."""
    text = inspect.getdoc(find(name)) or "a function of your own"
    return f"{name}: {text.splitlines()[0].rstrip('.')}"


def grade(completions: Sequence[str], answers: Sequence[str]) -> list[Verdict]:
    """Verdicts on the boxed answers of mathematical completions, by processes that end with the call."""
    grader = make("math")
    try:
        _, verdicts = grader.submit(completions, [Question("", answer) for answer in answers])()
    finally:
        grader.close()
    return [Verdict(v) for v in verdicts]
