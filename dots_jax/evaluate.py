"""Evaluation: the share of held-out questions that the policy answers."""

import numpy as np

from dots_jax import distributed, rollout
from dots_jax.policy import tokenizer as tok


def run(params, config, tokenizer, prompts, lengths, answers, grader, key, *, samples: int, temperature: float, **rest):
    """Success rate of each question over `samples` completions, float32 [N], and the number of tokens generated.

    prompts int32 [N, S] and lengths int32 [N]; `rest` are the other arguments of `rollout.sample`.
    """
    rollouts = rollout.sample(params, config, prompts, lengths, key, samples, temperature=temperature, **rest)
    return grade(rollouts, tokenizer, answers, grader).mean(1), int(distributed.to_host(rollouts.lengths).sum())


def grade(rollouts: rollout.Rollouts, tokenizer, answers, grader) -> np.ndarray:
    """Rewards of all completions, float32 [P, G], by `grader(texts, answers)`; `answers` is one for each question."""
    tokens, lengths = distributed.to_host((rollouts.tokens, rollouts.lengths))
    P, G, T = tokens.shape

    def judge():
        texts = tok.decode(tokenizer, tokens.reshape(P * G, T), lengths.reshape(-1))
        return grader(texts, [a for a in answers for _ in range(G)]).reshape(P, G)

    return distributed.from_main(judge, np.zeros((P, G), np.float32))


def by_level(success: np.ndarray, questions) -> dict[str, list[float | None]]:
    """Mean success of each level of each family, easiest first; None where the held-out set has no such question."""
    table, families = {}, np.array(questions.families)
    for family in dict.fromkeys(sorted(questions.families)):
        levels = range(questions.levels.min(), questions.levels.max() + 1)
        cells = [success[(families == family) & (questions.levels == level)] for level in levels]
        table[family] = [float(c.mean()) if len(c) else None for c in cells]
    return table
