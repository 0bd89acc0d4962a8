"""Reads an answer: lists, tuples, relations, regions, and values with their units."""

import dataclasses
import functools
import re
from collections.abc import Iterator
from fractions import Fraction
from typing import NamedTuple

from dots_jax.reward import formula, notation, units
from dots_jax.reward.formula import Unreadable

MOST = 64  # elements of a list


@dataclasses.dataclass
class Leaf:
    """One value: a formula or words, perhaps with a unit."""

    text: str
    tree: tuple | None = None
    unit: units.Unit | None = None
    known: bool = False  # whether it is surely a unit, not a variable
    words: str = ""  # after the number, where they are no known unit
    value: str = ""  # the text without unit and words
    also: "Leaf | None" = None  # another way to read it


@dataclasses.dataclass
class Many:
    """Several: a bare `list`, a `set` in braces, or a `tuple` in `brackets`."""

    kind: str
    items: list
    brackets: str = ""
    text: str = ""


@dataclasses.dataclass
class Relation:
    """`sides[0] signs[0] sides[1] ...`; `subject` is the variable of the solution, if it is one."""

    sides: list
    signs: list[str]
    text: str = ""


@dataclasses.dataclass
class Region:
    """A union, intersection or difference of parts."""

    sign: str
    parts: list
    text: str = ""


def says(item, sign: str) -> bool:
    """Whether it is a relation of two sides with this sign."""
    return isinstance(item, Relation) and item.signs == [sign]


def leaves(item) -> list[Leaf]:
    """The values that an answer holds."""
    if isinstance(item, Leaf):
        return [item]
    parts = item.items if isinstance(item, Many) else item.sides if isinstance(item, Relation) else item.parts
    return [leaf for part in parts for leaf in leaves(part)]


def compact(text: str) -> str:
    """An answer without what tells nothing apart."""
    text = re.sub(r"\\text\{([^{}]*)\}", r"\1", text)
    text = re.sub(r"(?<!\d)\s+|\s+(?!\d)", "", re.sub(r"(\\[a-zA-Z]+)\s+(?=[a-zA-Z])", r"\1{}", text))
    return re.sub(r"(?<=[_^])\{(\w)\}", r"\1", text)


# ---- splitting

_PIECE = re.compile(r"\\text\{[^{}]*\}|\\[a-zA-Z]+|\\.|.", re.DOTALL)
_OPEN = {"(", "[", "{", r"\{", r"\langle", r"\lfloor", r"\lceil", r"\begin"}
_CLOSE = {")", "]", "}", r"\}", r"\rangle", r"\rfloor", r"\rceil", r"\end"}
_COMMA = re.compile(
    r"[,;]\s*(?:\\text\{(?:and|or)\}|(?:and|or)(?![a-zA-Z]))?|\\text\{(?:and|or|OR|AND|and also|\s*,\s*)\}"
    r"|(?<![a-zA-Z\\])(?:and|or|OR)(?![a-z])"
)
_RELATION = re.compile(
    r"=|<|>|\\(?:le|ge|ne|in|notin|approx|equiv|to|sim|leftrightarrow|implies|Rightarrow|subset|subseteq|propto|parallel|perp)(?![a-zA-Z])"
)
_ORDERS = {"=", "<", ">", r"\le", r"\ge", r"\ne"}
_REGION = re.compile(r"\\(?:cup|cap|setminus)(?![a-zA-Z])")


def _depths(text: str) -> Iterator[tuple[re.Match, int]]:
    """Pieces of a text, with how many brackets are open after each."""
    depth = 0
    for piece in _PIECE.finditer(text):
        depth += (piece[0] in _OPEN) - (piece[0] in _CLOSE)
        yield piece, depth


def split(text: str, separator: str | re.Pattern) -> list[str]:
    """Parts between separators outside all brackets, and the separators: part, separator, part ..."""
    separator = re.compile(separator)
    parts, start, outside = [], 0, True
    for piece, depth in _depths(text):
        i = piece.start()
        if outside and i >= start and (match := separator.match(text, i)) and match.end() > i:
            parts += [text[start:i].strip(), match[0].strip()]
            start = match.end()
        outside = depth == 0
    return [*parts, text[start:].strip()]


def _brackets(text: str) -> tuple[str, str, str] | None:
    """Opening bracket, content and closing bracket, where one pair holds the whole text."""
    opening = re.match(r"\\\{|\\langle|[(\[{]", text)
    closing = next((piece for piece, depth in _depths(text) if depth == 0), None)
    if not opening or not closing or closing.end() < len(text):
        return None
    return opening[0], text[opening.end() : closing.start()].strip(), closing[0]


# ---- reading

_LABEL = re.compile(
    r"(?:\\(?!frac|sqrt|sum|prod|int)[a-zA-Z]+(?![a-zA-Z])|[a-zA-Z']|\\text\{[^{}]*\}|_\s*(?:\{[^{}]*\}|\w)|\^\s*\{?\s*-1\s*\}?(?=\()|\^\{\(\w\)\}"
    r"|\((?:[^()+\d]|\d(?=[,)]))*\)|\{[a-zA-Z ]*\}|\|[a-zA-Z\\ ]*\||\[[A-Za-z ]+\]|[\s:,])+"
)
_DERIVATIVE = re.compile(
    r"\\frac\s*\{\s*d[^{}]*\}\s*\{\s*d[^{}]*\}|d[a-zA-Z]/d[a-zA-Z]|(?<![a-zA-Z])[fghFGHPQ]'*\([^()=]*\)"
)
CONDITION = re.compile(r"\b(?:if|where|for|when|with|is|are|not|unless|such|all|any|even|odd|mod|otherwise)\b")
_COMMON = set(str.split("m/s J/K N/m V/m A/m J/s W/m W/K C/s g/L K/m C/m N/C J/C J/g V/A V/s s/m g/s L/s J/m A/s"))
_TAIL = re.compile(
    r"(?:\\text\{[^{}]*\}|\\frac\s*\{\s*\\text\{[^{}]*\}[^{}]*\}\s*\{(?:[^{}]|\{[^{}]*\})*\}|\\degree(?:\s*C(?![a-z])|\s*F(?![a-z]))?"
    r"|\^\s*(?:\{\s*-?\d\s*\}|-?\d)|[\s/()]|\\cdot(?![a-z])|\\times(?![a-z])|%|\\mu\s*[A-Za-z](?![a-zA-Z])|\\mu(?![a-z])|(?:[kM]\s*)?\\Omega|(?<=/)\s*[a-zA-Z]+)+"
)


_APPLIED = re.compile(r"\\(?:sin|cos|tan|cot|sec|csc|ln|log|exp|text\{cis\})(?![a-z])(?:[^()]*|[^()]*\([^()]*)$")


_CONSTANTS = re.compile(
    r"\\(?:frac|sqrt|pi|cdot|times|ldots|overline|dot|bar|pm|infty|ln|approx|left|right)(?![a-z])|(?<=\d)e(?=[-+]?\d)"
)


def _no_words(text: str) -> str:
    return re.sub(r"\\text\{([^{}]*)\}", r" \1 ", text)


def _numeric(text: str) -> bool:
    """Whether it holds a number and no variable."""
    text = _CONSTANTS.sub(" ", text)
    return not re.search(r"[a-zA-Z\\]", text) and any(c.isdigit() for c in text)


_CURRENCY = re.compile(r"([-+]?)\s*(?:\\text\{)?(dollars|euros|pounds|yen|yuan|rupees|USD|EUR|Rs)\.?[}\s]\s*(?=\S)")
_SCALED = re.compile(rf"(.*[\d}})])(\s*(?:\\text\{{)?\s*)({'|'.join(units.SCALES)})s?(?![a-z])(.*)", re.DOTALL)
_MARKED = re.compile(
    r"\\text\{|\\frac\s*\{\s*\\text\{|\\degree|%|\\mu\s*\\text|(?<=\d)\s*(?:[kM]\s*)?\\Omega|(?<=\d)\s*\\mu\s*[A-Za-z]"
)
_BARE = re.compile(r"(?<=[\d})\s])(?<![a-zA-Z\\])[a-zA-Z¢]|(?<=[\d}])\s*\\frac\{[a-zA-Z]+\}")
_PLAIN = re.compile(r"[-+\d.\s]+(?:[eE][-+]?\d+\s*|(?:\\times|\\cdot|\*)\s*10\s*\^.*)?")
_FUNCTIONS = set(notation.FUNCTIONS) | {"and", "mod"}


class _Way(NamedTuple):
    """One way to read a text: as a value with a unit or words."""

    value: str
    unit: units.Unit | None = None
    known: bool = False
    words: str = ""


def _marked_unit(before: str, tail: str) -> _Way | None:
    """A value before a unit or words set as text, or before a sign such as that of degrees."""
    before = re.sub(r"(?:\\cdot|\\times|\*|\\;)\s*$", "", before.rstrip()).rstrip()
    if not before or before[-1] in "_^=<>+-*/,({\\" or not _TAIL.fullmatch(tail):
        return None
    if before.count("|") % 2 or any(before.count(o) != before.count(c) for o, c in ("{}", "()")):
        return None
    if tail.startswith((r"\degree", "%")) and _APPLIED.search(before):
        return None  # of the argument of a function
    unit, words, number = units.unit(tail), _no_words(tail).strip(), _numeric(before)
    if unit and (number or len(words) > 1 or words in ("J", "N", "W", "V") or not tail.startswith(r"\text")):
        return _Way(before, unit, (number or len(words) > 1) and not re.search(r"\\Omega|\\mu\s*[A-Za-z]", tail))
    if not unit and number and not re.search(r"[%\\]", words) and not CONDITION.search(tail):
        return _Way(before, words=words)
    return None


def _bare_unit(before: str, tail: str) -> _Way | None:
    """A number before letters that are a unit or words."""
    if not _numeric(before):
        return None
    value, spaced = before.strip(), before[-1] == " "
    unit = None if re.search(r"[-+/*^_,(]\s*$|\\[a-z]+\s*$", before) else units.unit(tail)
    if not unit:
        plain = re.fullmatch(r"[a-z]{3,}(?: [a-z]{2,})*\.?", tail) and not set(tail.split()) & _FUNCTIONS
        return _Way(value, words=tail) if plain and spaced and not CONDITION.search(tail) else None
    quotient = re.sub(r"\s*\\frac\s*\{(.*?)\}\s*\{(.*?)\^?\{?\d?\}?\}", r"\1/\2", tail)
    names = re.findall(r"[A-Za-z]+", quotient)
    if tail[1:3] == ".m" or re.sub(r"[\^{}\d\s-]", "", quotient) in _COMMON:
        return _Way(value, unit, quotient == tail)
    if len(names) == 1 and names[0] in units.DOUBTFUL:
        surely = spaced and names[0] not in units.NEVER and _PLAIN.fullmatch(before)
        return _Way(value, unit) if surely else None
    if all(len(name) == 1 for name in names):
        return _Way(value, unit) if spaced and re.search(r"\^\{?-", tail) else None
    return _Way(value, unit, True)


def _ways(text: str) -> list[_Way]:
    """Ways to read a text, the likelier first."""
    whole = _Way(text)
    if (match := re.fullmatch(r"(.*\S)\s*\\pmod\{(\w+)\}", text)) and _numeric(match[1]):
        return [_Way(match[1], (((f"mod {match[2]}", 1),), Fraction(1)), True)]
    for pattern, read_unit in ((_MARKED, _marked_unit), (_BARE, _bare_unit)):
        for match in pattern.finditer(text):
            if way := read_unit(text[: match.start()], text[match.start() :]):
                return [way] if way.known or not way.unit else [way, whole]
    return [whole]


def _leaf(text: str) -> Leaf:
    rest, currency, scale, leaves = text, None, 1, []
    if match := _CURRENCY.match(rest):
        rest, currency = match[1] + rest[match.end() :], units.unit(match[2])
    if (match := _SCALED.fullmatch(rest)) and _numeric(match[1]):
        rest, scale = re.sub(r"\\text\{\s*\}", "", match[1] + match[2] + match[4]).strip(), units.SCALES[match[3]]
    for value, unit, known, words in _ways(rest):
        unit, known = unit or currency, known or bool(currency)
        leaf = Leaf(text, None, unit, known, words, value if scale == 1 else f"{value} {scale}")
        try:
            tree, angle = formula.in_degrees(formula.read(value))
            leaf.unit = unit or (((("degree", 1),), Fraction(1)) if angle else None)
            leaf.tree = ("*", ("n", Fraction(scale), False), tree) if scale > 1 else tree
        except Unreadable:
            leaf.text = value
        leaves.append(leaf)
    leaves[0].also = leaves[1] if len(leaves) > 1 and leaves[1].tree else None
    return leaves[0]


_ABOUT = re.compile(
    r"^(?:\\approx|~|=|\\therefore|(?:approximately|about|roughly|exactly|nearly|around) "
    r"|\\text\{(?:approximately|about|approx\.?|roughly|exactly|nearly|around)\})\s*"
)


def parse(text: str):
    """What plain LaTeX says, as a Leaf, Many, Relation or Region."""
    text = _ABOUT.sub("", text.strip())
    parts = split(text, _COMMA)
    if len(parts) == 1:
        return _one(text)
    if re.search(r"\\forall|\\text\{where", text):
        return Leaf(text)
    if len(parts) > 2 * MOST:
        raise Unreadable("a long list")
    return _many("list", parts, text)


def _many(kind: str, parts: list[str], text: str, brackets: str = "") -> Many:
    items: list = []
    for item in (parse(p) for p in parts[::2] if p):
        items += item.items if isinstance(item, Many) and item.kind == "list" else [item]
    if kind == "list":
        first = items[0] if items else None
        if (says(first, "=") or says(first, r"\ne")) and is_label(first.sides[0].text):  # x = 1, 2
            items = [x if isinstance(x, Relation) else Relation([first.sides[0], x], first.signs) for x in items]
        words = {w.lower() for p in parts[1::2] for w in re.findall("and|or", p, re.IGNORECASE)}
        brackets = words.pop() if len(words) == 1 else brackets
    return Many(kind, items, brackets, text)


def _one(text: str):
    sides = split(text, _RELATION)
    if len(sides) > 1:
        if sides[0] == "":
            return parse(sides[2]) if len(sides) == 3 else Leaf(text)
        return _relation(sides, text)
    parts = split(text, _REGION)
    if len(parts) > 1 and all(parts):
        region = parse(parts[0])
        for sign, part in zip(parts[1::2], parts[2::2], strict=True):
            region = Region(sign, [region, parse(part)], text)
        return region
    if match := re.fullmatch(r"(\(.*\)|\[.*\])\s*\^\s*\{?\s*(?:T|\\top|\\text\{T\}|\\intercal)\s*\}?", text):
        return parse(match[1])
    if pair := _brackets(text):
        opening, content, closing = pair
        if opening == "{":
            return parse(content)
        if opening == r"\{":
            return _set(content, text)
        inner = split(content, r"[,;]|\\text\{and\}")
        if len(inner) > 1 and all(inner[::2]):
            return _many("tuple", inner, text, opening[0] + closing[-1] if opening != r"\langle" else "()")
        if opening == "(" and closing == ")" and len(split(content, _RELATION)) > 1:
            return parse(content)
    if re.search(r"\\(?:pm|mp)(?![a-z])", text):
        both = [re.sub(r"\\pm(?![a-z])", a, re.sub(r"\\mp(?![a-z])", b, text)) for a, b in ("+-", "-+")]
        return Many("list", [parse(x) for x in both], "", text)
    ratio = split(text, r":|\\text\{(?:to|:)\}|(?<=\d )to(?= \d)")
    if len(ratio) > 1 and all(ratio):
        return _ratio(ratio[::2], text)
    if re.fullmatch(r"(?:\([^()]*,[^()]*\)\s*){2,}", text):
        return parse(re.sub(r"\)\s*\(", "), (", text))  # nothing stands between
    return _measured(_leaf(text))


def _measured(leaf: Leaf):
    """`(3, 4) cm` with the unit at each."""
    pair = leaf.unit and not leaf.tree and _brackets(leaf.value)
    many = parse(leaf.value) if pair else None
    if not isinstance(many, Many) or not all(isinstance(x, Leaf) for x in many.items):
        return leaf
    for item in many.items:
        item.unit, item.known = item.unit or leaf.unit, True
    return many


def _set(content: str, text: str):
    bar = split(content, r"[|:]")
    if len(bar) == 3 and len(split(bar[2], _RELATION)) > 1:
        real = r"\in" not in re.sub(r"\\in\s*\\mathbb\{?\s*R\s*\}?$", "", bar[0])
        return parse(bar[2]) if real else Leaf(text)
    return _many("set", split(content, "[,;]"), text)


def _ratio(parts: list[str], text: str) -> Many:
    words = [_no_words(p).strip() for p in parts]
    clock = re.fullmatch(r"\d{1,2}", words[0]) and all(re.match(r"[0-5]\d(?!\d)", w) for w in words[1:])
    return Many("ratio", [parse(p) for p in parts], "clock" if clock else "", text)


def _relation(sides: list[str], text: str):
    values, signs = sides[::2], [re.sub(r"\\(?:sim|equiv|in)(?![a-z])", "=", s) for s in sides[1::2]]
    if all(values) and signs == [r"\notin"]:
        others = Region(r"\setminus", [_leaf(r"\mathbb{R}"), parse(values[1])])
        return Relation([parse(values[0]), others], [r"\in"], text)
    if not all(values) or not (set(signs) <= {"=", r"\approx"} or set(signs) <= _ORDERS):
        return Leaf(text)
    if set(signs) <= {"=", r"\approx"} and len(signs) > 1:
        if all(is_label(v) for v in values[:-1]):  # a = b = 0
            last = parse(values[-1])
            return Many("list", [Relation([_leaf(v), last], ["="]) for v in values[:-1]], "chain", text)
        return Relation([parse(v) for v in values], signs, text)
    if signs == ["="] and not is_label(values[0]) and is_label(values[1]):
        values = values[::-1]
    items = [parse(v) for v in values]
    if signs != ["="]:
        return Relation(items, signs, text)
    left, right = items
    if isinstance(right, Many) and right.kind == "tuple" and (names := _brackets(values[0])):
        inner = split(names[1], ",")[::2]
        if len(inner) == len(right.items) > 1:  # (x, y) = (1, 2)
            pairs = [Relation([_leaf(n), x], ["="]) for n, x in zip(inner, right.items, strict=True)]
            return Many("tuple", pairs, right.brackets, text)
    if is_label(values[0]) and isinstance(right, Many) and right.kind in ("list", "set"):
        return Many("list", [Relation([left, x], ["="]) for x in right.items], "", text)
    return Relation(items, [r"\in"] if is_label(values[0]) and is_region(right) else signs, text)


def is_label(text: str) -> bool:
    r"""Whether it names a quantity, such as `x`, `f(x)`, `|AB|` or `\text{Area}`."""
    text = _DERIVATIVE.sub("y'", text)
    return bool(_LABEL.fullmatch(text)) and not re.fullmatch(r"\s*(?:\\pi|e|i|\\infty|\\emptyset)\s*", text)


def is_region(item) -> bool:
    """Whether it may be a set of real numbers."""
    if isinstance(item, Leaf):
        return bool(re.fullmatch(r"\\mathbb\s*\{?\s*R\s*\}?", item.text))
    if isinstance(item, Many):
        return item.kind == "tuple" and len(item.items) == 2
    return isinstance(item, Region) or item.signs != ["="]


_DOMAIN = re.compile(
    r"\s*(?:[,;]\s*(?:\\text\{\s*(?:where|for|with|and)\s*(?:any|all)?\s*\})?\s*\(?|\()\s*\$?((?:[a-zA-Z]\s*,\s*)*[a-zA-Z])\s*"
    r"(?:\\in\s*\\mathbb\s*\{?\s*([ZRNQ])\s*\}?(\s*[_^]\s*\{?[+*0]\}?)?"
    r"|\\text\{\s*(?:is|are)?\s*(?:an|any)?\s*(integer)s?\s*\}|(?:is|are)?\s*(?:an|any)?\s*(integer)s?)\s*\)?$"
)


def domain(text: str) -> tuple[str, str]:
    r"""An answer without a closing `k \in \mathbb{Z}`, and the numbers that this names; of the reals none."""
    text = re.sub(r"^[a-zA-Z]\s*\\in\s*\\mathbb\s*\{?\s*R\s*\}?\s*[,;]\s*", "", text)
    match = _DOMAIN.search(text)
    if not match or not match.start():
        return text, ""
    numbers = "Z" if match[4] or match[5] else match[2] + re.sub(r"\W", "", match[3] or "")
    return text[: match.start()], numbers.replace("R", "")


@functools.lru_cache(maxsize=4096)
def read(text: str, gold: bool = False) -> list:
    """Ways to read an answer, the likelier first."""
    text = _FRENCH.sub(lambda m: ("(" if m[1] == "]" else "[") + m[2] + (")" if m[3] == "[" else "]"), text)
    joined = re.sub(r"(?<![\d,.])\d{1,3}(?:,\d{3})+(?![\d,])", lambda m: m[0].replace(",", ""), text)
    ways = [joined] if joined != text else []
    if joined == text or not re.search(r"\d,0\d\d(?!\d)", text):
        ways.append(text)
    comma = re.match(r"[-+]?(\d+),(?!\d{3}\s*$|0+\s*$)(\d+)(?=\s*(%|$))", text)
    if comma and (comma[3] or (not gold and int(comma[1]) > int(comma[2]))):  # values of a list rise
        ways.append(text.replace(",", "."))
    if whole := _compound(text):
        ways.insert(0, whole)
    return [parse(w) for w in ways]


_FRENCH = re.compile(  # ]1, 2[
    r"(?:(?<=^)|(?<=\\cup )|(?<=\\cup)|(?<=\\in )|(?<== ))([\[\]])([^\[\]]*[,;][^\[\]]*)([\[\]])"
    r"(?=\s*(?:$|\\cup|\\cap|\\setminus))"
)
_PART = r"(\d+(?:\.\d+)?)\s*(?:\\text\{\s*([a-zA-Z]+)\s*\}|([a-zA-Z]+))"
_TWO_PARTS = re.compile(rf"\(?{_PART}\s*(?:and\s|\\text\{{\s*and\s*\}})?\s*{_PART}\)?")


def _compound(text: str) -> str | None:
    """`2 h 30 min` in minutes."""
    if not (match := _TWO_PARTS.fullmatch(text)):
        return None
    large, small = (units.UNITS.get(match[k] or match[k + 1]) for k in (2, 5))
    if not large or not small or large[0] != small[0] or large[1] <= small[1]:
        return None
    return f"({match[1]} * {large[1] / small[1]} + {match[4]}) \\text{{ {match[5] or match[6]}}}"
