"""Completions are graded while others are still generated."""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np

from dots_jax.core import distributed
from dots_jax.policy import tokenizer as tok
from dots_jax.policy.source import Policy
from dots_jax.reward.types import Grader, Question
from dots_jax.rollout.sampler import sample
from dots_jax.rollout.types import Rollouts


@dataclasses.dataclass(frozen=True)
class GradedCompletions:
    """What became of G completions of each of P questions."""

    texts: np.ndarray  # str [P, G]; "" off the main process
    rewards: np.ndarray  # float32 [P, G]
    verdicts: np.ndarray  # int8 [P, G], of `reward.Verdict`
    lengths: np.ndarray  # int32 [P, G], tokens
    finished: np.ndarray  # bool [P, G], ended by a stop id; False: truncated

    def __getitem__(self, index: slice | np.ndarray) -> "GradedCompletions":
        """Those of some questions."""
        return GradedCompletions(*(getattr(self, field.name)[index] for field in dataclasses.fields(self)))


def sample_graded(
    params: dict,
    policy: Policy,
    prompts: tuple[np.ndarray, np.ndarray],
    questions: Sequence[Question],
    key: jax.Array,
    grader: Grader,
    group_size: int,
    max_tokens: int,
    **sampling,
) -> tuple[Rollouts, Callable[[], GradedCompletions]]:
    """G completions of each of P prompts, graded as they end; the function waits for the verdicts.

    `prompts` are the tokens and lengths of the questions; `sampling` are the other arguments of `sample`.
    """
    grading = Grading(grader, policy.tokenizer, questions, group_size)
    rollouts = sample(
        params,
        policy.model_config,
        *prompts,
        key,
        group_size,
        max_tokens,
        stop_ids=policy.stop_ids,
        on_rows=grading.on_rows if grader.slow else None,
        **sampling,
    )
    return rollouts, grading.finish(rollouts)


def concatenate(parts: Sequence[GradedCompletions]) -> GradedCompletions:
    """All questions of the parts, one after the other."""
    names = [field.name for field in dataclasses.fields(GradedCompletions)]
    return GradedCompletions(*(np.concatenate([getattr(part, name) for part in parts]) for name in names))


class Grading:
    """Grades the completions of P questions, G each; `on_rows` is for `rollout.sample`."""

    def __init__(self, grader: Grader, tokenizer: Any, questions: Sequence[Question], group_size: int):
        self._grader, self._tokenizer, self._questions = grader, tokenizer, questions
        self._shape = len(questions), group_size
        self._pending = []  # (rows, function that waits for their rewards and verdicts)
        self._submitted, self._texts = np.zeros(len(questions) * group_size, bool), np.full(self._shape, "", object)

    def on_rows(self, rows: np.ndarray, tokens: np.ndarray, lengths: np.ndarray) -> None:
        """Hands completions to the grader: rows [n] p * G + g, tokens [n, T], lengths [n]."""
        self._submitted[rows] = True
        if len(rows) and distributed.is_main():
            texts = tok.decode(self._tokenizer, tokens, lengths)
            questions = [self._questions[i] for i in rows // self._shape[1]]
            self._pending.append((rows, self._grader.submit(texts, questions)))
            self._texts.flat[rows] = texts

    def finish(self, rollouts: Rollouts) -> Callable[[], GradedCompletions]:
        """Hands over the rest; the function that it returns waits for the verdicts."""
        tokens, lengths, finished = distributed.to_host((rollouts.tokens, rollouts.lengths, rollouts.finished))
        rest = np.flatnonzero(~self._submitted)
        self.on_rows(rest, tokens.reshape(-1, tokens.shape[-1])[rest], lengths.flat[rest])
        rewards, verdicts = np.zeros(lengths.shape, np.float32), np.zeros(lengths.shape, np.int8)

        def collect():
            for rows, result in self._pending:
                rewards.flat[rows], verdicts.flat[rows] = result()
            return rewards, verdicts

        def wait():
            graded = distributed.from_main(collect, (rewards, verdicts))  # a timeout there may be none elsewhere
            return GradedCompletions(self._texts, *graded, lengths, finished)

        return wait
