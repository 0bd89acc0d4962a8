"""DAPO's dynamic sampling: batches are drawn until all groups have a gradient (arXiv 2503.14476)."""

from ml_collections import ConfigDict

from dots_jax.selection.base import Context
from dots_jax.selection.uniform import Uniform


class Dapo(Uniform):
    """Shuffled epochs; up to `selection.max_draws` batches a step, of which the first mixed groups are trained on.

    Where these do not suffice the batch is filled up with groups that have no gradient.
    """

    @classmethod
    def calls(cls, config: ConfigDict):
        """One a draw."""
        return config.selection.max_draws * [config.rollout.group_size]

    def __init__(self, config: ConfigDict, context: Context):
        super().__init__(config, context)
        self.max_draws = config.selection.max_draws
