"""The paper's runs on 8,192 questions of Open-Reasoner-Zero's 57 thousand (arXiv 2506.05316)."""

from configs import common


def get_config(which: str = "qwen2.5-math-1.5b"):
    """After the colon a policy, `tiny` among them, a method and a preset: `orz.py:tiny,grpo`."""
    c = common.get_config()
    c.name = f"orz:{which}"
    c.data.name = "orz"
    c.data.num_questions = 8192  # of 57 thousand
    common.apply(c, which, policy="qwen2.5-math-1.5b")
    return c
