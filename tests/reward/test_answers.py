"""Finding the final answer, and what is decided without a process."""

import random
from fractions import Fraction

import pytest

from dots_jax import reward
from dots_jax.reward import boxes, mathematics


def boxed(text):
    """Content of the last box; None without one, and where the last one is not finished."""
    found, cut = boxes.find(text)
    return None if cut or not found else text[found[-1][1] : found[-1][2]]


def test_boxed():
    assert boxed(r"so \boxed{5}.") == "5"
    assert boxed(r"\boxed{1}, then \boxed{2}") == "2"
    assert boxed(r"\boxed{1 \boxed{7}") == "7"
    assert boxed(r"\boxed{x = \fbox{7}}") == "7"
    assert boxed(r"{\boxed{ {a}{b} }}") == " {a}{b} "
    assert boxed(r"\boxed{\{1, 2\}}") == r"\{1, 2\}"
    assert boxed(r"\boxed{\}") is None
    assert boxed(r"\boxed {5} } {") == "5"
    assert boxed(r"\\boxed{5}") == "5"
    assert boxed(r"\boxed 5") == "5"
    assert boxed(r"\boxed{5}, in \boxed{} as asked") == "5"
    for none in ("", "5", "boxed{5}", r"\boxed", r"\boxedx{5}", r"\boxed{", "{5}", r"a \boxed format"):
        assert boxed(none) is None
    for unfinished in (r"\boxed{\frac{1}{2}} and \boxed{3", r"\boxed{5} \boxed{", r"\boxed{5} or \boxed"):
        assert boxed(unfinished) is None


def test_boxed_random():
    """Against a slow reading, by pieces that can nest, end early or never."""
    rng = random.Random(0)
    pieces = [r"\boxed{", r"\fbox{", "{", "}", "}", r"\{", r"\}", "a", " ", r"\frac"]
    for _ in range(3000):
        text = "".join(rng.choices(pieces, k=rng.randrange(12)))
        last = (-1, None)
        for command in (r"\boxed{", r"\fbox{"):
            for start in (i for i in range(len(text)) if text.startswith(command, i)):
                depth, i = 1, start + len(command)
                while i < len(text) and depth:
                    escaped = text[i] == "\\"
                    depth += 0 if escaped else {"{": 1, "}": -1}.get(text[i], 0)
                    # An escaped brace is skipped; a command's own brace is not.
                    i += 2 if escaped and text[i + 1] in "{}" else 1
                content = None if depth else text[start + len(command) : i - 1]
                if depth or content.strip(" {}"):
                    last = max(last, (start, content), key=lambda found: found[0])
        assert boxed(text) == last[1], text


@pytest.mark.parametrize(
    "text",
    [
        r"\boxed{" * 100_000,
        r"\boxed{5}" + r"\boxed{" * 100_000,
        r"\boxed" + " " * 1_000_000,
        r"\boxed{5}" + "\\" * 1_000_000,
        r"\boxed{" + "{" * 500_000 + "}" * 500_000 + "}",
        r"\boxed{5}, " * 50_000,
        r"\boxed{5}\text{" + " " * 1_000_000 + r"} \boxed{6}",
        "a" * 1_000_000 + r"\boxed{5}",
        "$" * 1_000_000,
    ],
    ids=range(9),
)
def test_boxed_is_linear(text, backstop):
    """A second at most; anything quadratic takes hours."""
    with backstop(60):
        boxes.final_answer(text)


FINAL = [
    (r"$\boxed{(2, 2)} \quad \text{and} \quad \boxed{(6, 2)}$", "(2, 2), (6, 2)"),
    (r"\boxed{1}, \boxed{2} or $\boxed{3}$.", "1, 2, 3"),
    (r"\boxed{1}, \boxed{1}", "1"),
    (r"\boxed{1} \boxed{2}", "2"),  # nothing joins them
    (r"First \boxed{1}, and then x = \boxed{2}, \boxed{3}", "2, 3"),
    (r"$x = \boxed{3}$ or $x = \boxed{4}$", "3, 4"),
    (r"either $\boxed{1}$ or $-\boxed{2}$", "1, -2"),
    (r"It is $\boxed{5}x^2$.", "5x^2"),
    (r"It is \boxed{\frac12}\pi.", r"\frac12\pi"),
    (r"\boxed{3}\sqrt{2} it is", r"3\sqrt{2}"),
    (r"so -\boxed{5}", "-5"),
    (r"$y = -\boxed{5}$", "-5"),
    (r"\boxed{5} \text{ cm}", r"5\text{ cm}"),
    (r"$\boxed{90}^\circ$", r"90^\circ"),
    (r"\boxed{5} apples a day", "5"),
    (r"$2 \cdot \boxed{6} = 12$", "6"),  # a blank filled in
    (r"$m + n = \boxed{5}$", "5"),
    (r"$129^{34} \equiv \boxed{9} \pmod{11}$", "9"),
    (r"The cost is $5 and \boxed{6} of them", "6"),
    (r"We get $x = 3$, so \boxed{9} is $x^2$.", "9"),
    (r"\boxed{5} is put into \boxed{}.", "5"),
    (r"$\boxed{x+1}^2$", "{(x+1)}^2"),
    (r"$\boxed{(1,2)}\cup(3,4)$", r"(1,2)\cup(3,4)"),
    (r"$\boxed{(1,2)} \cup \boxed{(3,4)}$", r"(1,2) \cup(3,4)"),
    (r"$-\boxed{(1,2)}$", "-(1,2)"),
    (r"$\boxed{5,6}\pi$", r"{(5,6)}\pi"),
    (r"$\boxed{5 \text{ cm}}^2$", r"{(5 \text{ cm})}^2"),
    (r"$(\boxed{3}, 4)$", "(3, 4)"),
    (r"$\{1, \boxed{3}\}$", r"\{1,3\}"),
    (r"$[\boxed{3},\infty)$", r"[3,\infty)"),
    (r"$1, \boxed{3}$", "1,3"),
    (r"$\boxed{3}, 4$", "3, 4"),
    (r"$x \ge \boxed{3}$", r"x \ge3"),
    (r"$x\ne\boxed{3}$", r"x\ne3"),
    (r"$f(1) = \boxed{3} > 2$", "3"),
    (r"$2 < \boxed{3}$", "3"),
    (r"$\boxed{5}, \text{as required}$", "5"),
    (r"$x=1, y=\boxed{2}$", "2"),
    (r"$\boxed{5}, n > 3$", "5"),
    (r"$3:\boxed{4}$", "3:4"),
    (r"$\boxed{5}!$", "5!"),
    (r"1/\boxed{4}", "1/4"),
    (r"2\boxed{5}", "2{(5)}"),
    (r"1. \boxed{5}", "5"),
    (r"(a)\boxed{5}", "5"),
    (r"\boxed{5} million", r"5\text{ million}"),
    (r"\boxed{5} × 10^3", "5× 10^3"),
    (r"\boxed{12}_8", "12_8"),
    (r"\sqrt{\boxed2}", r"\sqrt{2}"),
    (r"\vert\boxed{-5}\vert", r"\vert{(-5)}\vert"),
    (r"x = − \boxed{5}", "-5"),
    (r"$\boxed{50}$%", r"50\%"),
    (r"$\boxed{5}$ cm", r"5\text{ cm}"),
    (r"\boxed{5} in total", "5"),
    (r"\boxed{5} Remember to use \boxed{} and \boxed{your answer}", "5"),
    (r"\boxed $5$", "5"),
    (r"\framebox{5}", "5"),
    (r"$\boxed{3}$, and $\boxed{4}$ is the final answer", "4"),
    ("none", None),
    (r"first \boxed{5}, finally \boxed{7", None),
    (r"\boxed{ }", None),
]


@pytest.mark.parametrize(("completion", "expected"), FINAL)
def test_final_answer(completion, expected):
    """Wherever else an answer may stand: a box goes before, one that is cut off too."""
    assert boxes.final_answer(completion) == expected
    assert {reward.find_answer(completion, where) for where in ("box", "marked", "last")} == {expected}


SAME = [
    ("073", "73"),
    ("1,234", "1234"),
    ("1{,}234", "1234"),
    (r"1\,234", "1234"),
    (r"1,\!234", "1234"),
    (r"\$5", "5"),
    ("$5$.", "5"),
    ("5.0", "5"),
    ("-0", "0"),
    ("+7", "7"),
    (r"\dfrac{1}{2}", r"\frac{1}{2}"),
    (r"\frac12", "1/2"),
    (r"\frac{-2}{4}", "-0.5"),
    (r"\left( 1, 2 \right)", "(1,2)"),
    ("0.333333", r"\frac{1}{3}"),
    (r"8.7 \times 10^{8}", "8.7e8"),
    (r"1.39 \cdot 10^{-10}", "1.39e-10"),
    ("870000000", "8.7e8"),
    (".5", "0.5"),
    (r"\text{ten cm}", r"\text{ten  cm}"),
]


DIFFERENT = [
    ("5", "6"),
    ("5", ".5"),
    ("-5", "5"),
    ("1/3", "0.33"),
    ("16386.20", "16386.17"),
    ("2e-10", "1.39e-10"),
    ("1000000", "1000001.0"),
    (r"\frac{1}{2}", r"\frac{1}{3}"),
    ("1/2", "2"),
    ("9" * 4000, "9" * 3999),
    ("0.1", "0"),
]


UNDECIDED = [
    ("1,234", "1"),
    ("x", "y"),
    ("1/0", "1"),
    ("", "1"),
    (r"\pi r", r"\pir"),
    ("5 5", "55"),
    ("٣", "3"),
]


@pytest.mark.parametrize(
    ("answer", "gold", "expected"),
    [(*p, True) for p in SAME] + [(*p, False) for p in DIFFERENT] + [(*p, None) for p in UNDECIDED],
)
def test_quick(answer, gold, expected):
    assert mathematics.quick(answer, gold) is expected
    assert mathematics.quick(gold, answer) is expected


def test_quick_on_random_numbers():
    """However two numbers are written, arithmetic decides."""
    rng = random.Random(0)

    def write(x):
        forms = [rf"\frac{{{x.numerator}}}{{{x.denominator}}}", f"{2 * x.numerator}/{2 * x.denominator}"]
        forms += [f"{x.numerator}", f"{x.numerator:,}", f"{x.numerator}.00"] if x.denominator == 1 else []
        forms += [str(float(x)), rf"{float(x * 1000)}\times 10^{{-3}}"] if 1000 % x.denominator == 0 else []
        return rng.choice(forms)

    values = [Fraction(rng.randrange(-3000, 3000), rng.choice([1, 1, 3, 8, 10, 7])) for _ in range(60)]
    for a in values:
        for b in values:
            assert mathematics.quick(write(a), write(b)) in ((True,) if a == b else (False, None))
