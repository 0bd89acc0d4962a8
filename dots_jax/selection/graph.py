"""Difficulty states on a graph of similar questions, a Potts prior on it (arXiv 2608.17941)."""

import jax
import numpy as np
from ml_collections import ConfigDict
from scipy import special

from dots_jax.difficulty.features import unit
from dots_jax.selection import draw
from dots_jax.selection.base import Context, Measured, Selector, check_distinct
from dots_jax.selection.counts import Counts

_STATES, _NEIGHBOURS, _COUPLING, _SWEEPS, _BLOCK = 5, 10, 1.0, 10, 1024


class Graph(Selector):
    """Draws near the target by the mean of each question's difficulty state, which neighbours share.

    Of question i with s_i successes of n_i completions (decayed), W the mutual nearest neighbours among embeddings:
    q_ik ~ exp(beta sum_j W_ij q_jk + s_i E log theta_k + (n_i - s_i) E log(1 - theta_k)), theta_k ~ Beta(a_k +
    sum_i q_ik s_i, b_k + sum_i q_ik (n_i - s_i)), ten sweeps over all questions at once. K = 5 states, whose priors
    Beta(a_k, b_k) have the means k / (K + 1); beta = 1. The paper's A_ik, what is known of a state beforehand, is
    uniform.

    State: "counts", a `Counts`; "predicted", "spread" float32 [N].
    """

    embeds = True

    @classmethod
    def check(cls, config: ConfigDict):
        """A round's questions are distinct."""
        check_distinct(config)

    def __init__(self, config: ConfigDict, context: Context):
        super().__init__(config, context)
        c = config.selection
        self._decay, self._neighbours = c.decay ** (1 / c.interval), _mutual(context.embeddings())
        means = np.arange(1, _STATES + 1) / (_STATES + 1)
        self._prior = 2 * _STATES * means, 2 * _STATES * (1 - means)

    def init(self) -> dict:
        """Nothing measured."""
        N = self.context.num_questions
        numbers = {"predicted": np.full(N, 0.5, np.float32), "spread": np.full(N, 0.5, np.float32)}
        return {"counts": Counts.none(N), **numbers}

    def observe(self, state: dict, measured: Measured):
        """Adds all groups."""
        return state | {"counts": state["counts"].add(measured, self._decay)}

    def propose(self, state: dict, key: jax.Array, n: int, step: int):
        """The sweeps, and n distinct questions."""
        counts, c = state["counts"].at(step, self._decay), self.config.selection
        s, f = np.float64(counts.successes), np.float64(counts.rollouts - counts.successes)
        q = np.full((len(s), _STATES), 1 / _STATES)
        for _ in range(_SWEEPS):
            a, b = self._prior[0] + s @ q, self._prior[1] + f @ q
            likely = np.outer(s, special.digamma(a)) + np.outer(f, special.digamma(b))
            likely -= np.outer(s + f, special.digamma(a + b))
            q = special.softmax(likely + _COUPLING * (self._neighbours @ q), axis=1)
        theta = a / (a + b)
        mean = q @ theta
        spread = np.sqrt(np.maximum(q @ theta**2 - mean**2, 0))
        state = state | {"predicted": np.float32(1 - mean), "spread": np.float32(spread)}
        return np.asarray(draw.near(key, state["predicted"], c.target, c.temperature, n)), state

    def predict(self, state: dict):
        """Mean and deviation, as of the last round."""
        return state["predicted"], state["spread"]


def _mutual(x: np.ndarray):
    """Which questions are among each other's nearest by the cosine: a sparse matrix of ones, [N, N]."""
    from scipy import sparse

    x = unit(x - x.mean(0))
    N, k = len(x), min(_NEIGHBOURS, len(x) - 1)
    near = np.empty((N, k), np.int64)
    for start in range(0, N, _BLOCK):  # rows whose similarities exist at once
        similar = x[start : start + _BLOCK] @ x.T
        similar[np.arange(len(similar)), start + np.arange(len(similar))] = -np.inf
        near[start : start + _BLOCK] = np.argpartition(-similar, k - 1, axis=1)[:, :k]
    one_way = sparse.csr_array((np.ones(N * k), (np.repeat(np.arange(N), k), near.ravel())), (N, N))
    return one_way.multiply(one_way.T).tocsr()
