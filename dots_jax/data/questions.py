"""The type of a question set."""

import dataclasses
from collections.abc import Mapping

import numpy as np

from dots_jax.reward.types import Question


@dataclasses.dataclass(frozen=True)
class Questions:
    """N questions; a question's id in a run is its index, its name outlives limits and subsets.

    Raises ValueError if the fields differ in length.
    """

    texts: tuple[str, ...]  # [N] questions, without a prompt around them
    answers: tuple[str, ...]  # [N] what the grader compares with
    families: tuple[str, ...]  # [N] kind of question, for reports; of evaluation sets the set's name
    levels: np.ndarray  # int32 [N] difficulty within the family, from 1
    labels: np.ndarray | None = None  # float32 [N] external difficulty, larger is harder, NaN: unknown; None: levels
    names: tuple[str, ...] | None = None  # [N] source and row, such as "orz:17"; None: there is nothing but the index
    left_out: tuple[tuple[str, str], ...] = ()  # (name, why) of what the source held besides
    repeats: tuple[int, ...] | None = None  # [N] rows that the source has of each, so many samples; None: one
    columns: tuple[Mapping, ...] | None = None  # [N] what else a reward may know of each
    about: str = ""  # where it comes from and what was left out, in a line

    def __post_init__(self):
        fields = (self.texts, self.answers, self.families, self.levels, self.labels, self.names, self.repeats)
        if len({len(x) for x in (*fields, self.columns) if x is not None}) != 1:
            raise ValueError("texts, answers, families, levels, labels, names, repeats and columns differ in length")

    def __len__(self) -> int:
        return len(self.texts)

    def items(self) -> list[Question]:
        """What a reward may know of each."""
        columns = self.columns or ({},) * len(self)
        return [Question(*fields) for fields in zip(self.texts, self.answers, columns, strict=True)]

    def rows(self) -> np.ndarray:
        """Which question each row of the source asks, in their order: int [M]."""
        return np.repeat(np.arange(len(self)), 1 if self.repeats is None else self.repeats)
