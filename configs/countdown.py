"""Countdown: an equation of the given numbers, each used exactly once, that equals the target; after TinyZero.

What others report, all with 3 to 4 numbers of Countdown-Tasks-3to4, whose rewards want each number exactly once:

* TinyZero (github.com/Jiayi-Pan/TinyZero): base Qwen2.5 by PPO; 3B on 2 GPUs, 1.5B and below on one, for under $30.
  0.5B guesses and stops, from 1.5B on search is learned (x.com/jiayi_pirate/status/1882839370505621655).
* Mini-R1 (philschmid.de/mini-deepseek-r1): Qwen2.5-3B-Instruct by GRPO, 8 completions, learning rate 5e-7, on 4 H100:
  success near 0.25 at step 100, 0.40 at 200, 0.50 at 450, after 6 hours.

`twin` is a policy of 0.3M parameters with numbers up to 9, on CPUs; docs/recipes.md has what it learns.
"""

from configs import common, quickstart


def get_config(which: str = "qwen2.5-3b"):
    """After the colon a policy, `twin` among them, a method and a preset: `countdown.py:twin,grpo`."""
    words = [word.strip() for word in which.split(",")]
    if "twin" in words:
        c = quickstart.get_config(",".join(word for word in words if word != "twin") or "dots")
        _twin(c)
    else:
        c = common.get_config()
        c.data.name = "countdown"
        c.data.max_prompt_tokens = 256
        common.apply(c, which, policy="qwen2.5-3b")
        c.rollout.max_tokens = min(c.rollout.max_tokens, 1024)  # as Mini-R1
    c.name = f"countdown:{which}"
    c.reward.name = "countdown"
    return c


def _twin(c) -> None:
    """What differs from the quickstart."""
    c.policy.path = "assets/countdown_policy"
    c.data.name = "countdown:characters"
    c.data.num_questions, c.data.num_heldout = 2048, 256  # as in pretraining, which never showed those held out
    c.rollout.max_tokens = 10
