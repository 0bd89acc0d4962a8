import re
import time
from collections import Counter
from itertools import accumulate
from types import SimpleNamespace

import numpy as np
import pytest

from dots_jax import data
from dots_jax.data import arithmetic
from dots_jax.data.questions import Questions
from dots_jax.errors import UserError
from dots_jax.reward import exact

CELLS = [(family, level) for family in arithmetic.FAMILIES for level in range(1, arithmetic.LEVELS + 1)]
WRITTEN = {"gap", "column", "chain"}


def evaluate(expression):
    """The value of an integer expression; leading zeros never occur in numbers of more than one digit."""
    assert re.fullmatch(r"[-+*0-9]+", expression)
    return eval(expression)


def solve(family, text):
    """The answer, worked out from the prompt alone and another way than the family does."""
    assert text[0] == {"subtract": "d", "multiply": "t", "column": "w"}.get(family, family[0])
    assert text.endswith("=")
    body = text[1:-1]
    if family == "sort":
        return "".join(str(d) * body.count(str(d)) for d in range(10))
    if family == "reverse":
        return "".join(reversed(body))
    if family in ("modular", "prefix"):
        totals = [sum(map(int, body[: i + 1])) for i in range(len(body))]
        return "".join(str(t)[-1] for t in totals) if family == "modular" else ",".join(map(str, totals))
    if family == "gap":
        return str(max(abs(int(a) - int(b)) for a in body.split(",") for b in body.split(",")))
    if family == "equation":
        a, b, c, d = map(int, re.fullmatch(r"(\d+)x\+(\d+)=(?:(\d+)x\+)?(\d+),x", body).groups("0"))
        assert (d - b) % (a - c) == 0
        return str((d - b) // (a - c))
    return str(evaluate(body))


def examples(family, level, count=300):
    generator = np.random.default_rng(7)
    return [arithmetic.example(generator, family, level) for _ in range(count)]


@pytest.mark.parametrize("family", arithmetic.FAMILIES)
def test_answers(family):
    for level in range(1, arithmetic.LEVELS + 1):
        for text, completion, answer in examples(family, level, 40):
            assert answer == solve(family, text), text
            assert exact.grade([completion], [answer]) == 1
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
        for text, completion, _ in examples("chain", level):
            terms = list(map(int, re.findall(r"[-+]?\d+", text)))
            assert completion.split(">")[0] == ",".join(map(str, list(accumulate(terms))[1:]))
        for text, completion, _ in examples("gap", level):
            numbers = sorted(map(int, text[1:-1].split(",")))
            assert completion.split(">")[0] == f"{numbers[-1]}-{numbers[0]}"


def test_known_demonstrations():
    assert column(237, 682) == ("w237+682=", "7+2=9,3+8=11,2+6+1=9>919", "919")
    assert column(45, 7) == ("w45+7=", "5+7=12,4+1=5>52", "52")


def column(*numbers):
    draws = iter(numbers)
    generator = SimpleNamespace(integers=lambda low, high: next(draws))
    return arithmetic.column(generator, tuple(len(str(n)) for n in numbers))


def test_limits_and_alphabet():
    for family, level in CELLS:
        for text, completion, _ in examples(family, level, 1000):
            assert len(text) <= arithmetic.MAX_PROMPT == 24
            assert 0 < len(completion) <= 36 <= arithmetic.MAX_COMPLETION
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
    for family in ("column", "chain"):
        for level in range(1, arithmetic.LEVELS + 1):
            assert len({len(completion) for _, completion, _ in examples(family, level)}) >= 3


def test_pool_and_heldout():
    start = time.perf_counter()
    pool, heldout = arithmetic.make(4096, 1024, seed=3)
    assert time.perf_counter() - start < 3  # about 0.15 s on an idle core
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
    small = arithmetic.Family(arithmetic.multiply, ((1, 1), *arithmetic.FAMILIES["multiply"].sizes[1:]))
    monkeypatch.setattr(arithmetic, "FAMILIES", {"multiply": small})
    pool, heldout = arithmetic.make(900, 60, seed=0)
    sizes = Counter(pool.levels.tolist())
    assert sizes[1] + 10 <= 81 < 150
    assert sum(sizes.values()) == len(set(pool.texts)) == 900
    assert max(sizes[level] for level in range(2, 7)) - min(sizes[level] for level in range(2, 7)) <= 1

    monkeypatch.setattr(arithmetic, "LEVELS", 1)
    with pytest.raises(UserError, match="about 8. distinct"):
        arithmetic.make(200, 10, seed=0)
    everything = {f"t{a}*{b}=" for a in range(1, 10) for b in range(1, 10)}
    with pytest.raises(UserError, match="multiply level 1"):
        arithmetic.demonstrations(np.random.default_rng(0), 1, [1], everything)


@pytest.mark.parametrize("arguments", [(0, 1, 0), (1, -1, 0), (1, 1, -1)])
def test_out_of_range(arguments):
    with pytest.raises(UserError, match="config.data"):
        arithmetic.make(*arguments)


def test_demonstrations():
    weights = [5, 4, 3, 2, 1, 0]
    texts, completions, levels, families = arithmetic.demonstrations(np.random.default_rng(1), 6000, weights)
    assert len(texts) == len(completions) == len(levels) == len(families) == 6000
    np.testing.assert_allclose(np.bincount(levels, minlength=7)[1:] / 6000, np.array(weights) / 15, atol=0.03)
    assert levels.dtype == np.int32
    assert max(Counter(families).values()) < 1.25 * 6000 / len(arithmetic.FAMILIES)
    for text, completion, family in zip(texts, completions, families, strict=True):
        assert exact.grade([completion], [solve(family, text)]) == 1
    again = arithmetic.demonstrations(np.random.default_rng(1), 6000, weights)
    assert again[:2] == (texts, completions)


def test_demonstrations_avoid_the_heldout():
    weights = [1, 0, 0, 0, 0, 0]  # the smallest levels, where chance would hit
    free = arithmetic.demonstrations(np.random.default_rng(2), 4000, weights)[0]
    _, heldout = arithmetic.make(1, 1024, seed=0)
    assert set(free) & set(heldout.texts)
    kept = arithmetic.demonstrations(np.random.default_rng(2), 4000, weights, set(heldout.texts))[0]
    assert not set(kept) & set(heldout.texts)


@pytest.mark.parametrize("weights", [[1] * 5, [0] * 6, [1, 1, 1, 1, 1, -1], [float("nan")] * 6])
def test_bad_weights(weights):
    with pytest.raises(UserError, match="level weights"):
        arithmetic.demonstrations(np.random.default_rng(0), 1, weights)


def test_load():
    config = SimpleNamespace(name="arithmetic", num_questions=132, num_heldout=66, seed=1)
    pool, heldout = data.load(config)
    assert (len(pool), len(heldout)) == (132, 66)
    with pytest.raises(UserError, match="'algebra'.*arithmetic"):
        data.load(SimpleNamespace(name="algebra"))


def test_take():
    pool, _ = arithmetic.make(100, 0, seed=0)
    some = pool.take(np.array([7, 3, 7]))
    assert isinstance(some, Questions)
    assert some.texts == (pool.texts[7], pool.texts[3], pool.texts[7])
    assert some.answers[1] == pool.answers[3]
    assert some.families[0] == pool.families[7]
    np.testing.assert_array_equal(some.levels, pool.levels[[7, 3, 7]])
    assert len(pool.take([])) == 0
    with pytest.raises(IndexError):
        pool.take([100])
    with pytest.raises(ValueError, match="length"):
        Questions(("a",), (), ("b",), np.array([1], np.int32))
