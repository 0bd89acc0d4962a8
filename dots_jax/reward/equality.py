"""Whether two answers are equal, as a careful teacher sees it; docs/mathematics.md states the rules."""

import functools
import itertools
import re
from fractions import Fraction

from mpmath import mp

from dots_jax.reward import answers, formula, notation, units
from dots_jax.reward.answers import Leaf, Many, Region, Relation
from dots_jax.reward.formula import Point, Unreadable
from dots_jax.reward.quick import close, tolerant

POINTS = [(1, 0, 1), (2, 1, 4), (3, 0, 3), (4, 2, 9), (5, 0, 1), (6, 4, 20)]  # seed, bounds of the variables
DIGITS = mp.mpf(10) ** -25
MINUS = ("n", Fraction(-1), False)


# ---- numbers


def _same_value(x, y, decimals, tolerance=0) -> bool:
    if isinstance(x, list) != isinstance(y, list):
        x, y = (v[0][0] if isinstance(v, list) and len(v) == len(v[0]) == 1 else v for v in (x, y))
    if isinstance(x, list) and isinstance(y, list):
        if len(x) != len(y) or len(x[0]) != len(y[0]):
            return False
        pairs = [p for r, s in zip(x, y, strict=True) for p in zip(r, s, strict=True)]
        return all(_same_value(a, b, decimals, tolerance) for a, b in pairs)
    if isinstance(x, list) or isinstance(y, list):
        return False
    if isinstance(x, Fraction) and isinstance(y, Fraction):
        return close(x, y, decimals, tolerance)
    x, y = formula.real(x), formula.real(y)
    if not (mp.isfinite(x) and mp.isfinite(y)):
        return bool(x == y)
    size, difference = max(abs(x), abs(y)), abs(x - y)
    if difference <= DIGITS * size:
        return True
    allowed = min(mp.mpf(10) ** -6, size / 10**5) if all(decimals) else size / 10**6 if any(decimals) else 0
    return bool(difference <= max(allowed, formula.real(Fraction(tolerance))))


def _decimal(tree) -> bool:
    return any(t[0] == "n" and t[2] for t in formula.walk(tree))


def _settings(a, b) -> list[dict]:
    """How `i` and `log` may be meant."""
    names = formula.names(a) | formula.names(b)
    logs = (0, 10) if any(t[:2] == ("f", "log") for t in itertools.chain(formula.walk(a), formula.walk(b))) else (0,)
    imaginary = not {"i", "j"} <= names
    return [{"imaginary": imaginary, "log": log} for log in logs]


def _points(a, b, setting: dict):
    """Points, from the kind that both trees can be computed at, with both values."""
    constant = not (formula.names(a) | formula.names(b)) - {"i"}
    for whole in (False, True):
        count = 0
        for seed, low, high in POINTS:
            point = Point(seed, low + 1 if whole else low, high + 6 if whole else high, whole, **setting)
            try:
                x, y = formula.settled(a, point), formula.settled(b, point)
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


def _agree(a, b, decimals, tolerance, setting) -> bool:
    sure, doubtful = 0, []
    constant = not (formula.names(a) | formula.names(b)) - {"i"}
    for point, x, y in _points(a, b, setting):
        same = _same_value(x, y, decimals, tolerance)
        if point.doubtful and not constant:
            doubtful.append(same)
        elif not same:
            return False
        else:
            sure += 1
        if sure == 3:
            break
    if not (sure or (doubtful and all(doubtful))):
        return False
    return _agree_below_zero(a, b, decimals, setting)


def _agree_below_zero(a, b, decimals, setting) -> bool:
    """|x| is not x."""
    absolute = [t for t in itertools.chain(formula.walk(a), formula.walk(b)) if t[:2] == ("f", "abs")]
    if not any(formula.names(t) - {"i"} for t in absolute):
        return True
    for seed in (11, 12):
        point = Point(seed, -3, 0, **setting)
        try:
            x, y = formula.value(a, point), formula.value(b, point)
        except Unreadable:
            continue
        if not point.doubtful and not _same_value(x, y, decimals):
            return False
    return True


def proportional(a, b, positive: bool = False) -> int:
    """The sign of the constant factor between two trees; 0 where there is none."""
    decimals = (_decimal(a), _decimal(b))
    for setting in _settings(a, b):
        first, sign, count = None, 0, 0
        for point, x, y in _points(a, b, setting):
            if isinstance(x, list) or isinstance(y, list) or point.doubtful or not y or not x:
                continue
            ratio = formula.divide(x, y)
            if first is not None and not _same_value(ratio, first, decimals):
                break
            first, count = ratio, count + 1
            sign = 1 if mp.im(formula.real(ratio)) or mp.re(formula.real(ratio)) > 0 else -1
        else:
            if count >= 3:
                return sign
    return 0


# ---- values


def _compact(text: str) -> str:
    text = re.sub(r"\\text\{([^{}]*)\}", r"\1", text)
    text = re.sub(r"(?<!\d)\s+|\s+(?!\d)", "", re.sub(r"(\\[a-zA-Z]+)\s+(?=[a-zA-Z])", r"\1{}", text))
    return re.sub(r"(?<=[_^])\{(\w)\}", r"\1", text)


def _times(tree, factor):
    return ("*", ("n", factor, False), tree) if isinstance(factor, Fraction) else ("*", factor, tree)


_DEGREE, _PERCENT = (("degree", 1),), (("%", 1),)
_RADIAN = ("f", "degree")


def same_leaf(a: Leaf, b: Leaf, tolerance=0) -> bool:
    """Whether two values with their units are equal."""
    for x in filter(None, (a, a.also)):
        for y in filter(None, (b, b.also)):
            if _same_leaf(x, y, tolerance):
                return True
    return False


def _same_leaf(a: Leaf, b: Leaf, tolerance) -> bool:
    if a.tree is None or b.tree is None:
        return a.tree is b.tree and _compact(a.text) == _compact(b.text) and not (a.unit and b.unit and a.unit != b.unit)
    if "base" in (a.tree[0], b.tree[0]):
        a_base, b_base = (t if t[0] == "base" else ("base", str(t[1]), 10) if t[0] == "n" else None for t in (a.tree, b.tree))
        return a_base == b_base
    if b.unit and not b.known and not a.unit:
        return False  # the gold answer's last letter is rather a variable
    if any(u.unit and not v.unit and 0 < len(v.words) < 3 for u, v in ((a, b), (b, a))):
        return False
    x, y = a.tree, b.tree
    (da, sa), (db, sb) = (leaf.unit or ((), Fraction(1)) for leaf in (a, b))
    if a.unit and b.unit and da != db:
        if {da, db} == {_DEGREE, ()}:
            x, y = (_times(t, _RADIAN) if d == _DEGREE else t for t, d in ((x, da), (y, db)))
        elif not {da, db} <= {_DEGREE, (("degC", 1),), (("degF", 1),)} or _DEGREE not in (da, db):
            return False
    elif a.unit and b.unit and sa != sb:
        x, y = _times(x, sa), _times(y, sb)
    if agree(x, y, tolerance):
        return True
    if bool(a.unit) == bool(b.unit):
        return False
    for dims, factor in ((_PERCENT, Fraction(1, 100)), (_DEGREE, _RADIAN)):
        if da == dims:
            return agree(_times(x, factor), y, tolerance)
        if db == dims:
            return agree(x, _times(y, factor), tolerance)
    return False


# ---- regions of the real line


class _Line:
    """A set of real numbers: whether it contains one, where it may begin or end, and the name of its variable."""

    def __init__(self, contains, breaks, variable=None):
        self.contains, self.breaks, self.variable = contains, breaks, variable


def _order(x, y) -> int:
    if isinstance(x, Fraction) and isinstance(y, Fraction):
        return (x > y) - (x < y)
    x, y = formula.real(x), formula.real(y)
    if mp.im(x) or mp.im(y):
        raise Unreadable("an order of complex numbers")
    if mp.isfinite(x) and mp.isfinite(y) and abs(x - y) <= mp.mpf(10) ** -20 * max(1, abs(x)):
        return 0
    return int(x > y) - int(x < y)


def _constant(item):
    if not isinstance(item, Leaf) or item.tree is None or formula.names(item.tree):
        raise Unreadable("no constant")
    value = formula.value(item.tree, Point(1, 0, 1))
    if isinstance(value, list):
        raise Unreadable("a matrix")
    return value


def _line(item) -> _Line:
    if isinstance(item, Leaf):
        if answers._is_region(item):
            return _Line(lambda x: True, [])
        x = _constant(item)
        return _Line(lambda t: _order(t, x) == 0, [x])
    if isinstance(item, Many) and item.kind == "tuple" and len(item.items) == 2 and item.brackets in ("()", "(]", "[)", "[]"):
        low, high = (_constant(x) for x in item.items)
        if _order(low, high) >= (0 if item.brackets != "[]" else 1):
            raise Unreadable("no interval")
        a, b = item.brackets
        return _Line(
            lambda t: _order(t, low) > -(a == "[") and _order(t, high) < (b == "]"), [v for v in (low, high) if mp.isfinite(formula.real(v))]
        )
    if isinstance(item, Many) and item.kind in ("set", "list"):
        return _lines([_line(x) for x in item.items], item)
    if isinstance(item, Region):
        a, b = (_line(x) for x in item.parts)
        keep = {r"\cup": lambda p, q: p or q, r"\cap": lambda p, q: p and q, r"\setminus": lambda p, q: p and not q}[item.sign]
        return _Line(lambda t: keep(a.contains(t), b.contains(t)), a.breaks + b.breaks, a.variable or b.variable)
    if isinstance(item, Relation):
        return _inequality(item)
    raise Unreadable("no region")


def _lines(lines: list[_Line], item: Many) -> _Line:
    breaks = [b for line in lines for b in line.breaks]
    variables = {line.variable for line in lines} - {None}
    if len(variables) > 1 or not lines:
        raise Unreadable("a region of several variables")
    joint = all(isinstance(x, Relation) and x.signs != ["="] for x in item.items) and item.brackets != "or"
    every = lambda t: all(line.contains(t) for line in lines)  # noqa: E731
    if joint and any(every(t) for t in _samples(breaks)):
        return _Line(every, breaks, *variables)
    return _Line(lambda t: any(line.contains(t) for line in lines), breaks, *variables)


_HOLDS = {"<": lambda o: o < 0, ">": lambda o: o > 0, r"\le": lambda o: o <= 0, r"\ge": lambda o: o >= 0, r"\ne": lambda o: o != 0, "=": lambda o: o == 0}


def _inequality(item: Relation) -> _Line:
    if item.signs == [r"\in"]:
        line = _line(item.sides[1])
        return _Line(line.contains, line.breaks, _compact(item.sides[0].text))
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
        if len(moving) != 1 or not answers._label_text(moving[0].text):
            raise Unreadable("an inequality of several variables")
        name = _compact(moving[0].text)
        trees = [("s", name) if formula.names(t) else t for t in trees]

    def at(tree, t):
        point = Point(1, 0, 1, False, False)
        point.bound[name] = t
        value = formula.value(tree, point)
        if point.doubtful:
            raise Unreadable("not real")
        return value

    def contains(t):
        try:
            values = [at(tree, t) for tree in trees]
            return all(_HOLDS[s](_order(x, y)) for s, x, y in zip(item.signs, values, values[1:], strict=False))
        except Unreadable:
            return False

    breaks = []
    for x, y in zip(trees, trees[1:], strict=False):
        try:
            h = [formula.add(at(x, Fraction(t)), formula.multiply(Fraction(-1), at(y, Fraction(t)))) for t in (0, 1)]
            root = formula.divide(formula.multiply(Fraction(-1), h[0]), formula.add(h[1], formula.multiply(Fraction(-1), h[0])))
        except Unreadable:
            continue
        breaks += [root, -root]
        if _order(root, Fraction(0)) > 0:
            breaks += [mp.sqrt(formula.real(root)), -mp.sqrt(formula.real(root))]
    return _Line(contains, breaks, name)


def _samples(breaks: list) -> list:
    ordered = sorted(breaks, key=formula.real)
    points = [Fraction(0), Fraction(1, 7), Fraction(-10**9), Fraction(10**9)]
    for x in ordered:
        step = Fraction(1, 10**9)
        points += [x, formula.add(x, step), formula.add(x, -step), formula.add(x, Fraction(-1)), formula.add(x, Fraction(1))]
    points += [formula.divide(formula.add(x, y), Fraction(2)) for x, y in zip(ordered, ordered[1:], strict=False)]
    return points


def same_line(a, b) -> bool:
    """Whether two regions hold the same numbers, of the same variable where both name it."""
    a, b = _line(a), _line(b)
    if a.variable and b.variable and a.variable != b.variable:
        return False
    held = [(a.contains(t), b.contains(t)) for t in _samples(a.breaks + b.breaks)]
    trivial = len({x for x, _ in held}) == 1 and a.variable and b.variable  # everywhere or nowhere says little
    return not trivial and all(x == y for x, y in held)


def _interval(item):
    """`a < x <= b` as an interval, whatever a and b are."""
    if not isinstance(item, Relation) or item.signs == ["="]:
        return item
    if item.signs == [r"\in"]:
        return item.sides[1]
    sides, signs = item.sides, item.signs
    turned = {"<": ">", r"\le": r"\ge", ">": "<", r"\ge": r"\le"}
    if any(s not in turned for s in signs):
        return item
    infinite = ("f", "infinity")
    if len(signs) == 1:
        left = answers._label_text(sides[0].text)
        if not left:
            sides, signs = sides[::-1], [turned[signs[0]]]
        below = signs[0] in ("<", r"\le")
        end = Leaf("-infty" if below else "infty", ("*", MINUS, infinite) if below else infinite)
        sides = [end, sides[0], sides[1]] if below else [sides[1], sides[0], end]
        brackets = ("(" + (")" if signs[0] == "<" else "]")) if below else (("(" if signs[0] == ">" else "[") + ")")
    elif len(signs) == 2:
        if signs[0] in (">", r"\ge"):
            sides, signs = sides[::-1], [turned[s] for s in signs[::-1]]
        if any(s not in ("<", r"\le") for s in signs):
            return item
        brackets = ("(" if signs[0] == "<" else "[") + (")" if signs[1] == "<" else "]")
    else:
        return item
    return Many("tuple", [sides[0], sides[2]], brackets, item.text) if answers._label_text(sides[1].text) else item


# ---- structures


def same(a, b, tolerance=0) -> bool:
    """Whether an answer and a gold answer, both read, are equal."""
    if type(a) is type(b) and a.text and _compact(a.text) == _compact(b.text):
        return True
    a, b = _single(a), _single(b)
    if isinstance(a, Leaf) and isinstance(b, Leaf):
        return same_leaf(a, b, tolerance)
    equations = [isinstance(x, Relation) and x.signs == ["="] for x in (a, b)]
    if all(equations):
        return _same_equation(a, b, tolerance)
    for equation, other, mine in ((a, b, True), (b, a, False)):
        if equations[0 if mine else 1]:
            value = _solution(equation, mine)
            if value is None:
                return False
            return same(value, other, tolerance) if mine else same(other, value, tolerance)
    if isinstance(a, Many) and isinstance(b, Many) and _same_many(a, b, tolerance):
        return True
    memberships = [isinstance(x, Relation) and x.signs == [r"\in"] for x in (a, b)]
    if memberships[0] != memberships[1] and not isinstance(b if memberships[0] else a, Relation):
        a, b = a.sides[1] if memberships[0] else a, b.sides[1] if memberships[1] else b
        return same(a, b, tolerance)
    for many, leaf in ((a, b), (b, a)):
        if isinstance(many, Many) and isinstance(leaf, Leaf) and leaf.tree and _same_mixed(many, leaf, tolerance):
            return True
    if answers._is_region(a) or answers._is_region(b):
        return _same_region(a, b, tolerance)
    return False


def _single(item):
    """Of a list of equal values the one."""
    while isinstance(item, Many) and item.kind in ("list", "set") and item.items:
        first = item.items[0]
        if not all(same(first, x) for x in item.items[1:]):
            break
        item = first
    return item


def _solution(equation: Relation, mine: bool):
    """What an equation says that its left side is; None where that is no name."""
    left, right = equation.sides
    if answers._label_text(left.text):
        return right
    if mine and isinstance(left, Leaf) and left.tree and isinstance(right, Leaf) and right.tree and not formula.names(right.tree) - {"i"}:
        if len(formula.names(left.tree)) > 1 or (not formula.names(left.tree) and agree(left.tree, right.tree)):
            return right
    if not mine and all(isinstance(x, Leaf) and x.tree and not formula.names(x.tree) for x in (left, right)):
        return right
    return None


def _renamed(tree, old: str, new: str):
    if isinstance(tree, tuple):
        return ("s", new) if tree == ("s", old) else tuple(_renamed(t, old, new) for t in tree)
    return tree


def _same_equation(a: Relation, b: Relation, tolerance) -> bool:
    x, y = (re.fullmatch(r"([a-zA-Z])\(\\?([a-z]+)\)", _compact(r.sides[0].text)) for r in (a, b))
    value = a.sides[1]
    if x and y and x[1] == y[1] and x[2] != y[2] and isinstance(value, Leaf) and value.tree and y[2] not in formula.names(value.tree):
        return same(Leaf("", _renamed(value.tree, x[2], y[2]), value.unit), b.sides[1], tolerance)  # f(t) is f(x)
    if _same_label(a.sides[0], b.sides[0]) and same(a.sides[1], b.sides[1], tolerance):
        return True
    if any(not isinstance(s, Leaf) or s.tree is None for s in (*a.sides, *b.sides)):
        return False
    f, g = (("+", r.sides[0].tree, ("*", MINUS, r.sides[1].tree)) for r in (a, b))
    return bool(proportional(f, g))


def _same_label(a, b) -> bool:
    return _compact(a.text) == _compact(b.text) or (
        isinstance(a, Leaf) and isinstance(b, Leaf) and a.tree is not None and b.tree is not None and agree(a.tree, b.tree)
    )


def _same_many(a: Many, b: Many, tolerance) -> bool:
    if "clock" in (a.brackets, b.brackets) and a.brackets == b.brackets:
        return len(a.items) == len(b.items) and all(same(x, y) for x, y in zip(a.items, b.items, strict=True))
    if "ratio" in (a.kind, b.kind):
        return a.kind == b.kind and len(a.items) == len(b.items) and all(
            isinstance(x, Leaf) and isinstance(y, Leaf) and x.tree and y.tree and u.tree and v.tree and agree(("*", x.tree, v.tree), ("*", y.tree, u.tree))
            for (x, y), (u, v) in itertools.pairwise(zip(a.items, b.items, strict=True))
        )  # fmt: skip
    if len(a.items) != len(b.items):
        return False
    names = [[x.sides[0].text for x in m.items if isinstance(x, Relation) and x.signs == ["="]] for m in (a, b)]
    assigned = any(len(set(n)) == len(m.items) > 1 for n, m in zip(names, (a, b), strict=True)) and not all(names)
    kinds = {a.kind, b.kind}
    if kinds == {"tuple"}:
        if a.brackets != b.brackets and (len(a.items) == 2 or ")" in a.brackets + b.brackets and "]" in a.brackets[1:] + b.brackets[1:] and len(a.items) == 2):
            return False
    elif "tuple" in kinds and not kinds == {"tuple", "list"}:
        return False
    if "tuple" in kinds or assigned:
        return all(same(x, y, tolerance) for x, y in zip(a.items, b.items, strict=True))
    left = list(a.items)
    for y in b.items:
        found = next((k for k, x in enumerate(left) if same(x, y, tolerance)), None)
        if found is None:
            return False
        left.pop(found)
    return True


def _same_mixed(many: Many, leaf: Leaf, tolerance) -> bool:
    """A tuple and a column or row, a ratio and a quotient."""
    if many.kind == "tuple" and all(isinstance(x, Many) and x.kind == "tuple" for x in many.items):
        rows = [[x.tree if isinstance(x, Leaf) else None for x in row.items] for row in many.items]
        return all(all(row) and len(row) == len(rows[0]) for row in rows) and agree(("[", *map(tuple, rows)), leaf.tree, tolerance)
    if not all(isinstance(x, Leaf) and x.tree for x in many.items):
        return False
    trees = [x.tree for x in many.items]
    if many.kind == "ratio" and len(trees) == 2:
        return agree(("/", *trees), leaf.tree)
    if many.kind != "tuple":
        return False
    matrix = any(t[0] == "[" for t in formula.walk(leaf.tree))
    return matrix and (agree(("[", *((t,) for t in trees)), leaf.tree, tolerance) or agree(("[", tuple(trees)), leaf.tree, tolerance))


def _same_region(a, b, tolerance) -> bool:
    try:
        if same_line(a, b):
            return True
    except Unreadable:
        pass
    if isinstance(a, Relation) and isinstance(b, Relation):
        return _same_inequality(a, b)
    x, y = _interval(a), _interval(b)
    if isinstance(x, Many) and isinstance(y, Many) and x.kind == y.kind == "tuple" and (x is not a or y is not b):
        return _same_many(x, y, tolerance)
    if isinstance(x, Region) and isinstance(y, Region) and x.sign == y.sign == r"\cup":
        return _same_many(Many("list", _parts(x)), Many("list", _parts(y)), tolerance)
    return False


def _parts(region) -> list:
    return [p for x in region.parts for p in (_parts(x) if isinstance(x, Region) and x.sign == region.sign else [x])]


def _same_inequality(a: Relation, b: Relation) -> bool:
    """Link by link, however turned and scaled."""
    links = []
    for relation in (a, b):
        if any(not isinstance(s, Leaf) or s.tree is None for s in relation.sides):
            return False
        found = []
        for sign, x, y in zip(relation.signs, relation.sides, relation.sides[1:], strict=False):
            x, y, sign = (y, x, {">": "<", r"\ge": r"\le"}[sign]) if sign in (">", r"\ge") else (x, y, sign)
            found.append((sign, ("+", x.tree, ("*", MINUS, y.tree))))
        links.append(found)
    if a.signs == b.signs and all(same(x, y) for x, y in zip(a.sides, b.sides, strict=True)):
        return True
    left = links[0]
    for sign, tree in links[1]:
        found = next((k for k, (s, t) in enumerate(left) if s == sign and proportional(t, tree) in ((1, -1) if sign in ("=", r"\ne") else (1,))), None)
        if found is None:
            return False
        left = left[:found] + left[found + 1 :]
    return not left


# ---- words


_OPTION = re.compile(
    r"(?:(?:option|choice|answer|case)s?\s*:?\s*)?(?:\(([A-Ja-j])\)|([A-J])\s*[.):](?!\d)|([A-J])(?=$)|(?<=[a-z] )([A-Ja-j])(?=$|\s))\s*[:.]?\s*(.*)",
    re.IGNORECASE | re.DOTALL,
)
_SAME_WORDS = {
    "yes": "true", "no": "false", "dne": "does not exist", "none": "no solution", "no solutions": "no solution",
    "undefined": "does not exist", "diverges": "divergent", "converges": "convergent", "all reals": "all real numbers",
    "infinite": "infinity", "infinitely many": "infinity", "empty set": "emptyset",
}  # fmt: skip
_ORDINARY = {*_SAME_WORDS.values(), "odd", "even", "all", "both", "red", "neither"}
_COUNTS = "zero one two three four five six seven eight nine ten eleven twelve".split()


def _words(text: str) -> tuple[str, bool] | None:
    """Words of an answer that is nothing else, and whether they were set as text; None where it is something else."""
    inside = re.sub(r"\\text\{([^{}]*)\}", r" \1 ", text)
    inside = " ".join(re.sub(r"[(){}]", " ", inside).split()).strip(" .")
    if not re.fullmatch(r"[A-Za-z]+(?:(?: |'|-)[A-Za-z]+)*", inside):
        return None
    return inside, r"\text" in text


def _same_words(a: str, b: str) -> bool | None:
    """Whether two answers are the same words; None where one of them is no words."""
    x, y = _words(a), _words(b)
    if not x or not y:
        return None
    if x[0] == y[0]:
        return True
    p, q = (w[0].casefold() for w in (x, y))
    p, q = (re.sub(r"^(?:the|an?) ", "", re.sub(r"[\s-]+", " ", w)) for w in (p, q))
    p, q = (_SAME_WORDS.get(w, w) for w in (p, q))
    if p != q:
        return False if min(len(p), len(q)) > 2 and (x[1] or y[1]) else None
    if len(p) == 1:
        return p in "abcde"
    word = p in _ORDINARY or (len(p) > 3 and all(re.fullmatch(r"[A-Z]?[a-z]*[aeiou][a-z ]*", w[0]) for w in (x, y)))
    return True if x[1] or y[1] or word else None


def _option(text: str) -> tuple[str, str] | None:
    """Letter and content of an answer such as `(B) 5`."""
    inside = " ".join(re.sub(r"\\text\{([^{}]*)\}", r" \1 ", text).split())
    match = _OPTION.fullmatch(inside)
    if not match:
        return None
    return next(g for g in match.groups()[:4] if g).upper(), match[5].strip()


def _same_option(a: str, b: str) -> bool | None:
    x, y = _option(a), _option(b)
    if x and y:
        return x[0] == y[0] and (not x[1] or not y[1] or equal(x[1], y[1]))
    if x and x[1]:
        return equal(x[1], b)
    if y and y[1]:
        return equal(a, y[1])
    return None


_MATH = re.compile(r"\$\$?([^$]+)\$\$?|\\\((.+?)\\\)|\\\[(.+?)\\\]", re.DOTALL)
_LAST = re.compile(r"(?<![\w.,])[-+]?(?:\d{1,3}(?:,\d{3})+|\d+)(?:[.,]\d+)?%?(?![\w.,]*\d)")


def _prose(text: str) -> str:
    """Of a sentence the last formula, or the last number; the text itself where it is no sentence."""
    found = [(m.start(), next(g for g in m.groups() if g)) for m in _MATH.finditer(text)]
    around = _MATH.sub(lambda m: " " * len(m[0]), text)
    if len(re.findall(r"(?<!\\)\b(?!(?:and|or|for|all|where|with|not|if)\b)[a-zA-Z]{2,}", around)) < (1 if found else 2) or (not found and "\\" in text):
        return text
    found += [(m.start(), m[0]) for m in _LAST.finditer(around)]
    return max(found)[1] if found else text


@functools.lru_cache(maxsize=4096)
def _counted(text: str) -> str:
    words = _words(text)
    if words and words[0].casefold() in ("all real numbers", "all reals", "the real numbers", "real numbers", "all real values"):
        return r"\mathbb{R}"
    return str(_COUNTS.index(words[0].casefold())) if words and words[0].casefold() in _COUNTS else text


def equal(answer: str, gold: str) -> bool:
    """Whether an answer equals the gold answer."""
    gold, tolerance = tolerant(gold)
    a, b = (_counted(notation.clean(t)) for t in (answer, gold))
    if not a or not b:
        return False
    if _compact(a) == _compact(b):
        return True
    for judge in (_same_words, _same_option):
        if (verdict := judge(a, b)) is not None:
            return verdict
    for x, y in itertools.product(_read(a), _read(b)):
        if same(x, y, tolerance):
            return True
    shorter = tuple(t if _understood(c) else _prose(t) for t, c in ((answer, a), (gold, b)))
    return shorter != (answer, gold) and equal(*shorter)


def _read(text: str) -> list:
    try:
        return answers.read(text)
    except (Unreadable, RecursionError):
        return []


def _understood(text: str) -> bool:
    def known(item) -> bool:
        if isinstance(item, Leaf):
            letters = re.sub(r"\\text\{[^{}]*\}|\\[a-zA-Z]+|_\s*\{[^{}]*\}", " ", item.text)
            return item.tree is not None and bool(item.unit or item.words or not re.search("[a-zA-Z]{3}", letters))
        parts = item.items if isinstance(item, Many) else item.sides if isinstance(item, Relation) else item.parts
        return all(known(p) for p in parts)

    return any(known(x) for x in _read(text))


def readable(gold: str) -> bool:
    """Whether more of a gold answer is understood than its letters."""
    text = notation.clean(gold)
    return bool(_words(text)) or _understood(text)
