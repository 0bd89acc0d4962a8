"""Sets of real numbers: intervals, unions and inequalities."""

import itertools
import operator
from collections.abc import Callable
from fractions import Fraction
from typing import NamedTuple

from mpmath import mp

from dots_jax.reward import answers, formula, value
from dots_jax.reward.answers import Leaf, Many, Region, Relation, compact
from dots_jax.reward.formula import Unreadable, negative
from dots_jax.reward.value import Point


class _Line(NamedTuple):
    """A set of real numbers."""

    contains: Callable  # whether it holds a number
    breaks: list  # where it may begin or end
    variable: str | None = None


def _order(x, y) -> int:
    if isinstance(x, Fraction) and isinstance(y, Fraction):
        return (x > y) - (x < y)
    x, y = value.real(x), value.real(y)
    if mp.im(x) or mp.im(y):
        raise Unreadable("an order of complex numbers")
    if mp.isfinite(x) and mp.isfinite(y) and abs(x - y) <= mp.mpf(10) ** -20 * max(1, abs(x)):
        return 0
    return int(x > y) - int(x < y)


def _constant(item):
    if not isinstance(item, Leaf) or item.tree is None or formula.names(item.tree):
        raise Unreadable("no constant")
    found = value.value(item.tree, Point(1, 0, 1))
    if isinstance(found, list):
        raise Unreadable("a matrix")
    return found


def _line(item) -> _Line:
    if isinstance(item, Relation):
        return _inequality(item)
    if isinstance(item, Region):
        a, b = (_line(x) for x in item.parts)
        keep = _KEEPS[item.sign]
        return _Line(lambda t: keep(a.contains(t), b.contains(t)), a.breaks + b.breaks, a.variable or b.variable)
    if isinstance(item, Many) and item.kind in ("set", "list"):
        return _lines([_line(x) for x in item.items], item)
    if isinstance(item, Many):
        return _interval(item)
    if answers.is_region(item):
        return _Line(lambda t: True, [])
    x = _constant(item)
    return _Line(lambda t: _order(t, x) == 0, [x])


def _interval(item: Many) -> _Line:
    if len(item.items) != 2 or item.brackets not in ("()", "(]", "[)", "[]"):
        raise Unreadable("no interval")
    low, high = (_constant(x) for x in item.items)
    if _order(low, high) >= (item.brackets == "[]"):
        raise Unreadable("no interval")
    a, b = item.brackets
    breaks = [v for v in (low, high) if mp.isfinite(value.real(v))]
    return _Line(lambda t: _order(t, low) > -(a == "[") and _order(t, high) < (b == "]"), breaks)


def _lines(lines: list[_Line], item: Many) -> _Line:
    breaks = [b for line in lines for b in line.breaks]
    variables = {line.variable for line in lines} - {None}
    if len(variables) > 1 or not lines:
        raise Unreadable("a region of several variables")
    joint = all(isinstance(x, Relation) and x.signs != ["="] for x in item.items) and item.brackets != "or"
    every = lambda t: all(line.contains(t) for line in lines)  # noqa: E731
    if joint and (item.brackets == "and" or any(every(t) for t in _samples(breaks))):
        return _Line(every, breaks, *variables)
    return _Line(lambda t: any(line.contains(t) for line in lines), breaks, *variables)


_KEEPS = {r"\cup": operator.or_, r"\cap": operator.and_, r"\setminus": operator.gt}
_HOLDS = {
    "<": operator.lt, ">": operator.gt, r"\le": operator.le, r"\ge": operator.ge, r"\ne": operator.ne, "=": operator.eq
}  # fmt: skip


def _inequality(item: Relation) -> _Line:
    if item.signs == [r"\in"]:
        line = _line(item.sides[1])
        return _Line(line.contains, line.breaks, compact(item.sides[0].text))
    if any(not isinstance(s, Leaf) or s.tree is None for s in item.sides):
        raise Unreadable("no inequality")
    names = set().union(*(formula.names(s.tree) for s in item.sides))
    trees = [s.tree for s in item.sides]
    if not names:
        raise Unreadable("an inequality of numbers")
    if len(names) == 1 and not any(n.startswith("apply") for n in names):
        name = names.pop()
    else:  # 0 < f(x) < 1: of a quantity
        moving = [s for s in item.sides if formula.names(s.tree)]
        if len(moving) != 1 or not answers.is_label(moving[0].text):
            raise Unreadable("an inequality of several variables")
        name = compact(moving[0].text)
        trees = [("s", name) if formula.names(t) else t for t in trees]

    def at(tree, t):
        point = Point(1, 0, 1, False, False)
        point.bound[name] = t
        found = value.value(tree, point)
        if point.doubtful:
            raise Unreadable("not real")
        return found

    def contains(t):
        try:
            values = [at(tree, t) for tree in trees]
            return all(_HOLDS[s](_order(x, y), 0) for s, x, y in zip(item.signs, values, values[1:], strict=False))
        except Unreadable:
            return False

    breaks = []
    for x, y in zip(trees, trees[1:], strict=False):
        breaks += _zeros(lambda t, x=x, y=y: value.add(at(x, t), value.multiply(Fraction(-1), at(y, t))))
    return _Line(contains, breaks, name)


_GRID = sorted(
    {Fraction(s * k, 4) for k in range(121) for s in (1, -1)}
    | {Fraction(s * 10**k) for k in range(2, 7) for s in (1, -1)}
)


def _zeros(h) -> list:
    """Where a function of one variable vanishes, jumps, begins or ends."""

    def sign(t):
        try:
            return _order(h(t), Fraction(0))
        except Unreadable:
            return None

    try:
        line = [h(Fraction(t)) for t in range(4)]
        steps = [value.add(q, value.multiply(Fraction(-1), p)) for p, q in zip(line, line[1:], strict=False)]
        if steps[0] and _order(steps[0], steps[1]) == _order(steps[1], steps[2]) == 0:
            return [value.divide(value.multiply(Fraction(-1), line[0]), steps[0])]
    except Unreadable:
        pass
    found, signs = [], [sign(t) for t in _GRID]
    if sum(p != q for p, q in itertools.pairwise(signs)) > 16:
        raise Unreadable("a region of many parts")
    for low, high, below, above in zip(_GRID, _GRID[1:], signs, signs[1:], strict=False):
        if below == 0:
            found.append(low)
        if below == above or 0 in (below, above):
            continue
        a, b = value.real(low), value.real(high)
        for _ in range(100):
            middle = (a + b) / 2
            at_middle = sign(middle)
            if at_middle == 0:
                a = b = middle
                break
            a, b = (middle, b) if at_middle == below else (a, middle)
        near = Fraction(int(mp.nint((a + b) / 2 * 10**25)), 10**25).limit_denominator(1000)
        found.append(near if abs(value.real(near) - a) < mp.mpf(10) ** -24 else (a + b) / 2)
    return found


def _samples(breaks: list) -> list:
    ordered = sorted(breaks, key=value.real)
    points = [Fraction(0), Fraction(1, 7), Fraction(-(10**9)), Fraction(10**9)]
    near = (Fraction(0), Fraction(1, 10**9), Fraction(-1, 10**9), Fraction(-1), Fraction(1))
    points += [value.add(x, step) for x in ordered for step in near]
    return points + [value.divide(value.add(x, y), Fraction(2)) for x, y in itertools.pairwise(ordered)]


def same_line(a, b) -> bool:
    """Whether two regions hold the same numbers, of the same variable where both name it."""
    if any(isinstance(x, Leaf) and not answers.is_region(x) for x in (a, b)):
        return False
    a, b = _line(a), _line(b)
    if a.variable and b.variable and a.variable != b.variable:
        return False
    held = [(a.contains(t), b.contains(t)) for t in _samples(a.breaks + b.breaks)]
    trivial = len({x for x, _ in held}) == 1 and a.variable and b.variable  # everywhere or nowhere says little
    return not trivial and all(x == y for x, y in held)


TURNED = {"<": ">", r"\le": r"\ge", ">": "<", r"\ge": r"\le"}
_INFINITY = ("f", "infinity")


def as_interval(item):
    """`a < x <= b` as an interval, whatever a and b are."""
    if not isinstance(item, Relation) or item.signs == ["="]:
        return item
    sides, signs = item.sides, item.signs
    if signs == [r"\in"]:
        return sides[1]
    if len(signs) > 2 or any(s not in TURNED for s in signs):
        return item
    subject = sides[1] if len(signs) == 2 or not answers.is_label(sides[0].text) else sides[0]
    if signs[0] in (">", r"\ge"):
        sides, signs = sides[::-1], [TURNED[s] for s in signs[::-1]]
    if len(signs) == 1 and sides[0] is subject:
        sides, signs = [Leaf("-infty", negative(_INFINITY)), *sides], ["<", *signs]
    elif len(signs) == 1:
        sides, signs = [*sides, Leaf("infty", _INFINITY)], [*signs, "<"]
    if not set(signs) <= {"<", r"\le"} or not answers.is_label(subject.text):
        return item
    brackets = ("(" if signs[0] == "<" else "[") + (")" if signs[1] == "<" else "]")
    return Many("tuple", [sides[0], sides[2]], brackets, item.text)
