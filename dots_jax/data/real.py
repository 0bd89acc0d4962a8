"""Pools and evaluation sets of real questions: cleaned, without overlap, with names that stay."""

import collections
import re
from collections.abc import Callable, Sequence

import numpy as np
from ml_collections import ConfigDict

from dots_jax.core.errors import UserError
from dots_jax.core.rules import shortened
from dots_jax.data import sources
from dots_jax.data.questions import Questions

_SPACING = re.compile(r"\\[,;:!>]|\\(?:left|right|quad|qquad|displaystyle)(?![A-Za-z])|[\s$~]")


def load(
    data: ConfigDict, evaluation: ConfigDict, count_tokens: Callable[[Sequence[str]], Sequence[int]],
    columns: bool = False,
) -> tuple[Questions, Questions]:  # fmt: skip
    """The pool that `data` describes and the evaluation sets, one after the other, that `evaluation` names.

    Where it names none, `data.num_heldout` questions of the pool are held out, at most a quarter. With `columns` all
    come with the rows' other columns.

    Of the pool are left out, in this order and with their names and reasons in `left_out`: questions without text or
    answer, of other levels than the source's or not as `data.where` says, equal to an earlier one up to spacing (the
    answer that most of them have stays, labels are averaged), in one of the evaluation sets (compared by letters and
    digits alone) unless that is the pool itself, and with more tokens than `data.max_prompt_tokens`. Of the others
    those held out, and then `data.num_questions` are drawn by `data.seed`, in the order of the source; 0: all.

    Raises UserError where something cannot be read, or nothing is left.
    """
    directory = sources.root(data.root)
    eval_set, eval_texts = None, {}
    if evaluation.sets:
        most = evaluation.questions
        eval_set, eval_texts = load_sets(evaluation.sets, directory, most, data.seed, columns, data.name)
    for name, source in sources.SETS.items():  # later evaluations may ask those too that are there
        if not (eval_set and name in eval_set.families) and sources.local(source, directory):
            eval_texts |= {_letters(row["problem"]): name for row in sources.rows(name, sources.SETS, directory)[0]}
    pool, heldout = load_pool(data, directory, eval_texts, count_tokens, columns, 0 if eval_set else data.num_heldout)
    return pool, eval_set or heldout


def load_pool(
    data: ConfigDict, directory: str, eval_texts: dict[str, str], count_tokens: Callable, columns: bool,
    num_heldout: int,
) -> tuple[Questions, Questions]:  # fmt: skip
    """The pool and what is held out of it, at most `num_heldout`.

    `eval_texts` is what evaluation sets hold: letters and digits of a question -> its set.
    """
    rows, origin = sources.rows(data.name, sources.POOLS, directory)
    source = sources.POOLS.get(data.name, sources.Source((), "", 0, data.difficulty_column))
    names = [f"{_stem(data.name)}:{i}" for i in range(len(rows))]
    labels = _labels(rows, data.difficulty_column or source.label, origin, required=bool(data.difficulty_column))
    why, copies = {}, collections.defaultdict(list)  # row -> reason to leave it out; text -> rows
    filtered = source.levels and any("level" in row for row in rows)
    column, _, values = data.where.partition("=")
    if values and not any(str(row.get(column)) in values.split("|") for row in rows):
        kind, there = ("values", {str(row.get(column)) for row in rows}) if column in rows[0] else ("columns", rows[0])
        has = shortened(", ".join(sorted(there)))
        raise UserError(f"no row of {origin} is as config.data.where={data.where} says; the {kind} there are {has}")
    for i, row in enumerate(rows):
        if not row["problem"] or not row["answer"]:
            why[i] = "without a problem or answer"
        elif filtered and _level(row) not in source.levels:
            why[i] = f"of another level than {min(source.levels)} to {max(source.levels)}"
        elif values and str(row.get(column)) not in values.split("|"):
            why[i] = f"not {data.where}"
        else:
            copies[_spaceless(row["problem"].casefold())].append(i)
    if not copies:
        raise UserError(
            f"no question of {origin} has both a problem and an answer (of a solution the box counts); mend the file"
        )
    answers, kept = {}, []
    for same in copies.values():
        first = same[0]
        for i in same[1:]:
            why[i] = f"the same as {names[first]}"
        answers[first] = collections.Counter(rows[i]["answer"] for i in same).most_common(1)[0][0]
        finite = labels[same][np.isfinite(labels[same])]
        labels[first] = finite.mean() if len(finite) else np.nan
        if name := eval_texts.get(_letters(rows[first]["problem"])):
            why[first] = f"in the evaluation set {name}"
        else:
            kept.append(first)
    for i, count in zip(kept, count_tokens([rows[i]["problem"] for i in kept]), strict=True):
        if count > data.max_prompt_tokens:
            why[i] = f"a prompt of more than {data.max_prompt_tokens} tokens"
    kept = [i for i in kept if i not in why]
    if not kept:
        raise UserError(f"no question of {origin} is left: {_reasons(why)}; raise config.data.max_prompt_tokens")
    order, candidates = np.random.default_rng(data.seed).permutation(len(rows)), set(kept)
    kept = [i for i in order.tolist() if i in candidates]
    heldout = kept[: min(num_heldout, max(1, len(kept) // 4))]
    why |= dict.fromkeys(heldout, "held out")
    kept = kept[len(heldout) :]
    if not kept:
        raise UserError(f"{origin} has one question to train on and to hold out; add others, or name config.eval.sets")
    drawn = sorted(kept[: data.num_questions or None])
    about = f"{origin}, {len(rows):,} rows" + (f"; left out: {_reasons(why)}" if why else "")
    if len(drawn) < len(kept):
        about += f"; {len(drawn):,} of the other {len(kept):,}, drawn with data.seed={data.seed}"
    elif data.num_questions > len(kept):
        about += f"; {len(kept):,} are all there are, fewer than data.num_questions={data.num_questions:,}"

    def questions(ids: list[int], **fields) -> Questions:
        fields = {"families": tuple(str(rows[i].get("subject") or data.name) for i in ids)} | fields
        return Questions(
            texts=tuple(rows[i]["problem"] for i in ids),
            answers=tuple(answers[i] for i in ids),
            levels=np.array([_level(rows[i]) or 1 for i in ids], np.int32),
            labels=labels[ids].astype(np.float32),
            names=tuple(names[i] for i in ids),
            columns=tuple(_others(rows[i]) for i in ids) if columns else None,
            **fields,
        )

    left_out = tuple((names[i], reason) for i, reason in sorted(why.items()))
    pool = questions(drawn, left_out=left_out, about=about)
    return pool, questions(sorted(heldout), families=(_stem(data.name),) * len(heldout))


def load_sets(
    names: str, directory: str, most: int = 0, seed: int = 0, columns: bool = False, pool: str = ""
) -> tuple[Questions, dict[str, str]]:
    """The evaluation sets that `names` lists with commas, one after the other; families name the sets.

    Rows that are equal up to spacing are one question with so many `repeats`, with the answer that most of them have,
    and with `columns` the first one's others. `most` questions of each set are drawn by `seed`; 0: all. Also what the
    sets but `pool` hold in all: letters and digits of a question -> its set. Raises UserError where one cannot be read,
    or holds a question without an answer, or with several that are equally frequent.
    """
    questions, eval_texts = [], {}
    for name in sources.names(names):
        rows, origin = sources.rows(name, sources.SETS, directory)
        stem, copies = _stem(name), collections.defaultdict(list)
        if any(stem == family for _, _, family, *_ in questions):
            raise UserError(f"two evaluation sets are called {stem}; rename the file, or name each set once")
        eval_texts |= {_letters(row["problem"]): stem for row in rows if name != pool}
        for i, row in enumerate(rows):
            copies[_spaceless(row["problem"].casefold()) or i].append(i)
        groups = list(copies.values())
        if most:
            order = np.sort(np.random.default_rng(seed).permutation(len(groups))[:most])
            groups = [groups[i] for i in order]
        for same in groups:
            for i in same:
                if not rows[i]["problem"] or not rows[i]["answer"]:
                    why = "no problem or no answer (of a solution the box counts)"
                    raise UserError(f"row {i} of {origin} has {why}; mend or remove it")
            first = rows[same[0]]
            answer = _agreed(same, rows, origin) + _tolerance(first)
            others = _others(first) if columns else None
            questions.append((first["problem"], answer, stem, f"{stem}:{same[0]}", len(same), others))
    if not questions:
        raise UserError("config.eval.sets names no evaluation set; choose of " + ", ".join(sources.SETS))
    texts, answers, families, ids, repeats, others = zip(*questions, strict=True)
    levels, repeats = np.ones(len(texts), np.int32), repeats if max(repeats) > 1 else None
    others = others if columns else None
    return Questions(texts, answers, families, levels, names=ids, repeats=repeats, columns=others), eval_texts


def _others(row: dict) -> dict:
    """The columns of a row beside its problem and answer."""
    return {name: value for name, value in row.items() if name not in ("problem", "answer")}


def _agreed(same: list[int], rows: list[dict], origin: str) -> str:
    """The answer that most of these rows have, as the first of them spells it. Raises UserError where none leads."""
    spelled = {_spaceless(rows[i]["answer"]): rows[i]["answer"] for i in reversed(same)}
    counts = collections.Counter(_spaceless(rows[i]["answer"]) for i in same).most_common(2)
    if len(counts) == 2 and counts[0][1] == counts[1][1]:
        a, b = (next(i for i in same if _spaceless(rows[i]["answer"]) == answer) for answer, _ in counts)
        answers = " and ".join(repr(rows[i]["answer"][:40]) for i in (a, b))
        raise UserError(f"rows {a} and {b} of {origin} ask the same and answer {answers}; mend or remove one")
    return spelled[counts[0][0]]


def _spaceless(text: str) -> str:
    return _SPACING.sub("", text)


def _tolerance(row: dict) -> str:
    """How far from the answer a number may be, for the mathematics grader, where the column `error` says so."""
    error = str(row.get("error") or "").strip()
    return rf"\tolerance{{{error}}}" if re.fullmatch(r"[0-9.]+(?:e-?[0-9]+)?", error) else ""


def _stem(name: str) -> str:
    """Of a known name, a file, a folder or a dataset: what questions are called by."""
    path = name.split(":")[0] if sources.HUB.fullmatch(name) else name.rstrip("/\\")
    return re.sub(r"\.(parquet|jsonl?|[ct]sv)(\.gz)?$", "", re.split(r"[/\\]", path)[-1])


def _letters(text: str) -> str:
    return "".join(c for c in text.casefold() if c.isalnum())


def _level(row: dict) -> int | None:
    """The number in the column `level`, such as 3 or "Level 3"."""
    match = re.fullmatch(r"(?:level )?(\d{1,9})(?:\.0)?", str(row.get("level")).casefold())
    return int(match[1]) if match else None


def _labels(rows: list[dict], column: str, origin: str, required: bool) -> np.ndarray:
    """External difficulty, float64 [rows], larger is harder, NaN where there is none."""
    name, sign = column.removeprefix("-"), -1 if column.startswith("-") else 1

    def read_label(row: dict) -> float | None:
        if name == "level":
            return _level(row)
        try:
            return None if row.get(name) in (None, "") else float(row[name])
        except (TypeError, ValueError, OverflowError):
            value = str(row[name])[:40]
            raise UserError(f"{origin}: {value!r} in the column {name} is not a number; mend it") from None

    labels = [read_label(row) if name else None for row in rows]
    if required and all(label is None for label in labels):
        raise UserError(
            f"{origin} has no column {name} with numbers, which config.data.difficulty_column names; it has "
            + ", ".join(rows[0])
        )
    return np.array([np.nan if label is None else sign * label for label in labels])


def _reasons(why: dict[int, str]) -> str:
    """How many for which reason, the most frequent first."""
    counts = collections.Counter("repeated" if r.startswith("the same as") else r for r in why.values())
    return ", ".join(f"{count:,} {reason}" for reason, count in counts.most_common())
