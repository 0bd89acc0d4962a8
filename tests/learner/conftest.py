import numpy as np
import pytest
from updates import G, P, S, T, logprobs

from dots_jax.rollout import Rollouts


@pytest.fixture(scope="module")
def batch(tiny_config, tiny_params):
    """Ragged synthetic rollouts whose behaviour log-probs are near the policy's, three groups without variance."""
    random = np.random.default_rng(0)
    prompt_lengths = random.integers(1, S + 1, P).astype(np.int32)
    prompts = random.integers(1, 37, (P, S)).astype(np.int32) * (np.arange(S) < prompt_lengths[:, None])
    lengths = random.integers(1, T + 1, (P, G)).astype(np.int32)
    tokens = random.integers(0, 37, (P, G, T)).astype(np.int32) * (np.arange(T) < lengths[..., None])
    rewards = random.integers(0, 2, (P, G)).astype(np.float32)
    rewards[[0, 5]], rewards[3] = 1, 0
    rewards[[1, 2], 0] = 1 - rewards[[1, 2], 1]
    logp = np.zeros((P, G, T), np.float32)
    for p, g in np.ndindex(P, G):
        row = np.zeros(S + T, np.int32)
        n, m = prompt_lengths[p], lengths[p, g]
        row[:n], row[n : n + m] = prompts[p, :n], tokens[p, g, :m]
        logp[p, g, :m] = logprobs(tiny_params, tiny_config, row[None], np.array([n + m]))[0, n : n + m]
    logp += 0.3 * random.normal(size=logp.shape).astype(np.float32) * (logp != 0)
    return Rollouts(prompts, prompt_lengths, tokens, lengths, logp, lengths < T), rewards
