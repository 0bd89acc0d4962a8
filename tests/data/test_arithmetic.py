import re
from collections import Counter
from types import SimpleNamespace

import numpy as np
import pytest

from dots_jax import data
from dots_jax.core import command_line
from dots_jax.core.errors import UserError
from dots_jax.data import arithmetic
from dots_jax.reward import Question, exact

CELLS = [(family, level) for family in arithmetic.FAMILIES for level in range(1, arithmetic.LEVELS + 1)]
WRITTEN = {"add", "difference", "column"}


def evaluate(expression):
    """The value of an integer expression; leading zeros never occur in numbers of more than one digit."""
    assert re.fullmatch(r"[-+*0-9]+", expression)
    return eval(expression)


def solve(family, text):
    """The answer, worked out from the prompt alone and another way than the family does."""
    assert text[0] == {"column": "w"}.get(family, family[0])
    assert text.endswith("=")
    body = text[1:-1]
    if family == "sort":
        return "".join(str(d) * body.count(str(d)) for d in range(10))
    if family == "reverse":
        return "".join(reversed(body))
    if family == "prefix":
        return ",".join(str(sum(map(int, body[: i + 1]))) for i in range(len(body)))
    return str(evaluate(body))


def examples(family, level, count=300):
    generator = np.random.default_rng(7)
    return [arithmetic.example(generator, family, level) for _ in range(count)]


@pytest.mark.parametrize("family", arithmetic.FAMILIES)
def test_answers(family):
    for level in range(1, arithmetic.LEVELS + 1):
        for text, completion, answer in examples(family, level, 40):
            assert answer == solve(family, text), text
            assert exact.score(completion, Question(text, answer)) == 1
            assert (">" in completion) == (family in WRITTEN)


def test_working_is_right():
    for level in range(1, arithmetic.LEVELS + 1):
        for text, completion, _ in examples("column", level):
            steps, digits = completion.split(">")[0].split(","), ""
            for step in steps:
                left, right = step.split("=")
                assert evaluate(left) == int(right), text
                digits = right[-1] + digits
            assert completion.endswith(">" + str(int(steps[-1].split("=")[1])) + digits[1:])
        for family, sign in (("add", 1), ("difference", -1)):
            for text, completion, answer in examples(family, level):
                totals = list(map(int, completion.split(">")[0].split(",")))
                a, b = re.split(r"[-+]", text[1:-1])
                assert len(totals) == max(len(a), len(b))
                assert (sign > 0 or int(a) >= int(b)) and all((total < 0) <= (sign < 0) for total in totals)
                carry = 0
                for place, total in enumerate(totals):
                    assert total == carry + sum(
                        s * int(n[-1 - place]) for s, n in ((1, a), (sign, b)) if place < len(n)
                    )
                    carry = total // 10
                assert int(answer) == sum(total % 10 * 10**place for place, total in enumerate(totals[:-1])) + (
                    totals[-1] * 10 ** (len(totals) - 1)
                )


def test_known_demonstrations():
    assert demonstrate("column", 237, 682) == ("w237+682=", "7+2=9,3+8=11,2+6+1=9>919", "919")
    assert demonstrate("column", 45, 7) == ("w45+7=", "5+7=12,4+1=5>52", "52")
    assert demonstrate("column", 45, 7, 9) == ("w45+7+9=", "5+7+9=21,4+2=6>61", "61")
    assert demonstrate("add", 45, 67) == ("a45+67=", "12,11>112", "112")
    assert demonstrate("difference", 7, 523) == ("d523-7=", "-4,1,5>516", "516")
    assert demonstrate("difference", 1000, 1001) == ("d1001-1000=", "1,0,0,0>1", "1")


def demonstrate(family, *numbers):
    draws = iter(numbers)
    generator = SimpleNamespace(integers=lambda low, high: next(draws))
    return getattr(arithmetic, family)(generator, tuple(len(str(n)) for n in numbers))


def test_limits_and_alphabet():
    for family, level in CELLS:
        for text, completion, _ in examples(family, level, 1000):
            assert len(text) <= arithmetic.MAX_PROMPT == 16
            assert 0 < len(completion) <= arithmetic.MAX_COMPLETION == 31
            assert set(text + completion) <= set(arithmetic.ALPHABET)
    assert len(arithmetic.ALPHABET) < 63


@pytest.mark.parametrize("family", arithmetic.FAMILIES)
def test_levels_are_wide_and_not_guessable(family):
    for level in range(1, arithmetic.LEVELS + 1):
        rows = examples(family, level, 3000)
        assert len({text for text, _, _ in rows}) > 500
        assert Counter(answer for _, _, answer in rows).most_common(1)[0][1] < 0.1 * len(rows)
    hardest = examples(family, arithmetic.LEVELS)
    easiest = examples(family, 1)
    assert np.mean([len(text) for text, _, _ in hardest]) > np.mean([len(text) for text, _, _ in easiest])


def test_written_completions_are_ragged():
    for family in ("add", "difference", "column"):
        for level in range(1, arithmetic.LEVELS + 1):
            assert len({len(completion) for _, completion, _ in examples(family, level)}) >= (
                3 if family == "column" else 2
            )


def test_pool_and_heldout():
    pool, heldout = arithmetic.make(4096, 1024, seed=3)
    assert (len(pool), len(heldout)) == (4096, 1024)
    assert len(set(pool.texts) | set(heldout.texts)) == 5120
    for questions in (pool, heldout):
        assert questions.levels.dtype == np.int32
        sizes = Counter(zip(questions.families, questions.levels.tolist(), strict=True))
        assert set(sizes) == set(CELLS)
        assert max(sizes.values()) - min(sizes.values()) <= 1
        assert len(set(questions.families[:50])) > 5  # shuffled
        for text, answer, family in zip(questions.texts, questions.answers, questions.families, strict=True):
            assert answer == solve(family, text)


def test_reproducible_from_seed():
    (pool, heldout), (again, heldout_again) = (arithmetic.make(300, 70, seed=5) for _ in range(2))
    assert pool.texts == again.texts
    assert pool.answers == again.answers
    assert heldout.texts == heldout_again.texts
    np.testing.assert_array_equal(pool.levels, again.levels)
    assert arithmetic.make(300, 70, seed=6)[0].texts != pool.texts
    assert arithmetic.make(900, 70, seed=5)[1].texts == heldout.texts  # whatever the pool's size


def test_exhausted_level_leaves_its_share(monkeypatch):
    small = arithmetic.Task(arithmetic.add, ((1, 1), *arithmetic.FAMILIES["add"].sizes[1:]))
    monkeypatch.setattr(arithmetic, "FAMILIES", {"add": small})
    pool, heldout = arithmetic.make(900, 60, seed=0)
    sizes = Counter(pool.levels.tolist())
    assert sizes[1] + 10 <= 81 < 150
    assert sum(sizes.values()) == len(set(pool.texts)) == 900
    assert max(sizes[level] for level in range(2, 7)) - min(sizes[level] for level in range(2, 7)) <= 1

    monkeypatch.setattr(arithmetic, "LEVELS", 1)
    with pytest.raises(UserError, match="about 8. distinct"):
        arithmetic.make(200, 10, seed=0)
    everything = {f"a{a}+{b}=" for a in range(1, 10) for b in range(1, 10)}
    with pytest.raises(UserError, match="add level 1"):
        arithmetic.demonstrations(np.random.default_rng(0), 1, [1], everything)


@pytest.mark.parametrize("arguments", [(0, 1, 0), (10**6, 1, 0)])
def test_out_of_range(arguments):
    with pytest.raises(UserError, match="config.data"):
        arithmetic.make(*arguments)


def test_demonstrations():
    weights = [5, 4, 3, 2, 1, 0]
    texts, completions, levels = arithmetic.demonstrations(np.random.default_rng(1), 6000, weights)
    assert len(texts) == len(completions) == len(levels) == 6000
    np.testing.assert_allclose(np.bincount(levels, minlength=7)[1:] / 6000, np.array(weights) / 15, atol=0.03)
    assert levels.dtype == np.int32
    families = [dict(zip("srpadw", arithmetic.FAMILIES, strict=True))[text[0]] for text in texts]
    assert max(Counter(families).values()) < 1.25 * 6000 / len(arithmetic.FAMILIES)
    for text, completion, family in zip(texts, completions, families, strict=True):
        assert exact.score(completion, Question(text, solve(family, text))) == 1
    again = arithmetic.demonstrations(np.random.default_rng(1), 6000, weights)
    assert again[:2] == (texts, completions)


def test_demonstrations_avoid_the_heldout():
    weights = [1, 0, 0, 0, 0, 0]  # the smallest levels, where chance would hit
    free = arithmetic.demonstrations(np.random.default_rng(2), 4000, weights)[0]
    _, heldout = arithmetic.make(1, 1024, seed=0)
    assert set(free) & set(heldout.texts)
    kept = arithmetic.demonstrations(np.random.default_rng(2), 4000, weights, set(heldout.texts))[0]
    assert not set(kept) & set(heldout.texts)


def test_mistakes():
    generator = np.random.default_rng(3)
    completion = "7+2=9,3+8=11,2+6+1=9>919"
    for expected in (0.0, 0.5, 3.0, 6.5):
        many = [arithmetic.with_mistakes(generator, completion, expected) for _ in range(2000)]
        wrong = np.array([[a != b for a, b in zip(text, completion, strict=True)] for text in many])
        np.testing.assert_allclose(wrong.sum(1).mean(), expected, rtol=0.08)
        digits = np.array([character.isdigit() for character in completion])
        assert not wrong[:, ~digits].any()
        np.testing.assert_allclose(wrong[:, digits].mean(0), expected / digits.sum(), atol=0.05)
    found = Counter(arithmetic.with_mistakes(generator, "7", 9.0) for _ in range(4000))
    assert set(found) == set("0123456789")
    np.testing.assert_allclose(found["7"] / 4000, 0.5, atol=0.04)  # half of the digits at most


def test_level_weights_of_nothing():
    with pytest.raises(UserError, match="level weights"):
        arithmetic.demonstrations(np.random.default_rng(0), 1, [0] * 6)


def test_load():
    config = command_line.load("configs/quickstart.py")
    config.data.update(num_questions=132, num_heldout=66, seed=1)
    pool, heldout = data.load(config, None)
    assert (len(pool), len(heldout)) == (132, 66)
    first = pool.items()[0]
    assert first.columns == {"family": pool.families[0], "level": pool.levels[0]} and first.name == pool.texts[0]
    config.data.name, config.eval.sets = "algebra", __file__.replace(".py", ".json")
    with pytest.raises(UserError, match="no question file .*test_arithmetic.json"):
        data.load(config, None)
