"""What each field of a config may be, before anything is loaded and once policy and mesh are there."""

import math
from collections.abc import Callable, Mapping

from dots_jax.core.errors import UserError
from dots_jax.core.files import LARGEST, is_number, is_whole, shortened

# The most of each thing counted: beyond it no machine has the memory, and nobody the time.
_QUESTIONS = 10**7  # their embeddings, of 896 float32 each, are 36 GB on the host
_STEPS = 10**6  # twelve days at a second each
_TOKENS = 2**20  # the longest Qwen2.5 has 1,010,000 positions
_ROWS = 10**6  # of a step; the paper has 4,096
_GROUP = 10**5  # completions of a question
_WIDTH = 2**15  # a square matrix of float32 is 4 GiB
_NUMBERS = 2**31  # in an array: 8 GiB of four bytes each
_RANDOM = 10**10  # parameters of a policy that is made at once on one device: 40 GB of float32

SHAPE = {  # of a model; the largest published one has 80 layers, 64 heads and 152,064 tokens
    "width": (1, _WIDTH),
    "num_layers": (1, 1000),
    "num_heads": (1, 1024),
    "num_kv_heads": (1, 1024),
    "mlp_width": (1, 2**18),
    "max_positions": (1, LARGEST),
    "vocab_size": (1, 2**22),
}
LIMITS = {  # field: lowest and highest whole number
    "seed": (0, 2**32 - 1),
    "policy.random.width": (0, _WIDTH),
    "data.num_questions": (0, _QUESTIONS),
    "data.num_heldout": (1, _QUESTIONS),
    "data.seed": (0, 2**32 - 1),
    "data.max_prompt_tokens": (1, _TOKENS),
    "selection.every": (1, _ROWS),
    "selection.references": (1, _ROWS),
    "selection.reuse": (0, _ROWS),
    "embedding.max_tokens": (1, _TOKENS),
    "predictor.width": (1, _WIDTH),
    "predictor.window": (1, _QUESTIONS),
    "predictor.steps": (1, _STEPS),
    "predictor.batch": (1, _ROWS),
    "predictor.references": (0, _ROWS),
    "rollout.group_size": (2, _GROUP),  # a group of one has no advantage
    "rollout.max_tokens": (1, _TOKENS),
    "rollout.chunk": (1, LARGEST),
    "rollout.slots": (0, LARGEST),
    "replay.capacity": (1, _QUESTIONS),
    "replay.max_age": (0, LARGEST),
    "replay.until": (0, LARGEST),
    "learner.minibatches": (1, _ROWS),
    "learner.micro_rows": (1, _ROWS),
    "learner.length_buckets": (1, 1000),  # each is a program to compile
    "learner.logits_chunk": (1, LARGEST),
    "learner.warmup": (0, LARGEST),
    "train.steps": (1, _STEPS),
    "train.questions": (1, _ROWS),
    "train.eval_every": (1, LARGEST),
    "train.checkpoint_every": (1, LARGEST),
    "train.keep": (1, LARGEST),
    "eval.questions": (0, LARGEST),
    "eval.samples": (1, _GROUP),
    "eval.batch": (0, LARGEST),
    # Without a group: of configs/evaluate.py, difficulty_fit.py and quickstart_pretrain.py.
    "questions": (0, LARGEST),
    "samples": (1, _GROUP),
    "max_tokens": (1, LARGEST),  # no more than the model has positions for
    "chunk": (1, LARGEST),
    "slots": (0, LARGEST),
    "batch": (1, _ROWS),
    "references": (2, _ROWS),
    "width": (1, _WIDTH),
    "epochs": (1, _STEPS),
    "patience": (1, LARGEST),
    "num_questions": (1, _QUESTIONS),
    "num_heldout": (1, _QUESTIONS),
    "data_seed": (0, 2**32 - 1),
    "steps": (1, _STEPS),
    "warmup": (0, LARGEST),
}
_ARRAYS = (  # fields whose product is the size of an array; a 0 stands for all of something and is left out
    ("train.questions", "rollout.group_size", "rollout.max_tokens"),
    ("selection.references", "rollout.group_size", "rollout.max_tokens"),
    ("replay.capacity", "rollout.group_size", "rollout.max_tokens"),
    ("eval.batch", "eval.samples"),
    ("data.num_heldout", "eval.samples"),
    ("selection.every", "train.questions"),
    ("predictor.batch", "predictor.references"),
    ("predictor.window", "predictor.width"),
    ("batch", "samples"),
    ("batch", "references"),
)
_REALS = (  # field, test, what is wanted
    ("selection.target", lambda x: 0 <= x <= 1, "from 0 to 1"),
    ("selection.temperature", lambda x: x > 0, "above 0"),
    ("predictor.half_life", lambda x: x > 0, "above 0"),
    ("predictor.learning_rate", lambda x: x > 0, "above 0"),
    ("predictor.weight_decay", lambda x: x >= 0, "0 or above"),
    ("predictor.dropout", lambda x: 0 <= x < 1, "from 0 to below 1"),
    ("rollout.temperature", lambda x: x > 0, "above 0"),
    ("eval.temperature", lambda x: x >= 0, "0 (greedy) or above"),
    ("eval.top_p", lambda x: 0 < x <= 1, "above 0 and at most 1"),
    ("replay.fresh", lambda x: 0 < x <= 1, "above 0 and at most 1"),
    ("learner.cap", lambda x: x > 0, "above 0"),
    ("learner.clip", lambda x: 0 < x < 1, "between 0 and 1"),
    ("learner.kl", lambda x: x >= 0, "0 or above"),
    ("learner.learning_rate", lambda x: x > 0, "above 0"),  # what is too high is told when the run diverges
    ("learner.weight_decay", lambda x: x >= 0, "0 or above"),
    ("learner.max_grad_norm", lambda x: x > 0, "above 0"),
    ("temperature", lambda x: x >= 0, "0 (greedy) or above"),
    ("top_p", lambda x: 0 < x <= 1, "above 0 and at most 1"),
    ("learning_rate", lambda x: 0 < x <= 10, "above 0 and at most 10"),
    ("dropout", lambda x: 0 <= x < 1, "from 0 to below 1"),
    ("noise", lambda x: 0 <= x <= 100, "from 0 to 100"),
    ("average", lambda x: 0 <= x <= 1, "from 0 to 1"),
    ("teacher", lambda x: 0 <= x <= 1, "from 0 to 1"),
    ("careless_after", lambda x: 0 <= x <= 1, "from 0 to 1"),
)
_NAMES = {
    "reward": ("exact", "math", "proxy"),
    "policy.dtype": ("float32", "bfloat16"),
    "dtype": ("float32", "bfloat16"),
    "embedding.dtype": ("float32", "bfloat16"),
    "predictor.calibration": ("code", "paper", "none"),
    "calibration": ("code", "paper", "none"),
    "predictor.attend": ("reference", "window"),
    "predictor.learn_from": ("none", "reference", "groups"),
    "replay.start": ("round", "full"),
    "replay.insert": ("batch", "useful"),
    "learner.loss": ("decoupled", "plain", "truncated"),
    "learner.aggregation": ("token", "sequence", "constant"),
}
_AXES = ("data", "fsdp", "tensor")
_ABSENT = object()


def check(config) -> None:
    """Raises UserError at the first value that no run can use; fields that the config lacks are not checked."""
    for field, limits in LIMITS.items():
        if (value := _get(config, field)) is not _ABSENT:
            _checkis_whole(f"config.{field}", value, *limits)
    for field, test, wanted in _REALS:
        if (value := _get(config, field)) is not _ABSENT:
            _check_real(f"config.{field}", value, test, wanted)
    for group in ("policy.random", "model"):
        shape = _get(config, group)
        if _is_group(shape) and (group == "model" or shape.width):  # in configs/evaluate.py it is a path
            check_shape(shape, lambda field, group=group: f"config.{group}.{field}")
            _check_made(group, shape)
    for fields in _ARRAYS:
        sizes = {f: size for f in fields if (size := _get(config, f)) is not _ABSENT and size}
        if len(sizes) > 1 and math.prod(sizes.values()) > _NUMBERS:
            said = " x ".join(f"config.{f}={size}" for f, size in sizes.items())
            raise UserError(f"{said} is more than any machine holds ({_NUMBERS:,} numbers in an array); lower one")
    for field, names in _NAMES.items():
        value = _get(config, field)
        if value is not _ABSENT and not (isinstance(value, str) and value in names):
            _refuse(f"config.{field}", value, f"one of {', '.join(names)}")
    betas = _get(config, "learner.betas")
    if betas is not _ABSENT and not (
        isinstance(betas, tuple | list) and len(betas) == 2 and all(is_number(b) and 0 <= b < 1 for b in betas)
    ):
        _refuse("config.learner.betas", betas, "two numbers of at least 0 and below 1")
    axes = [_get(config, f"mesh.{axis}") for axis in _AXES]
    for axis, size in zip(_AXES, axes, strict=True):
        if size is not _ABSENT and not (is_whole(size) and (1 <= size <= LARGEST or size == -1)):
            _refuse(f"config.mesh.{axis}", size, "a number of devices, or -1 for what the other axes leave")
    if axes.count(-1) > 1:
        raise UserError(f"config.mesh has -1 on {axes.count(-1)} axes; only one can take what the others leave")
    _check_batch(config)
    _check_replay(config)


def check_loaded(config, rule, shards: int, model, longest_prompt: int, pool: int) -> None:
    """Raises UserError where the batch does not divide over `shards` devices, a row is too long for the model, or the
    `pool` questions that there are do not suffice.
    """
    if pool != config.data.num_questions:
        config = config.copy_and_resolve_references()
        config.data.num_questions = pool
        try:
            check(config)
        except UserError as error:
            raise UserError(f"{pool:,} questions are left of the pool: {error}") from error
    rows = config.learner.micro_rows
    if rows % shards:
        raise UserError(
            f"config.learner.micro_rows={rows} does not divide over the mesh's data x fsdp = {shards} devices; "
            f"use a multiple of {shards}"
        )
    if rule.draws and any(count % shards for count in (rule.questions, rule.generated, rule.slots)):
        raise UserError(
            f"config.train.questions={rule.questions}, the {rule.generated} of them that are fresh "
            f"(config.replay.fresh={rule.fresh}) and config.replay.capacity={rule.capacity} must all divide over the "
            f"mesh's data x fsdp = {shards} devices; use multiples of {shards}, or other config.mesh axes"
        )
    if longest_prompt + config.rollout.max_tokens > model.max_positions:
        raise UserError(
            f"prompts of up to {longest_prompt} tokens and config.rollout.max_tokens={config.rollout.max_tokens} "
            f"exceed the policy's {model.max_positions} positions; lower config.rollout.max_tokens"
        )


def _check_batch(config) -> None:
    questions, parts = _get(config, "train.questions"), _get(config, "learner.minibatches")
    if questions is not _ABSENT and parts is not _ABSENT and questions % parts:
        raise UserError(
            f"config.train.questions={questions} does not divide into config.learner.minibatches={parts} equal "
            f"parts; use {max(1, questions // parts) * parts} questions or another number of minibatches"
        )
    group, micro = _get(config, "rollout.group_size"), _get(config, "learner.micro_rows")
    if _ABSENT not in (questions, parts, group, micro) and questions // parts * group % micro:
        raise UserError(
            f"the {questions // parts * group} rows of a minibatch (config.train.questions / "
            f"config.learner.minibatches x config.rollout.group_size) do not divide into micro-batches of "
            f"config.learner.micro_rows={micro}"
        )
    pool, every = _pool(config), _get(config, "selection.every")
    if _ABSENT not in (questions, pool) and questions > pool:
        raise UserError(
            f"config.train.questions={questions} is more than the pool's config.data.num_questions={pool}; "
            "lower the first or raise the second"
        )
    name = _get(config, "selection.name")
    if name in ("dots", "oracle") and _ABSENT not in (questions, every, pool) and questions * every > pool:
        raise UserError(
            f"a selection round draws {questions * every} distinct questions (config.train.questions={questions} x "
            f"config.selection.every={every}) from a pool of config.data.num_questions={pool}; raise that, lower them"
        )
    if name == "dots":
        _check_dots(config, questions, pool)


def _check_replay(config) -> None:
    questions, share, capacity = (_get(config, f) for f in ("train.questions", "replay.fresh", "replay.capacity"))
    if _ABSENT in (questions, share, capacity) or share == 1:
        return
    fresh = round(share * questions)
    if abs(fresh - share * questions) > 1e-6 or not fresh:
        raise UserError(
            f"config.replay.fresh={share} of config.train.questions={questions} is {share * questions:g} groups; use a "
            f"share that gives a whole number, such as {max(fresh, 1) / questions:g}"
        )
    if capacity < max(fresh, questions - fresh):
        raise UserError(
            f"config.replay.capacity={capacity} is less than the {questions - fresh} groups that a step draws or the "
            f"{fresh} that it adds (config.replay.fresh={share} of config.train.questions={questions}); raise it"
        )
    pool, until, every = _pool(config), _get(config, "replay.until"), _get(config, "selection.every")
    if _ABSENT in (pool, until, every):
        return
    if capacity > pool:
        raise UserError(
            f"config.replay.capacity={capacity} is more than the pool's config.data.num_questions={pool}; lower it: a "
            "question has one group at most in the buffer"
        )
    if 0 < until <= every and _get(config, "replay.start") == "round":
        raise UserError(
            f"config.replay.until={until} ends replay before it starts, after the config.selection.every={every} steps "
            "of the first round; raise it, or set config.replay.fresh=1 for no replay"
        )


def _check_dots(config, questions: int, pool: int) -> None:
    references, reuse = _get(config, "selection.references"), _get(config, "selection.reuse")
    window, learn = _get(config, "predictor.window"), _get(config, "predictor.learn_from")
    if _ABSENT in (questions, pool, references, reuse, window, learn):
        return
    if references > pool:
        raise UserError(
            f"config.selection.references={references} is more than the pool's config.data.num_questions={pool}; "
            "lower it"
        )
    share = _get(config, "replay.fresh")
    fresh = questions if share is _ABSENT else round(share * questions)
    if reuse > references or reuse >= fresh:
        raise UserError(
            f"config.selection.reuse={reuse} must be at most config.selection.references={references} and below the "
            f"{fresh} fresh groups of a step (config.replay.fresh of config.train.questions={questions})"
        )
    if window < references:
        raise UserError(
            f"config.predictor.window={window} holds less than the config.selection.references={references} of one "
            "round; raise it"
        )
    if learn == "none" and not _get(config, "predictor.path"):
        raise UserError(
            "config.predictor.learn_from is 'none' and config.predictor.path is empty: nothing would be learned; "
            "give a trained predictor, or learn from 'reference' or 'groups'"
        )


def _pool(config):
    """Questions in the pool, as far as the config says it."""
    return _get(config, "data.num_questions") or _ABSENT


def _is_group(value) -> bool:
    from ml_collections import ConfigDict  # here: the GPU check has no config, and runs without the package

    return isinstance(value, ConfigDict)


def _get(config, field: str):
    for name in field.split("."):
        if not _is_group(config) or name not in config:
            return _ABSENT
        config = config[name]
    return config


def check_shape(shape: Mapping, name: Callable[[str], str]) -> None:
    """Raises UserError where no model has the `shape` (fields of `qwen2.Config`); `name` says how a field is called."""
    for field, limits in SHAPE.items():
        if field in shape:
            _checkis_whole(name(field), shape[field], *limits)
    for field in ("rope_theta", "norm_eps"):
        _check_real(name(field), shape[field], lambda x: x > 0, "above 0")
    width, heads, shared = (shape[field] for field in ("width", "num_heads", "num_kv_heads"))
    if width % heads or width // heads % 2:
        raise UserError(f"{name('width')}={width} does not divide into {name('num_heads')}={heads} heads of even width")
    if heads % shared:
        raise UserError(f"{name('num_heads')}={heads} does not divide by {name('num_kv_heads')}={shared}")


def _check_made(group: str, shape: Mapping) -> None:
    """Raises UserError where a policy of random weights would be too large to be made."""
    D, F, L = (shape[field] for field in ("width", "mlp_width", "num_layers"))
    count = L * (2 * D * D + 2 * D * D * shape["num_kv_heads"] // shape["num_heads"] + 3 * D * F)
    if count > _RANDOM:
        raise UserError(
            f"config.{group} has a shape of {count:,} parameters; random weights are for at most {_RANDOM:,}, lower "
            "width, mlp_width or num_layers"
        )


def _checkis_whole(name: str, value, low: int, high: int) -> None:
    if not (is_whole(value) and value >= low):
        _refuse(name, value, f"a whole number of at least {low}")
    if value > high:
        _refuse(name, value, f"at most {high:,}")


def _check_real(name: str, value, test: Callable[[float], bool], wanted: str) -> None:
    tiny = is_number(value) and 0 < abs(value) < 1e-30  # float32 would make it 0
    if tiny or not (is_number(value) and test(value)):
        _refuse(name, value, f"a number {wanted}" + ", and no nearer to 0 than 1e-30" * tiny)


def _refuse(name: str, value, wanted: str):
    raise UserError(f"{name}={shortened(value)} must be {wanted}")
