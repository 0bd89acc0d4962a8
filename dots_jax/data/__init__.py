"""Question pools and held-out sets by name."""

import collections
import json
import os
from collections.abc import Sequence
from typing import Any

import numpy as np
from ml_collections import ConfigDict

from dots_jax.core import files
from dots_jax.data import arithmetic, countdown, real, reasoning_gym
from dots_jax.data.questions import Questions
from dots_jax.policy import tokenizer as tok
from dots_jax.reward import REWARDS

FILE = "questions.jsonl"
COUNTDOWN = {"countdown": True, "countdown:characters": False}  # in words?


def load(config: ConfigDict, tokenizer: Any) -> tuple[Questions, Questions]:
    """The pool that `config.data` describes and the held-out questions: made ones, or real ones.

    Raises UserError as `procedural.make`, `reasoning_gym.load` and `real.load`.
    """
    data = config.data
    sizes = data.num_questions, data.num_heldout, data.seed
    if data.name == "arithmetic":
        return arithmetic.make(*sizes)
    if data.name in COUNTDOWN:
        return countdown.make(*sizes, words=COUNTDOWN[data.name])

    def count_tokens(texts: Sequence[str]) -> list[int]:
        return tok.count(tokenizer, texts, data.system, data.max_prompt_tokens, data.instruction_in)

    if data.name.startswith(reasoning_gym.PREFIX):
        return reasoning_gym.load(data, count_tokens)
    own = config.reward.name not in REWARDS  # no other reward looks at columns
    return real.load(data, config.eval, count_tokens, own)


def is_made(name: str) -> bool:
    """Whether the questions of `config.data.name` are made, held-out ones too; else they are read."""
    return name in ("arithmetic", *COUNTDOWN) or name.startswith(reasoning_gym.PREFIX)


def describe(questions: Questions, lengths: np.ndarray, readable: np.ndarray | None = None) -> str:
    """How many questions, how long their prompts are ([N] tokens), of which sets, and where they come from.

    Also how many gold answers are not `readable` (bool [N]) for the grader.
    """
    sets = collections.Counter(questions.families) if questions.names and not questions.about else {}
    tokens = f"prompts of {min(lengths)} to {max(lengths)} tokens, {np.mean(lengths):.0f} on average"
    parts = [f"{len(questions):,}, {tokens}"]
    parts += [", ".join(f"{count:,} {name}" for name, count in sets.items())] if sets else []
    parts += [f"{len(questions.rows()):,} rows, whose repeats are further samples"] if questions.repeats else []
    parts += unreadable(readable)
    return "; ".join(parts + ([f"from {questions.about}"] if questions.about else []))


def unreadable(readable: np.ndarray | None) -> list[str]:
    """How many gold answers the grader does not understand, in a line, if any; None: it cannot say."""
    if readable is None or readable.all():
        return []
    return [f"{(~readable).sum():,} gold answers that cannot be read match only as text"]


def write(
    pool: Questions,
    workdir: str,
    lengths: np.ndarray,
    readable: np.ndarray | None = None,
    heldout: Questions | None = None,
) -> None:
    """Writes `workdir/questions.jsonl`: the pool by "id", what was left out and why, and the held-out set by "heldout".

    Answers of the pool that are not `readable` for the grader, bool [N], are marked.
    """
    rows = _rows(pool, "id")
    labels = [None] * len(pool) if pool.labels is None else pool.labels.tolist()
    for row, length, label in zip(rows, lengths, labels, strict=True):
        row |= {"prompt_tokens": int(length)} | ({"label": label} if label == label else {})  # NaN: unknown
        row |= {} if readable is None or readable[row["id"]] else {"readable": False}
    rows += [{"name": name, "left_out": reason} for name, reason in pool.left_out]
    rows += _rows(heldout, "heldout") if heldout else []
    text = "".join(json.dumps({k: v for k, v in row.items() if v is not None}) + "\n" for row in rows)
    files.write_text(os.path.join(workdir, FILE), text)


def _rows(questions: Questions, number: str) -> list[dict]:
    q, names = questions, questions.names or [None] * len(questions)
    fields = zip(names, q.families, q.levels.tolist(), q.texts, q.answers, strict=True)
    keys = "name", "family", "level", "problem", "answer"
    return [{number: i} | dict(zip(keys, row, strict=True)) for i, row in enumerate(fields)]
