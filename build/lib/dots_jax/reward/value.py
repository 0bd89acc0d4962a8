"""The value of a formula at a point: exact where it is rational, else of 50 digits; refused where it is too large."""

import math
import zlib
from fractions import Fraction

import mpmath
from mpmath import mp

from dots_jax.reward.formula import NAMED, Unreadable

mp.dps = 50
EXACT = 1 << 18  # bits of a fraction that is kept exact
HUGE = 1 << 40  # bits before the point of a number that is evaluated at all
TERMS = 3000  # of a sum


class Point:
    """Values for variables: rationals between `low` and `high`, or whole numbers, by their names.

    `doubtful` says whether the root or logarithm of something negative was taken.
    """

    def __init__(self, seed: int, low: int, high: int, whole: bool = False, imaginary: bool = True, log: int = 0):
        self.seed, self.low, self.high, self.whole, self.log = seed, low, high, whole, log
        self.bound = {"i": mpmath.mpc(0, 1)} if imaginary else {}
        self.doubtful = False

    def of(self, name: str):
        """The value of a variable."""
        if name in self.bound:
            return self.bound[name]
        if name in ("pi", "e"):
            return getattr(mp, name)()
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
    """Sum of two values."""
    if isinstance(a, list) and isinstance(b, list) and (len(a), len(a[0])) == (len(b), len(b[0])):
        return [[add(x, y) for x, y in zip(r, s, strict=True)] for r, s in zip(a, b, strict=True)]
    if isinstance(a, list) or isinstance(b, list):
        raise Unreadable("a sum of a matrix and a number")
    return a + b if _exact(a, b) and _bits(a) + _bits(b) < EXACT else real(a) + real(b)


def multiply(a, b):
    """Product of two values."""
    if isinstance(a, list) and isinstance(b, list):
        if len(a[0]) != len(b):
            raise Unreadable("shapes of matrices")
        return [[_sum(multiply(x, r[k]) for x, r in zip(row, b, strict=True)) for k in range(len(b[0]))] for row in a]
    if isinstance(a, list) or isinstance(b, list):
        matrix, factor = (a, b) if isinstance(a, list) else (b, a)
        return [[multiply(x, factor) for x in row] for row in matrix]
    return a * b if _exact(a, b) and _bits(a) + _bits(b) < EXACT else real(a) * real(b)


def divide(a, b):
    """Quotient of two values."""
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
    minors = ([row[:k] + row[k + 1 :] for row in matrix[1:]] for k in range(len(matrix)))
    return _sum(
        multiply((-1) ** k * x, _determinant(m)) for k, (x, m) in enumerate(zip(matrix[0], minors, strict=True))
    )


def power(a, b, point: Point):
    """Power of two values."""
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


def _factorial(x):
    if _exact(x) and x.denominator == 1:
        if x < 0 or x > 1 << 20:
            raise Unreadable("a factorial of this number")
        if x <= 5000:
            return Fraction(mpmath.libmp.ifac(int(x)))
    if abs(real(x)) > 1 << 40:
        raise Unreadable("too large")
    return mp.gamma(real(x) + 1)


def _double_factorial(x):
    if not _exact(x) or x.denominator != 1 or not 0 <= x <= 2000:
        raise Unreadable("a double factorial of this number")
    return Fraction(math.prod(range(int(x), 0, -2)))


def _whole(function, numeric):
    def rounded(x, _):
        if isinstance(x, Fraction):
            return Fraction(function(x))
        if mp.im(x) != 0:
            raise Unreadable("a rounded complex number")
        near = mp.nint(mp.re(x))
        return Fraction(int(near if abs(mp.re(x) - near) < mp.mpf(10) ** -30 else numeric(mp.re(x))))

    return rounded


def _numeric(function, domain=None):
    def apply(x, point: Point):
        x = real(x)
        if mp.im(x) == 0 and domain and not domain(mp.re(x)):
            point.doubtful = True
        if abs(x) > HUGE and function != mp.ln:
            raise Unreadable("too large")
        return mp.chop(function(x), tol=mp.mpf(10) ** -45)

    return apply


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


def _binomial(n, k, point: Point):
    if _exact(n, k) and n.denominator == k.denominator == 1 and 0 <= k <= n <= 5000:
        return Fraction(math.comb(int(n), int(k)))
    return mp.binomial(real(n), real(k)) if abs(real(n)) < 1e6 else _opaque("binomial", [n, k], point)


def _opaque(name: str, args, point: Point):
    """The value of a function that is not known: a number by its name and arguments."""
    text = [mp.nstr(real(x), 25) if not isinstance(x, list) else str(x) for x in args]
    return Point(point.seed, point.low, point.high, point.whole, False).of(f"{name} {text}")


_CALLS = {
    "conjugate": lambda x, p: mp.conj(real(x)),
    "exp": lambda x, p: power(mp.e(), x, p),
    "ln": _numeric(mp.ln, lambda x: x >= 0),
    "log": lambda x, p: _CALLS["ln"](x, p) / (mp.ln(p.log) if p.log else 1),
    "root": _root,
    "!": lambda x, p: _factorial(x),
    "!!": lambda x, p: _double_factorial(x),
    **dict.fromkeys(("abs", "det"), lambda x, p: _determinant(x) if isinstance(x, list) else abs(x)),
    "floor": _whole(math.floor, mp.floor),
    "ceil": _whole(math.ceil, mp.ceil),
    "max": _order(max),
    "min": _order(min),
    "gcd": _integers(math.gcd),
    "lcm": _integers(math.lcm),
    "binomial": _binomial,
    "transposed": lambda x, p: [list(r) for r in zip(*x, strict=True)] if isinstance(x, list) else _opaque("T", [x], p),
    **{f: _numeric(getattr(mp, f)) for f in NAMED[:12]},
    **{f"arc{f}": _numeric(getattr(mp, "a" + f)) for f in NAMED[:12]},
    "arcsin": _numeric(mp.asin, lambda x: abs(x) <= 1),
    "arccos": _numeric(mp.acos, lambda x: abs(x) <= 1),
    "arccosh": _numeric(mp.acosh, lambda x: x >= 1),
    "arctanh": _numeric(mp.atanh, lambda x: abs(x) <= 1),
}


_ARITHMETIC = {"+": add, "*": multiply, "/": divide}


def value(tree, point: Point):
    """The value of a tree: a Fraction where it is one, a number of mpmath, or rows of these. Raises Unreadable."""
    kind = tree[0]
    if kind == "n":
        return tree[1]
    if kind == "s":
        return point.of(tree[1])
    if kind in _ARITHMETIC:
        return _ARITHMETIC[kind](value(tree[1], point), value(tree[2], point))
    if kind == "^":
        return power(value(tree[1], point), value(tree[2], point), point)
    if kind == "[":
        return [[value(x, point) for x in row] for row in tree[1:]]
    if kind == "base":
        if any(int(digit, 36) >= tree[2] for digit in tree[1]):
            raise Unreadable("digits that the base does not have")
        return Fraction(int(tree[1], tree[2]))
    if kind == "index":
        return _opaque(tree[1] + "_", [value(tree[2], point)], point)
    if kind == "sum":
        return _series(tree, point)
    return _call(tree, point)


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
