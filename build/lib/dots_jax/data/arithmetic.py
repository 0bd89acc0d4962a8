"""Procedural arithmetic with verifiable answers, for character-level policies.

A question is a letter naming its family, the numbers and a closing '='. A demonstration is the answer alone or,
in the families that write their working out, `working>answer`.
"""

import operator
from collections.abc import Callable, Collection, Iterable, Sequence
from itertools import accumulate
from typing import NamedTuple

import numpy as np

from dots_jax.core.errors import UserError
from dots_jax.data.questions import Questions

ALPHABET = "0123456789+-=,>adprsw"
MAX_PROMPT = 16  # characters
MAX_COMPLETION = 31  # characters; the end token is one more
PATIENCE = 300  # known questions in a row after which a level counts as exhausted
MOST = 10**6  # questions, pool and held-out set together: they take half a minute to make

Example = tuple[str, str, str]  # prompt, completion, answer


def _digits(generator: np.random.Generator, count: int) -> list[int]:
    return generator.integers(0, 10, size=count).tolist()


def _number(generator: np.random.Generator, digits: int) -> int:
    """A number of exactly `digits` digits, never 0."""
    return int(generator.integers(10 ** (digits - 1), 10**digits))


def _join(items: Iterable, separator: str = "") -> str:
    return separator.join(map(str, items))


def sort(generator: np.random.Generator, count: int) -> Example:
    """`count` digits in ascending order."""
    digits = _digits(generator, count)
    answer = _join(sorted(digits))
    return f"s{_join(digits)}=", answer, answer


def reverse(generator: np.random.Generator, count: int) -> Example:
    """`count` digits backwards."""
    digits = _join(_digits(generator, count))
    return f"r{digits}=", digits[::-1], digits[::-1]


def prefix(generator: np.random.Generator, count: int) -> Example:
    """Running totals of `count` digits, in full."""
    digits = _digits(generator, count)
    answer = _join(accumulate(digits), ",")
    return f"p{_join(digits)}=", answer, answer


def _columns(terms: Iterable[int]) -> str:
    """Running totals from the units upwards: of each total, what is above its last digit is carried on."""
    totals, carry = [], 0
    for term in terms:
        totals.append(term + carry)
        carry = totals[-1] // 10
    return _join(totals, ",")


def _low_digits(number: int, count: int) -> list[int]:
    """The lowest `count` digits of a number, units first."""
    return [number // 10**i % 10 for i in range(count)]


def add(generator: np.random.Generator, size: tuple[int, int]) -> Example:
    """Sum of two numbers, the total of each column written first. `size`: digits of each."""
    a, b = (_number(generator, n) for n in size)
    working = _columns(map(operator.add, _low_digits(a, max(size)), _low_digits(b, max(size))))
    return f"a{a}+{b}=", f"{working}>{a + b}", str(a + b)


def difference(generator: np.random.Generator, size: tuple[int, int]) -> Example:
    """Larger minus smaller number, the total of each column written first. `size`: digits of each."""
    b, a = sorted(_number(generator, n) for n in size)
    working = _columns(map(operator.sub, _low_digits(a, max(size)), _low_digits(b, max(size))))
    return f"d{a}-{b}=", f"{working}>{a - b}", str(a - b)


def column(generator: np.random.Generator, digits: tuple[int, ...]) -> Example:
    """Sum of numbers with `digits` digits, the terms of every column written out with its carry."""
    numbers = [_number(generator, n) for n in digits]
    columns, carry = [], 0
    for i in range(max(digits)):
        terms = [a // 10**i % 10 for a, n in zip(numbers, digits, strict=True) if i < n]
        total = sum(terms) + carry
        columns.append(f"{_join(terms + [carry] if carry else terms, '+')}={total}")
        carry = total // 10
    answer = str(sum(numbers))
    return f"w{_join(numbers, '+')}=", f"{_join(columns, ',')}>{answer}", answer


class Task(NamedTuple):
    """A kind of question: a function of (generator, size), and the size at each level."""

    make: Callable[[np.random.Generator, object], Example]
    sizes: tuple


FAMILIES = {
    # Sorting starts at four digits: of three, 22% are sorted already and copying would pay.
    "sort": Task(sort, (4, 5, 6, 7, 8, 10)),
    "reverse": Task(reverse, (4, 6, 8, 10, 12, 14)),
    "prefix": Task(prefix, (3, 4, 5, 6, 7, 9)),
    "add": Task(add, ((2, 1), (2, 2), (3, 2), (3, 3), (4, 3), (4, 4))),
    "difference": Task(difference, ((2, 1), (2, 2), (3, 2), (3, 3), (4, 3), (4, 4))),
    "column": Task(column, ((2, 1), (2, 2), (3, 2), (3, 3), (2, 2, 2), (3, 2, 2))),
}
LEVELS = 6  # in every family, numbered from 1


def example(generator: np.random.Generator, family: str, level: int) -> Example:
    """One (prompt, completion, answer) of `family` at `level` (1 to LEVELS)."""
    make, sizes = FAMILIES[family]
    return make(generator, sizes[level - 1])


def _unseen(generator: np.random.Generator, family: str, level: int, seen: Collection[str]) -> Example | None:
    """An example whose text is not in `seen`; None if the level seems exhausted."""
    tries = (example(generator, family, level) for _ in range(PATIENCE))
    return next((new for new in tries if new[0] not in seen), None)


def make(num_questions: int, num_heldout: int, seed: int) -> tuple[Questions, Questions]:
    """A pool and a held-out set: shuffled, without duplicates, no text in both.

    Every family and level has the same number of questions in each set, give or take one; a level that runs out
    leaves its share to the others. The held-out set depends on `num_heldout` and `seed` alone.

    Raises UserError if no question is needed, or more than there are.
    """
    if not num_questions:
        raise UserError("config.data.num_questions is 0; of arithmetic it must be at least 1")
    total = f"config.data.num_questions + num_heldout is {num_questions + num_heldout:,}"
    if num_questions + num_heldout > MOST:
        raise UserError(f"{total}, but arithmetic makes at most {MOST:,} distinct questions; ask for fewer")
    cells = [(family, level) for family in FAMILIES for level in range(1, LEVELS + 1)]
    order, *streams = (np.random.default_rng(s) for s in np.random.SeedSequence(seed).spawn(len(cells) + 1))
    seen, remaining = set(), list(range(len(cells)))

    def draw(count: int) -> Questions:
        rows = []
        while len(rows) < count:
            if not remaining:
                raise UserError(f"{total}, but arithmetic has only about {len(seen)} distinct questions; ask for fewer")
            for cell in order.permutation(remaining)[: count - len(rows)]:
                text, _, answer = _unseen(streams[cell], *cells[cell], seen) or ("", "", "")
                if not text:
                    remaining.remove(cell)
                    continue
                seen.add(text)
                rows.append((text, answer, *cells[cell]))
        rows = [rows[i] for i in order.permutation(count)]
        texts, answers, families, levels = zip(*rows, strict=True) if rows else ((), (), (), ())
        return Questions(texts, answers, families, np.array(levels, np.int32))

    eval_set = draw(num_heldout)
    return draw(num_questions), eval_set


def with_mistakes(generator: np.random.Generator, completion: str, expected: float) -> str:
    """The completion with `expected` wrong digits on average, each equally likely, half of them at most."""
    characters = list(completion)
    digits = np.array([i for i, character in enumerate(characters) if character.isdigit()])
    wrong = digits[generator.random(len(digits)) < min(0.5, expected / len(digits))]
    for i, shift in zip(wrong, generator.integers(1, 10, size=len(wrong)), strict=True):
        characters[i] = str((int(characters[i]) + int(shift)) % 10)
    return _join(characters)


def demonstrations(
    generator: np.random.Generator, n: int, weights: Sequence[float], exclude: Collection[str] = frozenset()
) -> tuple[list[str], list[str], np.ndarray]:
    """`n` worked examples for supervised training: families uniform, levels in proportion to `weights` [LEVELS].

    Returns texts, completions and levels (int32 [n]). No text is in `exclude` (the held-out set); texts can repeat.

    Raises UserError if all `weights` are 0, or `exclude` covers a whole level.
    """
    weights = np.asarray(weights, np.float64)
    if not weights.any():
        raise UserError("level weights are all 0; give at least one that is not")
    exclude = frozenset(exclude)
    levels = 1 + generator.choice(LEVELS, size=n, p=weights / weights.sum()).astype(np.int32)
    families = [list(FAMILIES)[i] for i in generator.integers(len(FAMILIES), size=n)]
    examples = []
    for family, level in zip(families, levels.tolist(), strict=True):
        examples.append(_unseen(generator, family, level, exclude))
        if examples[-1] is None:
            raise UserError(f"nearly all of {family} level {level} is held out; lower config.data.num_heldout")
    return [text for text, *_ in examples], [completion for _, completion, _ in examples], levels
