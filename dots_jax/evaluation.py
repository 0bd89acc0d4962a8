"""Evaluation: the share of a set's questions that a policy answers, with confidence intervals."""

import collections
import dataclasses
import functools
import math
from collections.abc import Callable, Collection, Iterator, Sequence
from typing import Any

import jax
import numpy as np

from dots_jax.data.questions import Questions
from dots_jax.policy.source import Policy
from dots_jax.reward import quick
from dots_jax.reward.types import Grader, Verdict
from dots_jax.rollout.grading import GradedCompletions, concatenate, sample_graded


@dataclasses.dataclass(frozen=True)
class Evaluator:
    """Samples G completions for every row of an evaluation set, in batches; a question that repeats gets more."""

    policy: Policy
    questions: Questions  # N
    rows: np.ndarray  # int [M], the question of each row
    prompts: np.ndarray  # int32 [N, S]; one that leaves fewer than `max_tokens` positions gets so many
    lengths: np.ndarray  # int32 [N]
    grader: Grader
    samples: int  # G
    batch: int  # rows at a time, 0 for all; with the key it decides what is drawn
    max_tokens: int  # per completion
    sampling: dict[str, Any]  # the other arguments of `rollout.sample`

    def greedy(self) -> "Evaluator":
        """One of each question's likeliest completion, once."""
        sampling, rows = self.sampling | {"temperature": 0.0, "top_p": 1.0}, np.arange(len(self.questions))
        return dataclasses.replace(self, rows=rows, samples=1, sampling=sampling)

    def evaluate_all(self, params: dict, key: jax.Array) -> GradedCompletions:
        """The completions of all rows [M, G]."""
        return concatenate([graded for *_, graded in self.evaluate_batches(params, key)])

    def evaluate_batches(
        self, params: dict, key: jax.Array, skip: Collection[int] = ()
    ) -> Iterator[tuple[int, np.ndarray, GradedCompletions]]:
        """Yields each batch's number, row numbers [P] and completions [P, G], while the next batch is sampled.

        The batches whose numbers are in `skip` are left out.
        """
        count, pending, items = len(self.rows), None, self.questions.items()
        batch = min(self.batch or count, count)
        room = np.minimum(self.max_tokens, self.policy.model_config.max_positions - self.lengths)
        max_tokens = int(room.max())
        for number, start in enumerate(range(0, count, batch)):
            if number in skip:
                continue
            numbers = np.arange(start, min(start + batch, count))
            fill = np.full(batch - len(numbers), start)  # one shape to compile
            ids = self.rows[np.concatenate([numbers, fill])]
            _, wait = sample_graded(
                params,
                self.policy,
                (self.prompts[ids], self.lengths[ids]),
                [items[i] for i in ids],
                key if batch == count else jax.random.fold_in(key, number),
                self.grader,
                self.samples,
                max_tokens,
                limits=np.repeat(room[ids, None], self.samples, 1),
                **self.sampling,
            )
            if pending:
                yield _collect(*pending)
            pending = number, numbers, wait
        if pending:
            yield _collect(*pending)

    def success(self, graded: GradedCompletions) -> np.ndarray:
        """Mean reward of each question [N] over the completions of all rows [M, G]."""
        return np.bincount(self.rows, graded.rewards.mean(1)) / np.bincount(self.rows)


def _collect(number: int, numbers: np.ndarray, wait: Callable[[], GradedCompletions]):
    return number, numbers, wait()[: len(numbers)]


def as_metrics(graded: GradedCompletions, evaluator: Evaluator) -> dict[str, Any]:
    """An evaluation as `metrics.jsonl` holds it; of named questions (real sets) the mean of the sets'."""
    success, questions = evaluator.success(graded), evaluator.questions
    metrics = {
        "eval/accuracy": success.mean(),
        "eval/standard_error": standard_error(success),
        "eval/verdicts": shares(graded.verdicts),
        "eval/by_level": by_level(success, questions),
    }
    if questions.names:
        sets = by_set(graded, evaluator)
        metrics["eval/accuracy"], metrics["eval/standard_error"] = mean_accuracy(sets), combined_error(sets)
        metrics["eval/intervals"] = {name: (row["low"], row["high"]) for name, row in sets.items()}
    return metrics


def shares(verdicts: np.ndarray) -> dict[str, float]:
    """Each verdict's share of all."""
    return {v.name.lower(): float((verdicts == v).mean()) for v in Verdict}


def by_set(graded: GradedCompletions, evaluator: Evaluator) -> dict[str, dict[str, float]]:
    """Accuracy of each set with its 95% interval, what became of its completions, and how many there are of each."""
    success, families, table = evaluator.success(graded), np.array(evaluator.questions.families), {}
    for name in dict.fromkeys(evaluator.questions.families):
        of_set = success[families == name]
        part = graded[families[evaluator.rows] == name]
        samples = part.rewards.size / len(of_set)
        low, high = interval(of_set, samples)
        table[name] = {
            "questions": len(of_set),
            "samples": int(samples),
            "accuracy": float(of_set.mean()),
            "low": low,
            "high": high,
            "standard_error": standard_error(of_set),
            "tokens": float(part.lengths.mean()),
            "truncated": float((~part.finished).mean()),
            **{v.name.lower(): int((part.verdicts == v).sum()) for v in Verdict},
        }
    return table


def mean_accuracy(sets: dict[str, dict[str, float]]) -> float:
    """The mean of the sets of `by_set`, each counting once."""
    return float(np.mean([row["accuracy"] for row in sets.values()]))


def combined_error(sets: dict[str, dict[str, float]]) -> float:
    """The standard error of `mean_accuracy`; the sets are asked independently."""
    return math.sqrt(sum(row["standard_error"] ** 2 for row in sets.values())) / len(sets)


def standard_error(success: np.ndarray) -> float:
    """Of the mean of `success` [N]: the questions are the draw, whatever the samples of each; NaN of one question."""
    return float(np.std(success, ddof=1)) / math.sqrt(len(success)) if len(success) > 1 else math.nan


# Times the standard error: the difference of two policies, each asked by itself, that is found at the 5% level with 80%
# chance.
SMALLEST = (1.959964 + 0.841621) * math.sqrt(2)


@functools.cache
def pass_at(k: int, samples: int, correct: int) -> float:
    """Chance that of k of a question's completions, drawn without replacement, one is correct: unbiased for pass@k."""
    return 1 - math.comb(samples - correct, k) / math.comb(samples, k)


def majority(answers: Sequence[str | None], rewards: Sequence[float]) -> float:
    """The reward of the answer that most of a question's completions give, of equally frequent ones the first.

    Answers are one where `quick.key` is and the grader does not tell them apart; None does not vote. 0 without a vote.
    """
    keys = [a if a is None else (quick.key(a), r >= 0.5) for a, r in zip(answers, rewards, strict=True)]
    votes = collections.Counter(key for key in keys if key is not None)
    return rewards[keys.index(votes.most_common(1)[0][0])] if votes else 0.0


def by_level(success: np.ndarray, questions: Questions) -> dict[str, list[float | None]]:
    """Mean success of each level of each family, easiest first; None where the evaluation set has no such question."""
    table, families = {}, np.array(questions.families)
    for family in dict.fromkeys(sorted(questions.families)):
        levels = range(questions.levels.min(), questions.levels.max() + 1)
        cells = [success[(families == family) & (questions.levels == level)] for level in levels]
        table[family] = [float(c.mean()) if len(c) else None for c in cells]
    return table


def interval(success: np.ndarray, samples: float) -> tuple[float, float]:
    """95% confidence interval of the mean of `success` [N], each the mean of about `samples` verdicts on a question.

    Wilson's score interval for N x samples verdicts, of which as many count as independent as the variance between
    questions allows (at least N, since the questions are the draw). Unlike mean ± 2 deviations it is not empty where
    no or every question is solved.
    """
    n, p = len(success), float(np.mean(success))
    between = float(np.var(success, ddof=1)) if n > 1 else 0.0
    count = min(max(n, n * p * (1 - p) / between), n * samples) if between else n
    z2 = 1.959964**2
    middle = (p + z2 / (2 * count)) / (1 + z2 / count)
    half = math.sqrt(z2 * (p * (1 - p) / count + z2 / (4 * count**2))) / (1 + z2 / count)
    return max(0.0, middle - half), min(1.0, middle + half)
