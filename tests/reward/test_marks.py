"""Final answers of completions without a box."""

import numpy as np
import pytest

from dots_jax.reward import Question, Verdict, find_answer, mathematics, quick

MARKED = [
    ("70 - 27 = 43\n#### 43", "43"),
    ("#### 1,234\n", "1,234"),
    ("####5 and then\n#### 6", "6"),  # the last mark
    ("The answer is 42.", "42"),
    ("so the ANSWER IS $42$.", "42"),
    ("The final answer is: \\(x + 1\\)", "x + 1"),
    ("**Answer:** 42", "42"),
    ("**Answer**: **1/2**.", "1/2"),
    ("Answer:\n\n\\[ \\frac{3}{4} \\]\nas it should be", "\\frac{3}{4}"),
    ("The final answer is 3.5. I hope it is correct.", "3.5"),
    ("The answer is B. That is so in St. Ives", "B. That is so in St. Ives"),  # no number ends a sentence
    ("The answer is $3$ and $4$.", "$3$ and $4$"),
    ("The answer is 5 apples.", "5 apples"),
    ("#### 7\nI mean, the answer is 8", "8"),
]
LAST = [
    ("She has 43 left.", "43"),
    ("70 - 27 = 43", "43"),
    ("In all $1,234.50!", "1,234.50"),
    ("a loss of -$5", "-5"),
    ("it is −7 now", "-7"),
    ("x=-3", "-3"),
    ("10-5", "5"),
    ("(3, -4)", "-4"),
    ("f(x)-2", "2"),
    ("3/4 of it", "3/4"),
    ("1 1/2 cups", "1 1/2"),
    ("$\\dfrac{3}{4}$", "\\dfrac{3}{4}"),
    ("2\\frac12", "2\\frac12"),
    ("25% of them", "25\\%"),
    ("25 percent", "25\\%"),
    ("about .5", ".5"),
    ("$1{,}234$", "1{,}234"),
    ("1\\,234", "1\\,234"),
    ("1e5 or so", "1e5"),
    ("in 2019, 200 people", "200"),
    ("(3,4)", "4"),
    ("7 as x^2 and x^{12} of H2O", "7"),
    ("€20, or 20€", "20"),
    ("it is $-5", "-5"),
    ("it is -$5", "-5"),
]


@pytest.mark.parametrize(("completion", "expected"), MARKED)
def test_marked(completion, expected):
    assert find_answer(completion, "marked") == find_answer(completion, "last") == expected
    assert find_answer(completion) is None


@pytest.mark.parametrize(("completion", "expected"), LAST)
def test_last(completion, expected):
    assert find_answer(completion, "last") == expected
    assert find_answer(completion, "marked") is None


@pytest.mark.parametrize(
    ("completion", "marked", "last"),
    [
        ("So the answer is 4 * 3 = 12 flowers", "4 * 3 = 12 flowers", "12"),
        ("Answer: Joan gave 43 seashells.", "Joan gave 43 seashells", "43"),
        ("The answer is Monday.", "Monday", "Monday"),
        ("the answer is 5 million", "5 million", "5 million"),
        ("the answer is y = 2x+3", "y = 2x+3", "y = 2x+3"),
    ],
)
def test_words_behind_a_mark(completion, marked, last):
    assert [find_answer(completion, where) for where in ("marked", "last")] == [marked, last]


@pytest.mark.parametrize("completion", ["", "none", "answers: ", "#### ", "##### 5th", "the answer", "Answer: **"])
def test_nothing(completion):
    assert find_answer(completion, "marked") is None


def test_numbers_however_they_are_written():
    """Amidst others, the last number is what stands there, and equals itself."""
    random = np.random.default_rng(0)
    for _ in range(2000):
        value = round(float(random.choice([1, -1]) * 10 ** random.uniform(-2, 7)), int(random.integers(0, 3)))
        shown = f"{abs(value):,}" if random.random() < 0.5 else str(abs(value))
        money = str(random.choice(["", "$", "\\$", "€"]))
        before = str(random.choice(["She pays ", "of 12, 3.5 and 7/8 remain ", "= ", "(", "$x = "]))
        after = str(random.choice(["", ".", " left", ", as said", ")", "$.", "\n"]))
        text = f"{before}{'-' if value < 0 else ''}{money}{shown}{after}"
        assert quick.quick(find_answer(text, "last"), str(value)), text


@pytest.mark.parametrize(
    "text",
    ["1" * 10**5, "1," * 10**5, "1,234" * 10**5, "1 " * 10**5, "-$" * 10**5, "\\frac{1" * 10**5, "answer " * 10**5]
    + ["#" * 10**5, "answer:" * 10**5, "answer " + "*" * 10**5, "1/" * 10**5, "#### " + "1 a" * 10**5],
    ids=range(12),
)
def test_linear(text, backstop):
    """A second at most; anything quadratic takes hours."""
    with backstop(60):
        find_answer(text, "last")


def test_verdicts():
    completions = ["so 5", "The answer is 10/2.", r"\boxed{4}, so 5", "none"]
    for answer, expected in {"box": "NNWN", "marked": "NCWN", "last": "CCWN"}.items():
        pool = mathematics.Pool(answer=answer)
        rewards, verdicts = pool.submit(completions, [Question("", "5")] * 4)()
        assert "".join(Verdict(v).name[0] for v in verdicts) == expected
        assert rewards.tolist() == [v == "C" for v in expected]
        pool.close()
