r"""Rewrites one answer, in whatever notation it was written, as plain LaTeX for `formula`.

Nothing that tells symbols apart is lost: capitals, indices, bases and accents stay.
"""

import functools
import re
import unicodedata

from dots_jax.reward import units

_SUPER = str.maketrans("⁰¹²³⁴⁵⁶⁷⁸⁹⁺⁻⁼⁽⁾ⁿⁱ", "0123456789+-=()ni")
_SUB = str.maketrans("₀₁₂₃₄₅₆₇₈₉₊₋₌₍₎ₐₑₒₓₙₘₖᵢⱼ", "0123456789+-=()aeoxnmkij")
_GREEK = (
    "α alpha β beta γ gamma δ delta ε epsilon ϵ epsilon ζ zeta η eta θ theta ϑ theta ι iota κ kappa λ lambda μ mu "
    "ν nu ξ xi π pi ρ rho σ sigma τ tau υ upsilon φ phi ϕ phi χ chi ψ psi ω omega Γ Gamma Δ Delta Θ Theta Λ Lambda "
    "Ξ Xi Π Pi Σ Sigma Φ Phi Ψ Psi Ω Omega"
)
_SIGNS = str.split(
    r"√ \sqrt ∛ \sqrt[3] ∜ \sqrt[4] ∞ \infty × \times · \cdot ⋅ \cdot ∙ \cdot ∗ * ÷ / ∕ / ⁄ / − - – - — - ‐ - ± \pm "
    r"∓ \mp ≤ \le ⩽ \le ≦ \le ≥ \ge ⩾ \ge ≧ \ge ≠ \ne ≈ \approx ≃ \approx ∪ \cup ∩ \cap ∈ \in ∅ \emptyset ∖ \setminus "
    r"˚ \degree ° \degree º \degree ′ ' ’ ' ″ '' ∠ \angle △ \triangle ⟨ \langle ⟩ \rangle ⌊ \lfloor ⌋ \rfloor "
    r"⌈ \lceil ⌉ \rceil … \ldots ⋯ \ldots ∑ \sum ∏ \prod ∫ \int ∣ | µ \mu ℝ \mathbb{R} ℤ \mathbb{Z} ℕ \mathbb{N} "
    r"ℚ \mathbb{Q} ℂ \mathbb{C} ≡ \equiv → \to ∨ \lor ∧ \land ， , ； ; ： : （ ( ） ) 、 , ℃ \degree{}C "
    r"℉ \degree{}F ％ % € \text{euros} ₹ \text{rupees} Å \text{angstroms} £ \text{pounds} 元 \text{yuan} ¥ \text{yen} "
    r"“ ` ” `"
)
_CHARACTERS = {
    ord(c): (f"{name} " if name[-1].isalpha() and name[0] == "\\" else name)
    for c, name in zip(_SIGNS[::2], _SIGNS[1::2], strict=True)
} | {ord(c): f"\\{name} " for c, name in zip(_GREEK.split()[::2], _GREEK.split()[1::2], strict=True)}

_nfkc = functools.partial(unicodedata.normalize, "NFKC")

_TEXT = (
    r"text|textrm|textnormal|textbf|textit|texttt|textsf|textsc|textup|emph|mbox|hbox|mathrm|rm|operatorname\*?|mathop"
    r"|mathsf|mathtt|mathbf|mathit|mathnormal|boldsymbol|bm|pmb|underline|boxed|fbox|bf|vec"
)
FUNCTIONS = str.split(
    "arcsin arccos arctan arccot arcsec arccsc arsinh arcosh artanh arcsinh arccosh arctanh sinh cosh tanh coth sech "
    "csch cis sin cos tan cot sec csc cosec tg ctg asin acos atan exp log ln lg sqrt cbrt max min gcd lcm abs floor "
    "ceil"
)
_WORDS = "|".join(
    [*FUNCTIONS, "infinity", "infty", "inf", "pi", "hbar", *{w for w in _GREEK.split()[1::2] if len(w) > 2}]
)
_RENAMED = {"infinity": "infty", "inf": "infty", "asin": "arcsin", "acos": "arccos", "atan": "arctan"}

_COMMANDS = {  # other commands for the same
    name: sign
    for sign, names in {
        r"\frac": "dfrac tfrac cfrac sfrac nicefrac flatfrac", r"\binom": "dbinom tbinom", r"\le ": "leq leqslant leqq",
        r"\ge ": "geq geqslant geqq", r"\ne ": "neq", "<": "lt", ">": "gt", r"\approx ": "simeq cong doteq",
        r"\emptyset ": "varnothing", r"\ldots ": "dots cdots dotsc dotsb", "|": "vert lvert rvert Vert lVert rVert mid",
        r"\{": "lbrace", r"\}": "rbrace", r"\setminus ": "backslash smallsetminus", r"\cup ": "bigcup", ":": "colon",
        "*": "ast", "/": "div", "T": "top", r"\text{pounds}": "pounds",
    }.items()
    for name in names.split()
}  # fmt: skip

_RELATES = re.compile(r"[<>=]|\\(?:le|ge|ne|in)(?![a-z])")
_REWRITES = [
    (re.compile(p), r)
    for p, r in (
        (r"(?<!\\)\\(?:left|right|[bB]igg?[lrm]?|middle)(?![a-zA-Z])(?:\.(?!\d))?", " "),
        (r"(?<!\\)\\! ?", ""),
        (r"(?<!\\)\\(?:(?:(?:display|text|script)style|limits|nolimits|quad|qquad|hfill)(?![a-zA-Z])|hspace\{[^{}]*\}"
         r"|[,:;> \n])", lambda m: r"\, " if m[0] == r"\," else " "),
        (r"\\(?:color|textcolor)\s*\{[^{}]*\}|\\(?:tiny|small|large|Large|LARGE|huge|Huge|bold)(?![a-zA-Z])", " "),
        (r"~|&nbsp;|\\\(|\\\)|\\\[|\\\]|\\nobreak(?![a-z])", " "),
        (r"(?<![a-zA-Z])\{,\}|,\\, (?=\d{3})", ","),
        (r"(?<![a-zA-Z])\{\.\}", "."),
        (r"\\([a-zA-Z]+)", lambda m: _COMMANDS.get(m[1], m[0])),
        (r"<=|&lt;=|=<", r"\\le "),
        (r">=|&gt;=", r"\\ge "),
        (r"\\not\s*=|(?<!(?<!_)\d)!=|/=", r"\\ne "),
        (r"&lt;", "<"),
        (r"&gt;", ">"),
        (r"~=", r"\\approx "),
        (r"\\\{\s*\\\}", r"\\emptyset "),
        (r"\.\.\.+", r"\\ldots "),
        (r"\\\|", "|"),
        (r"\\%", "%"),
        (r"(?<![\d.])\d{1,3}(?:\.\d{3}){2,}(?![\d.])", lambda m: m[0].replace(".", "")),
        (r"\\var(epsilon|phi|theta|rho|sigma|kappa|pi)(?![a-z])", r"\\\1"),
        (r"\\(?:lor|vee)(?![a-z])", lambda m: r"\text{or}" if _RELATES.search(m.string) else r"\cup "),
        (r"\\(?:land|wedge)(?![a-z])", lambda m: r"\text{and}" if _RELATES.search(m.string) else r"\land "),
        (r"\\(?:text|mathrm)\s*\{\s*\\AA\s*\}|\\AA(?![a-zA-Z])", r"\\text{angstroms}"),
        (r"(?<=[\d}])\s*([MRL])\s*_\s*\{?\s*\\(odot|oplus)\s*\}?$", r"\\text{ \1\2}"),
        (r"(?<=\d )\s*([kcdm]?m|ft|in|yd|mi)([23])$", r"\1^\2"),
        (r"\bUS(?=\s*\\text\{dollars\})", ""),
        (r"\^\s*(?:\\circ|\{\s*\\circ\s*\}|\\degree)(?![a-z])|\\degrees?(?![a-z])|\\circ(?=\s*$)", r"\\degree "),
        (r"(?<=[\d)}])\s*\^\s*(?:o(?![a-zA-Z])|\{o\}|\\text\{o\}|\{\\text\{o\}\})", r"\\degree "),
        (r"\^\s*(?:\{(?:\\prime|')\}|\\prime(?![a-z]))", "'"),
        (r"\^\s*\{\s*(?:\\prime\s*\\prime|'')\s*\}", "''"),
        (r"\*\*", "^"),
        (r"\^\s*(\{[^{}]*\}|\d)\s*_\s*(\{[^{}]*\}|\w)", r"_\2^\1"),
        (r"(?<=[\d}])\s*\bmin(?=\s*(?:$|[,/]|\\text))", r"\\text{min}"),
        (r"\(?\s*(?:\\text\{\s*\(?)?\s*approx(?:\.|imately)?\s*\)?\s*\}?\s*\)?$", ""),
        (r"\\text\{\s*(?:is|equals|are)\s*\}", "="),
        (r"(?<=[\d}])(?:\s|\\,)*\(\s*(\\(?:text|mathrm)\s*\{[a-z ]*\})\s*\)$", r" \1"),
        (r"(?<=\d)\s*(?:\\(?:text|mathrm)\s*\{[eE]\}|[eE])(?:\{([-+]?\d+)\}|([-+]?\d+))(?![\d.])", r"e\1\2"),
        (r"\(([0-9A-F]+)\)\s*(?=_\s*\{?\(?\d)", r"\1"),
        (r"(\w)\s*(?:\\text\{)?\s*\(?\s*(?:in )?base[- ]?\s*\}?\s*(\d+|two|three|five|eight)\s*\)?\s*\}?$", r"\1_{\2}"),
        (r"(?<=[a-z])er[ -]cent", "ercent"),
        (r"(?<![a-zA-Z\\])log_?(2|10)\s*(?=\()", r"\\log_{\1}"),
        (r"(\w+) choose (\w+)", r"\\binom{\1}{\2}"),
        (r"(\\mathbb\s*\{?\s*R\s*\}?)\s*-\s*(?=\\\{)", r"\1 \\setminus "),
        (r"(?:\\text\{)?\s*all real (?:numbers|values)(?: of)?(?: [a-z])? except(?: for)?\s*\}?\s*([^ ]+)$",
         r"\\mathbb{R} \\setminus \\{\1\\}"),
        (r"\+\s*/?\s*-(?=\s*[\d\\(])(?<=/-)|\+-(?=\s*[\d\\])", r"\\pm "),
        (r"(?<=[\d}])\s*[xX]\s*(?=10\s*\^)", r"\\times "),
        (r"\(?\s*\\(?:pmod|bmod|mod)\s*\{?\s*(\w+)\s*\}?\s*\)?"
         r"|\(\s*(?:\\text\{\s*)?mod\s*\}?\s*(\w+)\s*\)", r" \\pmod{\1\2}"),
        (r"\{([^{}]*)\\choose([^{}]*)\}"
         r"|(?<![a-zA-Z])C\((\d+), ?(\d+)\)|(?:\{\})?_\{?(\d+)\}? ?C ?_\{?(\d+)\}?",
         r"\\binom{\1\3\5}{\2\4\6}"),
        (r"(?<=\d)\s*\^?\s*\{?\s*(?:\\text\{\s*(?:st|nd|rd|th)\s*\}|(?:st|nd|rd|th)(?![a-z]))\s*\}?(?=\s*$)", ""),
        (r"^\\text\{[^{}]*(?:\bis|\bare|:)\s*\}", ""),
    )
]  # fmt: skip


_SAYING = re.compile(
    r"(?:thus|so|hence|therefore|then|it is|it's)\b[,:]?\s+(?=[-\d$\\])|:\s*|"
    r"(?:(?:so|thus|hence|therefore|final|it is|is)\b[,:]?\s*)?(?:the )?(?:final |correct )?"
    r"(?:answers?|result|solutions?|value|option|choice)\s*(?:(?:is|are)\b|:)\s*:?\s*",
    re.IGNORECASE,
)


def clean(text: str) -> str:
    r"""One answer as plain LaTeX: one spelling for each sign, `\text{...}` for all words set as such."""
    if r"\begin" not in text:  # escaped twice
        text = re.sub(r"(?<!\\)\\\\(?=[a-zA-Z]{2,})", r"\\", text)
    if not text.isascii():
        text = text.translate(_CHARACTERS)
        text = re.sub("[⁰¹²³⁴-⁹⁺⁻⁼⁽⁾ⁿⁱ]+", lambda m: f"^{{{m[0].translate(_SUPER)}}}", text)
        text = re.sub("[₀-₎ₐₑₒₓₙₘₖᵢⱼ]+", lambda m: f"_{{{m[0].translate(_SUB)}}}", text)
        text = re.sub("[½⅓⅔¼¾⅕-⅞⅐⅑⅒]", lambda m: r" \frac{{{}}}{{{}}}".format(*_nfkc(m[0]).split("⁄")), text)
        text = _nfkc(text).translate(_CHARACTERS)
        text = re.sub(r"\\sqrt\s*(?:\[\d\])?\s*(?=\d)", lambda m: m[0].strip(), text)
    for pattern, replacement in _REWRITES[:5]:
        text = pattern.sub(replacement, text)
    text = text.strip()
    said = _SAYING.match(text)
    text = re.sub(r"(?:\\\\|(?<!\\)\$|\s)+$", "", _unwrap(text[said.end() :] if said else text))
    text = re.sub(r"^(\s*[-+]?\s*)\\?\$\s*(?=[\d.])(?!.*\$)", r"\1\\text{dollars}", text)  # money, not markup
    text = text.replace(r"\$", r"\text{dollars}").replace("$", " ")
    for pattern, replacement in _REWRITES[5:]:
        text = pattern.sub(replacement, text)
    for _ in range(3):  # exponents within words
        text = re.sub(r"(\\(?:text|mathrm)\s*\{[^{}]*\^)\{(-?\d)\}", r"\1\2", text)
    text = _words(text)
    text = re.sub(
        r"(?<![\d,.])(\d{1,3})((?:(?:\\, ?| )\d{3})+)(?![\d,])", lambda m: m[1] + re.sub(r"\D", "", m[2]), text
    )
    text = " ".join(text.replace(r"\,", " ").split())
    if text.endswith((".", ",", ";")) and not text.endswith(".."):
        text = text[:-1].rstrip("$ ")
    return text


def _unwrap(text: str) -> str:
    """Without dollars and Markdown around it."""
    text = re.sub(r"^\s*(\$\$?)\s*([^$]*?)\s*\1\s*([.,]?)\s*$", r"\2\3", text)
    while match := re.fullmatch(
        r"\s*(\*\*\*|\*\*|\*|___|__|_|```|``|`|\"|\$\$?)(?!\s)(.*[^\s\\])\1([.,]?)\s*", text, re.S
    ):
        if match[1] in match[2]:
            break
        text = match[2] + match[3]
    return text


_COMMAND = re.compile(rf"\\(?:{_TEXT})(?![a-zA-Z])\s*(?:\{{([^{{}}]*)\}}|(\w))")


def _words(text: str) -> str:
    r"""Fonts dropped, words as `\text{...}`, names of functions as commands."""
    for _ in range(8):  # they nest
        found = _COMMAND.sub(_styled, text)
        if found == text:
            break
        text = found
    text = re.sub(rf"\\(?:{_TEXT})(?![a-zA-Z])(?=\s*\{{)", " ", text)
    parts = re.split(r"(\x02[^\x03]*\x03)", text)
    program = "*" in text and "\\" not in text
    for k in range(0, len(parts), 2):
        part = re.sub(r"(?<![a-zA-Z])(nu|mu|xi)(?![a-zA-Z])", r"\\\1 ", parts[k]) if program else parts[k]
        part = re.sub(r"(?<![a-zA-Z\\])([b-zB-Z])(?=(?:sin|cos|tan|log|ln|exp|sqrt)\()", r"\1 ", part)
        part = re.sub(r"(?<![a-zA-Z\\])(?:np|numpy|math|sp|sympy|cmath)\.(?=[a-z])", "", part)
        parts[k] = re.sub(rf"(?<![a-zA-Z\\])({_WORDS})(?![a-zA-Z])", lambda m: f"\\{_RENAMED.get(m[1], m[1])} ", part)
    return "".join(parts).replace("\x02", r"\text{").replace("\x03", "}")


def _styled(match: re.Match) -> str:
    content = " ".join((match[1] or match[2] or "").split())
    if not content:
        return " "
    if len(content) == 1 and content.isalpha():
        return f"\x02{content}\x03" if "\\mathrm" in match[0] or "\\text" in match[0][:5] else content
    if re.fullmatch(r"\(?\w\)?(?:\s*(?:,|and|or)\s*(?:(?:and|or)\s)?\s*\(?\w\)?)+", content):
        return content
    if joined := re.fullmatch(r"([A-Za-z ]+),? (and|or)", content):
        return f"\x02{joined[1]}\x03\x02{joined[2]}\x03"
    if re.fullmatch(r"[A-Za-zµ%][A-Za-zµ .'%-]*", content.replace("\x02", "").replace("\x03", "")):
        return f"\x02{content}\x03" if "\x02" not in content else content
    if "\x02" not in content and units.unit(content):
        return f"\x02{content}\x03"
    if re.fullmatch(r"[,;]?\s*(?:and|or|to)\s*", content):
        return f"\x02{content.strip(',; ')}\x03"
    return re.sub(r"(?<![a-zA-Z\\])([a-zA-Z]{2,})(?![a-zA-Z])", "\x02\\1\x03", content) if " " in content else content
