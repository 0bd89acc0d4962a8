import itertools
import operator
import os
import re
from collections import Counter
from fractions import Fraction

import numpy as np
import pytest

from dots_jax import data
from dots_jax.core import command_line, files
from dots_jax.data import countdown
from dots_jax.policy import tokenizer as tok
from dots_jax.reward import Question
from dots_jax.reward.countdown import score

OPERATIONS = (operator.add, operator.sub, operator.mul, operator.truediv)
POOLS = {words: countdown.make(240, 60, seed=3, words=words) for words in (True, False)}


def solvable(numbers, target):
    """Whether an expression of all the numbers equals the target: every pair is joined in every way."""
    for i, j in itertools.permutations(range(len(numbers)), 2):
        rest = [n for k, n in enumerate(numbers) if k not in (i, j)]
        for operation in OPERATIONS:
            by_zero = operation is operator.truediv and not numbers[j]
            if not by_zero and solvable([operation(numbers[i], numbers[j]), *rest], target):
                return True
    return numbers == [target]


def read(text):
    """Numbers and target of a question, from its text alone."""
    numbers, target = re.search(r"numbers \[(.*?)\].* equals (\d+)\.|(?=\d)", text).groups()
    numbers, target = (numbers, target) if numbers else text.removesuffix(":").split("=")
    return [Fraction(n) for n in numbers.split(",")], int(target)


@pytest.mark.parametrize("words", [True, False])
def test_every_question_can_be_solved(words):
    for questions in POOLS[words]:
        for text, answer, level in list(zip(questions.texts, questions.answers, questions.levels, strict=True))[:18]:
            numbers, target = read(text)
            assert solvable(numbers, target), text
            assert Counter(map(Fraction, re.findall(r"\d+", answer))) == Counter(numbers)
            assert len(numbers) == (level + 3) // 2
            assert bool(set(answer) & set("*/")) == (level % 2 == 0)
            assert score(answer, Question(text, answer)) == 1


@pytest.mark.parametrize("words", [True, False])
def test_pool_and_heldout(words):
    pool, heldout = POOLS[words]
    assert len(set(pool.texts) | set(heldout.texts)) == 300
    for questions in (pool, heldout):
        assert len(Counter(questions.levels.tolist())) == 6
        assert max(Counter(questions.levels.tolist()).values()) == len(questions) // 6
    again, larger = (countdown.make(count, 60, seed=3, words=words) for count in (240, 300))
    assert (again[0].texts, again[0].answers) == (pool.texts, pool.answers)
    assert larger[1].texts == heldout.texts  # whatever the pool's size
    assert countdown.make(240, 60, seed=4, words=words)[0].texts != pool.texts


def test_demonstrations_fit_and_avoid_the_heldout():
    generator, (_, heldout) = np.random.default_rng(0), countdown.make(1, 200, 0, words=False)
    texts, completions, levels = countdown.demonstrations(generator, 2000, [1] * 6, set(heldout.texts))
    assert not set(texts) & set(heldout.texts)
    assert max(map(len, texts)) == countdown.MAX_PROMPT and max(map(len, completions)) == countdown.MAX_COMPLETION
    assert set("".join(texts + completions)) <= set(countdown.ALPHABET)
    assert len(set(levels.tolist())) == 6
    wrong = [countdown.with_mistakes(generator, text, 0.6) for text in completions if len(text) > 4]
    right = [text for text in completions if len(text) > 4]
    changed = [[(a, b) for a, b in zip(x, y, strict=True) if a != b] for x, y in zip(right, wrong, strict=True)]
    assert {character for pairs in changed for pair in pairs for character in pair} == set("+-*/")
    assert 0.5 < np.mean([len(pairs) for pairs in changed]) < 0.7


def test_load():
    config = command_line.load("configs/countdown.py:twin")
    pool, heldout = data.load(config, None)
    assert (len(pool), len(heldout)) == (2048, 256)
    tokenizer = tok.load(os.path.join(files.ROOT, config.policy.path))
    tokens, lengths = tok.encode(tokenizer, pool.texts + pool.answers, countdown.MAX_PROMPT)
    assert tok.decode(tokenizer, tokens, lengths) == [*pool.texts, *pool.answers]
    config = command_line.load("configs/countdown.py:qwen2.5-1.5b,grpo")
    config.data.num_questions = 12
    assert all(text.startswith("Using the numbers [") for text in data.load(config, None)[0].texts)
