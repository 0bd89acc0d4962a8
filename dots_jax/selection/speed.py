"""SPEED: some completions of each question show whether it is worth the others (arXiv 2506.09016)."""

from ml_collections import ConfigDict

from dots_jax.core.errors import UserError
from dots_jax.selection.base import Context
from dots_jax.selection.dapo import Dapo


class Speed(Dapo):
    """Shuffled epochs; `selection.screening` completions of each question, and the rest where these differ.

    As in `Dapo` up to `selection.max_draws` batches of questions are looked at in a step. The paper lets one call of
    the sampler screen the next batch and go on with this one, which saves time and no tokens; here they are two. It
    keeps questions that are ready beyond a batch for the next; here they are let go, which costs what screened them. At
    the cap the batch is filled up with questions whose screened completions are all equal.
    """

    @classmethod
    def check(cls, config: ConfigDict):
        """Screening leaves something to be sampled, and can show a difference."""
        n, G = config.selection.screening, config.rollout.group_size
        if not 2 <= n < G:
            raise UserError(
                f"config.selection.screening={n} must be from 2 to below config.rollout.group_size={G}; set it"
            )

    @classmethod
    def calls(cls, config: ConfigDict):
        """One that screens a draw, and one for the rest."""
        n = config.selection.screening
        return config.selection.max_draws * [n] + [config.rollout.group_size - n]

    def __init__(self, config: ConfigDict, context: Context):
        super().__init__(config, context)
        self.screening = config.selection.screening
