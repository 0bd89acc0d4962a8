"""Units of measurement: which quantity they measure, and how large they are."""

import collections
import re
from fractions import Fraction

# name -> powers of the base quantities
_BASE = {
    "m": "L", "g": "M", "s": "T", "A": "I", "K": "K", "mol": "n", "cd": "J", "Hz": "cycle /T", "N": "M L /T /T",
    "J": "M L L /T /T", "W": "M L L /T /T /T", "Pa": "M /L /T /T", "C": "I T", "V": "M L L /T /T /T /I",
    "F": "I I T T T T /M /L /L",
    "T": "M /T /T /I", "Wb": "M L L /T /T /I", "H": "M L L /T /T /I /I", "eV": "M L L /T /T",
    "Omega": "M L L /T /T /T /I /I", "L": "L L L", "l": "L L L", "B": "byte", "bit": "bit", "cal": "M L L /T /T",
    "pc": "L", "rad": "rad", "sr": "", "bar": "M /L /T /T", "Sv": "dose L L /T /T", "Gy": "energy L L /T /T",
    "Bq": "decay /T", "lm": "lm",
}  # fmt: skip
_SIZE = {"g": 1e-3, "L": 1e-3, "l": 1e-3, "eV": Fraction("1.602176634e-19"), "cal": 4.184, "pc": 3.0857e16, "bar": 1e5}
_PREFIX = {
    "": 0, "k": 3, "M": 6, "G": 9, "T": 12, "P": 15, "c": -2, "d": -1, "m": -3, "u": -6, "mu": -6, "n": -9, "p": -12,
    "f": -15,
}  # fmt: skip
_LONG = {
    "meter": "m", "metre": "m", "gram": "g", "gramme": "g", "second": "s", "sec": "s", "ampere": "A", "amp": "A",
    "kelvin": "K", "mole": "mol", "hertz": "Hz", "newton": "N", "joule": "J", "watt": "W", "pascal": "Pa",
    "coulomb": "C", "volt": "V", "farad": "F", "tesla": "T", "weber": "Wb", "henry": "H", "ohm": "Omega",
    "liter": "L", "litre": "L", "radian": "rad", "byte": "B", "calorie": "cal",
    "parsec": "pc", "electronvolt": "eV", "electron-volt": "eV",
}  # fmt: skip
_LONG_PREFIX = {
    "": 0, "kilo": 3, "mega": 6, "giga": 9, "centi": -2, "deci": -1, "milli": -3, "micro": -6, "nano": -9, "pico": -12,
}  # fmt: skip
_OTHER = {
    "min minute minutes mins": ("T", 60), "h hr hrs hour hours": ("T", 3600), "day days d": ("T", 86400),
    "week weeks": ("T", 604800), "month months": ("year", Fraction(1, 12)), "year years yr yrs": ("year", 1),
    "in inch inches": ("L", "0.0254"), "ft foot feet": ("L", "0.3048"), "yd yard yards": ("L", "0.9144"),
    "mile miles mi": ("L", "1609.344"), "mph": ("L /T", "0.44704"), "kph kmh kmph": ("L /T", Fraction(5, 18)),
    "lb lbs pound pounds": ("pound", 1), "oz ounce ounces": ("pound", Fraction(1, 16)),
    "ton tons tonne tonnes t": ("M", 1000),
    "AU au": ("L", 149597870700), "ly light-year light-years": ("L", 9460730472580800),
    "angstrom angstroms": ("L", "1e-10"),
    "gal gallon gallons": ("L L L", "0.003785411784"), "cc": ("L L L", "1e-6"), "acre acres": ("L L", "4046.8564224"),
    "ha hectare hectares": ("L L", 10000), "atm": ("M /L /T /T", 101325), "dyn dyne dynes": ("M L /T /T", "1e-5"),
    "erg ergs": ("M L L /T /T", "1e-7"), "dollar dollars USD usd bucks": ("$", 1), "cent cents ¢": ("$", "0.01"),
    "euro euros EUR": ("€", 1), "yuan RMB rmb": ("yuan", 1), "yen": ("yen", 1),
    "rupees rupee Rs": ("Rs", 1),
    "degree degrees deg": ("degree", 1), "percent pct percentage % percents": ("%", 1), "kWh": ("M L L /T /T", 3600000),
    "degC Celsius celsius": ("degC", 1), "degF Fahrenheit fahrenheit": ("degF", 1), "rpm": ("rev /T", Fraction(1, 60)),
    "am a.m. A.M. AM a.m A.M": ("am", 1), "pm p.m. P.M. PM p.m P.M": ("pm", 1),
    "rev revolution revolutions": ("rev", 1),
    "G gauss Gauss": ("M /T /T /I", "1e-4"), "dB": ("dB", 1),
    "fps": ("L /T", "0.3048"), "Msun Modot": ("M", "1.989e30"), "Rodot": ("solar L", 1),
    "Lodot": ("solar W", 1), "Moplus": ("earth M", 1), "Roplus": ("earth L", 1), "rads": ("rad", 1),
}  # fmt: skip
SCALES = {"dozen": 12, "hundred": 100, "thousand": 1000} | {
    name: 1000**k for k, names in enumerate(("million mn", "billion bn", "trillion"), 2) for name in names.split()
}
Dimension = tuple[tuple[str, int], ...]
_COUNTS = {"cycle", "rad", "dose", "energy", "decay"}  # what is counted, which often is not said


def alike(a: Dimension, b: Dimension) -> bool:
    """Whether two units measure the same: a hertz is 1/s, and so is a radian per second, but these two differ."""
    x, y = (tuple(d for d in dims if d[0] not in _COUNTS) for dims in (a, b))
    return a == b or (x == y and (a == x or b == y))


def _powers(text: str) -> dict[str, int]:
    found = collections.Counter()
    for part in text.split():
        found[part.strip("/")] += -1 if part[0] == "/" else 1
    return found


def _table() -> dict[str, tuple[dict[str, int], Fraction]]:
    table = {}
    for name, powers in _BASE.items():
        size = Fraction(str(_SIZE.get(name, 1)))
        for prefix, exponent in _PREFIX.items():
            table.setdefault(prefix + name, (_powers(powers), size * Fraction(10) ** exponent))
    for long, name in _LONG.items():
        for prefix, exponent in _LONG_PREFIX.items():
            for word in (prefix + long, prefix + long + "s"):
                table[word] = (_powers(_BASE[name]), Fraction(str(_SIZE.get(name, 1))) * Fraction(10) ** exponent)
    for names, (powers, size) in _OTHER.items():
        table |= {name: (_powers(powers), Fraction(size)) for name in names.split()}
    return table


UNITS = _table()
# A letter, or two that are a product as often, is a unit only in \text or after a space.
DOUBTFUL = {*"msgJNWVKACLlFTHhdt", "mg", "ms", "ns", "mN", "mV", "in", "pm", "am"}
NEVER = {*"lhdtHTcBG", "pc", "am", "cc", "cd", "fl", "au"}  # bare, these are variables whatever stands before
_WORD = r"[A-Za-z%¢][A-Za-z-]*(?:\.[mM]\.?)?"
_PIECE = re.compile(rf"\s*(?:([/()])|({_WORD})\.?\s*(?:\^\s*\(?([-+]?\d)\)?)?)")
Unit = tuple[Dimension, Fraction]


_SPELLINGS = [
    (re.compile(p), r)
    for p, r in (
        (r"\\degree\s*\{?\}?\s*\\?(?:text)?\{?\s*([CF])\b\}?", r" deg\1 "),
        (r"\\degree", " degrees "),
        (r"\\frac\s*\{((?:[^{}]|\{[^{}]*\})*)\}\s*\{((?:[^{}]|\{[^{}]*\})*)\}", r" \1/(\2) "),
        (r"\b([kM])\s*\\Omega", r" \1Omega "),
        (r"\\[,; ]|\\(?:text|mathrm)(?![a-z])|\\(?=mu|Omega)|[{}]|\\cdot|\\times|\*|·|⋅", " "),
        (r"\bmu\s+(?=[a-zA-Z])|[µμ]", "u"),
        (r"\b(?:cu\.?|cubic)\s+([a-zA-Z]+)|([a-zA-Z]+)\s+cubed\b", r"\1\2^3"),
        (r"\b(?:sq\.?|square)\s+([a-zA-Z]+)|([a-zA-Z]+)\s+squared\b", r"\1\2^2"),
        (r"\bper\b|\ban?\s", "/"),
    )
]


def unit(text: str) -> Unit | None:
    """Powers of the base quantities and size of a unit such as `kg m/s^2` or `square feet`; None where it is none."""
    for pattern, replacement in _SPELLINGS:
        text = pattern.sub(replacement, text)
    dims = collections.Counter()
    size, i, sign, inside, found = Fraction(1), 0, 1, False, False
    while i < len(text.rstrip()):
        match = _PIECE.match(text, i)
        if not match or (match[2] and match[2] not in UNITS):
            return None
        i = match.end()
        if match[1]:
            sign = -1 if match[1] == "/" else 1 if match[1] == ")" else sign
            inside = match[1] == "(" or (inside and match[1] != ")")
            continue
        powers, one = UNITS[match[2]]
        power = sign * int(match[3] or 1)
        for name, p in powers.items():
            dims[name] += p * power
        size, found = size * one**power, True
        sign = sign if inside else 1
    return (tuple(sorted((d, p) for d, p in dims.items() if p)), size) if found else None
