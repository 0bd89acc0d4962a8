"""Formulas: plain LaTeX (see `notation`) to a tree, and a tree to its value at a point. Nothing is evaluated as Python.

A tree is a tuple: ("n", value, whether written with decimals), ("s", name), ("+", a, b), ("*", a, b), ("/", a, b),
("^", a, b), ("f", function, arguments...), ("[", rows of a matrix), ("sum", kind, name, from, to, body),
("base", digits, base), ("index", name, tree).
"""

import re
import zlib
from fractions import Fraction

import mpmath
from mpmath import mp

mp.dps = 50
EXACT = 1 << 18  # bits of a fraction that is kept exact
HUGE = 1 << 40  # bits before the point of a number that is evaluated at all
TERMS = 3000  # of a sum

GREEK = set(
    "alpha beta gamma delta epsilon zeta eta theta iota kappa lambda mu nu xi rho sigma tau upsilon phi chi psi omega "
    "Gamma Delta Theta Lambda Xi Pi Sigma Upsilon Phi Psi Omega ell hbar Re Im aleph imath jmath nabla partial mho "
    "emptyset".split()
)
_ALIASES = {"tg": "tan", "ctg": "cot", "cosec": "csc", "arsinh": "arcsinh", "arcosh": "arccosh", "artanh": "arctanh"}
_NAMED = (
    "sin cos tan cot sec csc sinh cosh tanh coth sech csch exp ln log lg max min gcd lcm abs floor ceil det dim ker deg "
    "arg Pr sgn"
).split()
FUNCTIONS = {*_NAMED, *(f"arc{f}" for f in _NAMED[:12]), *_ALIASES}
_ACCENTS = {"bar", "hat", "tilde", "overline", "widehat", "widetilde", "overrightarrow", "mathcal", "mathbb", "mathfrak", "mathscr"}
_NUMBER = r"(?:\d+\.\d*|\.\d+|\d+)(?:[eE][-+]?\d{1,9}(?![\d.]))?"
_TOKEN = re.compile(rf"\s*({_NUMBER}|\\text\{{[^{{}}]*\}}|\\[a-zA-Z]+|\\.|\S)", re.DOTALL)
_REPEATING = re.compile(
    r"(\d*)\.(\d*)\s*(?:\\(?:overline|bar|dot)\s*\{?(\d+)\}?((?:\d*\\dot\s*\{?\d\}?)?)|\((\d+)\))(?!\d)"
    r"|(\d*)\.(\d*?)(\d{1,9}?)\8{2,}\s*\\ldots"
)
_CLOSING = {"(": ")", "[": "]", "{": "}", r"\{": r"\}", r"\lfloor": r"\rfloor", r"\lceil": r"\rceil", r"\langle": r"\rangle"}
_WORDS_OF_BASES = "two three four five six seven eight nine ten".split()


class Unreadable(Exception):
    """This is no formula, or one without a value that can be computed."""


class Parser:
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
        tree = ("*", ("n", Fraction(-1), False), tree) if sign < 0 else tree
        while (token := self.peek()) in ("+", "-"):
            sign = self._sign()
            term = self.product()
            tree = ("+", tree, term if sign > 0 else ("*", ("n", Fraction(-1), False), term))
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
                while below[0] != "n" and re.match("[a-zA-Z]", self.text[self.i : self.i + 1]) and re.match("[a-zA-Z]", self.text[self.i - 1]):
                    below = ("*", below, self.factor())  # t/RC
                tree = ("/", tree, below)
            elif implicit_only and (token[1:] in FUNCTIONS or token in (r"\sum", r"\prod")):
                break
            elif self.starts(token):
                tree = ("*", tree, self.factor())
            else:
                break
        return tree

    def starts(self, token: str) -> bool:
        """Whether a factor begins with this token."""
        if token == "|":
            return not self.bars
        return token[0].isalnum() or token[0] == "." or token in _CLOSING or (
            token[0] == "\\" and (token[1:] in GREEK or token[1:] in FUNCTIONS or token[1:] in _ACCENTS or token in _PRIMARY)
        ) or token.startswith(r"\text")  # fmt: skip

    def signed(self):
        sign = self._sign()
        tree = self.factor()
        return tree if sign > 0 else ("*", ("n", Fraction(-1), False), tree)

    def factor(self):
        """A primary with its exponents, factorials, degrees and percents."""
        tree = self.primary()
        while token := self.peek():
            if token == "^":
                self.next()
                if self.take(r"\top", r"\mathsf", "T") and not tree[0] == "s":
                    tree = ("f", "transposed", tree)
                    continue
                if self.peek() == "{" and re.match(r"\s*\{\s*(?:T|\\top|\\text\{T\})\s*\}", self.text[self.i :]):
                    self.argument()
                    tree = ("f", "transposed", tree)
                    continue
                tree = ("^", tree, self.exponent())
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
            return tree if sign == "+" else ("*", ("n", Fraction(-1), False), tree)
        tree = self.argument() if self.peek() == "{" else self.primary()
        if self.take("^"):
            tree = ("^", tree, self.exponent())
        return tree

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
            return self.bar("|")
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
        if token[0] == "\\" and name in _ACCENTS:
            return self.symbol(f"{name}({self.raw()})".replace(" ", ""))
        if token[0] == "\\" and name in GREEK:
            return self.symbol(name)
        if len(token) == 1 and token.isalpha():
            return self.symbol(token)
        raise Unreadable(token)

    def bar(self, _):
        self.bars += 1
        tree = self.sum()
        if not self.take("|"):
            raise Unreadable("a bar is not closed")
        self.bars -= 1
        return ("f", "abs", tree)

    def number(self, token: str):
        mantissa, _, power = token.lower().partition("e")
        if len(token) > 2000 or abs(int(power or 0)) > 5000:
            raise Unreadable("a number is too long")
        if "." in mantissa:
            self.take(r"\ldots")
        tree = ("n", Fraction(mantissa.rstrip(".") or "0") * Fraction(10) ** int(power or 0), "." in mantissa.rstrip(".") or bool(power))
        if mixed := re.compile(r"\s*\\frac\s*(?:\{\s*(\d+)\s*\}\s*\{\s*(\d+)\s*\}|(\d)\s*(\d)|\{\s*(\d+)\s*\}\s*(\d)|(\d)\s*\{\s*(\d+)\s*\})|\s+(\d+)\s*/\s*(\d+)(?![\d.])").match(self.text, self.i):
            top, bottom = (int(x) for x in mixed.groups() if x)
            if token.isdigit() and 0 < top < bottom:
                self.i = mixed.end()
                return ("n", int(token) + Fraction(top, bottom), False)
        if match := re.compile(r"([A-Z0-9]*)\s*_\s*(?:\{\s*\(?\s*(?:\\text\{(\w+)\}|(\w+))\s*\)?\s*\}|\\text\{(\w+)\}|(\d+))").match(self.text, self.i):
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
                    tree = ("index", name, Parser(index).all())
            else:
                break
        if primes:
            tree = ("s", f"{tree[1]}{primes}") if tree[0] == "s" else ("f", "prime" + primes, tree)
        after = self.text[self.i :]
        applied = name == "f" or (len(name) == 1 and re.match(r"\s*\(\s*\d+\s*\)", after)) or (name in ("g", "F", "G") and re.search(rf"{name}\s*\(\s*(?:\\?[a-z]+|\d+)\s*\)", self.text)) or primes
        applied = applied or ((name in ("u", "h") or re.fullmatch("[A-Z]", name)) and re.match(r"\s*\(\s*[a-z]\s*\)", after))
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
                base = self.argument() if self.peek() == "{" else self.primary()
        if self.peek() in ("(", "{", "[", r"\{"):
            args = self.arguments()
        elif self.peek() == "|":
            self.next()
            args = [self.bar("|")]
        else:
            sign = self._sign() if self.peek() == "-" else 1
            tree = self.product(implicit_only=True)
            args = [tree if sign > 0 else ("*", ("n", Fraction(-1), False), tree)]
        if power == ("*", ("n", Fraction(-1), False), ("n", Fraction(1), False)) and name in _NAMED[:12]:
            name, power = "arc" + name, None
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
        inside = self.group() if token in ("{", "(") else self.primary()
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
        return ("sum", kind, match[1], Parser(match[2]).all(), end, self.product())

    def binomial(self):
        top = self.argument()
        return ("f", "binomial", top, self.argument())

    def accent(self, primes: str):
        name = self.raw().strip("\\")
        return self.symbol(name + primes)


def _repeating(match: re.Match):
    whole, digits, block, more, bracket, whole2, digits2, block2 = match.groups()
    if block2 is not None:
        whole, digits, block = whole2, digits2, block2
    block = (block or bracket) + re.sub(r"\D", "", more or "")
    value = int((whole or "0") + digits + block) - int((whole or "0") + digits)
    return ("n", Fraction(value, 10 ** len(digits) * (10 ** len(block) - 1)), False)


_PRIMARY = {
    r"\frac": Parser.fraction,
    r"\sqrt": Parser.root,
    r"\cbrt": lambda p: ("f", "root", p.argument(), ("n", Fraction(3), False)),
    r"\binom": Parser.binomial,
    r"\begin": Parser.matrix,
    r"\sum": lambda p: p.big("sum"),
    r"\prod": lambda p: p.big("prod"),
    r"\pi": lambda p: p.symbol("pi"),
    r"\infty": lambda p: ("f", "infinity"),
    r"\dot": lambda p: p.accent("'"),
    r"\ddot": lambda p: p.accent("''"),
    r"\angle": lambda p: ("s", "angle " + re.sub(r"[\s_{}]", "", p.text[p.i :]) + str(setattr(p, "i", len(p.text)) or "")),
}


def walk(tree):
    """Every tree in a tree, itself first."""
    yield tree
    for part in tree[1:]:
        if isinstance(part, tuple):
            yield from walk(part) if part and isinstance(part[0], str) else (x for p in part for x in walk(p))


def names(tree) -> set[str]:
    """The variables and unknown functions of a tree."""
    return {
        t[1]
        for t in walk(tree)
        if (t[0] in ("s", "index") and t[1] not in ("pi", "e")) or (t[0] == "f" and t[1].startswith("apply"))
    }


class Point:
    """Values for variables: rationals between `low` and `high`, or whole numbers, by their names.

    `doubtful` says whether the root or logarithm of something negative was taken.
    """

    def __init__(self, seed: int, low: int, high: int, whole: bool = False, imaginary: bool = True, log: int = 0):
        self.seed, self.low, self.high, self.whole, self.log = seed, low, high, whole, log
        self.bound = {"i": mpmath.mpc(0, 1)} if imaginary else {}
        self.doubtful = False

    def of(self, name: str):
        if name in self.bound:
            return self.bound[name]
        if name == "pi":
            return mp.pi()
        if name == "e":
            return mp.e()
        part = zlib.crc32(f"{self.seed} {name}".encode()) % 9973
        if self.whole:
            return Fraction(self.low + part % (self.high - self.low))
        return self.low + Fraction(2 * part + 1, 19947) * (self.high - self.low)


def real(x):
    """A number as mpmath's."""
    return mp.mpf(x.numerator) / x.denominator if isinstance(x, Fraction) else x


def _exact(*numbers) -> bool:
    return all(isinstance(x, Fraction) for x in numbers)


def _bits(x: Fraction) -> int:
    return max(x.numerator.bit_length(), x.denominator.bit_length())


def add(a, b):
    if isinstance(a, list) and isinstance(b, list) and _shape(a) == _shape(b):
        return [[add(x, y) for x, y in zip(r, s, strict=True)] for r, s in zip(a, b, strict=True)]
    if isinstance(a, list) or isinstance(b, list):
        raise Unreadable("a sum of a matrix and a number")
    return a + b if _exact(a, b) and _bits(a) + _bits(b) < EXACT else real(a) + real(b)


def multiply(a, b):
    if isinstance(a, list) and isinstance(b, list):
        if len(a[0]) != len(b):
            raise Unreadable("shapes of matrices")
        return [[_sum(multiply(x, r[k]) for x, r in zip(row, b, strict=True)) for k in range(len(b[0]))] for row in a]
    if isinstance(a, list) or isinstance(b, list):
        matrix, factor = (a, b) if isinstance(a, list) else (b, a)
        return [[multiply(x, factor) for x in row] for row in matrix]
    return a * b if _exact(a, b) and _bits(a) + _bits(b) < EXACT else real(a) * real(b)


def divide(a, b):
    if isinstance(b, list):
        raise Unreadable("a quotient of matrices")
    if not b:
        raise Unreadable("a quotient by zero")
    return multiply(a, 1 / b)


def _sum(values):
    total = Fraction(0)
    for x in values:
        total = add(total, x)
    return total


def _shape(matrix: list) -> tuple[int, int]:
    return len(matrix), len(matrix[0])


def _inverse(matrix: list) -> list:
    n = len(matrix)
    rows = [[*row, *(Fraction(int(i == k)) for k in range(n))] for i, row in enumerate(matrix)]
    if any(len(row) != 2 * n for row in rows):
        raise Unreadable("the inverse of a matrix that is not square")
    for k in range(n):
        pivot = max(range(k, n), key=lambda i: abs(real(rows[i][k])))
        rows[k], rows[pivot] = rows[pivot], rows[k]
        rows[k] = [divide(x, rows[k][k]) for x in rows[k]]
        for i in set(range(n)) - {k}:
            rows[i] = [add(x, multiply(-rows[i][k], y)) for x, y in zip(rows[i], rows[k], strict=True)]
    return [row[n:] for row in rows]


def _determinant(matrix: list):
    if len(matrix) == 1:
        return matrix[0][0]
    if len(matrix) > 6 or len(matrix) != len(matrix[0]):
        raise Unreadable("a determinant")
    terms = (
        multiply(Fraction((-1) ** k) * 1, multiply(x, _determinant([r[:k] + r[k + 1 :] for r in matrix[1:]])))
        for k, x in enumerate(matrix[0])
    )
    return _sum(terms)


def power(a, b, point: Point):
    if isinstance(a, list):
        if not isinstance(b, Fraction) or b.denominator != 1 or abs(b) > 64:
            raise Unreadable("a power of a matrix")
        base = _inverse(a) if b < 0 else a
        result = [[Fraction(int(i == k)) for k in range(len(a))] for i in range(len(a))]
        for _ in range(abs(int(b))):
            result = multiply(result, base)
        return result
    if isinstance(b, list):
        raise Unreadable("a matrix as exponent")
    if not a:
        if mp.re(real(b)) <= 0 and b != 0:
            raise Unreadable("a quotient by zero")
        return Fraction(int(b == 0))
    if _exact(a, b) and b.denominator == 1 and abs(b) * _bits(a) < EXACT:
        return a ** int(b)
    if _exact(a, b) and b.denominator <= 64 and a > 0 and abs(b.numerator) * _bits(a) < EXACT:
        roots = [mp.mpf(x) for x in (a.numerator, a.denominator)]
        top, bottom = (int(mp.nint(mp.root(x, b.denominator))) if x < mp.mpf(2) ** 120 else 0 for x in roots)
        if bottom and Fraction(top, bottom) ** b.denominator == a:
            return Fraction(top, bottom) ** b.numerator
    x, y = real(a), real(b)
    if mp.isinf(x) or mp.isinf(y):
        raise Unreadable("a power of the infinite")
    if abs(y) * (abs(mp.log(abs(x), 2)) + 5) > HUGE:
        raise Unreadable("too large")
    if mp.im(x) == 0 and mp.re(x) < 0 and not (mp.im(y) == 0 and mp.isint(mp.re(y))):
        point.doubtful = True
    return mp.power(x, y)


def _root(x, n, point: Point):
    if _exact(n) and n.denominator == 1 and n.numerator % 2 and n > 0 and mp.im(real(x)) == 0 and mp.re(real(x)) < 0:
        return multiply(Fraction(-1), power(multiply(Fraction(-1), x), 1 / n, point))
    return power(x, divide(Fraction(1), n), point)


def _factorial(x, point: Point):
    if _exact(x) and x.denominator == 1:
        if x < 0 or x > 1 << 20:
            raise Unreadable("a factorial of this number")
        if x <= 5000:
            return Fraction(mpmath.libmp.ifac(int(x)))
    if abs(real(x)) > 1 << 40:
        raise Unreadable("too large")
    return mp.gamma(real(x) + 1)


def _double_factorial(x, point: Point):
    if not _exact(x) or x.denominator != 1 or not 0 <= x <= 2000:
        raise Unreadable("a double factorial of this number")
    result = 1
    for k in range(int(x), 0, -2):
        result *= k
    return Fraction(result)


def _whole(function):
    def rounded(x, point: Point):
        if isinstance(x, Fraction):
            return Fraction(function(x))
        if mp.im(x) != 0:
            raise Unreadable("a rounded complex number")
        near = mp.nint(mp.re(x))
        x = near if abs(mp.re(x) - near) < mp.mpf(10) ** -30 else mp.re(x)
        return Fraction(int(mp.floor(x) if function(Fraction(1, 2)) == 0 else mp.ceil(x)))

    return rounded


def _numeric(function, domain=None):
    def apply(x, point: Point):
        x = real(x)
        if mp.im(x) == 0 and domain and not domain(mp.re(x)):
            point.doubtful = True
        if abs(x) > HUGE and function not in (mp.ln,):
            raise Unreadable("too large")
        return mp.chop(function(x), tol=mp.mpf(10) ** -45)

    return apply


def _absolute(x, point: Point):
    return _determinant(x) if isinstance(x, list) else abs(x)


def _order(choose):
    def best(*args):
        values = args[:-1]
        if any(mp.im(real(x)) != 0 for x in values):
            raise Unreadable("an order of complex numbers")
        return choose(values, key=real)

    return best


def _integers(function):
    def apply(*args):
        if not all(_exact(x) and x.denominator == 1 for x in args[:-1]):
            return _opaque(function.__name__, sorted(args[:-1], key=lambda x: mp.re(real(x))), args[-1])
        return Fraction(function(*(int(x) for x in args[:-1])))

    return apply


def _opaque(name: str, args, point: Point):
    """The value of a function that is not known: a number by its name and arguments."""
    text = [mp.nstr(real(x), 25) if not isinstance(x, list) else str(x) for x in args]
    return Point(point.seed, point.low, point.high, point.whole, False).of(f"{name} {text}")


_CALLS = {
    "exp": lambda x, p: power(mp.e(), x, p),
    "ln": _numeric(mp.ln, lambda x: x >= 0),
    "log": lambda x, p: _CALLS["ln"](x, p) / (mp.ln(p.log) if p.log else 1),
    "root": _root,
    "!": _factorial,
    "!!": _double_factorial,
    "abs": _absolute,
    "det": _absolute,
    "floor": _whole(lambda x: x.__floor__()),
    "ceil": _whole(lambda x: x.__ceil__()),
    "max": _order(max),
    "min": _order(min),
    "gcd": _integers(__import__("math").gcd),
    "lcm": _integers(__import__("math").lcm),
    "binomial": lambda n, k, p: mp.binomial(real(n), real(k)) if abs(real(n)) < 1e6 else _opaque("binomial", [n, k], p),
    "transposed": lambda x, p: [list(r) for r in zip(*x, strict=True)] if isinstance(x, list) else _opaque("T", [x], p),
    **{f: _numeric(getattr(mp, f)) for f in _NAMED[:12]},
    **{f"arc{f}": _numeric(getattr(mp, "a" + f)) for f in _NAMED[:12]},
    "arcsin": _numeric(mp.asin, lambda x: abs(x) <= 1),
    "arccos": _numeric(mp.acos, lambda x: abs(x) <= 1),
    "arccosh": _numeric(mp.acosh, lambda x: x >= 1),
    "arctanh": _numeric(mp.atanh, lambda x: abs(x) <= 1),
}


def value(tree, point: Point):
    """The value of a tree: a Fraction where it is one, a number of mpmath, or rows of these. Raises Unreadable."""
    kind = tree[0]
    if kind == "n":
        return tree[1]
    if kind == "s":
        return point.of(tree[1])
    if kind == "+":
        return add(value(tree[1], point), value(tree[2], point))
    if kind == "*":
        return multiply(value(tree[1], point), value(tree[2], point))
    if kind == "/":
        return divide(value(tree[1], point), value(tree[2], point))
    if kind == "^":
        return power(value(tree[1], point), value(tree[2], point), point)
    if kind == "[":
        return [[value(x, point) for x in row] for row in tree[1:]]
    if kind == "base":
        return _in_base(tree)
    if kind == "index":
        return _opaque(tree[1] + "_", [value(tree[2], point)], point)
    if kind == "sum":
        return _series(tree, point)
    return _call(tree, point)


def _in_base(tree):
    try:
        return Fraction(int(tree[1], tree[2]))
    except ValueError:
        raise Unreadable("digits that the base does not have") from None


def _call(tree, point: Point):
    name, args = tree[1], [value(x, point) for x in tree[2:]]
    if name == "degree":
        return mp.pi() / 180
    if name == "infinity":
        return mp.inf
    if name in _CALLS:
        try:
            return _CALLS[name](*args, point)
        except (TypeError, ValueError, ZeroDivisionError, OverflowError) as error:
            raise Unreadable(str(error)) from error
    return _opaque(name, args, point)


def _series(tree, point: Point):
    _, kind, name, low, high, body = tree
    first, last = value(low, point), value(high, point)
    if not _exact(first, last) or first.denominator != 1 or last.denominator != 1 or last - first > TERMS:
        raise Unreadable("the bounds of a sum")
    before, total = point.bound.get(name), Fraction(int(kind == "prod"))
    for k in range(int(first), int(last) + 1):
        point.bound[name] = Fraction(k)
        term = value(body, point)
        total = multiply(total, term) if kind == "prod" else add(total, term)
    point.bound.pop(name)
    if before is not None:
        point.bound[name] = before
    return total


def settled(tree, point: Point):
    """The value of a tree, computed anew with more digits where it may be nothing but a rounding error."""
    x = value(tree, point)
    if isinstance(x, (Fraction, list)) or not mp.isfinite(x) or abs(x) > mp.mpf(10) ** -15:
        return x
    with mp.workdps(3 * mp.dps):
        exact = value(tree, point)
    return Fraction(0) if abs(real(exact)) <= abs(x) * mp.mpf(10) ** -30 else exact


def read(text: str):
    """The tree of a formula. Raises Unreadable."""
    try:
        return Parser(text).all()
    except (IndexError, ValueError, RecursionError, OverflowError) as error:
        raise Unreadable(str(error)) from error
