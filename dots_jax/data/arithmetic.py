"""Procedural arithmetic with verifiable answers, for character-level policies.

A question is a letter naming its family, the numbers and a closing '='. A demonstration is the answer alone or,
in the families that write their working out, `working>answer`.
"""

import operator
from collections.abc import Callable, Collection, Iterable, Sequence
from itertools import accumulate
from typing import NamedTuple

import numpy as np

from dots_jax.data import procedural
from dots_jax.data.procedural import Example
from dots_jax.data.questions import Questions

ALPHABET = "0123456789+-=,>adprsw"
MAX_PROMPT = 16  # characters
MAX_COMPLETION = 31  # characters; the end token is one more


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


def make(num_questions: int, num_heldout: int, seed: int) -> tuple[Questions, Questions]:
    """A pool and a held-out set, as `procedural.make`."""
    cells = [(family, level) for family in FAMILIES for level in range(1, LEVELS + 1)]
    return procedural.make("arithmetic", cells, example, num_questions, num_heldout, seed)


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
    """`n` worked examples for supervised training, as `procedural.demonstrations`."""
    return procedural.demonstrations(example, list(FAMILIES), generator, n, weights, exclude)
