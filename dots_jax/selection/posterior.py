"""What questions look like and all that was ever measured of them: a posterior of every question's success rate.

No published method. A regression on features of the text gives each question a prior mean p0; its own counts, s of n
completions, decayed, make of it Beta(kappa p0 + s, kappa (1 - p0) + n - s). Every rollout that was paid for is a label,
where DOTS (arXiv 2506.05316) learns from references alone and lets them go.
"""

import jax
import numpy as np
from ml_collections import ConfigDict

from dots_jax.difficulty import features
from dots_jax.selection import draw
from dots_jax.selection.base import Context, Measured, Selector, check_distinct, check_references
from dots_jax.selection.counts import Counts, log_likelihood, mixed_chance
from dots_jax.selection.dots import Dots

_KAPPAS = np.geomspace(1, 64, 19)
_EXPLAINED = 0.25  # of the variance of single completions, a priori, by features
_STATES, _SHARE = 32, 0.3  # numbers kept of the policy's states, and their share among all features
_GROUP = 8.0  # completions that the length predicted from features counts for


class Posterior(Selector):
    """Draws questions whose posterior mean is near the target, or whose groups promise most per token.

    With `selection.caution` the distance from the target grows by so many posterior deviations: what is surely near is
    drawn before what may be, and so comes back sooner.

    State: "counts", a `Counts`; "predicted", "spread" float32 [N], posterior mean and deviation of the difficulty;
    "kappa" float32 []; "references" int32 [M], the round's, one where there are none; with `selection.policy_features`
    "policy" float32 [N, 32], `features.states`; with the head "adapter" "dots", the state of `Dots`.
    """

    embeds = True

    @classmethod
    def check(cls, config: ConfigDict):
        """Distinct questions, and references that the pool holds; with the adapter as `Dots`."""
        check_distinct(config)
        if config.selection.head == "adapter":
            Dots.check(config)
        else:
            check_references(config)

    @classmethod
    def num_queries(cls, config: ConfigDict):
        """M, which may be 0."""
        return config.selection.references

    def __init__(self, config: ConfigDict, context: Context):
        super().__init__(config, context)
        c = self._selection = config.selection
        self.num_reused, self._decay = c.reuse_references, c.decay ** (1 / c.interval)
        self._dots = Dots(config, context) if c.head == "adapter" else None
        make = features.kernel if c.head == "kernel" else features.linear
        self._features = make(context.embeddings(), context.texts, c.features).astype(np.float64)
        self.reads_policy = c.policy_features

    def init(self) -> dict:
        """Nothing measured."""
        N, M = self.context.num_questions, max(1, self._selection.references)  # a checkpoint holds no empty array
        numbers = {"predicted": np.full(N, 0.5, np.float32), "spread": np.full(N, 0.5, np.float32)}
        state = {
            "counts": Counts.none(N),
            **numbers,
            "kappa": np.float32(self._selection.kappa or 8),
            "references": np.zeros(M, np.int32),
        }
        state |= {"policy": np.zeros((N, _STATES), np.float32)} if self.reads_policy else {}
        return state | ({"dots": self._dots.init()} if self._dots else {})

    def read(self, state: dict, prompts: np.ndarray):
        """Keeps the principal components of the hidden states, and the mean log-prob beside them."""
        return state | {"policy": features.states(prompts, _STATES)}

    def queries(self, state: dict, key: jax.Array):
        """M questions, uniformly without replacement."""
        return draw.references(key, self.context.num_questions, self._selection.references)

    def observe(self, state: dict, measured: Measured):
        """Adds all groups, whoever asked for them."""
        state = state | {"counts": state["counts"].add(measured, self._decay)}
        if measured.is_reference:
            state["references"] = np.resize(measured.ids, len(state["references"]))  # fewer are repeated
        return state | ({"dots": self._dots.observe(state["dots"], measured)} if self._dots else {})

    def propose(self, state: dict, key: jax.Array, n: int, step: int):
        """Fits the prior and kappa to all counts, and draws n distinct questions."""
        c, counts = self._selection, state["counts"].at(step, self._decay)
        prior, state = self._prior(state, counts, key, step)
        s, m = np.float64(counts.successes), np.float64(counts.rollouts)
        kappa, seen = c.kappa, m > 0
        if not kappa and seen.any():
            kappa = max(_KAPPAS, key=lambda k: log_likelihood(s[seen], m[seen], prior[seen], k))
        kappa = kappa or float(state["kappa"])
        a, b = kappa * prior + s, kappa * (1 - prior) + m - s
        mean = a / (a + b)
        spread = np.sqrt(mean * (1 - mean) / (a + b + 1))
        state = state | {"kappa": np.float32(kappa), "predicted": np.float32(1 - mean), "spread": np.float32(spread)}
        distance = np.abs(state["predicted"] - c.target) + c.caution * state["spread"]
        if c.per_token:
            worth = mixed_chance(a, b, self.config.rollout.group_size) / self._expected_tokens(state, counts)
            distance = 1 - worth / worth.max()
        where = jax.random.fold_in(key, 1), np.float32(distance), c.temperature, n
        return draw.near_reusing(*where, state["references"], c.reuse_references), state

    def _prior(self, state: dict, counts: Counts, key: jax.Array, step: int) -> tuple[np.ndarray, dict]:
        """The success rate of each question by its features, float [N]: its own counts left out, but by the adapter."""
        if self._dots:
            state = state | {"dots": self._dots.fitted(state["dots"], jax.random.fold_in(key, 2), step)}
            return np.clip(1 - np.float64(state["dots"]["predicted"]), 0.02, 0.98), state
        s, n = np.float64(counts.successes), np.float64(counts.rollouts)
        mean, kappa = (s.sum() + 1) / (n.sum() + 2), float(state["kappa"])
        variance = mean * (1 - mean)
        noise = variance * (1 + kappa / np.maximum(n, 1e-9)) / (kappa + 1)  # of a rate: the question's own, and drawn
        return np.clip(self._regress(state, s, n, 1 / noise, 0.5, _EXPLAINED * variance), 0.02, 0.98), state

    def _expected_tokens(self, state: dict, counts: Counts) -> np.ndarray:
        """Of a completion of each question, float [N]: by features, and by its own as far as there are."""
        t, n = np.float64(counts.tokens), np.float64(counts.rollouts)
        mean = t.sum() / max(n.sum(), 1e-9)
        if not mean:
            return np.ones(len(n))
        prior = self._regress(state, t / mean, n, n, 1.0, _EXPLAINED / _GROUP)
        return mean * (_GROUP * np.clip(prior, 0.2, 5.0) + t / mean) / (_GROUP + n)

    def _regress(
        self, state: dict, sums: np.ndarray, n: np.ndarray, weights: np.ndarray, mean: float, variance: float
    ) -> np.ndarray:
        """What features, of rows with squares that add up to about 1, make of sums / n, [N], each left out for itself.

        Bayesian linear regression: `weights` [N] are the inverse variances of the labels, `variance` is what features
        explain, and the labels' level is around `mean`, give or take as much.
        """
        seen = n > 0
        if not seen.any():
            return np.full(len(n), mean)
        parts = [self._features, np.full((len(n), 1), mean)]
        if self.reads_policy:
            parts = [(1 - _SHARE) ** 0.5 * parts[0], _SHARE**0.5 * state["policy"], parts[1]]
        features = np.concatenate(parts, 1)
        F, w, y = features[seen], weights[seen], sums[seen] / n[seen] - mean
        precision = np.append(np.full(F.shape[1] - 1, 1 / variance), 1.0)
        inverse = np.linalg.inv(F.T * w @ F + np.diag(precision))
        predicted = features @ (inverse @ (F.T @ (w * y)))
        leverage = np.einsum("nf,fg,ng->n", F, inverse, F, optimize=True) * w
        predicted[seen] = (predicted[seen] - leverage * y) / (1 - leverage)
        return mean + predicted

    def predict(self, state: dict):
        """Posterior mean and deviation, as of the last round."""
        return state["predicted"], state["spread"]
