"""What graders give and get."""

import enum
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, Protocol

import numpy as np


class Verdict(enum.IntEnum):
    """What became of one completion; only CORRECT earns the full reward."""

    CORRECT = 0
    WRONG = 1
    NO_ANSWER = 2  # nothing that could be graded
    TIMEOUT = 3  # grading took too long
    CRASHED = 4  # grading killed its process


class Question(NamedTuple):
    """What a reward may know of a question."""

    problem: str
    answer: str
    columns: Mapping[str, Any] = {}  # what else its pool says of it


class Grader(Protocol):
    """Grades completions, where it can in the background."""

    slow: bool  # worth starting while others are still generated

    def submit(
        self, completions: Sequence[str], questions: Sequence[Question]
    ) -> Callable[[], tuple[np.ndarray, np.ndarray]]:
        """Starts grading; the function returned waits for rewards float32 [R] and verdicts int8 [R] of `Verdict`.

        Raises ValueError if the two differ in length.
        """

    def close(self) -> None:
        """Ends whatever runs in the background."""

    def readable(self, questions: Sequence[Question]) -> np.ndarray | None:
        """Which answers the grader understands, bool [N]; the others match only as text. None: it cannot say."""
