"""Makes a policy of characters: supervised training of a tiny Qwen2.5 on demonstrations, first right, then careless.

python -m dots_jax.pretrain --config=configs/quickstart_pretrain.py --workdir=assets/quickstart_policy
python -m dots_jax.pretrain --config=configs/quickstart_pretrain.py:countdown --workdir=assets/countdown_policy
"""

import functools
import tempfile
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from ml_collections import ConfigDict

from dots_jax.core import command_line, config_rules, rng, runtime
from dots_jax.core.arithmetic import round_up
from dots_jax.core.errors import UserError
from dots_jax.data import arithmetic, countdown
from dots_jax.policy import huggingface, scoring, transformer
from dots_jax.policy import tokenizer as tok
from dots_jax.policy.transformer import ModelConfig

HELP = """\
Trains a policy of characters from nothing on demonstrations and writes it to --workdir in Hugging Face layout.

usage: python -m dots_jax.pretrain [--config=FILE[:TASK]] [--workdir=DIR] [--config.FIELD=VALUE ...]

The default config is {default}; its tasks are arithmetic, that of the quickstart, and countdown.
"""
TASKS = {"arithmetic": (arithmetic, {}), "countdown": (countdown, {"words": False})}  # module, arguments of its `make`


def _loss(
    params: dict, model_config: ModelConfig, tokens: jax.Array, prompt_lengths: jax.Array, lengths: jax.Array
) -> jax.Array:
    """Mean negative log-likelihood of the completion tokens of rows [B, T]."""
    logp, _ = scoring.token_logprobs(params, model_config, tokens, lengths)
    mask = jnp.arange(tokens.shape[1]) >= prompt_lengths[:, None]
    return -(logp * mask).sum() / (lengths - prompt_lengths).sum()


def pretrain(config: ConfigDict, directory: str) -> None:
    """Runs the recipe of `configs/quickstart_pretrain.py` and writes the policy to `directory`."""
    if config.warmup >= config.steps:
        raise UserError(f"config.warmup={config.warmup} must be below config.steps={config.steps}")
    huggingface.check_target(directory)
    runtime.full_precision(jnp.float32)
    with tempfile.TemporaryDirectory() as scratch:
        tokenizer = tok.build_characters(TASKS[config.task][0].ALPHABET, scratch)
        model_config = ModelConfig(**config.model, vocab_size=len(tokenizer), num_tokens=len(tokenizer))
        params = _train(config, model_config, tokenizer)
        huggingface.save(directory, model_config, params, tokenizer_dir=scratch)
    print(f"policy written to {directory}: {sum(x.size for x in jax.tree.leaves(params)):,} parameters")


def _train(config: ConfigDict, model_config: ModelConfig, tokenizer: Any) -> dict:
    task, arguments = TASKS[config.task]
    _, eval_set = task.make(config.num_questions, config.num_heldout, config.data_seed, **arguments)
    params = transformer.init(model_config, rng.stream(jax.random.key(config.seed), rng.Purpose.INIT, 0))
    schedule = optax.warmup_cosine_decay_schedule(0.0, config.learning_rate, config.warmup, config.steps)
    optimizer = optax.chain(optax.clip_by_global_norm(1.0), optax.adamw(schedule, b2=0.98, weight_decay=0.01))

    @functools.partial(jax.jit, donate_argnums=(0, 1))
    def step(params, opt_state, batch):
        loss, grads = jax.value_and_grad(_loss)(params, model_config, *batch)
        updates, opt_state = optimizer.update(grads, opt_state, params)
        return optax.apply_updates(params, updates), opt_state, loss

    opt_state = optimizer.init(params)
    generator, i = np.random.default_rng(config.seed), 0
    while i < config.steps:
        mistakes = config.mistakes if i >= config.careless_after * config.steps else None
        for batch in _batches(generator, tokenizer, config, set(eval_set.texts), mistakes):
            params, opt_state, loss = step(params, opt_state, batch)
            i += 1
            if i % max(1, config.steps // 20) == 0:
                print(f"step {i}/{config.steps}  loss {loss:.4f}", flush=True)
    return params


def _batches(generator: np.random.Generator, tokenizer: Any, config: ConfigDict, exclude: set[str], mistakes: Any):
    """Four batches of rows (tokens [B, T], prompt lengths, lengths), shortest first in random order, 16 n wide."""
    n, task = 4 * config.batch, TASKS[config.task][0]
    texts, completions, levels = task.demonstrations(generator, n, config.level_weights, exclude)
    if mistakes is not None:
        completions = [
            task.with_mistakes(generator, completion, mistakes[level - 1])
            for completion, level in zip(completions, levels, strict=True)
        ]
    prompts, prompt_lengths = tok.encode(tokenizer, texts, task.MAX_PROMPT)
    answers, answer_lengths = tok.encode(tokenizer, completions, task.MAX_COMPLETION)
    lengths = prompt_lengths + answer_lengths + 1  # id 0 ends a completion
    rows = np.zeros((n, round_up(lengths.max(), 16)), np.int32)
    for row, p, k, a, m in zip(rows, prompts, prompt_lengths, answers, answer_lengths, strict=True):
        row[:k], row[k : k + m] = p[:k], a[:m]
    parts = np.split(np.argsort(lengths, kind="stable"), 4)
    batches = [(rows[p, : round_up(lengths[p].max(), 16)], prompt_lengths[p], lengths[p]) for p in parts]
    return [batches[i] for i in generator.permutation(4)]


def main(argv: list[str] | None = None) -> int:
    """Trains as the flags say; returns the exit code."""
    return command_line.run(pretrain, "configs/quickstart_pretrain.py", HELP, argv, rules=config_rules.PRETRAIN)


if __name__ == "__main__":
    command_line.end(main())
