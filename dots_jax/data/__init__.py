"""Question pools and held-out sets by name."""

import collections
import json
import os
import zlib
from collections.abc import Sequence
from typing import Any

import numpy as np
from ml_collections import ConfigDict

from dots_jax.core import files
from dots_jax.data import arithmetic, countdown, real, reasoning_gym
from dots_jax.data.questions import Questions
from dots_jax.policy import tokenizer as tok

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
        return tok.count(tokenizer, texts, data.system, data.max_prompt_tokens)

    if data.name.startswith(reasoning_gym.PREFIX):
        return reasoning_gym.load(data, count_tokens)
    return real.load(data, config.eval, count_tokens)


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


def write(pool: Questions, workdir: str, lengths: np.ndarray, readable: np.ndarray | None = None) -> None:
    """Writes `workdir/questions.jsonl`: the pool, with a checksum of each text, and what was left out and why.

    Nothing for questions without names. Answers that are not `readable` for the grader, bool [N], are marked.
    """
    if pool.names is None:
        return
    fields = zip(pool.names, lengths, pool.labels.tolist(), pool.texts, strict=True)
    rows = [
        {"id": i, "name": name, "prompt_tokens": int(length), "label": label, "crc32": zlib.crc32(text.encode())}
        for i, (name, length, label, text) in enumerate(fields)
    ]
    for row in rows if readable is not None else ():
        row |= {} if readable[row["id"]] else {"readable": False}
    rows += [{"name": name, "left_out": reason} for name, reason in pool.left_out]
    text = "".join(json.dumps({k: v for k, v in row.items() if v == v}) + "\n" for row in rows)  # NaN: no label
    files.write_text(os.path.join(workdir, FILE), text)
