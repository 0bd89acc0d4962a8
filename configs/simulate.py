"""How `python -m dots_jax.simulate` makes selectors: the fields of a run, with the quickstart's small predictor."""

from configs import common, quickstart


def get_config():
    """Every visit of the history is a selection round of one step, all of whose groups are generated."""
    c = quickstart.get_config("dots")
    c.name = "simulate"
    c.selection.interval = 1  # visits are rounds, whatever is given here
    c.selection.references = 64  # M; also --references
    c.selection.reuse_references = 0
    c.selection.caution = common.get_config().selection.caution  # the quickstart's suits its pool
    c.train.batch_size = 128  # B; also --batch
    return c
