"""What each field of a config may be: one table for each program, in the order of its config file."""

import math
import re
from collections.abc import Callable, Mapping

from dots_jax.core.errors import UserError
from dots_jax.core.fields import flatten
from dots_jax.core.rules import LARGEST, Rule, flag, is_whole, must, number, one_of, real, shortened, some, text, whole

# The most of each thing counted: beyond it no machine has the memory, and nobody the time.
_QUESTIONS = 10**7  # their embeddings, of 896 float32 each, are 36 GB on the host
_STEPS = 10**6  # twelve days at a second each
_TOKENS = 2**20  # the longest Qwen2.5 has 1,010,000 positions
_ROWS = 10**6  # of a step; the paper has 4,096
_GROUP = 10**5  # completions of a question
_WIDTH = 2**15  # a square matrix of float32 is 4 GiB
_NUMBERS = 2**31  # in an array: 8 GiB of four bytes each
_RANDOM = 10**10  # parameters of a policy that is made at once on one device: 40 GB of float32


positive = real(lambda x: x > 0, "above 0")
not_negative = real(lambda x: x >= 0, "0 or above")
share = number(0, 1)
some_share = real(lambda x: 0 < x <= 1, "above 0 and at most 1")
dropout = real(lambda x: 0 <= x < 1, "from 0 to below 1")
or_greedy = real(lambda x: x >= 0, "0 (greedy) or above")
rate = real(lambda x: 0 < x <= 10, "above 0 and at most 10")
seed = whole(0, 2**32 - 1)
dtype = one_of("float32", "bfloat16", "float16")
calibration = one_of("code", "paper", "none")
mirrors = must(
    lambda x: isinstance(x, str) and {*x.split(",")} <= {"", "tensorboard", "wandb"},
    "tensorboard, wandb, both with a comma between, or nothing",
)
turn = one_of("system", "user", "only_user")  # of the instruction
clip = some(real(lambda x: 0 < x < 1, "between 0 and 1"), 1, 2)
betas = some(real(lambda x: 0 <= x < 1, "from 0 to below 1"), 2)
levels = some(number(0, 1000), 6)  # of arithmetic and countdown, a weight for each
axis = must(
    lambda x: is_whole(x) and (1 <= x <= LARGEST or x == -1), "a number of devices, or -1 for what the other axes leave"
)

SHAPE = {  # of a model; the largest published one has 80 layers, 64 heads and 152,064 tokens
    "width": whole(1, _WIDTH),
    "num_layers": whole(1, 1000),
    "num_heads": whole(1, 1024),
    "num_kv_heads": whole(1, 1024),
    "mlp_width": whole(1, 2**18),
    "rope_theta": positive,
    "norm_eps": positive,
    "tie_embeddings": flag,
    "max_positions": whole(1),
}
MESH = {f"mesh.{name}": axis for name in ("data", "fsdp", "tensor")}
RUN = {  # configs/common.py
    "name": text,
    "seed": seed,
    "log": mirrors,
    "policy.path": text,
    "policy.family": text,
    **{f"policy.random.{name}": rule for name, rule in SHAPE.items()},
    "policy.random.width": whole(0, _WIDTH),
    "policy.dtype": dtype,
    **MESH,
    "data.name": text,
    "data.root": text,
    "data.num_questions": whole(0, _QUESTIONS),
    "data.num_heldout": whole(1, _QUESTIONS),
    "data.seed": seed,
    "data.max_prompt_tokens": whole(1, _TOKENS),
    "data.where": must(lambda x: isinstance(x, str) and re.fullmatch("|[^=]+=.+", x), "COLUMN=VALUE|VALUE.., or empty"),
    "data.difficulty_column": text,
    "data.system": text,
    "data.instruction_in": turn,
    "reward.name": text,
    "reward.answer": one_of("box", "marked", "last"),
    "selection.name": text,
    "selection.interval": whole(1, _ROWS),
    "selection.target": share,
    "selection.temperature": positive,
    "selection.references": whole(0, _ROWS),
    "selection.reuse_references": whole(0, _ROWS),
    "selection.decay": some_share,
    "selection.head": one_of("ridge", "kernel", "adapter"),
    "selection.features": whole(1, _WIDTH),
    "selection.policy_features": flag,
    "selection.kappa": number(0, 1e6),
    "selection.caution": number(0, 100),
    "selection.per_token": flag,
    "selection.rates": text,
    "selection.max_draws": whole(1, 1000),
    "selection.screening": whole(1, _GROUP),
    "embedding.path": text,
    "embedding.dtype": dtype,
    "embedding.max_tokens": whole(1, _TOKENS),
    "embedding.standardise": flag,
    "embedding.cache": text,
    "predictor.path": text,
    "predictor.width": whole(1, _WIDTH),
    "predictor.calibration": calibration,
    "predictor.refit": flag,
    "predictor.context": one_of("reference", "window"),
    "predictor.labels": one_of("none", "reference", "groups"),
    "predictor.window": whole(1, _QUESTIONS),
    "predictor.half_life": positive,
    "predictor.steps": whole(1, _STEPS),
    "predictor.batch": whole(1, _ROWS),
    "predictor.references": whole(0, _ROWS),
    "predictor.learning_rate": rate,
    "predictor.weight_decay": not_negative,
    "predictor.dropout": dropout,
    "rollout.group_size": whole(2, _GROUP),  # a group of one has no advantage
    "rollout.max_tokens": whole(1, _TOKENS),
    "rollout.temperature": positive,
    "rollout.chunk": whole(1),
    "rollout.slots": whole(0),
    "replay.fresh_fraction": some_share,
    "replay.capacity": whole(1, _QUESTIONS),
    "replay.start": one_of("round", "full"),
    "replay.insert": one_of("batch", "useful"),
    "replay.max_age": whole(0),
    "replay.decay": not_negative,
    "replay.last_step": whole(0),
    "replay.draw_once": flag,
    "replay.positive_only": flag,
    "replay.scale_by_age": flag,
    "replay.gate": not_negative,
    "learner.minibatches": whole(1, _ROWS),
    "learner.micro_tokens": whole(1),
    "learner.logits_chunk": whole(1),
    "learner.clip": clip,
    "learner.loss": text,
    "learner.ratio_cap": positive,
    "learner.advantage_std": flag,
    "learner.aggregation": one_of("token", "sequence", "constant"),
    "learner.drop_silent": flag,
    "learner.repeat_useful": flag,
    "learner.mask_truncated": flag,
    "learner.kl_coef": not_negative,
    "learner.learning_rate": positive,  # what is too high is told when the run diverges
    "learner.warmup": whole(0),
    "learner.betas": betas,
    "learner.weight_decay": not_negative,
    "learner.max_grad_norm": positive,
    "learner.remat": one_of("none", "named", "full"),
    "learner.rescore_fresh": flag,
    "train.steps": whole(1, _STEPS),
    "train.batch_size": whole(1, _ROWS),
    "train.eval_every": whole(1),
    "train.checkpoint_every": whole(1),
    "train.keep_checkpoints": whole(1),
    "train.empty_buffer": flag,
    "train.mended_reward": flag,
    "eval.sets": text,
    "eval.questions": whole(0),
    "eval.samples": whole(1, _GROUP),
    "eval.temperature": or_greedy,
    "eval.top_p": some_share,
    "eval.batch": whole(0),
    "eval.greedy": flag,
    "completions.groups": whole(0),
    "completions.evaluations": whole(-1),
}
REPLACED = ("learner.micro_rows", "learner.length_buckets")  # among these: not only the name is another
RENAMED = {  # what fields of RUN were called before
    "learner.micro_rows": "learner.micro_tokens",
    "learner.length_buckets": "learner.micro_tokens",
    "data.label": "data.difficulty_column",
    "reward": "reward.name",
    "selection.every": "selection.interval",
    "selection.reuse": "selection.reuse_references",
    "predictor.attend": "predictor.context",
    "predictor.learn_from": "predictor.labels",
    "replay.fresh": "replay.fresh_fraction",
    "replay.until": "replay.last_step",
    "replay.once": "replay.draw_once",
    "learner.cap": "learner.ratio_cap",
    "learner.kl": "learner.kl_coef",
    "train.questions": "train.batch_size",
    "train.keep": "train.keep_checkpoints",
}
EVALUATE = {
    "model": text,
    "family": text,
    "sets": text,
    "questions": whole(0),
    "samples": whole(1, _GROUP),
    "temperature": or_greedy,
    "top_p": some_share,
    "max_tokens": whole(1),  # no more than the model has positions for
    "system": text,
    "instruction_in": turn,
    "reward.name": text,
    "reward.answer": one_of("box", "marked", "last"),
    "root": text,
    "dtype": dtype,
    "batch": whole(1, _ROWS),
    "chunk": whole(1),
    "slots": whole(0),
    "seed": seed,
    **MESH,
}
FIT = {  # configs/difficulty_fit.py
    "seed": seed,
    "rates": text,
    "embeddings": text,
    "features": flag,
    "folds": whole(0),
    "references": whole(2, _ROWS),
    "calibration": calibration,
    "refit": flag,
    "batch": whole(1, _ROWS),
    "learning_rate": rate,
    "epochs": whole(1, _STEPS),
    "patience": whole(1),
    "width": whole(1, _WIDTH),
    "dropout": dropout,
    "noise": number(0, 100),
    "average": share,
    "teacher": share,
}
PRETRAIN = {  # configs/quickstart_pretrain.py
    "task": one_of("arithmetic", "countdown"),
    "seed": seed,
    **{f"model.{name}": rule for name, rule in SHAPE.items()},
    "num_questions": whole(1, _QUESTIONS),
    "num_heldout": whole(1, _QUESTIONS),
    "data_seed": seed,
    "level_weights": levels,
    "mistakes": levels,
    "careless_after": share,
    "steps": whole(1, _STEPS),
    "batch": whole(1, _ROWS),
    "learning_rate": rate,
    "warmup": whole(0),
}
_ARRAYS = (  # fields whose product is the size of an array; a 0 stands for all of something and is left out
    ("train.batch_size", "rollout.group_size", "rollout.max_tokens"),
    ("selection.references", "rollout.group_size", "rollout.max_tokens"),
    ("replay.capacity", "rollout.group_size", "rollout.max_tokens"),
    ("eval.batch", "eval.samples"),
    ("data.num_heldout", "eval.samples"),
    ("selection.interval", "train.batch_size"),
    ("predictor.batch", "predictor.references"),
    ("predictor.window", "predictor.width"),
    ("batch", "samples"),
    ("batch", "references"),
)


def check(config, rules: Mapping[str, Rule]) -> None:
    """Raises UserError at the first field whose value is not what its rule says, or at arrays that nothing holds."""
    values = flatten(config.to_dict())
    for field, rule in rules.items():
        if field in values and (expected := rule(values[field])):
            raise UserError(f"config.{field}={shortened(values[field])} must be {expected}")
    for fields in _ARRAYS:
        sizes = {f: values[f] for f in fields if values.get(f)}
        if len(sizes) > 1 and math.prod(sizes.values()) > _NUMBERS:
            product = " x ".join(f"config.{f}={size}" for f, size in sizes.items())
            raise UserError(f"{product} is more than any machine holds ({_NUMBERS:,} numbers in an array); lower one")
    for group in ("policy.random", "model"):
        shape = {field: values.get(f"{group}.{field}") for field in SHAPE}
        if shape["width"]:
            check_shape(shape, lambda field, group=group: f"config.{group}.{field}")
            _check_random(group, shape)


def check_shape(shape: Mapping, name: Callable[[str], str]) -> None:
    """Raises UserError where no model has the `shape` (fields of `ModelConfig`); `name` says how a field is called."""
    for field, rule in (SHAPE | {"vocab_size": whole(1, 2**22), "head_dim": whole(2, _WIDTH)}).items():
        if field in shape and (expected := rule(shape[field])):
            raise UserError(f"{name(field)}={shortened(shape[field])} must be {expected}")
    width, heads, shared = (shape[field] for field in ("width", "num_heads", "num_kv_heads"))
    if shape.get("head_dim", 0) % 2:
        raise UserError(f"{name('head_dim')}={shape['head_dim']} must be even")
    if not shape.get("head_dim") and (width % heads or width // heads % 2):
        raise UserError(f"{name('width')}={width} does not divide into {name('num_heads')}={heads} heads of even width")
    if heads % shared:
        raise UserError(f"{name('num_heads')}={heads} does not divide by {name('num_kv_heads')}={shared}")


def _check_random(group: str, shape: Mapping) -> None:
    """Raises UserError where a policy of random weights would be too large to be made."""
    D, F, L = (shape[field] for field in ("width", "mlp_width", "num_layers"))
    count = L * (2 * D * D + 2 * D * D * shape["num_kv_heads"] // shape["num_heads"] + 3 * D * F)
    if count > _RANDOM:
        raise UserError(
            f"config.{group} has a shape of {count:,} parameters; random weights are for at most {_RANDOM:,}, lower "
            "width, mlp_width or num_layers"
        )
