"""The paper's runs on 8,192 questions of DeepMath-103K (arXiv 2506.05316)."""

from configs import common


def get_config(which: str = "qwen2.5-3b"):
    """After the colon a policy, `tiny` among them, a method and a preset: `deepmath.py:tiny,grpo`."""
    c = common.get_config()
    c.name = f"deepmath:{which}"
    c.data.name = "deepmath"
    c.data.num_questions = 8192  # of 103 thousand
    common.apply(c, which, policy="qwen2.5-3b")
    return c
