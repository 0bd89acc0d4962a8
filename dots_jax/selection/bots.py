"""BOTS: Beta posteriors from what is measured, and from what two reference policies make likely (arXiv 2510.26374)."""

import jax
import numpy as np
from ml_collections import ConfigDict

from dots_jax.core.errors import UserError
from dots_jax.difficulty import embed
from dots_jax.selection import draw
from dots_jax.selection.base import Context, Measured
from dots_jax.selection.mopps import Mopps

_RHO = 0.1  # share of the implicit counts


class Bots(Mopps):
    """The n questions whose drawn success rate is nearest the target, of all.

    With lambda = 1 - `selection.decay`, s successes of m completions where a question is measured, and s', m' implied:
    alpha = (1 - lambda) alpha + lambda 1 + (1 - rho) s + rho s', and beta likewise with m - s and m' - s'. Implied are
    the counts of a group at the rate between a weak and a strong policy's (`selection.rates`) at which the measured
    groups stand on average. Without these rates rho is 0, and what is not measured goes back to Beta(1, 1).

    State: as of `Mopps`.
    """

    def __init__(self, config: ConfigDict, context: Context):
        super().__init__(config, context)
        self._rates = None
        if config.selection.rates:
            try:
                self._rates = embed.read(config.selection.rates, context.num_questions)
            except UserError as error:
                raise UserError(f"config.selection.rates: {error}") from error
            if self._rates.shape[1] != 2 or self._rates.min() < 0 or self._rates.max() > 1:
                raise UserError(
                    f"config.selection.rates={config.selection.rates} must hold the success rates of a weak and a "
                    "strong policy, from 0 to 1: two columns"
                )

    def observe(self, state: dict, measured: Measured):
        """The update above, of all questions."""
        rho, G = _RHO if self._rates is not None else 0.0, measured.rollouts
        decay = 1.0 if measured.is_reference else self.config.selection.decay  # once a batch
        s, m = (np.zeros(self.context.num_questions, np.float32) for _ in "sm")
        np.add.at(s, measured.ids, np.float32(measured.successes))
        np.add.at(m, measured.ids, np.float32(G))
        implied = 0.0
        if rho:
            weak, strong = self._rates[measured.ids].mean(0)
            at = np.clip((measured.rate.mean() - weak) / (strong - weak), 0, 1) if strong > weak else 0.5
            implied = self._rates @ np.float32([1 - at, at])
        explicit = {"alpha": s, "beta": m - s}
        implicit = {"alpha": G * implied, "beta": G * (1 - implied)}
        return {
            name: decay * state[name] + (1 - decay) + (1 - rho) * explicit[name] + rho * implicit[name]
            for name in state
        }

    def propose(self, state: dict, key: jax.Array, n: int, step: int):
        """One draw of Beta(alpha, beta) for each question; the nearest to a success rate of 1 - target."""
        drawn = np.asarray(jax.random.beta(key, state["alpha"], state["beta"]))
        return draw.nearest(1 - drawn, self.config.selection.target, n), state
