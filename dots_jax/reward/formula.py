"""Formulas: plain LaTeX (see `notation`) to a tree. Nothing is evaluated as Python.

A tree is a tuple: ("n", value, whether written with decimals), ("s", name), ("+", a, b), ("*", a, b), ("/", a, b),
("^", a, b), ("f", function, arguments...), ("[", rows of a matrix), ("sum", kind, name, from, to, body),
("base", digits, base), ("index", name, tree).
"""

import re
from fractions import Fraction

GREEK = set(
    str.split(
        "alpha beta gamma delta epsilon zeta eta theta iota kappa lambda mu nu xi rho sigma tau upsilon phi chi psi "
        "omega Gamma Delta Theta Lambda Xi Pi Sigma Upsilon Phi Psi Omega ell hbar Re Im aleph nabla "
        "partial mho emptyset"
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
    r"(\d*)\.(\d*)\s*(?:\\(?:overline|bar|dot)\s*\{?(\d+)\}?((?:\d*\\dot\s*\{?\d\}?)?)|\((\d+)\))(?!\d)"
    r"|(\d*)\.(\d*?)(\d{1,9}?)\8{2,}\s*\\ldots"
)
_CLOSING = {
    "(": ")",
    "[": "]",
    "{": "}",
    r"\{": r"\}",
    r"\lfloor": r"\rfloor",
    r"\lceil": r"\rceil",
    r"\langle": r"\rangle",
}
_WORDS_OF_BASES = str.split("two three four five six seven eight nine ten")


MINUS = ("n", Fraction(-1), False)


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

    def all(self):
        """The tree of the whole text."""
        tree = self.sum()
        if self.peek():
            raise Unreadable(self.peek())
        return tree

    def sum(self):
        sign = self._sign()
        tree = self.product()
        tree = ("*", MINUS, tree) if sign < 0 else tree
        while self.peek() in ("+", "-"):
            sign = self._sign()
            term = self.product()
            tree = ("+", tree, term if sign > 0 else ("*", MINUS, term))
        return tree

    def _sign(self) -> int:
        sign = 1
        while (token := self.peek()) in ("+", "-"):
            self.next()
            sign = -sign if token == "-" else sign
        return sign

    def product(self, implicit_only: bool = False):
        tree = self.factor()
        while token := self.peek():
            if token in ("*", r"\cdot", r"\times") and not implicit_only:
                self.next()
                tree = ("*", tree, self.signed())
            elif token == "/" and not implicit_only:
                self.next()
                below = self.signed()
                while (
                    below[0] != "n"
                    and re.match("[a-zA-Z]", self.text[self.i : self.i + 1])
                    and re.match("[a-zA-Z]", self.text[self.i - 1])
                ):
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

    def signed(self):
        sign = self._sign()
        tree = self.factor()
        return tree if sign > 0 else ("*", MINUS, tree)

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
                tree = ("/", tree, ("n", Fraction(100), False))
            else:
                return tree
        return tree

    def exponent(self):
        if self.peek() in ("-", "+"):
            sign = self.next()
            tree = self.exponent()
            return tree if sign == "+" else ("*", MINUS, tree)
        tree = self.script()
        if self.take("^"):
            tree = ("^", tree, self.exponent())
        return tree

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
            return ("n", Fraction(int(token[0])), False)
        return self.primary()

    def group(self):
        opening = self.next()
        bars, self.bars = self.bars, 0
        tree = self.sum()
        self.bars = bars
        if not self.take(_CLOSING[opening]):
            raise Unreadable("a bracket is not closed")
        return tree

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
        if match := _REPEATING.match(self.text, self.i + len(self.text[self.i :]) - len(self.text[self.i :].lstrip())):
            self.i = match.end()
            return _repeating(match)
        token = self.next()
        if token[0].isdigit() or (token[0] == "." and len(token) > 1):
            return self.number(token)
        if token == "|":
            return self.bar()
        if token in (r"\|",):
            raise Unreadable(token)
        if token in ("(", "[", "{"):
            self.i -= 1
            return self.group()
        if token in (r"\lfloor", r"\lceil"):
            self.i -= len(token)
            return ("f", "floor" if token == r"\lfloor" else "ceil", self.group())
        if token.startswith(r"\text{"):
            return self.symbol(token[6:-1])
        name = token[1:]
        if token in _PRIMARY:
            return _PRIMARY[token](self)
        if token[0] == "\\" and name in FUNCTIONS:
            return self.function(_ALIASES.get(name, name))
        if token == r"\overline" and re.match(r"\s*\{[^{}]*\d[^{}]*i\s*\}", self.text[self.i :]):
            return ("f", "conjugate", self.argument())
        if token[0] == "\\" and name in _ACCENTS:
            return self.symbol(f"{name}({self.raw()})".replace(" ", ""))
        if token[0] == "\\" and name in GREEK:
            return self.symbol(name)
        if len(token) == 1 and token.isalpha():
            return self.symbol(token)
        raise Unreadable(token)

    def bar(self):
        self.bars += 1
        tree = self.sum()
        if not self.take("|"):
            raise Unreadable("a bar is not closed")
        self.bars -= 1
        return ("f", "abs", tree)

    def number(self, token: str):
        """A number, perhaps a mixed one or one in another base."""
        if "." in token:
            self.take(r"\ldots")
        tree = _number(token)
        if mixed := re.compile(
            r"\s*\\frac\s*(?:\{\s*(\d+)\s*\}\s*\{\s*(\d+)\s*\}|(\d)\s*(\d)|\{\s*(\d+)\s*\}\s*(\d)|(\d)\s*\{\s*(\d+)\s*\})|\s+(\d+)\s*/\s*(\d+)(?![\d.])"
        ).match(self.text, self.i):
            top, bottom = (int(x) for x in mixed.groups() if x)
            if token.isdigit() and 0 < top < bottom:
                self.i = mixed.end()
                return ("n", int(token) + Fraction(top, bottom), False)
        if match := re.compile(
            r"([A-Z0-9]*|[a-f0-9]*(?=\s*_\s*\{?16))\s*_\s*(?:\{\s*\(?\s*(?:\\text\{(\w+)\}|(\w+))\s*\)?\s*\}|\\text\{(\w+)\}|(\d+))"
        ).match(self.text, self.i):
            word = next(x for x in match.groups()[1:] if x)
            base = int(word) if word.isdigit() else _WORDS_OF_BASES.index(word) + 2 if word in _WORDS_OF_BASES else 0
            digits = token + match[1]
            if 2 <= base <= 36 and digits.isalnum():
                self.i = match.end()
                return ("base", digits.upper(), base)
        return tree

    def symbol(self, name: str):
        """A variable with its index and primes, or a function of it."""
        if name in FUNCTIONS and self.peek() not in ("_", "", "^", ")", "}", "+", "-"):
            return self.function(_ALIASES.get(name, name))
        tree = ("s", name)
        primes = ""
        while token := self.peek():
            if token == "'":
                self.next()
                primes += "'"
            elif token == "_" and tree[0] == "s" and "_" not in tree[1]:
                self.next()
                index = re.sub(r"\\text\{([^{}]*)\}|[\s{}]|\\(?=[a-z])", r"\1", self.raw_index())
                tree = ("s", f"{tree[1]}_{index}")
                if re.fullmatch(r"[a-z](?:[-+][a-z0-9])*|\d+(?:[-+][a-z0-9])+", index):
                    tree = ("index", name, _Parser(index).all())
            else:
                break
        if primes:
            tree = ("s", f"{tree[1]}{primes}") if tree[0] == "s" else ("f", "prime" + primes, tree)
        after = self.text[self.i :]
        applied = (
            name == "f"
            or (len(name) == 1 and re.match(r"\s*\(\s*\d+\s*\)", after))
            or (name in ("g", "F", "G") and re.search(rf"{name}\s*\(\s*(?:\\?[a-z]+|\d+)\s*\)", self.text))
            or primes
        )
        applied = applied or (
            (name in ("u", "h") or re.fullmatch("[A-Z]", name)) and re.match(r"\s*\(\s*[a-z]\s*\)", after)
        )
        if match := applied and re.compile(r"\s*\^\s*(?:\{(?:-1|\(\w\))\}|-1)(?=\s*\()").match(self.text, self.i):
            self.i, tree = match.end(), ("s", str(tree[1]) + match[0].replace(" ", ""))
        if applied and self.peek() == "(" and tree[0] == "s":
            return ("f", "apply " + tree[1], *self.arguments())
        return tree

    def raw_index(self) -> str:
        if self.peek()[:1].isdigit():
            return self.next()
        return self.raw()

    def arguments(self) -> list:
        closing = _CLOSING[self.next()]
        found = [self.sum()]
        while self.take(",", ";"):
            found.append(self.sum())
        if not self.take(closing):
            raise Unreadable("a bracket is not closed")
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
        elif self.peek() == "|":
            self.next()
            args = [self.bar()]
        else:
            sign = self._sign() if self.peek() == "-" else 1
            tree = self.product(implicit_only=True)
            args = [tree if sign > 0 else ("*", MINUS, tree)]
        if power == ("*", MINUS, ("n", Fraction(1), False)) and name in NAMED[:12]:
            name, power = "arc" + name, None
        if name == "cis":
            return ("f", "exp", ("*", ("s", "i"), *args))
        if base is not None:
            if name != "log":
                raise Unreadable("an index of a function")
            tree = ("/", ("f", "ln", *args), ("f", "ln", base))
        elif name == "lg":
            tree = ("/", ("f", "ln", *args), ("f", "ln", ("n", Fraction(10), False)))
        else:
            tree = ("f", name, *args)
        return tree if power is None else ("^", tree, power)

    def fraction(self):
        derivative = re.compile(
            r"\s*\{\s*(?:\\partial|d)\s*(?:\^\s*\{?(\d)\}?)?\s*(\\?[a-zA-Z]+)\s*\}\s*\{\s*(?:\\partial|d)\s*(\\?[a-zA-Z]+)\s*(?:\^\s*\{?\d\}?)?\s*\}"
        ).match(self.text, self.i)
        if derivative:
            self.i = derivative.end()
            order, name, by = derivative.groups()
            return ("s", name.strip("\\") + "'" * int(order or 1) + ("" if by in "tx" else f" by {by}"))
        top = self.argument()
        return ("/", top, self.argument())

    def root(self):
        degree = None
        if self.take("["):
            self.i -= 1
            degree = self.group()
        token = self.peek()
        inside = self.group() if token == "(" else self.script()
        return ("f", "root", inside, degree or ("n", Fraction(2), False))

    def matrix(self):
        name = self.raw()
        if name.rstrip("*") not in ("pmatrix", "bmatrix", "matrix", "vmatrix", "array", "smallmatrix", "Bmatrix"):
            raise Unreadable(name)
        if name == "array":
            self.raw()
        rows = [[]]
        while True:
            rows[-1].append(self.sum())
            if self.take(r"\\"):
                if self.peek() != r"\end":
                    rows.append([])
                    continue
            elif self.take("&"):
                continue
            if not self.take(r"\end") or self.raw() != name or len({len(r) for r in rows}) != 1:
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

    def binomial(self):
        top = self.argument()
        return ("f", "binomial", top, self.argument())

    def angle(self):
        """What follows is its name."""
        name = re.sub(r"[\s_{}]", "", self.text[self.i :])
        self.i = len(self.text)
        return ("s", f"angle {name}")

    def accent(self, primes: str):
        name = self.raw().strip("\\")
        return self.symbol(name + primes)


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
    r"\cbrt": lambda p: ("f", "root", p.argument(), ("n", Fraction(3), False)),
    r"\binom": _Parser.binomial,
    r"\begin": _Parser.matrix,
    r"\sum": lambda p: p.big("sum"),
    r"\prod": lambda p: p.big("prod"),
    r"\pi": lambda p: p.symbol("pi"),
    r"\infty": lambda p: ("f", "infinity"),
    r"\dot": lambda p: p.accent("'"),
    r"\ddot": lambda p: p.accent("''"),
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


def in_degrees(tree) -> tuple[tuple, bool]:
    """The tree with degrees as plain numbers, those within functions aside, and whether there are any."""
    if tree == ("f", "degree"):
        return ("n", Fraction(1), False), True
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
