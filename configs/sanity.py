"""Whether a method learns at all: questions that the policy solves now and then, trained on until it solves them.

python -m dots_jax.probe --config=configs/quickstart.py --questions=512 --workdir=runs/sanity
python -m dots_jax.main --config=configs/sanity.py --config.data.name=runs/sanity/probe/kept.jsonl
"""

from configs import quickstart


def get_config(which: str = "grpo"):
    """The quickstart's policy on `data.name`, the questions that `dots_jax.probe` keeps; accuracy is that on these.

    For another policy give its `policy.path`, `data.system`, `reward` and `rollout` as to the probe.
    """
    c = quickstart.get_config(which)
    c.name = f"sanity:{which}"
    c.data.name = "runs/sanity/probe/kept.jsonl"
    c.data.num_questions = 0  # all that were kept
    c.data.max_prompt_tokens = 1024
    c.eval.sets = c.data.get_ref("name")
    c.learner.learning_rate = 2e-4
    c.train.steps, c.train.eval_every = 100, 20
    return c
