"""GSM8K's training questions with a small instruct policy, on one device of 80 GB."""

from configs import common


def get_config(which: str = "qwen2.5-0.5b-instruct"):
    """After the colon a policy, `tiny` among them, a method and a preset: `gsm8k.py:qwen2.5-1.5b-instruct,grpo`."""
    c = common.get_config()
    c.name = f"gsm8k:{which}"
    c.data.name = "gsm8k_train"
    c.data.num_questions = 0  # all 7,473
    c.data.max_prompt_tokens = 384
    c.reward.answer = "last"
    c.rollout.max_tokens = 512
    c.rollout.temperature = 1.0
    c.selection.references = 64
    c.replay.capacity = 128
    c.learner.minibatches = 2
    c.train.steps, c.train.batch_size = 200, 128
    c.train.eval_every, c.train.checkpoint_every = 20, 20
    c.eval.sets = "gsm8k"
    common.apply(c, which, policy="qwen2.5-0.5b-instruct")
    return c
