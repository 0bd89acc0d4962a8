"""Reads an answer: lists, tuples, relations, regions, and values with their units."""

import dataclasses
import functools
import re
from fractions import Fraction

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
_REGION = re.compile(r"\\(?:cup|cap|setminus)(?![a-zA-Z])")


def split(text: str, separator: re.Pattern) -> list[str]:
    """Parts between separators outside all brackets, and the separators: part, separator, part ..."""
    parts, depth, start, i = [], 0, 0, 0
    while i < len(text):
        if depth == 0 and (match := separator.match(text, i)) and match.end() > i:
            parts += [text[start:i].strip(), match[0].strip()]
            i = start = match.end()
            continue
        piece = _PIECE.match(text, i)[0]
        depth += (piece in _OPEN) - (piece in _CLOSE)
        i += len(piece)
    return [*parts, text[start:].strip()]


def _brackets(text: str) -> tuple[str, str, str] | None:
    """Opening bracket, content and closing bracket, where one pair holds the whole text."""
    match = re.match(r"\\\{|\\langle|[(\[{]", text)
    if not match:
        return None
    depth, i = 0, 0
    while i < len(text):
        piece = _PIECE.match(text, i)[0]
        depth += (piece in _OPEN) - (piece in _CLOSE)
        i += len(piece)
        if depth == 0:
            return (match[0], text[match.end() : i - len(piece)].strip(), piece) if i == len(text) else None
    return None


# ---- reading

_LABEL = re.compile(
    r"(?:\\(?!frac|sqrt|sum|prod|int)[a-zA-Z]+(?![a-zA-Z])|[a-zA-Z']|\\text\{[^{}]*\}|_\s*(?:\{[^{}]*\}|\w)|\^\s*\{?\s*-1\s*\}?(?=\()|\^\{\(\w\)\}"
    r"|\((?:[^()+\d]|\d(?=[,)]))*\)|\{[a-zA-Z ]*\}|\|[a-zA-Z\\ ]*\||\[[A-Za-z ]+\]|[\s:,])+"
)
_DERIVATIVE = re.compile(
    r"\\frac\s*\{\s*d[^{}]*\}\s*\{\s*d[^{}]*\}|d[a-zA-Z]/d[a-zA-Z]|(?<![a-zA-Z])[fghFGHPQ]'*\([^()=]*\)"
)
CONDITION = re.compile(r"\b(?:if|where|for|when|with|is|are|not|unless|such|all|any|even|odd|mod|otherwise)\b")
_SCALES = "|".join(units.SCALES)
_COMMON = set(str.split("m/s J/K N/m V/m A/m J/s W/m W/K C/s g/L K/m C/m N/C J/C J/g V/A V/s s/m g/s L/s J/m A/s"))
_TAIL = re.compile(
    r"(?:\\text\{[^{}]*\}|\\frac\s*\{\s*\\text\{[^{}]*\}[^{}]*\}\s*\{(?:[^{}]|\{[^{}]*\})*\}|\\degree(?:\s*C(?![a-z])|\s*F(?![a-z]))?"
    r"|\^\s*(?:\{\s*-?\d\s*\}|-?\d)|[\s/()]|\\cdot(?![a-z])|\\times(?![a-z])|%|\\mu\s*[A-Za-z](?![a-zA-Z])|\\mu(?![a-z])|(?:[kM]\s*)?\\Omega|(?<=/)\s*[a-zA-Z]+)+"
)


_APPLIED = re.compile(r"\\(?:sin|cos|tan|cot|sec|csc|ln|log|exp|text\{cis\})(?![a-z])(?:[^()]*|[^()]*\([^()]*)$")


def _no_words(text: str) -> str:
    return re.sub(r"\\text\{([^{}]*)\}", r" \1 ", text)


def _numeric(text: str) -> bool:
    """Whether it holds a number and no variable."""
    text = re.sub(
        r"\\(?:frac|sqrt|pi|cdot|times|ldots|overline|dot|bar|pm|infty|ln|approx|left|right)(?![a-z])|(?<=\d)e(?=[-+]?\d)",
        " ",
        text,
    )
    return not re.search(r"[a-zA-Z\\]", text) and any(c.isdigit() for c in text)


def split_unit(text: str) -> list[tuple[str, units.Unit | None, int, bool, str]]:
    """Ways to read a text: value, unit, factor such as of `million`, whether the unit is sure, and other words."""
    known, sign = None, ""
    if (match := re.fullmatch(r"(.*\S)\s*\\pmod\{(\w+)\}", text)) and _numeric(match[1]):
        return [(match[1], (((f"mod {match[2]}", 1),), Fraction(1)), 1, True, "")]
    if match := re.match(
        r"([-+]?)\s*(?:\\text\{)?(dollars|euros|pounds|yen|yuan|rupees|USD|EUR|Rs)\.?(?:\}|\s)\s*(?=\S)", text
    ):
        known, sign, text = units.UNITS[match[2]], match[1], text[match.end() :]
        known = (tuple(sorted(known[0].items())), known[1])
    whole = [(sign + text, known, 1, bool(known), "")]
    scale = 1
    match = re.fullmatch(rf"(.*[\d}})])\s*(?:\\text\{{)?\s*({_SCALES})s?(?![a-z])\s*(\}}?)(.*)", text, re.DOTALL)
    if match and _numeric(match[1]):
        rest = match[4].strip(" }") if match[3] or "\\text" not in text else r"\text{" + match[4].strip()
        scale = units.SCALES[match[2]]
        text = match[1] + (" " + rest if rest.strip() not in ("", r"\text{}", r"\text{") else "")
        whole = [(sign + text, known, scale, bool(known), "")]
    for match in re.finditer(
        r"\\text\{|\\frac\s*\{\s*\\text\{|\\degree|%|\\mu\s*\\text|(?<=\d)\s*(?:[kM]\s*)?\\Omega|(?<=\d)\s*\\mu\s*[A-Za-z]",
        text,
    ):
        before, tail = text[: match.start()].rstrip(), text[match.start() :]
        before = re.sub(r"(?:\\cdot|\\times|\*|\\;)\s*$", "", before).rstrip()
        if tail.startswith((r"\degree", "%")) and _APPLIED.search(before):
            continue
        if (
            not before
            or before[-1] in "_^=<>+-*/,({\\"
            or before.count("|") % 2
            or not _TAIL.fullmatch(tail)
            or before.count("{") != before.count("}")
        ):
            continue
        if before.count("(") != before.count(")"):
            continue
        unit = units.unit(tail)
        if unit and (not tail.startswith(r"\text") or _numeric(before) or len(_no_words(tail).strip()) > 1):
            letter = re.search(r"\\Omega|\\mu\s*[A-Za-z]", tail)
            return [(sign + before, unit, scale, not letter, ""), *(whole if letter else [])]
        if unit and re.fullmatch(r"\\text\{[JNWV]\}", tail):
            return [*whole, (sign + before, unit, scale, False, "")]
        if not unit and _numeric(before) and not re.search(r"[%\\]", _no_words(tail)) and not CONDITION.search(tail):
            return [(sign + before, known, scale, bool(known), _no_words(tail).strip())]
    for match in re.finditer(r"(?<=[\d})\s])(?<![a-zA-Z\\])[a-zA-Z¢]|(?<=[\d}])\s*\\frac\{[a-zA-Z]+\}", text):
        before, tail = text[: match.start()], text[match.start() :]
        if not _numeric(before) or re.search(r"[-+/*^_,(]\s*$|\\[a-z]+\s*$", before) or not (unit := units.unit(tail)):
            if (
                _numeric(before)
                and re.fullmatch(r"[a-z]{3,}(?: [a-z]{2,})*\.?", tail)
                and before[-1] == " "
                and not CONDITION.search(tail)
                and not set(tail.split()) & _FUNCTIONS
            ):
                return [(sign + before.rstrip(), known, scale, bool(known), tail)]
            continue
        words = re.findall(r"[A-Za-z]+", tail)
        if tail[1:3] == ".m":
            return [(sign + before.strip(), unit, scale, True, "")]
        if words[0] == "frac":
            compound = re.sub(r"\\frac\s*\{(.*?)\}\s*\{(.*?)\^?\{?\d?\}?\}", r"\1/\2", tail.strip())
            return [(sign + before.strip(), unit, scale, False, ""), *whole] if compound in _COMMON else whole
        alone = len(words) == 1
        if alone and (words[0] in units.DOUBTFUL or len(words[0]) == 1):
            if (
                before[-1] != " "
                or words[0] in units.NEVER
                or not re.fullmatch(r"[-+\d.\s]+(?:[eE][-+]?\d+\s*|(?:\\times|\\cdot|\*)\s*10\s*\^.*)?", before)
            ):
                continue
            return [(sign + before.strip(), unit, scale, False, ""), *whole]
        if all(len(w) == 1 for w in words) and re.sub(r"[\^{}\d\s-]", "", tail) not in _COMMON:
            if re.search(r"\^\{?-", tail) and before[-1] == " ":
                return [(sign + before.strip(), unit, scale, False, ""), *whole]
            continue
        return [(sign + before.strip(), unit, scale, True, "")]
    return whole


_FUNCTIONS = set(notation.FUNCTIONS) | {"and", "mod"}


def _leaf(text: str) -> Leaf:
    ways = []
    for value, unit, scale, known, words in split_unit(text):
        leaf = Leaf(text, None, unit, known, words, value if scale == 1 else f"{value} {scale}")
        try:
            tree = formula.read(value)
            tree, angle = formula.in_degrees(tree)
            leaf.unit = leaf.unit or (((("degree", 1),), Fraction(1)) if angle else None)
            leaf.tree = ("*", ("n", Fraction(scale), False), tree) if scale > 1 else tree
        except Unreadable:
            leaf.text = value
        ways.append(leaf)
    ways[0].also = ways[1] if len(ways) > 1 and ways[1].tree else None
    return ways[0]


_ABOUT = re.compile(
    r"^(?:\\approx|~|=|\\therefore|(?:approximately|about|roughly|exactly|nearly|around) "
    r"|\\text\{(?:approximately|about|approx\.?|roughly|exactly|nearly|around)\})\s*"
)


def parse(text: str):
    """What plain LaTeX says, as a Leaf, Many, Relation or Region."""
    text = _ABOUT.sub("", text.strip())
    parts = split(text, _COMMA)
    if len(parts) > 1 and parts[-1] == "":
        parts = parts[:-2]
    if len(parts) > 2 and re.search(r"\\forall|\\text\{where", text):
        return Leaf(text)
    if len(parts) > 2:
        if modulus := re.search(r"\s*\\pmod\{\w+\}$", parts[-1]):  # n = 0, 2 mod 3
            parts[:-2:2] = [p if r"\pmod" in p else p + modulus[0] for p in parts[:-2:2]]
        if len(parts) > 2 * MOST:
            raise Unreadable("a long list")
        return _many("list", parts, text)
    return _one(parts[0])


def _many(kind: str, parts: list[str], text: str, brackets: str = "") -> Many:
    items: list = []
    for item in (parse(p) for p in parts[::2] if p):
        items += item.items if isinstance(item, Many) and item.kind == "list" else [item]
    first = items[0] if items else None
    if (
        kind == "list"
        and isinstance(first, Relation)
        and first.signs in (["="], [r"\ne"])
        and is_label(first.sides[0].text)
    ):
        items = [
            x if isinstance(x, Relation) else Relation([first.sides[0], x], first.signs) for x in items
        ]  # x = 1, 2
    if kind == "list":
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
    pair = _brackets(text)
    if pair:
        opening, content, closing = pair
        if opening == "{":
            return parse(content)
        if opening == r"\{":
            return _set(content, text)
        inner = split(content, re.compile(r"[,;]|\\text\{and\}"))
        if len(inner) > 1 and all(inner[::2]):
            return _many("tuple", inner, text, opening[0] + closing[-1] if opening != r"\langle" else "()")
        if opening == "(" and closing == ")" and len(split(content, _RELATION)) > 1:
            return parse(content)
    if re.search(r"\\(?:pm|mp)(?![a-z])", text):
        both = [re.sub(r"\\pm(?![a-z])", a, re.sub(r"\\mp(?![a-z])", b, text)) for a, b in ("+-", "-+")]
        return Many("list", [parse(x) for x in both], "", text)
    ratio = split(text, re.compile(r":|\\text\{(?:to|:)\}|(?<=\d )to(?= \d)"))
    if len(ratio) > 1 and all(ratio):
        return _ratio(ratio[::2], text)
    return _tuples(text) or _measured(_leaf(text))


def _measured(leaf: Leaf):
    """`(3, 4) cm` with the unit at each."""
    pair = leaf.unit and not leaf.tree and _brackets(leaf.value)
    many = parse(leaf.value) if pair else None
    if not isinstance(many, Many) or not all(isinstance(x, Leaf) for x in many.items):
        return leaf
    for item in many.items:
        item.unit, item.known = item.unit or leaf.unit, True
    return many


def _tuples(text: str) -> Many | None:
    """`(1,2)(3,4)`, where nothing stands between."""
    parts, rest = [], text
    while rest.startswith("("):
        end = next((i for i in range(len(rest)) if rest[: i + 1].count("(") == rest[: i + 1].count(")")), None)
        if end is None or "," not in rest[:end] or len(parts) > MOST:
            return None
        parts += [rest[: end + 1], ","]
        rest = rest[end + 1 :].strip()
    return _many("list", parts[:-1], text) if not rest and len(parts) > 2 else None


def _set(content: str, text: str):
    bar = split(content, re.compile(r"[|:]"))
    if len(bar) == 3 and len(split(bar[2], _RELATION)) > 1:
        domain = re.fullmatch(r"(.*?)\s*\\in\s*\\mathbb\{?\s*R\s*\}?", bar[0])
        if domain or r"\in" not in bar[0]:
            return parse(bar[2])
        return Leaf(text)
    parts = split(content, re.compile(r"[,;]"))
    return _many("set", parts, text)


def _ratio(parts: list[str], text: str) -> Many:
    words = [_no_words(p).strip() for p in parts]
    clock = re.fullmatch(r"\d{1,2}", words[0]) and all(re.match(r"[0-5]\d(?!\d)", w) for w in words[1:])
    return Many("ratio", [parse(p) for p in parts], "clock" if clock else "", text)


def _relation(sides: list[str], text: str):
    values, signs = sides[::2], [re.sub(r"\\(?:sim|equiv)", "=", s) for s in sides[1::2]]
    if set(signs) != {"=", r"\approx"} and signs != [r"\approx"]:
        signs = ["=" if s == r"\approx" else s for s in signs]
    if not all(values) or any(
        s not in ("=", r"\approx", "<", ">", r"\le", r"\ge", r"\ne", r"\in", r"\notin") for s in signs
    ):
        return Leaf(text)
    if signs[0] == r"\in" and values[1].strip() in (r"\mathbb{R}", r"\mathbb R"):
        return parse(values[1])
    if signs == [r"\notin"]:
        return Relation(
            [parse(values[0]), Region(r"\setminus", [_leaf(r"\mathbb{R}"), parse(values[1])])], [r"\in"], text
        )
    signs = ["=" if s == r"\in" else s for s in signs]
    if set(signs) <= {"=", r"\approx"} and len(signs) > 1:
        if all(is_label(v) for v in values[:-1]):  # a = b = 0
            last = parse(values[-1])
            return Many("list", [Relation([_leaf(v), last], ["="]) for v in values[:-1]], "chain", text)
        return Relation([parse(v) for v in values], signs, text)
    left, right = values[0], values[-1]
    if signs in (["="], [r"\approx"]) and is_label(values[0]) | is_label(values[-1]):
        signs = ["="]
    if signs == ["="] and not is_label(left) and is_label(right):
        left, right, values = right, left, values[::-1]
    if signs == ["="] and (names := _brackets(left)) and not re.search(r"\\pm(?![a-z])", right):
        inner, other = split(names[1], re.compile(",")), parse(right)
        if len(inner) > 1 and isinstance(other, Many) and other.kind == "tuple" and len(other.items) == len(inner[::2]):
            return Many(
                "tuple",
                [Relation([_leaf(n), x], ["="]) for n, x in zip(inner[::2], other.items, strict=True)],
                other.brackets,
                text,
            )
    items = [parse(v) for v in values]
    if signs == ["="] and isinstance(items[1], Many) and items[1].kind in ("list", "set") and is_label(left):
        return Many("list", [Relation([items[0], x], ["="]) for x in items[1].items], "", text)
    if signs == ["="] and is_region(items[1]) and is_label(left):
        return Relation(items, [r"\in"], text)
    return Relation(items, signs, text)


def is_label(text: str) -> bool:
    r"""Whether it names a quantity, such as `x`, `f(x)`, `|AB|` or `\text{Area}`."""
    text = _DERIVATIVE.sub("y'", text)
    return bool(_LABEL.fullmatch(text)) and not re.fullmatch(r"\s*(?:\\pi|e|i|\\infty|\\emptyset)\s*", text)


def is_region(item) -> bool:
    """Whether it may be a set of real numbers."""
    if isinstance(item, Relation):
        return item.signs != ["="]
    return isinstance(item, Region) or (isinstance(item, Many) and item.kind == "tuple" and len(item.items) == 2) or (
        isinstance(item, Leaf) and re.fullmatch(r"\\mathbb\s*\{?\s*R\s*\}?", item.text)
    )  # fmt: skip


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
    text = notation.clean(text)
    text = _french(text)
    ways = []
    joined = re.sub(r"(?<![\d,.])\d{1,3}(?:,\d{3})+(?![\d,])", lambda m: m[0].replace(",", ""), text)
    if joined != text:
        ways.append(joined)
    if not re.search(r"\d,0\d\d(?!\d)", text) or joined == text:
        ways.append(text)
    comma = re.match(
        r"[-+]?(\d+),(?!\d{3}\s*$|0+\s*$)(\d+)(?=\s*(%|$))", text
    )  # a decimal one, for values of a list rise
    if comma and (comma[3] or (not gold and int(comma[1]) > int(comma[2]))):
        ways.append(text.replace(",", "."))
    if whole := _compound(text):
        ways.insert(0, whole)
    return [parse(w) for w in ways]


_PART = r"(\d+(?:\.\d+)?)\s*(?:\\text\{\s*([a-zA-Z]+)\s*\}|([a-zA-Z]+))"
_TWO_PARTS = re.compile(rf"\(?{_PART}\s*(?:and\s|\\text\{{\s*and\s*\}})?\s*{_PART}\)?")


def _compound(text: str) -> str | None:
    """`2 h 30 min` in minutes."""
    match = _TWO_PARTS.fullmatch(text)
    large, small = (units.UNITS.get(match[k] or match[k + 1]) for k in (2, 5)) if match else (None, None)
    if not (large and small and large[0] == small[0] and large[1] > small[1]):
        return None
    return f"({match[1]} * {large[1] / small[1]} + {match[4]}) \\text{{ {match[5] or match[6]}}}"


def _french(text: str) -> str:
    def turn(match):
        a, inside, b = match.groups()
        return ("(" if a == "]" else "[") + inside + (")" if b == "[" else "]")

    return re.sub(
        r"(?:(?<=^)|(?<=\\cup )|(?<=\\cup)|(?<=\\in )|(?<== ))([\[\]])([^\[\]]*[,;][^\[\]]*)([\[\]])"
        r"(?=\s*(?:$|\\cup|\\cap|\\setminus))",
        turn,
        text,
    )
