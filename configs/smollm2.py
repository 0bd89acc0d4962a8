"""A pretrained language model on two CPU cores: SmolLM2-135M-Instruct learns one-step word problems."""

from configs import common


def get_config(which: str = "grpo"):
    """After the colon `grpo`, `dots` or `dots_rr`, and a preset."""
    c = common.get_config()
    c.name = f"smollm2:{which}"
    c.policy.path = "HuggingFaceTB/SmolLM2-135M-Instruct"
    c.policy.dtype = "float32"  # the faster one on CPUs

    c.data.name = "elementary"
    c.data.where = "source=singleop|addsub"
    c.data.num_questions = 0
    c.data.num_heldout = 100
    c.data.max_prompt_tokens = 160
    c.data.system = "Answer with a number."
    c.data.instruction_in = "user"
    c.reward.answer = "last"
    c.eval.sets = ""

    c.selection.references = 8
    c.selection.temperature = 0.03
    c.embedding.dtype = "float32"
    common.small_predictor(c)

    c.rollout.max_tokens = 64
    c.rollout.temperature = 0.7
    c.rollout.chunk = 16

    c.replay.capacity = 64

    c.learner.minibatches = 1
    c.learner.micro_tokens = 1024
    c.learner.logits_chunk = 512
    c.learner.learning_rate = 2e-5
    c.learner.remat = "none"

    c.train.steps = 60
    c.train.batch_size = 16
    c.train.eval_every = 15
    c.train.checkpoint_every = 5

    c.eval.samples = 2
    c.eval.temperature = 0.7
    c.eval.top_p = 1.0
    c.eval.greedy = False
    common.apply(c, which)
    return c
