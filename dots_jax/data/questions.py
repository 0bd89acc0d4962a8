"""The type of a question set."""

import dataclasses

import numpy as np


@dataclasses.dataclass(frozen=True)
class Questions:
    """N questions; a question's id is its index and never changes.

    Raises ValueError if the fields differ in length.
    """

    texts: tuple[str, ...]  # [N] prompts
    answers: tuple[str, ...]  # [N] what the grader compares with
    families: tuple[str, ...]  # [N] kind of question, for reports
    levels: np.ndarray  # int32 [N] difficulty within the family, from 1

    def __post_init__(self):
        if len({len(self.texts), len(self.answers), len(self.families), len(self.levels)}) != 1:
            raise ValueError("texts, answers, families and levels differ in length")

    def __len__(self) -> int:
        return len(self.texts)
