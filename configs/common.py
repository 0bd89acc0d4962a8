"""Every field of a run, at the paper's values (arXiv 2506.05316); experiments override what differs."""

from ml_collections import ConfigDict

from dots_jax.core.errors import UserError

# The paper's, for runs and evaluations alike.
SYSTEM = r"Let's think step by step and output the final answer within \boxed{}."
SETS = "gsm8k,math500,minerva,olympiadbench"


def get_config() -> ConfigDict:
    """The fields that all experiments share. `policy.path` and `data.name` are left to them."""
    c = ConfigDict()
    c.name = ""  # shown on the screen
    c.seed = 0  # one seed; every draw is fold_in(key, purpose, step)
    c.log = "tensorboard"  # gets the numbers of metrics.jsonl: tensorboard | wandb | both with a comma | "": neither

    c.policy = ConfigDict()
    c.policy.path = ""  # directory (relative ones here, beside the package, below data.root), or name on the hub
    c.policy.family = ""  # its architecture; "": by the model_type of its config.json | FILE.py:NAME
    c.policy.random = ConfigDict()  # shape of a policy of random weights with the tokenizer of `path`
    c.policy.random.width = 0  # 0: the weights of `path`
    c.policy.random.num_layers = 2
    c.policy.random.num_heads = 4
    c.policy.random.num_kv_heads = 2
    c.policy.random.mlp_width = 128
    c.policy.random.rope_theta = 10000.0
    c.policy.random.norm_eps = 1e-6
    c.policy.random.tie_embeddings = True
    c.policy.random.max_positions = 2048
    c.policy.dtype = "bfloat16"  # parameters and activations, or float16, float32; the optimizer's are always float32

    c.mesh = ConfigDict()  # devices along each axis; -1 takes what the others leave
    c.mesh.data = -1  # rows split, parameters copied
    c.mesh.fsdp = 1  # rows and parameters split
    c.mesh.tensor = 1  # heads, feed-forward width and vocabulary split

    c.data = ConfigDict()
    # math | deepscaler[10k] | orz | deepmath | gsm8k_train | elementary | file | folder
    # | owner/dataset[:configuration]:split | arithmetic | countdown[:characters] | reasoning_gym:TASK,TASK,..
    c.data.name = ""
    c.data.root = ""  # directory of question files; "": the environment's DOTS_DATA, and what is not there from the hub
    c.data.num_questions = 8192  # questions in the pool (N), drawn from what is left after cleaning; 0: all
    # Held-out questions of those that are made, and where eval.sets is "": at most a quarter of a pool.
    c.data.num_heldout = 512
    c.data.seed = 0  # draws the pool and the held-out set; apart from the run's seed
    c.data.max_prompt_tokens = 1024  # questions with longer prompts are left out and counted (S)
    c.data.where = ""  # rows of the pool that are taken: COLUMN=VALUE|VALUE.., such as source=addsub|singleop; "": all
    c.data.difficulty_column = ""  # external; "-" before it: larger is easier; "": the pool's own
    c.data.system = SYSTEM  # instruction with each question, through the tokenizer's chat template; "": none
    # system: the turn before the question; without an instruction no template | user: on a line after the question |
    # only_user: likewise, and the template's own system prompt is left out.
    c.data.instruction_in = "system"

    c.reward = ConfigDict()  # on the command line --config.reward=NAME will do
    # math: final against gold answer | exact: text after the last ">" | proxy: for random weights
    # | countdown | reasoning_gym | FILE.py:NAME
    c.reward.name = "math"
    c.reward.answer = "box"  # last \boxed{} | marked: else behind #### or "answer is" | last: else number

    c.selection = ConfigDict()
    # uniform | dots | posterior | mopps | bots | greso | pcl | graph | dapo | speed | prompt_replay | snis
    # | static | oracle | FILE.py:NAME
    c.selection.name = "dots"  # how questions are chosen
    c.selection.interval = 2  # steps between selection rounds (mu)
    c.selection.target = 0.5  # failure rate that is drawn around (alpha)
    c.selection.temperature = 1e-3  # of that draw (tau)
    c.selection.references = 256  # questions whose difficulty is measured in each round (M)
    c.selection.reuse_references = 0  # how many, nearest to alpha, a round's first step trains on; released code 0
    c.selection.decay = 0.95  # of counts: in a round (posterior, graph), a batch (bots), a measurement (mopps)
    c.selection.head = "kernel"  # what predicts from features in posterior: kernel | ridge | adapter
    c.selection.features = 256  # landmarks for kernel, components of the embedding for ridge
    c.selection.policy_features = False  # posterior: also by the policy's hidden states at all prompts, read each round
    c.selection.kappa = 0.0  # completions that this prediction counts for beside those measured; 0: fitted
    c.selection.caution = 0.8  # posterior deviations that are added to the distance from the target
    c.selection.per_token = False  # posterior: by the chance of a mixed group per expected token, not near the target
    c.selection.rates = ""  # bots: .npy [N, 2], success rates of a weak and a strong policy; "": without them
    c.selection.max_draws = 10  # of a step, until all its groups are mixed: dapo, speed
    c.selection.screening = 4  # completions that speed looks at before it samples the others

    c.embedding = ConfigDict()  # frozen, of the questions' texts
    c.embedding.path = ""  # Hugging Face directory, or a .npy of [N, D]; "": the policy as it starts
    c.embedding.dtype = "bfloat16"  # parameters and activations
    c.embedding.max_tokens = 1024  # of a text; the rest is cut off
    c.embedding.standardise = False  # each number over the pool; predictors trained elsewhere want raw ones
    c.embedding.cache = "runs/embeddings"  # directory

    c.predictor = ConfigDict()  # of difficulty, from the embeddings and the references
    c.predictor.path = ""  # trained before: .safetensors, .npz or the authors' .pt; "": starts from nothing
    c.predictor.width = 896  # of both towers
    c.predictor.calibration = "code"  # code | paper | none
    c.predictor.refit = True  # least-squares line through the references after it: released code True, paper False
    c.predictor.context = "reference"  # what predictions are made of: reference (this round's) | window (all labels)
    c.predictor.labels = "reference"  # labels it trains on: none | reference | groups (trained ones too)
    c.predictor.window = 2048  # labels kept, in groups; the oldest go first
    c.predictor.half_life = 10.0  # steps in which a label's weight in training halves
    c.predictor.steps = 50  # optimizer steps per round
    c.predictor.batch = 256  # labels per optimizer step
    c.predictor.references = 256  # labels that each attends to there; 0: all
    c.predictor.learning_rate = 1e-3
    c.predictor.weight_decay = 0.0
    c.predictor.dropout = 0.1

    c.rollout = ConfigDict()
    c.rollout.group_size = 8  # completions per question (G)
    c.rollout.max_tokens = 3072  # per completion, end token included (T)
    c.rollout.temperature = 0.6  # of sampler and learner alike; no top-p (it would change the distribution)
    c.rollout.chunk = 32  # decode steps between looks at finished rows, whose slots are then handed on
    c.rollout.slots = 0  # completions decoded at a time, on all devices; 0: as many as they do well with and can hold

    c.replay = ConfigDict()
    c.replay.fresh_fraction = 0.5  # of a step's groups are generated, the others are drawn (delta); 1: no replay
    c.replay.capacity = 512  # groups in the buffer (C)
    c.replay.start = "round"  # round: from the second selection round on (released code) | full: once it holds a draw
    c.replay.insert = "batch"  # batch: in place of the oldest delta x B (released code) | useful: of as many as needed
    c.replay.max_age = 0  # steps; older groups are not drawn; 0: no limit
    c.replay.decay = 0.0  # tau, steps: groups are drawn with weights exp(-age / tau); 0: all alike
    c.replay.last_step = 0  # last step that replays; 0: to the end
    c.replay.draw_once = False  # a group that was drawn leaves the buffer
    c.replay.positive_only = False  # replayed completions worse than their group's mean get no gradient
    c.replay.scale_by_age = False  # a replayed group's gradient is multiplied by 1 / (1 + age)
    c.replay.gate = 0.0  # z-score of a leap in the output matrix's gradient that ends replay; 0: none does

    c.learner = ConfigDict()
    c.learner.minibatches = 8  # optimizer steps per training step
    c.learner.micro_tokens = 8192  # per forward and backward pass, on each device; at least a row's
    c.learner.logits_chunk = 2048  # of them whose logits exist at once
    c.learner.clip = (0.2, 0.2)  # epsilon below and above a ratio of 1; on the command line one number: both
    c.learner.loss = "decoupled"  # replayed groups: decoupled (code) | plain (paper) | truncated_is | FILE.py:NAME
    c.learner.ratio_cap = 2.0  # of the ratio of proximal to behaviour policy: in "truncated_is", and with rescore_fresh
    c.learner.advantage_std = True  # divide by the group's standard deviation (released code); False: paper
    c.learner.aggregation = "token"  # token | sequence | constant (Dr. GRPO)
    c.learner.drop_silent = False  # groups whose rewards are all equal do not count in the aggregation
    c.learner.repeat_useful = False  # copies of the batch's useful groups stand in for those
    c.learner.mask_truncated = False  # completions that reached max_tokens get no gradient and do not count either
    c.learner.kl_coef = 0.0  # beta of the k3 penalty against the initial policy; 0 runs no reference forward
    c.learner.learning_rate = 1e-6
    c.learner.warmup = 0  # optimizer steps of linear warm-up
    c.learner.betas = (0.9, 0.999)
    c.learner.weight_decay = 0.01  # released code; paper 0
    c.learner.max_grad_norm = 1.0
    c.learner.remat = "named"  # what the backward pass computes again: none | named (all but products) | full
    c.learner.rescore_fresh = True  # fresh rows' log-probs by the learner's own forward pass, but in float32

    c.train = ConfigDict()
    c.train.steps = 60
    c.train.batch_size = 512  # groups trained on per step (B)
    c.train.eval_every = 5  # steps; step 0 and the last are always evaluated
    c.train.checkpoint_every = 5  # steps
    c.train.keep_checkpoints = 2  # checkpoints kept
    c.train.empty_buffer = False  # a run that continues drops its buffer if sizes have changed; False: an error
    c.train.mended_reward = False  # a run may continue with another file of its reward; False: an error

    c.eval = ConfigDict()
    # With commas between; also amc23, aime24, files, folders, owner/dataset[:configuration]:split; "": data.num_heldout
    c.eval.sets = SETS
    c.eval.questions = 0  # of each set, drawn by data.seed; 0: all
    c.eval.samples = 1  # completions per held-out question
    c.eval.temperature = 0.6  # 0: greedy
    c.eval.top_p = 0.95  # mass of the likeliest tokens that are sampled from; 1: all
    c.eval.batch = 0  # rows at a time; 0: all, each graded while others are generated
    c.eval.greedy = True  # also the likeliest completion of each question, before the first and after the last step

    c.completions = ConfigDict()  # what completions.jsonl holds
    c.completions.groups = 1  # of each step, drawn from fresh ones, from references, and from those replayed; 0: none
    c.completions.evaluations = -1  # held-out questions of each evaluation, evenly spaced; -1: all
    return c


def dots_code(c: ConfigDict) -> None:
    """Sets every flag in which paper and released code differ as the released code has it."""
    c.selection.reuse_references = 0
    c.predictor.calibration, c.predictor.refit = "code", True
    c.replay.start, c.replay.insert, c.learner.loss = "round", "batch", "decoupled"
    c.learner.advantage_std, c.learner.aggregation, c.learner.weight_decay = True, "token", 0.01


def dots_paper(c: ConfigDict) -> None:
    """Sets every flag in which paper and released code differ as the paper has it."""
    c.selection.reuse_references = c.selection.references // 4  # 6% of a round's groups where M = B / 2; paper 4 to 12%
    c.predictor.calibration, c.predictor.refit = "paper", False
    c.replay.start, c.replay.insert, c.learner.loss = "full", "useful", "plain"
    c.learner.advantage_std, c.learner.aggregation, c.learner.weight_decay = False, "sequence", 0.0


def modern(c: ConfigDict) -> None:
    """Sets the update as later work than the paper has it: DAPO's clip, no deviation, no tokens of silent groups."""
    c.learner.clip, c.learner.advantage_std = (0.2, 0.28), False
    c.learner.aggregation, c.learner.drop_silent, c.learner.kl_coef = "token", True, 0.0


def grpo(c: ConfigDict) -> None:
    """GRPO: uniform selection, no replay."""
    c.selection.name, c.replay.fresh_fraction = "uniform", 1.0


def dots(c: ConfigDict) -> None:
    """Difficulty-targeted selection alone."""
    c.selection.name, c.replay.fresh_fraction = "dots", 1.0


def rr(c: ConfigDict) -> None:
    """Rollout replay alone, at the config's share of fresh groups."""
    c.selection.name = "uniform"


def dots_rr(c: ConfigDict) -> None:
    """Both, at the config's share of fresh groups."""
    c.selection.name = "dots"


def math_1_5b(c: ConfigDict) -> None:
    """Qwen2.5-Math-1.5B: 4,096 positions. For eight devices of 80 GB."""
    c.policy.path = "Qwen/Qwen2.5-Math-1.5B"
    _split(c)


def base_0_5b(c: ConfigDict) -> None:
    """Qwen2.5-0.5B."""
    c.policy.path = "Qwen/Qwen2.5-0.5B"
    _split(c)


def base_1_5b(c: ConfigDict) -> None:
    """Qwen2.5-1.5B."""
    c.policy.path = "Qwen/Qwen2.5-1.5B"
    _split(c)


def base_3b(c: ConfigDict) -> None:
    """Qwen2.5-3B: completions of up to 4,096 tokens. For eight devices of 80 GB."""
    c.policy.path, c.rollout.max_tokens = "Qwen/Qwen2.5-3B", 4096
    _split(c)


def math_7b(c: ConfigDict) -> None:
    """Qwen2.5-Math-7B: 4,096 positions. For eight devices of 80 GB."""
    c.policy.path = "Qwen/Qwen2.5-Math-7B"
    _split(c)


def instruct_0_5b(c: ConfigDict) -> None:
    """Qwen2.5-0.5B-Instruct. For one device of 80 GB."""
    c.policy.path = "Qwen/Qwen2.5-0.5B-Instruct"


def instruct_1_5b(c: ConfigDict) -> None:
    """Qwen2.5-1.5B-Instruct. For one device of 80 GB."""
    c.policy.path = "Qwen/Qwen2.5-1.5B-Instruct"


def tiny(c: ConfigDict) -> None:
    """The same pipeline in minutes on two CPU cores: real questions and tokenizer, a small policy of random weights.

    It solves nothing; with `reward=proxy` it has something to learn.
    """
    c.policy.path, c.policy.random.width, c.policy.dtype = "Qwen/Qwen2.5-0.5B", 64, "float32"
    c.data.max_prompt_tokens = 192
    c.selection.references, c.selection.temperature = 16, 0.03
    c.embedding.dtype, c.embedding.max_tokens = "float32", 192
    small_predictor(c)
    c.predictor.references = 64
    c.rollout.max_tokens, c.rollout.chunk = 16, 15
    c.rollout.temperature = c.eval.temperature = 0.1  # random weights make small logits: at 1 little is learned
    c.replay.capacity = 16
    c.learner.minibatches, c.learner.micro_tokens, c.learner.logits_chunk = 2, 512, 512
    c.learner.learning_rate, c.learner.remat = 1.5e-3, "none"
    c.train.steps, c.train.batch_size = 30, 8
    c.eval.questions, c.eval.top_p = 16, 1.0
    _split(c)


def _split(c: ConfigDict) -> None:
    """Parameters and optimizer are split over all devices, however many there are."""
    c.mesh.data, c.mesh.fsdp = 1, -1


def small_predictor(c: ConfigDict) -> None:
    """A predictor for pools of some thousand questions, which learns from all that is measured; seconds on a CPU."""
    c.embedding.standardise = True
    c.predictor.width, c.predictor.steps, c.predictor.batch, c.predictor.references = 64, 25, 128, 128
    c.predictor.dropout, c.predictor.context, c.predictor.labels, c.predictor.window = 0.0, "window", "groups", 512


PRESETS = {"dots_code": dots_code, "dots_paper": dots_paper, "modern": modern}
METHODS = {"grpo": grpo, "dots": dots, "rr": rr, "dots_rr": dots_rr}
POLICIES = {
    "qwen2.5-math-1.5b": math_1_5b,
    "qwen2.5-math-7b": math_7b,
    "qwen2.5-0.5b": base_0_5b,
    "qwen2.5-1.5b": base_1_5b,
    "qwen2.5-3b": base_3b,
    "qwen2.5-0.5b-instruct": instruct_0_5b,
    "qwen2.5-1.5b-instruct": instruct_1_5b,
    "tiny": tiny,
}


def apply(c: ConfigDict, words: str, policy: str | None = None) -> None:
    """Applies a policy, a method and a preset: names of these, or of some, joined by commas.

    `policy` is the one that is meant where none is named; None: the config has its own.
    """
    kinds = {"a preset": PRESETS, "a method": METHODS}
    if policy is not None:
        kinds = {"a policy": POLICIES} | kinds
    functions = {name: function for kind in kinds.values() for name, function in kind.items()}
    words = [word.strip() for word in words.split(",") if word.strip()]
    for kind in kinds.values():
        if sum(word in kind for word in words) > 1:
            raise UserError(f"only one of {', '.join(kind)} at a time; the config's argument is {','.join(words)}")
    if policy and not any(word in POLICIES for word in words):
        words = [policy, *words]
    # Policies first: methods and presets change some of what they set.
    for word in sorted(words, key=lambda word: word not in POLICIES):
        if word not in functions:
            choices = ", ".join(f"{what} ({', '.join(kind)})" for what, kind in kinds.items())
            raise UserError(f"no {word!r} in the config's argument; it is {choices}, or several by commas")
        functions[word](c)
