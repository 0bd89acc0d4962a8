"""Checks of a config's values: what can be refused before anything is loaded, and what needs policy and mesh."""

from dots_jax.errors import UserError

_COUNTS = (
    "data.num_heldout",
    "data.max_prompt_tokens",
    "selection.every",
    "selection.references",
    "embedding.max_tokens",
    "predictor.width",
    "predictor.window",
    "predictor.steps",
    "predictor.batch",
    "rollout.max_tokens",
    "rollout.chunk",
    "replay.capacity",
    "learner.minibatches",
    "learner.micro_rows",
    "learner.length_buckets",
    "learner.logits_chunk",
    "train.steps",
    "train.questions",
    "train.eval_every",
    "train.checkpoint_every",
    "train.keep",
    "eval.samples",
    "samples",  # this and the others without a group: of configs/evaluate.py
    "max_tokens",
    "chunk",
    "batch",
)
_FROM_ZERO = (
    "seed",
    "data.seed",
    "data.num_questions",
    "policy.random.width",
    "eval.questions",
    "eval.batch",
    "questions",
    "slots",
    "selection.reuse",
    "predictor.references",
    "rollout.slots",
    "replay.max_age",
    "replay.until",
    "learner.warmup",
)
_FLOORS = (  # field, lowest whole number
    *((field, 1) for field in _COUNTS),
    ("rollout.group_size", 2),  # a group of one has no advantage
    *((field, 0) for field in _FROM_ZERO),
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
    ("temperature", lambda x: x >= 0, "0 (greedy) or above"),
    ("top_p", lambda x: 0 < x <= 1, "above 0 and at most 1"),
    ("replay.fresh", lambda x: 0 < x <= 1, "above 0 and at most 1"),
    ("learner.cap", lambda x: x > 0, "above 0"),
    ("learner.clip", lambda x: 0 < x < 1, "between 0 and 1"),
    ("learner.kl", lambda x: x >= 0, "0 or above"),
    ("learner.learning_rate", lambda x: x > 0, "above 0"),
    ("learner.weight_decay", lambda x: x >= 0, "0 or above"),
    ("learner.max_grad_norm", lambda x: x > 0, "above 0"),
)
_NAMES = {
    "reward": ("exact", "math", "proxy"),
    "policy.dtype": ("float32", "bfloat16"),
    "dtype": ("float32", "bfloat16"),
    "embedding.dtype": ("float32", "bfloat16"),
    "predictor.calibration": ("code", "paper", "none"),
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
    for field, low in _FLOORS:
        value = _get(config, field)
        if value is not _ABSENT and not (_whole(value) and value >= low):
            _refuse(field, value, f"a whole number of at least {low}")
    for field in ("seed", "data.seed"):
        if _get(config, field) is not _ABSENT and _get(config, field) >= 2**32:
            _refuse(field, _get(config, field), "below 2**32")
    for field, test, wanted in _REALS:
        value = _get(config, field)
        if value is not _ABSENT and not (_number(value) and test(value)):
            _refuse(field, value, f"a number {wanted}")
    for field, names in _NAMES.items():
        value = _get(config, field)
        if value is not _ABSENT and value not in names:
            _refuse(field, value, f"one of {', '.join(names)}")
    betas = _get(config, "learner.betas")
    if betas is not _ABSENT and not (
        isinstance(betas, tuple | list) and len(betas) == 2 and all(_number(b) and 0 <= b < 1 for b in betas)
    ):
        _refuse("learner.betas", betas, "two numbers of at least 0 and below 1")
    axes = [_get(config, f"mesh.{axis}") for axis in _AXES]
    for axis, size in zip(_AXES, axes, strict=True):
        if size is not _ABSENT and not (_whole(size) and (size >= 1 or size == -1)):
            _refuse(f"mesh.{axis}", size, "a number of devices, or -1 for what the other axes leave")
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


def _get(config, field: str):
    for name in field.split("."):
        if name not in config:
            return _ABSENT
        config = config[name]
    return config


def _whole(value) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _number(value) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < float("inf")


def _refuse(field: str, value, wanted: str):
    raise UserError(f"config.{field}={value!r} must be {wanted}")
