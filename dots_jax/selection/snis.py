"""DARE: stored rollouts, weighted by what today's policy would make of them, tell success rates (arXiv 2605.09188)."""

import jax
import numpy as np
from ml_collections import ConfigDict
from scipy import stats

from dots_jax.core.errors import UserError
from dots_jax.selection import draw
from dots_jax.selection.dots import Dots

_CLIP = 4.0  # of the logarithms of weights
_SHARPNESS = 8.0  # of the density that is drawn by: Beta(1 + 8 t, 1 + 8 (1 - t)) around a success rate of t


class Snis(Dots):
    """Draws by a Beta density around the target, at the estimated success rate of every question.

    Of a question whose group is in the replay buffer: sum w r / sum w over its completions, log w = sum_t (log pi_now -
    log pi_behaviour), clipped to +-4; the plain mean of r where the effective sample size is below 2. Of others: as
    `Dots` predicts it.

    State: that of `Dots`; "stored" float32 [N], difficulty by stored rollouts, NaN where there are none.
    """

    rescores = True

    @classmethod
    def check(cls, config: ConfigDict):
        """As `Dots`; and there is a buffer."""
        super().check(config)
        if config.replay.fresh_fraction == 1:
            raise UserError(
                "config.selection.name=snis estimates from the replay buffer, which config.replay.fresh_fraction=1 "
                "leaves out; lower it"
            )

    def init(self) -> dict:
        """Nothing stored."""
        return super().init() | {"stored": np.full(self.context.num_questions, np.nan, np.float32)}

    def reweigh(self, state: dict, ids: np.ndarray, rewards: np.ndarray, log_weights: np.ndarray):
        """The estimates of the stored groups [C] from rewards and log weights [C, G]."""
        w = np.exp(np.clip(log_weights, -_CLIP, _CLIP))
        rate = (w * rewards).sum(1) / w.sum(1)
        size = w.sum(1) ** 2 / (w**2).sum(1)
        stored = np.full(self.context.num_questions, np.nan, np.float32)
        stored[ids] = 1 - np.where(size < 2, rewards.mean(1), rate)
        return state | {"stored": stored}

    def propose(self, state: dict, key: jax.Array, n: int, step: int):
        """Trains and predicts as `Dots`; draws n distinct questions."""
        state, c, labels = self.fitted(state, key, step), self._selection, state["labels"]
        predicted = np.where(np.isnan(state["stored"]), state["predicted"], state["stored"])
        state = state | {"predicted": predicted.astype(np.float32)}
        t = 1 - c.target
        a, b = 1 + _SHARPNESS * t, 1 + _SHARPNESS * (1 - t)
        density = stats.beta(a, b).logpdf(np.clip(1 - predicted, 1e-3, 1 - 1e-3))
        now = labels["is_reference"] & (labels["step"] == step)
        where = jax.random.fold_in(key, 2), np.float32(density.max() - density), 1.0, n
        return draw.near_reusing(*where, labels["ids"][now], c.reuse_references), state
