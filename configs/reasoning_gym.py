"""Tasks of the package reasoning-gym (arXiv 2505.24760) at every level of their curricula, with its own scores.

Its authors' runs (github.com/open-thought/reasoning-gym, training/configs): Qwen2.5-3B-Instruct by GRPO on 20,000
entries, 8 completions of up to 1,024 tokens at temperature 1, 32 questions a step, learning rate 1e-6, up to 500 steps,
4 GPUs; arithmetic is fraction_simplification, gcd and lcm in equal shares.
"""

from configs import common


def get_config(which: str = "qwen2.5-3b"):
    """After the colon a policy, `tiny` among them, a method and a preset: `reasoning_gym.py:tiny,grpo`."""
    c = common.get_config()
    c.name = f"reasoning_gym:{which}"
    c.data.name = "reasoning_gym:fraction_simplification,gcd,lcm"
    c.data.num_questions, c.data.num_heldout = 8192, 256
    c.data.max_prompt_tokens = 512
    c.data.system = "Think step by step, then write the final answer alone between <answer> and </answer>."
    c.reward.name = "reasoning_gym"
    common.apply(c, which, policy="qwen2.5-3b")
    c.rollout.max_tokens = min(c.rollout.max_tokens, 1024)
    if c.policy.random.width:  # tiny
        c.data.num_questions, c.data.num_heldout = 512, 32
    return c
