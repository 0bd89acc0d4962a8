"""What a value may be, in a config or a row of JSON: rules, and the check of a row by them."""

from collections.abc import Callable, Mapping

from dots_jax.core.errors import UserError

LARGEST = 2**31 - 1  # whole number: indices on devices have 32 bits

Rule = Callable[[object], str]  # of a value: what it must be, "" where it is that


def must(test: Callable[[object], bool], expected: str) -> Rule:
    """The rule that what passes the test is `expected`."""
    return lambda x: "" if test(x) else expected


def whole(low: int = 0, high: int = LARGEST) -> Rule:
    """A whole number."""
    return must(lambda x: is_whole(x) and low <= x <= high, f"a whole number from {low:,} to {high:,}")


def number(low: float = -1e30, high: float = 1e30) -> Rule:
    """A finite number."""
    return must(lambda x: is_number(x) and low <= x <= high, f"a number from {low:g} to {high:g}")


def real(test: Callable[[float], bool], words: str) -> Rule:
    """A number that float32 tells from 0."""

    def check(x):
        if is_number(x) and 0 < abs(x) < 1e-30:
            return f"a number {words}, and no nearer to 0 than 1e-30"
        return "" if is_number(x) and test(x) else f"a number {words}"

    return check


def one_of(*names: str) -> Rule:
    """One of some texts."""
    return must(lambda x: isinstance(x, str) and x in names, f"one of {', '.join(names)}")


def some(element: Rule, *lengths: int) -> Rule:
    """A list of values of one kind, of one of the `lengths`; of any length where none is given."""
    size = f"a list of {' or '.join(map(str, lengths))}" if lengths else "a list"

    def check(x):
        fits = isinstance(x, list | tuple) and (not lengths or len(x) in lengths)
        expected = next(filter(None, map(element, x if fits else [None])), "")
        return expected and f"{size}, each {expected}"

    return check


def optional(other: Rule) -> Rule:
    """A value of that kind, or null, or absent."""
    return lambda x: "" if x is None or not (expected := other(x)) else f"{expected}, or null"


text = must(lambda x: isinstance(x, str), "text")
flag = must(lambda x: isinstance(x, bool), "true or false")


def check_row(row: Mapping, fields: Mapping[str, Rule], where: str) -> None:
    """Raises UserError at the first of the `fields` of which the row has another value than its rule says, or none."""
    for name, rule in fields.items():
        if expected := rule(row.get(name)):
            found = f"{shortened(row[name])}, not" if name in row else "missing; it must be"
            raise UserError(f"{where}: {name!r} is {found} {expected}; mend or remove it")


def shortened(value) -> str:
    """How a value is shown in an error."""
    try:
        text = repr(value)
    except ValueError:  # a whole number of thousands of digits
        text = "a very long number"
    return text if len(text) <= 40 else f"{text[:37]}..."


def is_whole(value) -> bool:
    """A whole number; True and False are none."""
    return isinstance(value, int) and not isinstance(value, bool)


def is_number(value) -> bool:
    """A number that float32 holds, with room for what is computed from it."""
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= 1e30
