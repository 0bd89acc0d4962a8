"""Recorded histories: what was measured of a pool's questions while a policy was trained."""

import dataclasses
import os
from collections.abc import Callable, Sequence

import numpy as np
import pyarrow.parquet as pq
from ml_collections import ConfigDict

from dots_jax.analysis.rounds import Workdir
from dots_jax.core import files, rules
from dots_jax.core.errors import UserError, first_line
from dots_jax.difficulty import embed
from dots_jax.run import metrics


@dataclasses.dataclass(frozen=True)
class Recording:
    """Groups of G completions that V visits have measured of N questions."""

    texts: Sequence[str]  # [N]
    successes: np.ndarray  # float32 [V, N]; NaN: not measured
    tokens: np.ndarray  # float32 [V, N], mean of a group's completions; 1 where nobody noted them
    rollouts: int  # G
    difficulty: np.ndarray  # float [N], external, larger is harder, NaN: unknown
    embeddings: Callable[[], np.ndarray]  # -> float32 [N, D]
    is_sparse: bool  # a run measured what it chose, and references: few questions of a visit


def read(history: str, config: ConfigDict) -> Recording:
    """The recording in a parquet file, or of a run of `dots_jax.main` by its workdir or its `groups.jsonl`.

    A table has the columns "problem" and "correct" (V counts, -1: not measured), and may have `data.difficulty_column`;
    G stands as "rollouts" in the JSON file of the same name, else in `rollout.group_size`. Its embeddings are
    `embedding.path`; a run has its own. Raises UserError where something is missing or is not what it should be.
    """
    if not history:
        raise UserError("--history is missing; give --history=FILE.parquet, or the workdir of a run")
    if os.path.isdir(history) or os.path.basename(history) == metrics.GROUPS:
        return _of_run(history if os.path.isdir(history) else os.path.dirname(history) or ".", config)
    return _of_table(history, config)


def _of_table(path: str, config: ConfigDict) -> Recording:
    try:
        rows = pq.read_table(path).to_pylist()
    except Exception as error:  # pyarrow has many
        reason = getattr(error, "strerror", None) or first_line(error)
        raise UserError(f"--history={path} cannot be read: {reason}; give a parquet file, or a workdir") from error
    if not rows:
        raise UserError(f"--history={path} has no rows; it needs the columns problem and correct")
    about, G = f"{os.path.splitext(path)[0]}.json", config.rollout.group_size
    if os.path.exists(about):
        found = files.read_json(about)
        rules.check_row(found, {"rollouts": rules.whole(2)}, about)
        G = found["rollouts"]
    column = config.data.difficulty_column
    first = rows[0].get("correct")
    visits = max(1, len(first)) if isinstance(first, list) else 1
    kinds = {"problem": rules.text, "correct": rules.some(rules.whole(-1, G), visits)}
    kinds |= {column.removeprefix("-"): rules.optional(rules.number())} if column else {}
    for number, row in enumerate(rows):
        if column and column.removeprefix("-") not in row:
            raise UserError(f"--history={path} has no column {column.removeprefix('-')}; mend data.difficulty_column")
        rules.check_row(row, kinds, f"row {number} of --history={path}")
    texts = [row["problem"] for row in rows]
    if not config.embedding.path:
        raise UserError("--embeddings is missing; give --embeddings=FILE.npy, a row for each question of the history")
    embeddings = embed.load(config.embedding.path, texts, config.embedding)
    labels = np.array([row[column.removeprefix("-")] if column else None for row in rows], float)
    successes = np.array([row["correct"] for row in rows], np.float32).T
    successes[successes < 0] = np.nan
    difficulty = -labels if column.startswith("-") else labels
    return Recording(texts, successes, np.ones_like(successes), G, difficulty, lambda: embeddings, False)


def _of_run(directory: str, config: ConfigDict) -> Recording:
    """Each selection round is a visit; of a question that it measured twice the first group counts.

    Nothing stands in for what a round has not measured. Groups of other sizes than the first step's are left out.
    """
    run = Workdir(directory)
    N, interval, groups = len(run.questions), run.config.selection.interval, run.groups
    V, G = (groups[-1]["step"] - 1) // interval + 1, groups[0]["rollouts"]
    successes, tokens = np.full((V, N), np.nan, np.float32), np.ones((V, N), np.float32)
    for record in groups:
        visit = (record["step"] - 1) // interval
        for prefix in ("reference_", "", "discarded_"):
            ids, where = record.get(f"{prefix}ids", []), f"step {record['step']} of {directory}/{metrics.GROUPS}"
            if record.get("discarded_rollouts" if prefix == "discarded_" else "rollouts") != G or not ids:
                continue
            counts = {f"{prefix}successes": rules.some(rules.number(0, G), len(ids))}
            lengths = {f"{prefix}tokens": rules.optional(rules.some(rules.number(0), len(ids)))}
            whole = {f"{prefix}ids": rules.some(rules.whole(0, N - 1))}
            rules.check_row(record, whole | counts | lengths, where)
            ids, first = np.unique(ids, return_index=True)
            new = np.isnan(successes[visit, ids])
            successes[visit, ids[new]] = np.array(record[f"{prefix}successes"])[first[new]]
            if record.get(f"{prefix}tokens"):
                tokens[visit, ids[new]] = np.array(record[f"{prefix}tokens"])[first[new]]
    measured = np.isfinite(successes).any(1)
    pool, path = run.questions, config.embedding.path
    labels = np.asarray(pool.levels if pool.labels is None else pool.labels, float)
    embeddings = embed.load(path, pool.texts, config.embedding) if path else None
    load = (lambda: embeddings) if path else lambda: run.embeddings
    return Recording(pool.texts, successes[measured], tokens[measured], G, labels, load, True)
