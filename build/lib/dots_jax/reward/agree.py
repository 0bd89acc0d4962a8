"""Whether two formulas agree, and two values with their units."""

import itertools
import math
import re
from fractions import Fraction

from mpmath import mp

from dots_jax.reward import formula, units, value
from dots_jax.reward.answers import Leaf, compact
from dots_jax.reward.formula import Unreadable
from dots_jax.reward.quick import close
from dots_jax.reward.value import Point

POINTS = [(1, 0, 1), (2, 1, 4), (3, 0, 3), (4, 2, 9), (5, 0, 1), (6, 4, 20)]  # seed, bounds of the variables
FAR = [(7, 50, 400), (8, 1000, 90000), (9, 20, 60), (10, 400, 2000)]  # where branches tell more apart
FAR += [(11, 0, 1), (12, 0, 100), (13, 0, 3000), (14, 8, 30), (15, 90, 140), (16, 0, 500), (21, 5000, 10**6)]
BELOW = [(17, -3, 0), (18, -3, 3), (19, -400, 400), (20, -90000, 0)]
DIGITS = mp.mpf(10) ** -35
_SIGNED = {("f", name) for name in ("abs", "max", "min")}
_BRANCHES = _SIGNED | {("f", "floor"), ("f", "ceil")}


def _same_value(x, y, decimals, tolerance=0) -> bool:
    if isinstance(x, list) != isinstance(y, list):
        x, y = (v[0][0] if isinstance(v, list) and len(v) == len(v[0]) == 1 else v for v in (x, y))
    if isinstance(x, list) != isinstance(y, list):
        return False
    if isinstance(x, list):
        if len(x) != len(y) or len(x[0]) != len(y[0]):
            return False
        pairs = [p for r, s in zip(x, y, strict=True) for p in zip(r, s, strict=True)]
        return all(_same_value(a, b, decimals, tolerance) for a, b in pairs)
    if isinstance(x, Fraction) and isinstance(y, Fraction):
        return close(x, y, decimals, tolerance)
    x, y = value.real(x), value.real(y)
    if not (mp.isfinite(x) and mp.isfinite(y)):
        return bool(x == y)
    size, difference = max(abs(x), abs(y)), abs(x - y)
    if difference <= DIGITS * size:
        return True
    allowed = min(mp.mpf(10) ** -6, size / 10**5) if all(decimals) else size / 10**6 if any(decimals) else 0
    return bool(difference <= max(allowed, value.real(Fraction(tolerance))))


def _decimal(tree) -> bool:
    return any(t[0] == "n" and t[2] for t in formula.walk(tree))


def _constant(a, b) -> bool:
    return formula.is_constant(a) and formula.is_constant(b)


def _settings(a, b) -> list[dict]:
    """How `i` and `log` may be meant."""
    imaginary = not {"i", "j"} <= formula.names(a) | formula.names(b)
    logs = (0, 10) if any(t[:2] == ("f", "log") for t in _parts(a, b)) else (0,)
    return [{"imaginary": imaginary, "log": log} for log in logs]


def _parts(a, b) -> itertools.chain:
    return itertools.chain(formula.walk(a), formula.walk(b))


def _points(a, b, setting: dict):
    """Points, from the kind that both trees can be computed at, with both values."""
    constant = _constant(a, b)
    for whole in (False, True):
        count = 0
        for seed, low, high in _further(a, b) + POINTS:
            point = Point(seed, low + whole, high + 6 * whole, whole, **setting)
            try:
                x, y = value.settled(a, point), value.settled(b, point)
            except Unreadable:
                if constant or count == 0 and seed == 3:
                    break
                continue
            count += 1
            yield point, x, y
            if constant:
                return
        if count or constant:
            return


def agree(a, b, tolerance=0) -> bool:
    """Whether two trees have the same value, wherever both have one."""
    decimals = (_decimal(a), _decimal(b))
    return any(_agree(a, b, decimals, tolerance, setting) for setting in _settings(a, b))


def _branches(tree) -> bool:
    """Whether other values may mean another formula."""
    if tree[:2] == ("f", "root"):
        return any(t[0] == "^" and formula.names(t) for t in formula.walk(tree))
    return tree[:2] in _BRANCHES


def _further(a, b) -> list[tuple]:
    """More points: where branches may differ, and where decimals that are large or small matter."""
    sizes = {abs(t[1]) for t in _parts(a, b) if t[0] == "n" and t[2] and t[1]}
    extreme = sorted(s for s in sizes if not Fraction(1, 100) < s < 100)[:4]
    roots = [Fraction(math.isqrt(int(s * 10**40)), 10**20) for s in extreme]
    near = [(30 + k, 0, 4 * s) for k, pair in enumerate(zip(extreme, roots, strict=True)) for s in pair]
    return near + (FAR if any(map(_branches, _parts(a, b))) else [])


def _agree(a, b, decimals, tolerance, setting) -> bool:
    sure, doubtful, enough = 0, [], 3 + len(_further(a, b))
    constant = _constant(a, b)
    for point, x, y in _points(a, b, setting):
        same = _same_value(x, y, decimals, tolerance)
        if point.doubtful and not constant:
            doubtful.append(same)
        elif not same:
            return False
        else:
            sure += 1
        if sure == enough:
            break
    if not (sure or (doubtful and all(doubtful))):
        return False
    return _agree_below_zero(a, b, decimals, setting)


def _agree_below_zero(a, b, decimals, setting) -> bool:
    """|x| is not x."""
    if all(formula.is_constant(t) for t in _parts(a, b) if t[:2] in _SIGNED):
        return True
    for seed, low, high in BELOW:
        point = Point(seed, low, high, **setting)
        try:
            x, y = value.value(a, point), value.value(b, point)
        except Unreadable:
            continue
        if not point.doubtful and not _same_value(x, y, decimals):
            return False
    return True


def proportional(a, b) -> int:
    """The sign of the constant factor between two trees; 0 where there is none."""
    if formula.names(a) != formula.names(b):
        return 0
    decimals = (_decimal(a), _decimal(b))
    for setting in _settings(a, b):
        first, sign, count = None, 0, 0
        for point, x, y in _points(a, b, setting):
            if isinstance(x, list) or isinstance(y, list) or point.doubtful or not y or not x:
                continue
            ratio = value.divide(x, y)
            if first is not None and not _same_value(ratio, first, decimals):
                break
            first, count = ratio, count + 1
            sign = 1 if mp.im(value.real(ratio)) or mp.re(value.real(ratio)) > 0 else -1
        else:
            if count >= 3:
                return sign
    return 0


def _times(tree, factor):
    return ("*", ("n", factor, False), tree) if isinstance(factor, Fraction) else ("*", factor, tree)


_DEGREE, _RADIAN, _PERCENT = (("degree", 1),), (("rad", 1),), (("%", 1),)
_CELSIUS, _KELVIN = (("degC", 1),), (("K", 1),)
_IN_RADIANS = ("f", "degree")


def same_leaf(a: Leaf, b: Leaf, tolerance=0) -> bool:
    """Whether two values with their units are equal."""
    pairs = itertools.product(filter(None, (a, a.also)), filter(None, (b, b.also)))
    return any(_same_leaf(x, y, tolerance) for x, y in pairs)


_BOUND = re.compile(r"\b(?:or|at|than|not|no)\b|^(?:squared|cubed|factorial|plus|minus|times(?= ))")


def _same_words(a: str, b: str) -> bool:
    """Whether two values may be the same, by the words that follow them; `or more` cannot be left out."""
    x, y = ([w.removesuffix("s") for w in re.findall("[a-z]+", words.lower())] for words in (a, b))
    return x == y or (not (x and y) and not _BOUND.search((a or b).lower()))


def _same_leaf(a: Leaf, b: Leaf, tolerance) -> bool:
    if not _same_words(a.words, b.words):
        return False
    if a.tree is None or b.tree is None:
        return a.tree is b.tree and compact(a.text) == compact(b.text) and not (a.unit and b.unit and a.unit != b.unit)
    if "base" in (a.tree[0], b.tree[0]):
        a_base, b_base = (
            t if t[0] == "base" else ("base", str(t[1]), 10) if t[0] == "n" else None for t in (a.tree, b.tree)
        )
        return a_base == b_base
    if b.unit and not b.known and not a.unit:
        return False  # the gold answer's last letter is rather a variable
    if any(u.unit and not v.unit and 0 < len(v.words) < 3 for u, v in ((a, b), (b, a))):
        return False
    if compact(a.value) == compact(b.value) and not (a.unit and b.unit and a.unit != b.unit):
        return True
    x, y = a.tree, b.tree
    (da, sa), (db, sb) = (leaf.unit or ((), Fraction(1)) for leaf in (a, b))
    if {da, db} == {_CELSIUS, _KELVIN}:
        x, y = (("+", t, ("n", Fraction("273.15"), True)) if d == _CELSIUS else t for t, d in ((x, da), (y, db)))
    elif a.unit and b.unit and not units.alike(da, db):
        if {da, db} == {_DEGREE, _RADIAN}:
            x, y = (_times(t, _IN_RADIANS) if d == _DEGREE else t for t, d in ((x, da), (y, db)))
        elif not {da, db} <= {_DEGREE, _CELSIUS, (("degF", 1),)} or _DEGREE not in (da, db):
            return False
    elif a.unit and b.unit and sa != sb:
        x = _times(x, sa / sb)
    if agree(x, y, tolerance):
        return True
    if bool(a.unit) == bool(b.unit):
        return False
    for dims, factor in ((_PERCENT, Fraction(1, 100)), (_DEGREE, _IN_RADIANS)):
        if da == dims:
            return agree(_times(x, factor), y, tolerance)
        if db == dims:
            return agree(x, _times(y, factor), tolerance / 100 if dims == _PERCENT else 0)
    return False
