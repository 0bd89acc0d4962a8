"""The embedded default: a 0.3M-parameter Qwen2.5 learns arithmetic with DOTS on two CPU cores in minutes."""

from configs import common


def get_config(which: str = "dots_rr"):
    """On the procedural pool; `:grpo`, `:dots` and `:rr` leave out a part, `:dots_paper` takes the paper's flags."""
    c = common.get_config()
    c.name = f"quickstart:{which}"
    c.policy.path = "assets/quickstart_policy"
    c.policy.dtype = "float32"

    c.data.name = "arithmetic"
    c.data.system = ""
    c.reward.name = "exact"
    c.data.num_questions = 4096
    c.data.max_prompt_tokens = 16
    c.data.seed = 0  # the policy has never seen this seed's held-out questions; of another's it may have seen some

    c.selection.temperature = 0.03  # a draw as sharp as the paper's comes back to few questions of so small a pool
    c.selection.caution = 0.5  # more of it brings questions back too often here
    c.selection.references = 8
    c.selection.reuse_references = 4
    c.embedding.dtype = "float32"
    common.small_predictor(c)

    c.rollout.max_tokens = 32
    c.rollout.temperature = 1.0
    c.rollout.chunk = 8

    c.replay.capacity = 64
    c.replay.last_step = 40  # a third of the run: replay speeds up the beginning and harms the end

    c.learner.minibatches = 2
    c.learner.micro_tokens = 128
    c.learner.logits_chunk = 128
    c.learner.learning_rate = 1e-4  # the best of 5e-5, 1e-4 and 2e-4 for uniform and for dots
    c.learner.warmup = 10
    c.learner.remat = "none"

    c.train.steps = 120
    c.train.batch_size = 16
    c.train.eval_every = 10
    c.train.checkpoint_every = 20

    c.eval.samples = 2
    c.eval.temperature = 1.0
    c.eval.top_p = 1.0
    common.apply(c, which)
    return c
