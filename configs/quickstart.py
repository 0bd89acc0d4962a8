"""The embedded default: a 0.3M-parameter Qwen2.5 learns arithmetic by GRPO on two CPU cores in minutes."""

from configs import common


def get_config():
    """Uniform GRPO on the procedural pool."""
    c = common.get_config()
    c.name = "quickstart"
    c.policy.path = "assets/quickstart_policy"
    c.policy.dtype = "float32"

    c.data.name = "arithmetic"
    c.data.num_questions = 4096
    c.data.max_prompt_tokens = 16
    c.data.seed = 0  # the policy has never seen this seed's held-out questions; of another's it may have seen some

    c.rollout.max_tokens = 32
    c.rollout.temperature = 1.0
    c.rollout.chunk = 32  # all at once: one shape to compile

    c.learner.minibatches = 2
    c.learner.micro_rows = 32
    c.learner.length_buckets = 3
    c.learner.logits_chunk = 32
    c.learner.learning_rate = 5e-5
    c.learner.warmup = 10
    c.learner.weight_decay = 0.0
    c.learner.remat = True  # also faster here: less memory traffic

    c.train.steps = 100
    c.train.questions = 32
    c.train.eval_every = 10
    c.train.checkpoint_every = 20

    c.eval.samples = 2
    c.eval.temperature = 1.0
    return c
