"""The paper's runs on MATH, levels 3 to 5, without MATH-500 (arXiv 2506.05316)."""

from configs import common


def get_config(which: str = "qwen2.5-math-1.5b"):
    """After the colon a policy, `tiny` among them, a method and a preset: `math.py:tiny,grpo`."""
    c = common.get_config()
    c.name = f"math:{which}"
    c.data.name = "math"
    c.data.num_questions = 0  # all that are left, about 8,900; the file with training questions alone has 5,500
    common.apply(c, which, policy="qwen2.5-math-1.5b")
    return c
