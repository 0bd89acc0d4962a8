"""The Countdown game: an expression of the given numbers, each used exactly once, that equals the target."""

import ast
import operator
import re
from fractions import Fraction

from dots_jax.reward.boxes import last_answer
from dots_jax.reward.types import Question

LONGEST = 300  # characters of an expression
_OPERATIONS = {ast.Add: operator.add, ast.Sub: operator.sub, ast.Mult: operator.mul, ast.Div: operator.truediv}
_SPELLINGS = ((r"\\(?:times|cdot)(?![a-z])|[×·]", "*"), (r"\\div(?![a-z])|÷", "/"), ("[−–]", "-"), (r"\s+", " "))
_LAYOUT = re.compile(r"\\(?:left|right)(?![a-z])|\\[()\[\],;! ]|\$")
_FRACTION = re.compile(r"\\[dt]?frac\s*\{([^{}]*)\}\s*\{([^{}]*)\}")


def score(completion: str, question: Question) -> float:
    """The last answer (`boxes.last_answer`) uses the numbers of the question's answer, and equals it.

    1 where it does, else 0. An expression has whole numbers, + - * /, parentheses and signs; `= TARGET` may stand
    beside it. Values are exact. Raises ValueError where the question's answer is no such expression.
    """
    solution = _read(question.answer)
    if solution is None:
        raise ValueError(f"its answer {question.answer[:40]!r} is no expression of numbers")
    sides = last_answer(completion).split("=")
    if len(sides) == 2:
        sides = [side for side in sides if side.strip(" $") != str(solution[1])]
    return float(len(sides) == 1 and _read(sides[0]) == solution)


score.extracted = lambda completion: last_answer(completion) or None


def _read(text: str) -> tuple[list[int], Fraction] | None:
    """The numbers of an expression in ascending order, and its value; None: it has none."""
    if len(text) > LONGEST:
        return None
    for pattern, character in _SPELLINGS:
        text = re.sub(pattern, character, text)
    text, count = _LAYOUT.sub("", text), 1
    while count:
        text, count = _FRACTION.subn(r"((\1)/(\2))", text)
    if len(text) > LONGEST or not re.fullmatch(r"[0-9+\-*/() ]+", text):
        return None
    numbers = []
    try:
        value = _value(ast.parse(text.strip(), mode="eval").body, numbers)
    except (SyntaxError, ValueError, ArithmeticError, RecursionError, MemoryError):
        return None
    return sorted(numbers), value


def _value(node: ast.expr, numbers: list[int]) -> Fraction:
    """The exact value; appends the numbers. Raises ValueError for what is not + - * / of whole numbers."""
    if isinstance(node, ast.Constant) and type(node.value) is int:
        numbers.append(node.value)
        return Fraction(node.value)
    if isinstance(node, ast.BinOp) and type(node.op) in _OPERATIONS:
        return _OPERATIONS[type(node.op)](_value(node.left, numbers), _value(node.right, numbers))
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, (ast.UAdd, ast.USub)):
        value = _value(node.operand, numbers)
        return -value if isinstance(node.op, ast.USub) else value
    raise ValueError(type(node).__name__)
