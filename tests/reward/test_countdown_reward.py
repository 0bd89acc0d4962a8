import pytest

from dots_jax import reward
from dots_jax.core.errors import UserError
from dots_jax.reward import Question
from dots_jax.reward.boxes import last_answer
from dots_jax.reward.countdown import score

GOLD = "(1+2)*3"  # the numbers 1, 2, 3; the target 9
CASES = [
    ("(1+2)*3", 1),
    ("3*(2+1)", 1),
    ("3 * ( 1 + 2 )", 1),
    ("(1+2)*3=9", 1),
    ("9 = (1+2)*3", 1),
    ("-(-1-2)*3", 1),  # a sign is no number
    ("(1+2)*3=8", 0),
    ("(1+2)*3=9=9", 0),
    ("9", 0),
    ("9=9", 0),
    ("1+2*3", 0),  # 7
    ("3*3", 0),  # not the numbers
    ("(1+2)*3*1", 0),  # one of them twice
    ("(1+2)*3+0", 0),
    ("(1+2)*03", 0),
    ("(1+2)*3.0", 0),
    ("(1+2)*3+", 0),
    ("", 0),
    ("first 1+2+3\n(1+2)*3", 1),  # the last line
    ("(1+2)*3\nso that is it", 0),
    (r"1+2+3, no: \boxed{(1+2)*3}.", 1),
    (r"\boxed{1+2+3} or \boxed{(1+2) \times 3 = 9}", 1),
    (r"\boxed{\left(1+2\right)\cdot 3}", 1),
    (r"\boxed{3 \div (1 / (1+2))}", 0),
    (r"\boxed{(1+2)*3} and \boxed{1+", 0),  # cut off
    ("<think>(1+2)*3</think><answer>3*(1+2)</answer>", 1),
    ("<answer>(1+2)*3</answer> <answer>1+2+3</answer>", 0),  # the last one
    (r"<answer>(1 + 2) × 3</answer> \boxed{0}", 1),
    ("(1+2)*3</answer>", 0),
]
ATTACKS = [
    "9**9**9", "3**2*1", "9//1", "1<2", "(1,2,3)", "True+2", "1_0", "1e9", "0x9", "１+2", "[1][0]", "1if 2else 3",
    "(" * 5000 + "1" + ")" * 5000, "(" * 140 + "1" + ")" * 140, "-" * 299 + "1", "9" * 299, "9" * 10**6,
    "*".join("9" * 10**5), "1/0", "(1+2)/(3-3)", "__import__('os')", "(lambda: 1)()", r"\frac{" * 4000,
    r"\boxed{" * 4000, "<answer>" * 10**5, "\0", "\ud800", "<answer>" + "((((" * 10**5 + "</answer>",
    r"\frac{1}{2}" * 20, "1\n" * 10**5, "=" * 10**5, "1+2*3#", "1;2",
]  # fmt: skip


@pytest.mark.parametrize(("completion", "expected"), CASES)
def test_score(completion, expected):
    assert score(completion, Question("", GOLD)) == expected


@pytest.mark.parametrize("completion", ATTACKS, ids=lambda text: ascii(text[:20]))
def test_attacks_earn_nothing_in_no_time(completion, backstop):
    with backstop(2):
        assert score(completion, Question("", GOLD)) == 0
        assert score(rf"\boxed{{{completion}}}", Question("", GOLD)) == 0


def test_fractions_are_exact():
    question = Question("", "8/(3-8/3)")
    assert score("8/(3-8/3)", question) == 1
    assert score(r"\boxed{\frac{8}{3 - \dfrac{8}{3}} = 24}", question) == 1
    assert score("8*3*8/3-8", question) == 0


def test_a_question_that_is_none():
    grader = reward.make("countdown")
    with pytest.raises(UserError, match="config.reward=countdown failed .*'twelve' is no expression"):
        grader.submit(["1+2"], [Question("Count", "twelve")])


@pytest.mark.parametrize(
    ("completion", "expected"),
    [
        ("<answer> a <answer>b\nc </answer> d", "b\nc"),
        ("</answer><answer>", "</answer><answer>"),
        (r"\boxed{\text{a}} b", r"\text{a}"),
        ("a\n\n b \n\n", "b"),
        ("\n", ""),
    ],
)
def test_last_answer(completion, expected):
    assert last_answer(completion) == expected
