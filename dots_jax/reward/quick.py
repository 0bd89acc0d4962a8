"""What exact arithmetic on two plain numbers tells, without a parser."""

import functools
import re
from fractions import Fraction

LONGEST = 4000  # characters, within what int() reads; a longer answer is WRONG unless it is the gold answer itself

_TOLERANCE = re.compile(r"(.*?)\s*\\tolerance\{([^{}]*)\}\s*", re.DOTALL)
_DECIMAL = re.compile(
    r"([-+]?)([0-9]{1,3}(?:[, ][0-9]{3})+|[0-9]*)(\.[0-9]*)?"
    r"(?:(?:[eE]|(?:\\times|\\cdot|\*) ?10\^)(\{?)([-+]?[0-9]{1,3})(\}?))?"
)
_FRACTION = re.compile(
    r"([-+]?)(?:\\frac\{([-+]?[0-9]+)\}\{([0-9]+)\}|\\frac ?([0-9])([0-9])|([-+]?[0-9]+)\.?/([0-9]+)\.?)"
)


def tolerant(gold: str) -> tuple[str, Fraction]:
    r"""A gold answer and how far a number may be from it: what `\tolerance{0.1}` at its end says, else 0."""
    match = _TOLERANCE.fullmatch(gold)
    value = number(match[2].strip()) if match else None
    return (match[1], abs(value[0])) if match and value else (gold, Fraction(0))


def close(x: Fraction, y: Fraction, decimals: tuple[bool, bool], tolerance: Fraction | int = 0) -> bool:
    """Whether a value is the gold answer's, `y`: exactly, unless one of the two was written with `decimals`.

    Decimals may be off by a millionth, of small numbers by a hundred-thousandth part, and by a millionth part from what
    has no last decimal, such as a third.
    """
    if not any(decimals) or (x.denominator == 1 and y.denominator == 1):
        return abs(x - y) <= tolerance
    allowed = min(Fraction(1, 10**6), abs(y) / 10**5)
    if not all(d or _ends(v) for d, v in zip(decimals, (x, y), strict=True)):
        allowed = max(allowed, abs(y) / 10**6)
    return abs(x - y) <= max(allowed, tolerance)


def _ends(x: Fraction) -> bool:
    """Whether its decimals do."""
    bottom = x.denominator
    for p in (2, 5):
        while bottom % p == 0:
            bottom //= p
    return bottom == 1


@functools.lru_cache(maxsize=1 << 12)
def plain(text: str) -> str:
    """An answer without what carries no meaning: spaces, dollar signs around it, a full stop, sizes."""
    text = re.sub(r"(?<!\\)\\(?:! ?|(?:left|right|displaystyle)(?![a-zA-Z]))", "", text)
    text = re.sub(r"\{,\} ?", ",", re.sub(r"(?<!\\)(?:\\[,;: ]|~)", " ", text))
    text = re.sub(r"\\[dtc]frac(?![a-zA-Z])", r"\\frac", text)
    text = " ".join(text.split()).strip("$ ")
    if text.endswith(".") and not text.endswith(".."):
        text = text[:-1].rstrip("$ ")
    return re.sub(r"(?<=\W) (?!(?<=\d, )\d{3}(?!\d))| (?=\W)", "", text)  # `3, 125` is a list


def number(text: str) -> tuple[Fraction, bool, bool] | None:
    r"""Value of a `plain` answer that is one number, whether it was written exactly, and whether with separators.

    Whole numbers (`073`, `1,234`, `\$5`), decimals, `1.5e-10`, `1.5\times10^{-10}`, `\frac{1}{2}`, `1/2`.
    """
    text = text.replace(r"\$", "", 1)
    if match := _FRACTION.fullmatch(text):
        top, bottom = (int(s) for s in match.groups()[1:] if s is not None)
        return (Fraction(top, bottom) * (-1 if match[1] == "-" else 1), True, False) if bottom else None
    match = _DECIMAL.fullmatch(text)
    if not match or not (match[2] or (match[3] or "")[1:]) or len(match[4] or "") != len(match[6] or ""):
        return None
    sign, whole, decimals = match[1], re.sub("[, ]", "", match[2]), (match[3] or "").strip(".")
    value = Fraction(int(sign + (whole or "0") + decimals), 10 ** len(decimals)) * Fraction(10) ** int(match[5] or 0)
    return value, not decimals.strip("0") and match[5] is None, whole != match[2]


def quick(answer: str, gold: str) -> bool | None:
    """Whether two answers are equal, where their text or exact arithmetic tells; None where it does not."""
    gold, tolerance = tolerant(gold)
    if max(len(answer), len(gold)) > LONGEST:
        return answer == gold
    answer, gold = plain(answer), plain(gold)
    if answer == gold:
        return True
    a, b = number(answer), number(gold)
    if a is None or b is None:
        return None
    equal = close(a[0], b[0], (not a[1], not b[1]), tolerance)
    # `1,234` may also be two numbers.
    return None if not equal and (a[2] or b[2]) else equal


def key(answer: str) -> Fraction | str:
    """What answers have in common that are the same number, or the same text but for what carries no meaning."""
    if len(answer) > LONGEST:
        return answer
    value = number(plain(answer))
    return value[0] if value else plain(answer)
