"""Measured difficulties of questions by one or several policies: the table, its split, and predictions judged."""

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np
import pyarrow
import pyarrow.parquet as pq
from pyarrow import types

from dots_jax.core.errors import UserError, first_line
from dots_jax.difficulty import embed, features, measures

NAMES = ("problem", "policy", "success_rate")
Predict = Callable[[int, np.ndarray], np.ndarray]  # (number of a policy, questions) -> difficulty


@dataclasses.dataclass(frozen=True)
class Table:
    """Measured difficulties of N questions by one or several policies."""

    texts: list[str]
    embeddings: np.ndarray  # float32 [N, D]
    policies: list[str]
    difficulty: np.ndarray  # float32 [policies, N]; NaN: not measured
    rollouts: np.ndarray | None = None  # float32 [policies, N], behind each difficulty; None: not known
    features: dict[str, Any] = dataclasses.field(default_factory=dict)  # of methods that see more than the embedding

    def ids_by_policy(self, questions: np.ndarray) -> list[np.ndarray]:
        """Of each policy, those of `questions` that it has measured."""
        return [questions[~np.isnan(labels[questions])] for labels in self.difficulty]

    def sees(self, method: str) -> Any:
        """What a method of `baselines` sees of the N questions; it takes an index array."""
        return self.features.get(method, self.embeddings)

    def with_text(self) -> "Table":
        """The table with `features` of the texts for ridge and kernel ridge regression."""
        seen = {
            "ridge, text": features.linear(self.embeddings, self.texts, self.embeddings.shape[1]),
            "kernel ridge, text": features.questions(self.embeddings, self.texts),
        }
        return dataclasses.replace(self, features=seen)

    def of(self, policies: np.ndarray) -> "Table":
        """What these policies have measured."""
        names = [self.policies[policy] for policy in policies]
        rollouts = None if self.rollouts is None else self.rollouts[policies]
        return dataclasses.replace(self, policies=names, difficulty=self.difficulty[policies], rollouts=rollouts)

    def judge(self, policy: int, questions: np.ndarray, predicted: np.ndarray) -> dict[str, float]:
        """`measures.report` of predictions for questions that the policy has measured.

        Also "ceiling", the highest Pearson correlation that the noise of the rates allows, and "of_ceiling", the share
        of it; NaN where rollouts are unknown.
        """
        measured = self.difficulty[policy][questions]
        row = measures.report(predicted, measured)
        ceiling = np.nan if self.rollouts is None else measures.ceiling(measured, self.rollouts[policy][questions])
        share = row["pearson"] / ceiling if ceiling > 0 else np.nan
        return {"pearson": row.pop("pearson"), "ceiling": ceiling, "of_ceiling": share, **row}


def read(rates: str, embeddings: str) -> Table:
    """The table of the two files; a problem that a policy measured twice gets the mean, weighted by its rollouts.

    Raises UserError where a file cannot be read, a column is missing, a rate lies outside [0, 1], rollouts are not
    whole numbers from 1, an embedding is not finite, or there is not one embedding for each distinct problem.
    """
    if not rates:
        raise UserError("--rates is missing; give --rates=FILE (--help shows the flags)")
    try:
        table = pq.read_table(rates)
    except Exception as error:  # pyarrow has many
        reason = getattr(error, "strerror", None) or first_line(error)
        raise UserError(f"--rates={rates} cannot be read: {reason}; give a parquet file") from error
    problems, policies, success = (_column(table, name, rates) for name in NAMES)
    success = _numbers(success, "success_rate", lambda x: (x >= 0) & (x <= 1), "within [0, 1]", rates)
    known = "rollouts" in table.column_names
    rollouts = _column(table, "rollouts", rates) if known else np.ones(len(success))
    rollouts = _numbers(rollouts, "rollouts", lambda x: (x >= 1) & (x % 1 == 0), "a whole number from 1", rates)
    columns, rows = ({name: i for i, name in enumerate(dict.fromkeys(column))} for column in (problems, policies))
    if not embeddings:
        raise UserError("--embeddings is missing; give --embeddings=FILE (--help shows the flags)")
    try:
        x = embed.read(embeddings, len(columns))
    except UserError as error:
        raise UserError(f"--embeddings: {error} (a row for each distinct problem, as they first appear)") from error
    at = [rows[name] for name in policies], [columns[name] for name in problems]
    total, count = np.zeros((2, len(rows), len(columns)), np.float32)
    np.add.at(total, at, rollouts * (1 - success))
    np.add.at(count, at, rollouts)
    difficulty = np.divide(total, count, out=np.full_like(total, np.nan), where=count > 0)
    texts, names = ([str(name) for name in kind] for kind in (columns, rows))
    return Table(texts, x, names, difficulty, count if known else None)


def _column(table: pyarrow.Table, name: str, rates: str) -> list:
    """A column's values. Raises UserError where it is missing, of another kind, or has gaps."""
    if name not in table.column_names:
        raise UserError(f"--rates={rates} has no column {name}; it needs {', '.join(NAMES)}")
    kind = table.schema.field(name).type
    kind = kind.value_type if types.is_dictionary(kind) else kind
    expected = "numbers" if name in ("success_rate", "rollouts") else "texts"
    numbers = types.is_integer(kind) or types.is_floating(kind) or types.is_decimal(kind)
    if types.is_nested(kind) or table[name].null_count or (expected == "numbers" and not numbers):
        raise UserError(f"--rates={rates}: {name} is not a column of {expected} without gaps, but of {kind}; mend it")
    try:
        return table[name].to_pylist()
    except UnicodeDecodeError as error:
        raise UserError(f"--rates={rates} holds text that is not UTF-8 ({error}); write it again") from error


def _numbers(column: list, name: str, is_good: Callable, expected: str, rates: str) -> np.ndarray:
    """The column as float32. Raises UserError at the first number that is not good."""
    values = np.asarray(column, np.float32)
    bad = ~is_good(values)
    if bad.any():
        row = bad.argmax()
        raise UserError(f"--rates={rates}: {name} of row {row} is {values[row]:g}, not {expected}; mend it")
    return values


def split(num_questions: int, seed: int) -> dict[str, np.ndarray]:
    """Numbers of questions for "train", "validation" and "evaluation": none is in two, whoever measured it.

    A fifth is held out, for the report only. A fifth of the rest is for validation, which chooses the stopping point
    and every method's hyper-parameter.
    """
    order = np.random.default_rng([seed, 0]).permutation(num_questions)
    eval_ids, rest = np.split(order, [num_questions // 5])
    validation, train = np.split(rest, [len(rest) // 5])
    return {"train": train, "validation": validation, "evaluation": eval_ids}


def mean(rows: list[dict]) -> dict[str, float]:
    """Of each measure the mean over the rows for which it is defined; a correlation with equal labels is not."""
    values = {name: [row[name] for row in rows if np.isfinite(row[name])] for name in rows[0]}
    return {name: float(np.mean(v)) if v else np.nan for name, v in values.items()}
