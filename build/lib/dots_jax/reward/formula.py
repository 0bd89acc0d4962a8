"""Formulas: plain LaTeX (see `notation`) to a tree. Nothing is evaluated as Python.

A tree is a tuple: ("n", value, whether written with decimals), ("s", name), ("+", a, b), ("*", a, b), ("/", a, b),
("^", a, b), ("f", function, arguments...), ("[", rows of a matrix), ("sum", kind, name, from, to, body),
("base", digits, base), ("index", name, tree).
"""

import functools
import re
from fractions import Fraction

GREEK = set(
    str.split(
        "alpha beta gamma delta epsilon zeta eta theta iota kappa lambda mu nu xi rho sigma tau upsilon phi chi psi "
        "omega Gamma Delta Theta Lambda Xi Pi Sigma Upsilon Phi Psi Omega ell hbar Re Im aleph nabla partial mho "
        "emptyset"
    )
)
_ALIASES = {"tg": "tan", "ctg": "cot", "cosec": "csc", "arsinh": "arcsinh", "arcosh": "arccosh", "artanh": "arctanh"}
NAMED = str.split(
    "sin cos tan cot sec csc sinh cosh tanh coth sech csch exp ln log lg max min gcd lcm abs floor ceil det dim ker "
    "arg Pr sgn cis"
)
FUNCTIONS = {*NAMED, *(f"arc{f}" for f in NAMED[:12]), *_ALIASES}
_ACCENTS = set(str.split("bar hat tilde overline widehat widetilde overrightarrow mathcal mathbb mathfrak mathscr"))
_NUMBER = r"(?:\d+\.\d*|\.\d+|\d+)(?:[eE][-+]?\d{1,9}(?![\d.]))?"
_TOKEN = re.compile(rf"\s*({_NUMBER}|\\text\{{[^{{}}]*\}}|\\[a-zA-Z]+|\\.|\S)", re.DOTALL)
_REPEATING = re.compile(
    r"\s*(\d*)\.(\d*)\s*(?:\\(?:overline|bar|dot)\s*\{?(\d+)\}?((?:\d*\\dot\s*\{?\d\}?)?)|\((\d+)\))(?!\d)"
    r"|\s*(\d*)\.(\d*?)(\d{1,9}?)\8{2,}\s*\\ldots"
)
_CLOSING = {
    "(": ")", "[": "]", "{": "}", r"\{": r"\}", r"\lfloor": r"\rfloor", r"\lceil": r"\rceil", r"\langle": r"\rangle"
}  # fmt: skip
_BASES = {w: k for k, w in enumerate(str.split("two three four five six seven eight nine ten"), 2)}
_MIXED = re.compile(r"\s*\\frac\s*(?:\{\s*(\d+)\s*\}|(\d))\s*(?:\{\s*(\d+)\s*\}|(\d))|\s+(\d+)\s*/\s*(\d+)(?![\d.])")
_BASED = re.compile(
    r"([A-Z0-9]*|[a-f0-9]*(?=\s*_\s*\{?16))\s*_\s*"
    r"(?:\{\s*\(?\s*(?:\\text\{(\w+)\}|(\w+))\s*\)?\s*\}|\\text\{(\w+)\}|(\d+))"
)
_CALLED = re.compile(r"f\s*[\^(]|[a-zA-Z]\s*\(\s*\d+\s*\)|[uhA-Z]\s*\(\s*[a-z]\s*\)")  # f(x), a(5), U(t)
_INVERSE = re.compile(r"\s*\^\s*(?:\{(?:-1|\(\w\))\}|-1)(?=\s*\()")
_BY = r"\{\s*(?:\\partial|d)\s*"
_DERIVATIVE = re.compile(
    rf"\s*{_BY}(?:\^\s*\{{?(\d)\}}?)?\s*(\\?[a-zA-Z]+)\s*\}}\s*{_BY}(\\?[a-zA-Z]+)\s*(?:\^\s*\{{?\d\}}?)?\s*\}}"
)
MINUS = ("n", Fraction(-1), False)


def whole(number: int):
    """The tree of a whole number."""
    return ("n", Fraction(number), False)


def negative(tree):
    """The tree of -x."""
    return ("*", MINUS, tree)


class Unreadable(Exception):
    """No formula, or one without a value that can be computed."""


class _Parser:
    """Reads one formula."""

    def __init__(self, text: str):
        self.text, self.i, self.bars = text, 0, 0

    def peek(self) -> str:
        match = _TOKEN.match(self.text, self.i)
        return match[1] if match else ""

    def next(self) -> str:
        match = _TOKEN.match(self.text, self.i)
        if not match:
            raise Unreadable("it ends too early")
        self.i = match.end()
        return match[1]

    def take(self, *tokens: str) -> bool:
        """Whether one of these is next; it is then read."""
        if self.peek() in tokens:
            self.next()
            return True
        return False

    def match(self, pattern: re.Pattern) -> re.Match | None:
        """The match of a pattern that comes next; it is then read."""
        match = pattern.match(self.text, self.i)
        self.i = match.end() if match else self.i
        return match

    def all(self):
        """The tree of the whole text."""
        tree = self.sum()
        if self.peek():
            raise Unreadable(self.peek())
        return tree

    def signed(self, read):
        """What `read` reads after any signs."""
        sign = 1
        while (token := self.peek()) in ("+", "-"):
            self.next()
            sign = -sign if token == "-" else sign
        tree = read()
        return tree if sign > 0 else negative(tree)

    def sum(self):
        tree = self.signed(self.product)
        while self.peek() in ("+", "-"):
            tree = ("+", tree, self.signed(self.product))
        return tree

    def product(self, implicit_only: bool = False):
        tree = self.factor()
        while token := self.peek():
            if token in ("*", r"\cdot", r"\times") and not implicit_only:
                self.next()
                tree = ("*", tree, self.signed(self.factor))
            elif token == "/" and not implicit_only:
                self.next()
                below = self.signed(self.factor)
                while below[0] != "n" and re.fullmatch("[a-zA-Z]{2}", self.text[self.i - 1 : self.i + 1]):
                    below = ("*", below, self.factor())  # t/RC
                tree = ("/", tree, below)
            elif implicit_only and (token[1:] in FUNCTIONS or token in (r"\sum", r"\prod")):
                break
            elif implicit_only and names(tree) and re.match(r"\s*(?:[(\[]|e\s*\^)", self.text[self.i :]):
                break  # sin x (1 + x)
            elif self.starts(token):
                tree = ("*", tree, self.factor())
            else:
                break
        return tree

    def starts(self, token: str) -> bool:
        """Whether a factor begins with this token."""
        if token == "|":
            return not self.bars
        name = token[1:] if token[0] == "\\" else ""
        known = name in GREEK or name in FUNCTIONS or name in _ACCENTS or token in _PRIMARY or name.startswith("text{")
        return known or token[0].isalnum() or token in _CLOSING or (token[0] == "." and len(token) > 1)

    def factor(self):
        """A primary with its exponents, factorials, degrees and percents."""
        tree = self.primary()
        while token := self.peek():
            if token == "^":
                self.next()
                exponent = self.exponent()
                transposed = tree[0] == "[" and exponent == ("s", "T")
                tree = ("f", "transposed", tree) if transposed else ("^", tree, exponent)
            elif token == "!":
                self.next()
                tree = ("f", "!!" if self.take("!") else "!", tree)
            elif token == r"\degree":
                self.next()
                tree = ("*", tree, ("f", "degree"))
            elif token == "%":
                self.next()
                tree = ("/", tree, whole(100))
            else:
                return tree
        return tree

    def exponent(self):
        if self.peek() in ("-", "+"):
            return self.signed(self.exponent)
        tree = self.script()
        return ("^", tree, self.exponent()) if self.take("^") else tree

    def script(self):
        """What is raised or lowered: a pair of braces, a number, or one sign."""
        token = self.peek()
        if token[:1].isdigit() or re.fullmatch(r"\.\d+", token):
            return _number(self.next())
        return self.group() if token == "{" else self.primary()

    def argument(self):
        """What stands in braces, or the next digit or sign."""
        token = self.peek()
        if token == "{":
            return self.group()
        if token and token[0].isdigit():
            self.i = _TOKEN.match(self.text, self.i).start(1) + 1
            return whole(int(token[0]))
        return self.primary()

    def group(self):
        opening = self.next()
        bars, self.bars = self.bars, 0
        tree = self.sum()
        self.bars = bars
        self.close(_CLOSING[opening])
        return tree

    def close(self, closing: str) -> None:
        if not self.take(closing):
            raise Unreadable("a bracket is not closed")

    def raw(self) -> str:
        """The text of a pair of braces, or of the next sign."""
        token = self.next()
        if token != "{":
            return re.sub(r"\\text\{([^{}]*)\}", r"\1", token)
        depth, start = 1, self.i
        while depth:
            token = self.next()
            depth += (token == "{") - (token == "}")
        return " ".join(self.text[start : self.i - 1].split())

    def primary(self):
        if match := self.match(_REPEATING):
            return _repeating(match)
        token = self.next()
        name = token[1:]
        if token[0].isdigit() or (token[0] == "." and name):
            return self.number(token)
        if token == "|":
            return self.bar()
        if token in ("(", "[", "{", r"\lfloor", r"\lceil"):
            self.i -= len(token)
            return ("f", name.replace("l", "", 1), self.group()) if name else self.group()
        if token in _PRIMARY:
            return _PRIMARY[token](self)
        if len(token) == 1 and token.isalpha():
            return self.symbol(token)
        if token.startswith(r"\text{"):
            return self.symbol(token[6:-1])
        if token[0] == "\\" and name in FUNCTIONS:
            return self.function(_ALIASES.get(name, name))
        if token == r"\overline" and re.match(r"\s*\{[^{}]*\d[^{}]*i\s*\}", self.text[self.i :]):
            return ("f", "conjugate", self.argument())
        if token[0] == "\\" and name in _ACCENTS:
            return self.symbol(f"{name}({self.raw()})".replace(" ", ""))
        if token[0] == "\\" and name in GREEK:
            return self.symbol(name)
        raise Unreadable(token)

    def bar(self):
        self.bars += 1
        tree = self.sum()
        self.close("|")
        self.bars -= 1
        return ("f", "abs", tree)

    def number(self, token: str):
        """A number, perhaps a mixed one or one in another base."""
        if "." in token:
            self.take(r"\ldots")
        start = self.i
        if token.isdigit() and (mixed := self.match(_MIXED)):
            top, bottom = (int(x) for x in mixed.groups() if x)
            if 0 < top < bottom:
                return ("n", int(token) + Fraction(top, bottom), False)
            self.i = start
        if based := self.match(_BASED):
            digits, word = token + based[1], next(x for x in based.groups()[1:] if x)
            base = int(word) if word.isdigit() else _BASES.get(word, 0)
            if 2 <= base <= 36 and digits.isalnum():
                return ("base", digits.upper(), base)
            self.i = start
        return _number(token)

    def symbol(self, name: str):
        """A variable with its index and primes, or a function of it."""
        if name in FUNCTIONS and self.peek() not in ("_", "", "^", ")", "}", "+", "-"):
            return self.function(_ALIASES.get(name, name))
        tree, primes = ("s", name), ""
        while True:
            if self.take("'"):
                primes += "'"
            elif self.peek() == "_" and tree == ("s", name) and "_" not in name:
                self.next()
                raw = self.next() if self.peek()[:1].isdigit() else self.raw()
                index = re.sub(r"\\text\{([^{}]*)\}|[\s{}]|\\(?=[a-z])", r"\1", raw)
                computed = re.fullmatch(r"[a-z](?:[-+][a-z0-9])*|\d+(?:[-+][a-z0-9])+", index)
                tree = ("index", name, _Parser(index).all()) if computed else ("s", f"{name}_{index}")
            else:
                break
        if primes:
            tree = ("s", f"{tree[1]}{primes}") if tree[0] == "s" else ("f", "prime" + primes, tree)
        called = primes or _CALLED.match(name + self.text[self.i :])
        if called or (name in "gFG" and re.search(rf"{name}\s*\(\s*(?:\\?[a-z]+|\d+)\s*\)", self.text)):
            if inverse := self.match(_INVERSE):
                tree = ("s", str(tree[1]) + inverse[0].replace(" ", ""))
            if self.peek() == "(" and tree[0] == "s":
                return ("f", "apply " + tree[1], *self.arguments())
        return tree

    def arguments(self) -> list:
        closing = _CLOSING[self.next()]
        found = [self.sum()]
        while self.take(",", ";"):
            found.append(self.sum())
        self.close(closing)
        return found

    def function(self, name: str):
        power, base = None, None
        while (token := self.peek()) in ("^", "_"):
            self.next()
            if token == "^":
                power = self.exponent()
            else:
                base = self.script()
        if self.peek() in ("(", "{", "[", r"\{"):
            args = self.arguments()
        elif self.take("|"):
            args = [self.bar()]
        else:
            args = [self.signed(functools.partial(self.product, implicit_only=True))]
        if power == negative(whole(1)) and name in NAMED[:12]:
            name, power = "arc" + name, None
        if name == "cis":
            return ("f", "exp", ("*", ("s", "i"), *args))
        if base is not None and name != "log":
            raise Unreadable("an index of a function")
        tree = ("f", name, *args)
        if base is not None or name == "lg":
            tree = ("/", ("f", "ln", *args), ("f", "ln", base or whole(10)))
        return tree if power is None else ("^", tree, power)

    def fraction(self):
        if derivative := self.match(_DERIVATIVE):
            order, name, by = derivative.groups()
            return ("s", name.strip("\\") + "'" * int(order or 1) + ("" if by in "tx" else f" by {by}"))
        return ("/", self.argument(), self.argument())

    def root(self):
        degree = None
        if self.take("["):
            self.i -= 1
            degree = self.group()
        token = self.peek()
        inside = self.group() if token == "(" else self.script()
        return ("f", "root", inside, degree or whole(2))

    def matrix(self):
        name = self.raw()
        if name.rstrip("*") not in ("pmatrix", "bmatrix", "matrix", "vmatrix", "array", "smallmatrix", "Bmatrix"):
            raise Unreadable(name)
        if name == "array":
            self.raw()
        rows = [[self.sum()]]
        while not self.take(r"\end"):
            if self.take("&"):
                rows[-1].append(self.sum())
            elif not self.take(r"\\"):
                raise Unreadable("a matrix is not closed")
            elif self.peek() != r"\end":
                rows.append([self.sum()])
        if self.raw() != name or len({len(r) for r in rows}) != 1:
            raise Unreadable("a matrix is not closed")
        tree = ("[", *map(tuple, rows))
        return ("f", "det", tree) if name == "vmatrix" else tree

    def big(self, kind: str):
        if not self.take("_"):
            raise Unreadable("a sum without bounds")
        match = re.fullmatch(r"\\?([a-zA-Z]+)\s*=\s*(.+)", self.raw())
        if not match or not self.take("^"):
            raise Unreadable("a sum without bounds")
        end = self.argument()
        return ("sum", kind, match[1], _Parser(match[2]).all(), end, self.product())

    def angle(self):
        """What follows is its name."""
        name = re.sub(r"[\s_{}]", "", self.text[self.i :])
        self.i = len(self.text)
        return ("s", f"angle {name}")


def _number(token: str):
    mantissa, _, power = token.lower().partition("e")
    if len(token) > 2000 or abs(int(power or 0)) > 5000:
        raise Unreadable("a number is too long")
    mantissa = mantissa.rstrip(".")
    return ("n", Fraction(mantissa) * Fraction(10) ** int(power or 0), "." in mantissa or bool(power))


def _repeating(match: re.Match):
    whole, digits, block, more, bracket, whole2, digits2, block2 = match.groups()
    if block2 is not None:
        whole, digits, block = whole2, digits2, block2
    block = (block or bracket) + re.sub(r"\D", "", more or "")
    value = int((whole or "0") + digits + block) - int((whole or "0") + digits)
    return ("n", Fraction(value, 10 ** len(digits) * (10 ** len(block) - 1)), False)


_PRIMARY = {
    r"\frac": _Parser.fraction,
    r"\sqrt": _Parser.root,
    r"\cbrt": lambda p: ("f", "root", p.argument(), whole(3)),
    r"\binom": lambda p: ("f", "binomial", p.argument(), p.argument()),
    r"\begin": _Parser.matrix,
    r"\sum": lambda p: p.big("sum"),
    r"\prod": lambda p: p.big("prod"),
    r"\pi": lambda p: p.symbol("pi"),
    r"\infty": lambda p: ("f", "infinity"),
    r"\dot": lambda p: p.symbol(p.raw().strip("\\") + "'"),
    r"\ddot": lambda p: p.symbol(p.raw().strip("\\") + "''"),
    r"\angle": _Parser.angle,
}


def walk(tree):
    """Every tree in a tree, itself first."""
    yield tree
    for part in tree[1:]:
        if isinstance(part, tuple):
            yield from walk(part) if part and isinstance(part[0], str) else (x for p in part for x in walk(p))


def names(tree) -> set[str]:
    """The variables and unknown functions of a tree."""
    found = {
        t[1]
        for t in walk(tree)
        if (t[0] in ("s", "index") and t[1] not in ("pi", "e")) or (t[0] == "f" and t[1].startswith("apply"))
    }
    return found - {t[2] for t in walk(tree) if t[0] == "sum"} if found else found


def is_constant(tree) -> bool:
    """Whether it holds no variable but `i`."""
    return not names(tree) - {"i"}


def in_degrees(tree) -> tuple[tuple, bool]:
    """The tree with degrees as plain numbers, those within functions aside, and whether there are any."""
    if tree == ("f", "degree"):
        return whole(1), True
    if tree[0] not in ("+", "*", "/"):
        return tree, False
    (a, left), (b, right) = (in_degrees(t) for t in tree[1:])
    return (tree[0], a, b), left or right


def read(text: str):
    """The tree of a formula. Raises Unreadable."""
    try:
        return _Parser(text).all()
    except (IndexError, ValueError, RecursionError, OverflowError) as error:
        raise Unreadable(str(error)) from error
