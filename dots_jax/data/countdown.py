"""The Countdown game: write an equation of the given numbers, each used exactly once, that equals the target.

In words for language models, or as `3,7,2=8:` for character-level policies, whose completion is the expression alone.
The answer of a question is one of its solutions: `reward.countdown` reads the numbers and the target from it.
"""

from collections.abc import Collection, Sequence

import numpy as np

from dots_jax.data import procedural
from dots_jax.data.procedural import Example
from dots_jax.data.questions import Questions

ALPHABET = "0123456789+-*/(),=:"
MAX_PROMPT = 11  # characters
MAX_COMPLETION = 9  # characters; the end token is one more
KINDS = ((2, "sum"), (2, "product"), (3, "sum"), (3, "product"), (4, "sum"), (4, "product"))  # numbers, how: by level
LARGEST_NUMBER, LARGEST_TARGET = 99, 999  # in words
FAMILY = "countdown"

_TEXT = (
    "Using the numbers {}, write an equation that equals {}. Use each number exactly once, with the operations "
    "+, -, *, / and parentheses. The final answer is the expression alone, such as (1+2)*3."
)


def _sum(generator: np.random.Generator, numbers: list[int]) -> tuple[str, int]:
    """The first number, and each further one added or subtracted; its value."""
    signs = [1, *generator.choice([1, -1], len(numbers) - 1).tolist()]
    text = "".join(f"{'+' if sign > 0 else '-'}{n}" for sign, n in zip(signs, numbers, strict=True))
    return text[1:], sum(sign * n for sign, n in zip(signs, numbers, strict=True))


def _product(generator: np.random.Generator, numbers: list[int]) -> tuple[str, int]:
    """Each number joined with what stands before it, at least once by * or /; quotients are whole."""
    text, value, is_sum = str(numbers[0]), numbers[0], False
    must = generator.integers(1, len(numbers))  # which is multiplied or divided by
    for i, number in enumerate(numbers[1:], 1):
        operation = "*/"[generator.integers(2)] if i == must else "+-*/"[generator.integers(4)]
        if operation == "/" and value % number:
            operation = "*"
        if operation in "*/" and is_sum:
            text = f"({text})"
        text, is_sum = f"{text}{operation}{number}", operation in "+-"
        value = {"+": value + number, "-": value - number, "*": value * number, "/": value // number}[operation]
    return text, value


def _solved(generator: np.random.Generator, level: int, largest: int, largest_target: int) -> tuple:
    """Numbers list[int] in the order of a solution, a target from 1 to `largest_target`, and this solution's text."""
    count, kind = KINDS[level - 1]
    while True:
        numbers = generator.integers(1, largest + 1, size=count).tolist()
        solution, target = (_sum if kind == "sum" else _product)(generator, numbers)
        if 0 < target <= largest_target:
            return numbers, target, solution


def in_words(generator: np.random.Generator, family: str, level: int) -> Example:
    """One (prompt, completion, answer) at `level` (1 to 6)."""
    numbers, target, solution = _solved(generator, level, LARGEST_NUMBER, LARGEST_TARGET)
    return _TEXT.format(generator.permutation(numbers).tolist(), target), solution, solution


def in_characters(generator: np.random.Generator, family: str, level: int) -> Example:
    """One (prompt, completion, answer) at `level` (1 to 6), of numbers to 9 in the order of a solution; pairs to 20."""
    numbers, target, solution = _solved(generator, level, 20 if KINDS[level - 1][0] == 2 else 9, 99)
    return f"{','.join(map(str, numbers))}={target}:", solution, solution


def make(num_questions: int, num_heldout: int, seed: int, words: bool = True) -> tuple[Questions, Questions]:
    """A pool and a held-out set, as `procedural.make`: every question has a solution, levels are those of `KINDS`."""
    cells, example = [(FAMILY, level) for level in range(1, len(KINDS) + 1)], in_words if words else in_characters
    return procedural.make(FAMILY, cells, example, num_questions, num_heldout, seed)


def with_mistakes(generator: np.random.Generator, completion: str, expected: float) -> str:
    """The completion with `expected` other operations on average, each equally likely, half of them at most."""
    operations = np.array([i for i, character in enumerate(completion) if character in "+-*/"])
    characters = list(completion)
    for i in operations[generator.random(len(operations)) < min(0.5, expected / len(operations))]:
        characters[i] = "+-*/"[("+-*/".index(characters[i]) + generator.integers(1, 4)) % 4]
    return "".join(characters)


def demonstrations(
    generator: np.random.Generator, n: int, weights: Sequence[float], exclude: Collection[str] = frozenset()
) -> tuple[list[str], list[str], np.ndarray]:
    """`n` solved questions in characters for supervised training, as `procedural.demonstrations`."""
    return procedural.demonstrations(in_characters, [FAMILY], generator, n, weights, exclude)
