"""Your own questions, for a small instruct policy on one machine: name `policy.path` and `data.name` (docs/own.md)."""

from configs import common


def get_config(which: str = "dots_rr"):
    """For files of some hundred questions and more; `:grpo`, `:dots` and `:rr` leave out a part."""
    c = common.get_config()
    c.name = f"own:{which}"
    c.data.num_questions = 0  # all that are left
    c.data.num_heldout = 64  # and never trained on: eval.sets is empty

    c.selection.references = 16
    c.selection.temperature = 0.03  # a draw as sharp as the paper's comes back to few questions of so small a pool
    common.small_predictor(c)

    c.rollout.max_tokens = 512
    c.replay.capacity = 32
    c.learner.minibatches = 2
    c.train.steps = 100
    c.train.batch_size = 16
    c.train.eval_every = 10
    c.train.checkpoint_every = 10
    c.eval.sets = ""
    c.eval.samples = 2
    common.apply(c, which)
    return c
