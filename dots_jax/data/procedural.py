"""Questions that are made, not read: kinds and levels in equal shares, nothing twice, demonstrations of them."""

from collections.abc import Callable, Collection, Hashable, Sequence

import numpy as np

from dots_jax.core.errors import UserError
from dots_jax.data.questions import Questions

PATIENCE = 300  # known questions in a row after which a level counts as exhausted
MOST = 10**6  # questions, pool and held-out set together: of arithmetic they take half a minute to make

Example = tuple[str, str, str]  # prompt, completion, answer
Cell = tuple[str, int]  # family, level
Make = Callable[[np.random.Generator, str, int], Example]


def _unseen(make: Make, generator: np.random.Generator, cell: Cell, seen: Collection[str]) -> Example | None:
    """An example whose text is not in `seen`; None if the level seems exhausted."""
    tries = (make(generator, *cell) for _ in range(PATIENCE))
    return next((new for new in tries if new[0] not in seen), None)


def shares(name: str, cells: Sequence[Hashable], draw: Callable, counts: Sequence[int], seed: int) -> list[list]:
    """Sets of so many rows each, (what `draw` returned, its cell), shuffled, no text twice or in two sets.

    Every cell has the same number of rows in each set, give or take one; one that runs out leaves its share to the
    others. `draw(generator, cell, seen)` returns a tuple that begins with a text not in `seen`, or None: no more.
    A set depends on those before it, and on `seed`. Raises UserError if more are wanted than there are.
    """
    total = f"config.data.num_questions + num_heldout is {sum(counts):,}"
    if sum(counts) > MOST:
        raise UserError(f"{total}, but {name} makes at most {MOST:,} distinct questions; ask for fewer")
    order, *streams = (np.random.default_rng(s) for s in np.random.SeedSequence(seed).spawn(len(cells) + 1))
    seen, remaining = set(), list(range(len(cells)))

    def draw_set(count: int) -> list:
        rows = []
        while len(rows) < count:
            if not remaining:
                raise UserError(f"{total}, but {name} has only about {len(seen)} distinct questions; ask for fewer")
            for i in order.permutation(remaining)[: count - len(rows)]:
                new = draw(streams[i], cells[i], seen)
                if new is None:
                    remaining.remove(i)
                    continue
                seen.add(new[0])
                rows.append((new, cells[i]))
        return [rows[i] for i in order.permutation(count)]

    return [draw_set(count) for count in counts]


def make(
    name: str, cells: Sequence[Cell], example: Make, num_questions: int, num_heldout: int, seed: int
) -> tuple[Questions, Questions]:
    """A pool and a held-out set of examples, as `shares`; the held-out set depends on `num_heldout` and `seed` alone.

    Raises UserError if no question is needed, or more than there are.
    """
    if not num_questions:
        raise UserError(f"config.data.num_questions is 0; of {name} it must be at least 1")

    def draw(generator: np.random.Generator, cell: Cell, seen: Collection[str]) -> Example | None:
        return _unseen(example, generator, cell, seen)

    def questions(rows: list) -> Questions:
        fields = [(text, answer, *cell) for (text, _, answer), cell in rows]
        texts, answers, families, levels = zip(*fields, strict=True) if rows else ((), (), (), ())
        return Questions(texts, answers, families, np.array(levels, np.int32))

    eval_rows, rows = shares(name, cells, draw, (num_heldout, num_questions), seed)
    return questions(rows), questions(eval_rows)


def demonstrations(
    example: Make, families: Sequence[str], generator: np.random.Generator, n: int, weights: Sequence[float],
    exclude: Collection[str] = frozenset(),
) -> tuple[list[str], list[str], np.ndarray]:  # fmt: skip
    """`n` worked examples for supervised training: families uniform, levels in proportion to `weights` [levels].

    Returns texts, completions and levels (int32 [n]). No text is in `exclude` (the held-out set); texts can repeat.

    Raises UserError if all `weights` are 0, or `exclude` covers a whole level.
    """
    weights = np.asarray(weights, np.float64)
    if not weights.any():
        raise UserError("level weights are all 0; give at least one that is not")
    exclude = frozenset(exclude)
    levels = 1 + generator.choice(len(weights), size=n, p=weights / weights.sum()).astype(np.int32)
    cells = [(families[i], level) for i, level in zip(generator.integers(len(families), size=n), levels, strict=True)]
    examples = []
    for family, level in cells:
        examples.append(_unseen(example, generator, (family, int(level)), exclude))
        if examples[-1] is None:
            raise UserError(f"nearly all of {family} level {level} is held out; lower config.data.num_heldout")
    return [text for text, *_ in examples], [completion for _, completion, _ in examples], levels
