"""Whether two answers are equal, as a careful teacher sees it; docs/mathematics.md states the rules."""

import contextlib
import functools
import itertools
import re
from fractions import Fraction

from dots_jax.reward import answers, formula, notation
from dots_jax.reward.agree import agree, proportional, same_leaf
from dots_jax.reward.answers import CONDITION, Leaf, Many, Region, Relation, compact, is_label, is_region, leaves, says
from dots_jax.reward.formula import Unreadable, is_constant, negative, whole
from dots_jax.reward.quick import tolerant
from dots_jax.reward.regions import TURNED, as_interval, same_line

SIDES = 8  # of a chain that count


def same(a, b, tolerance=0) -> bool:
    """Whether an answer and a gold answer, both read, are equal."""
    if type(a) is type(b) and a.text and compact(a.text) == compact(b.text) and _same_units(a, b):
        return True
    a, b = _single(a), _single(b)
    if isinstance(a, Leaf) and isinstance(b, Leaf):
        return same_leaf(a, b, tolerance)
    if (ways := _ways(a, b)) is not None:
        return any(same(way, b, tolerance) for way in ways)
    if (ways := _ways(b, a)) is not None:
        return any(same(a, way, tolerance) for way in ways)
    if says(a, "=") and says(b, "="):
        return _same_equation(a, b, tolerance)
    if says(a, "=") or says(b, "="):
        a, b = (_solution(x, mine) if says(x, "=") else x for x, mine in ((a, True), (b, False)))
        return a is not None and b is not None and same(a, b, tolerance)
    if isinstance(a, Many) and isinstance(b, Many) and _same_many(a, b, tolerance):
        return True
    for member, other in ((a, b), (b, a)):
        if says(member, r"\in") and not isinstance(other, Relation):
            return same(*(x.sides[1] if x is member else x for x in (a, b)), tolerance)
    for many, leaf in ((a, b), (b, a)):
        if isinstance(many, Many) and isinstance(leaf, Leaf) and leaf.tree and _same_mixed(many, leaf, tolerance):
            return True
    return bool(is_region(a) or is_region(b)) and _same_region(a, b, tolerance)


def _single(item):
    """Of a list of equal values the one."""
    while isinstance(item, Many) and item.kind in ("list", "set") and item.items:
        first, *others = item.items
        if not all(same(first, x) for x in others):
            break
        item = first
    return item


def _ways(chain, other) -> list | None:
    """What each side of `x = 1/3 = 0.33` says, the last where two contradict; None of what is no chain."""
    if isinstance(chain, Many) and chain.brackets == "chain" and isinstance(other, Leaf):
        return [chain.items[0].sides[1]]
    if not isinstance(chain, Relation) or not set(chain.signs) <= {"=", r"\approx"}:
        return None
    if any(not is_label(s.text) and CONDITION.search(s.text) for s in chain.sides[1:]):
        return []
    named = _is_name(chain.sides[0])
    constant = [s for s in chain.sides[named:][-SIDES:] if isinstance(s, Leaf) and s.tree and is_constant(s.tree)]
    first = None if chain.sides[0] in constant else chain.sides[0]
    if len(chain.signs) == 1 and (first or len(constant) < 2):
        return None if chain.signs == ["="] else [Relation(chain.sides, ["="])]
    about = r"\approx" in chain.signs
    if not all(_near(x, y, about) for x, y in itertools.combinations(constant, 2)):
        return [Relation([first, chain.sides[-1]], ["="])] if first else []
    return [Relation([first, s], ["="]) for s in chain.sides[1:][-SIDES:]] if first else constant


def _is_name(side) -> bool:
    """Whether the left side of an equation is the name of what is asked for."""
    if not isinstance(side, Leaf):
        return False
    if is_label(side.text) or side.text.strip() in ("i", "e"):
        return True
    infinite = re.match(r"\\(?:i{0,3}nt|oint|lim|sum|prod)(?![a-z])", side.text)
    return bool(infinite) and not (side.tree and agree(side.tree, side.tree))


_DECIMALS = re.compile(
    r"[-+\s]*(\d*)(?:\.(\d*))?(?:e([-+]?\d+)|\s*(?:\\times|\\cdot|\*)\s*10\s*\^\s*\{?\s*(-?\d+)\s*\}?)?\s*"
)


def _near(x: Leaf, y: Leaf, about: bool) -> bool:
    """Whether two values are equal, or one of them is the other, rounded."""
    if same_leaf(x, y):
        return True
    trees, steps = [], []
    for leaf in (x, y):
        percent = leaf.unit is not None and leaf.unit[0] == (("%", 1),)
        trees.append(("/", leaf.tree, whole(100)) if percent else leaf.tree)
        match = _DECIMALS.fullmatch(leaf.value)
        power = match and int(match[3] or match[4] or 0) - len(match[2] or "") - 2 * percent
        rounded = match and -50 < power < 50 and (match[2] or about)
        steps.append(Fraction(10) ** power if rounded else 0)
    if steps[0] == steps[1] or (x.unit and y.unit and x.unit != y.unit):
        return False
    return agree(*trees, max(steps) / 2)


def _solution(equation: Relation, mine: bool):
    """What an equation says that its left side is; None where that is no name."""
    left, right = equation.sides
    if _is_name(left):
        return right
    if not all(isinstance(x, Leaf) and x.tree for x in (left, right)) or not is_constant(right.tree):
        return None
    count = len(formula.names(left.tree))  # m + n = 5 says what m + n is, 2x = 10 is not solved
    return right if (mine and count > 1) or (count == 0 and agree(left.tree, right.tree)) else None


def _renamed(tree, old: str, new: str):
    if isinstance(tree, tuple):
        return ("s", new) if tree == ("s", old) else tuple(_renamed(t, old, new) for t in tree)
    return tree


def _same_equation(a: Relation, b: Relation, tolerance) -> bool:
    trees = [getattr(side, "tree", None) for side in (*a.sides, *b.sides)]
    x, y = (re.fullmatch(r"([a-zA-Z])\(\\?([a-z]+)\)", compact(r.sides[0].text)) for r in (a, b))
    if x and y and x[1] == y[1] and x[2] != y[2] and trees[1] and y[2] not in formula.names(trees[1]):
        value = a.sides[1]
        return same(Leaf("", _renamed(value.tree, x[2], y[2]), value.unit), b.sides[1], tolerance)  # f(t) is f(x)
    if _same_label(a.sides[0], b.sides[0]) and same(a.sides[1], b.sides[1], tolerance):
        return True
    if not all(trees):
        return False
    if all(is_label(r.sides[0].text) and not formula.names(r.sides[1].tree) for r in (a, b)):
        return False  # two values, as their comparison said
    f, g = (("+", left, negative(right)) for left, right in (trees[:2], trees[2:]))
    return _same_units(a, b) and bool(proportional(f, g))


def _same_units(a, b) -> bool:
    """Whether two answers have the same units, where both have any."""
    x, y = ({leaf.unit for leaf in leaves(item) if leaf.unit} for item in (a, b))
    return x == y or not (x and y)


def _same_label(a, b) -> bool:
    x, y = compact(a.text), compact(b.text)
    if x == y or re.sub(r"\([a-z]\)$", "", x) == re.sub(r"\([a-z]\)$", "", y) in (x, y):
        return True  # y(x) is y
    return all(isinstance(s, Leaf) and s.tree for s in (a, b)) and agree(a.tree, b.tree)


def _paired(left: list, right: list, alike) -> bool:
    """Whether each item has a partner of its own, in any order."""
    left = list(left)
    for y in right:
        found = next((k for k, x in enumerate(left) if alike(x, y)), None)
        if found is None:
            return False
        del left[found]
    return not left


def _same_in_order(a: Many, b: Many, tolerance) -> bool:
    return len(a.items) == len(b.items) and all(same(x, y, tolerance) for x, y in zip(a.items, b.items, strict=True))


def _same_many(a: Many, b: Many, tolerance) -> bool:
    kinds, brackets = {a.kind, b.kind}, {a.brackets, b.brackets}
    if brackets == {"clock"}:
        return _same_in_order(a, b, 0)
    if "ratio" in kinds:
        return len(kinds) == 1 and _same_ratio(a.items, b.items)
    if kinds == {"set"}:
        a, b = (Many("set", _distinct(m.items)) for m in (a, b))
    if len(a.items) != len(b.items):
        return False
    names = [[x.sides[0].text for x in m.items if says(x, "=")] for m in (a, b)]
    assigned = any(len(set(n)) == len(m.items) > 1 for n, m in zip(names, (a, b), strict=True)) and not all(names)
    if any(len({re.sub(r"_\s*\{?\d+\}?\s*$", "_", n) for n in found}) == 1 for found in names if found):
        assigned = False  # x_1 and x_2 are two solutions
    if assigned and "or" in brackets:
        return False
    if brackets == {"and", "or"} and any(is_region(x) for x in a.items):
        return False
    if kinds == {"tuple"} and len(brackets) == 2 and len(a.items) == 2:
        return False
    if kinds == {"tuple", "set"} or (kinds == {"tuple", "list"} and "()" not in brackets and len(a.items) == 2):
        return False
    if "tuple" in kinds or assigned:
        return _same_in_order(a, b, tolerance)
    return _paired(a.items, b.items, lambda x, y: same(x, y, tolerance))


def _same_ratio(a: list, b: list) -> bool:
    """Whether each is a multiple of its partner by the same factor."""
    if len(a) != len(b) or not all(isinstance(x, Leaf) and x.tree for x in a + b):
        return False
    pairs = [(x.tree, y.tree) for x, y in zip(a, b, strict=True)]
    return all(agree(("*", x, v), ("*", y, u)) for (x, y), (u, v) in itertools.pairwise(pairs))


def _distinct(items: list) -> list:
    found: list = []
    for item in items:
        if not any(same(item, x) for x in found):
            found.append(item)
    return found


def _same_mixed(many: Many, leaf: Leaf, tolerance) -> bool:
    """A tuple and a column or row, a ratio and a quotient."""
    if many.kind == "tuple" and all(isinstance(x, Many) and x.kind == "tuple" for x in many.items):
        rows = [tuple(x.tree if isinstance(x, Leaf) else None for x in row.items) for row in many.items]
        return all(all(row) and len(row) == len(rows[0]) for row in rows) and agree(("[", *rows), leaf.tree, tolerance)
    if not all(isinstance(x, Leaf) and x.tree for x in many.items):
        return False
    trees = tuple(x.tree for x in many.items)
    if many.kind == "ratio" and len(trees) == 2:
        return agree(("/", *trees), leaf.tree)
    if many.kind != "tuple" or not any(t[0] == "[" for t in formula.walk(leaf.tree)):
        return False
    column, row = ("[", *((t,) for t in trees)), ("[", trees)
    return agree(column, leaf.tree, tolerance) or agree(row, leaf.tree, tolerance)


def _same_region(a, b, tolerance) -> bool:
    if not _same_units(a, b):
        return False
    with contextlib.suppress(Unreadable):
        if same_line(a, b):
            return True
    if isinstance(a, Relation) and isinstance(b, Relation):
        if says(a, r"\in") == says(b, r"\in"):
            return _same_inequality(a, b)
        inside, between = (a, b) if says(a, r"\in") else (b, a)
        if len(between.sides) != 3 or compact(inside.sides[0].text) != compact(between.sides[1].text):
            return False
    x, y = as_interval(a), as_interval(b)
    if isinstance(x, Many) and isinstance(y, Many) and x.kind == y.kind == "tuple" and (x is not a or y is not b):
        return _same_many(x, y, tolerance)
    if isinstance(x, Region) and isinstance(y, Region) and x.sign == y.sign == r"\cup":
        return _paired(_parts(x), _parts(y), lambda p, q: same(p, q, tolerance))
    return False


def _parts(region) -> list:
    return [p for x in region.parts for p in (_parts(x) if isinstance(x, Region) and x.sign == region.sign else [x])]


def _links(relation: Relation) -> list[tuple]:
    """Of each link the sign and the difference of its sides, turned upwards."""
    links = []
    for sign, (x, y) in zip(relation.signs, itertools.pairwise(relation.sides), strict=True):
        if sign in (">", r"\ge"):
            x, y, sign = y, x, TURNED[sign]
        links.append((sign, ("+", x.tree, negative(y.tree))))
    return links


def _same_link(a: tuple, b: tuple) -> bool:
    return a[0] == b[0] and proportional(a[1], b[1]) in ((1, -1) if a[0] in ("=", r"\ne") else (1,))


def _same_inequality(a: Relation, b: Relation) -> bool:
    """Link by link, however turned and scaled."""
    if not all(isinstance(s, Leaf) and s.tree for s in a.sides + b.sides):
        return False
    if a.signs == b.signs and all(same(x, y) for x, y in zip(a.sides, b.sides, strict=True)):
        return True
    return _paired(_links(a), _links(b), _same_link)


_OPTION = re.compile(
    r"(?:(?i:option|choice|answer|case)s?\s*:?\s*)\(?([A-Ja-j])\)?[:.]?"
    r"|(?:\(([A-J])\)|([A-J])[.):]|([A-J])(?=$))(?:$|\s+(?=[-\d\\$]|[a-zA-Z]{2})(.*))"
    r"|\(([a-j])\)|([a-j])[.)]",
    re.DOTALL,
)
_SPOKEN = {  # words for a sign
    words: sign
    for sign, said in {
        r"\mathbb{R}": "all real numbers, all reals, real numbers, all real values",
        r"\emptyset": "empty set, no solution, no solutions, none",
        r"\infty": "infinity",
    }.items()
    for words in said.split(", ")
}
_SPOKEN |= {
    w: str(k) for k, w in enumerate(str.split("zero one two three four five six seven eight nine ten eleven twelve"))
}
_SYNONYMS = {
    "yes": "true", "no": "false", "dne": "does not exist", "undefined": "does not exist", "diverges": "divergent",
    "converges": "convergent", "infinite": "infinity", "infinitely many": "infinity",
}  # fmt: skip
_ORDINARY = {"true", "false", "divergent", "convergent", "odd", "even", "all", "both", "red", "neither"}


def _words(text: str) -> tuple[str, bool] | None:
    """Words of an answer that is nothing else, and whether they were set as text; None where it is something else."""
    inside = re.sub(r"\\text\{([^{}]*)\}", r" \1 ", text)
    inside = " ".join(re.sub(r"[(){}]", " ", inside).split()).strip(" .")
    if not re.fullmatch(r"[A-Za-z]+(?:(?: |'|-)[A-Za-z]+)*", inside) or re.search(r"[a-z]\\text\{[A-Z]\}$", text):
        return None
    return inside, r"\text" in text


def _same_words(a: str, b: str) -> bool | None:
    """Whether two answers are the same words; None where one of them is no words."""
    x, y = _words(a), _words(b)
    if not x or not y:
        return None
    if x[0] == y[0]:
        return True
    p, q = (re.sub(r"^(?:[Tt]he|[Aa]n?) ", "", re.sub(r"[\s-]+", " ", w[0])) for w in (x, y))
    if any(len(u) == 1 and u != v for u, v in zip(p.split(), q.split(), strict=False)):
        return None
    p, q = (_SYNONYMS.get(w.casefold(), w.casefold()) for w in (p, q))
    if p != q:
        kinds = ("[A-Z]{3,}", "[a-z]{4,}|[a-z]{3,}(?: [a-z]{3,})+")  # no products of letters
        plain = any(all(re.fullmatch(kind, w[0]) for w in (x, y)) for kind in kinds)
        return False if plain or (min(len(p), len(q)) > 2 and (x[1] or y[1])) else None
    word = p in _ORDINARY or (len(p) > 3 and all(re.fullmatch(r"[A-Z]?[a-z]*[aeiou][a-z ]*", w[0]) for w in (x, y)))
    return True if x[1] or y[1] or word else None


def _option(text: str) -> tuple[str, str] | None:
    """Letter and content of an answer such as `(B) 5`."""
    inside = " ".join(re.sub(r"\\text\{([^{}]*)\}", r" \1 ", text).split())
    match = _OPTION.fullmatch(f"({inside})" if re.fullmatch(r"\\text\{ *[a-j] *\}", text) else inside)
    if not match:
        return None
    letter = next(g for k, g in enumerate(match.groups(), 1) if g and k != 5)
    return letter.upper(), (match[5] or "").strip()


def _same_option(a: str, b: str) -> bool | None:
    """Whether an answer is the gold answer's option, or what it says; None where the two are no options."""
    x, y = _option(a), _option(b)
    if y and not x and re.fullmatch("[a-d]", a):
        x = a.upper(), ""
    if x and y:
        return x[0] == y[0] and (not x[1] or not y[1] or equal(x[1], y[1]))
    for found, other in ((x, b), (y, a)):
        if found and found[1] and equal(found[1], other):
            return True
    return None


_MATH = re.compile(r"\$\$?([^$]+)\$\$?|\\\((.+?)\\\)|\\\[(.+?)\\\]", re.DOTALL)
_LAST = re.compile(r"(?<![\w.,])[-+]?(?:\d{1,3}(?:,\d{3})+|\d+)(?:[.,]\d+)?%?(?![\w.,]*\d)")


_SAYS = re.compile(
    r"(?:\b(?:is|are|was|equals|be|get|gives|it's|answer|result)|equal to|creas\w* by|[:=])\s*$", re.IGNORECASE
)
_TELLING = re.compile(
    r"\b(?:not|n't|never|no|than|less|more|greater|fewer|least|most|over|under|above|below|between|ratio|except|wrong)\b",
    re.IGNORECASE,
)
_DIRECTION = re.compile(r"\b(?:in|de)creas|\b(?:gain|los[est]|profit|up|down|left|right)", re.IGNORECASE)


def _prose(text: str) -> str:
    """What a sentence says: its last formula, or its end from the last number on; the text itself of other texts."""
    found = [(m.start(), next(g for g in m.groups() if g)) for m in _MATH.finditer(text)]
    around = _MATH.sub(lambda m: " " * len(m[0]), text)
    count = len(re.findall(r"(?<!\\)\b(?!(?:and|or|for|all|where|with|not|if)\b)[a-zA-Z]{2,}", around))
    if count < (1 if found else 2) or (not found and "\\" in text):
        return text
    number = list(_LAST.finditer(around))[-1:]
    if number and (not found or number[0].start() > found[-1][0]):
        start, digits = number[0].start(), number[0][0]
        if not _SAYS.search(around[:start]):
            return text
        end = re.split(r"\.\s|<\|", text[start:])[0]
        return digits if re.fullmatch(r"[a-zA-Z]{1,3}[²³]?", end[len(digits) :]) else end
    if not found:
        return text
    clause = re.split(r"[.,:;]\s", around[: found[-1][0]])[-1] + around[found[-1][0] :]
    return text if _TELLING.search(clause) else found[-1][1]


@functools.lru_cache(maxsize=4096)
def _counted(text: str) -> str:
    """Words for a number or a set as signs."""
    words = _words(text)
    return _SPOKEN.get(words[0].casefold().removeprefix("the "), text) if words else text


def equal(answer: str, gold: str) -> bool:
    """Whether an answer equals the gold answer."""
    gold, tolerance = tolerant(gold)
    a, b = (_counted(notation.clean(t)) for t in (answer, gold))
    if not a or not b:
        return False
    if compact(a) == compact(b):
        return True
    for judge in (_same_words, _same_option):
        if (verdict := judge(a, b)) is not None:
            return verdict
    (a, numbers), (b, others) = answers.domain(a), answers.domain(b)
    if numbers and others and numbers != others:
        return False
    for x, y in itertools.product(_read(a), _read(b, gold=True)):
        if same(x, y, tolerance):
            return True
    shorter = tuple(t if _understood(c) else _prose(t) for t, c in ((answer, a), (gold, b)))
    if all(s != t for s, t in zip(shorter, (answer, gold), strict=True)):
        ways = [set(map(str.casefold, _DIRECTION.findall(t))) for t in (answer, gold)]
        if ways[0] != ways[1]:
            return False
    return shorter != (answer, gold) and equal(*shorter)


def _read(text: str, gold: bool = False) -> list:
    try:
        return answers.read(text, gold)
    except (Unreadable, RecursionError):
        return []


def _known(leaf: Leaf) -> bool:
    letters = re.sub(r"\\text\{[^{}]*\}|\\[a-zA-Z]+|_\s*\{[^{}]*\}", " ", leaf.value)
    return leaf.tree is not None and not re.search("[a-zA-Z]{3}", letters)


def _understood(text: str) -> bool:
    return any(all(map(_known, leaves(item))) for item in _read(text))


def readable(gold: str) -> bool:
    """Whether more of a gold answer is understood than its letters."""
    text = notation.clean(gold)
    return bool(_words(text)) or _understood(text)
