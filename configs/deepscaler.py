"""The paper's runs on 10,240 questions of DeepScaleR (arXiv 2506.05316)."""

from configs import common


def get_config(which: str = "qwen2.5-math-1.5b"):
    """After the colon a policy, `tiny` among them, a method and a preset: `deepscaler.py:qwen2.5-math-7b,grpo`."""
    c = common.get_config()
    c.name = f"deepscaler:{which}"
    c.data.name = "deepscaler"
    c.data.num_questions = 10240  # of 40 thousand; the authors' own draw: --config.data.name=deepscaler10k
    common.apply(c, which, policy="qwen2.5-math-1.5b")
    return c
