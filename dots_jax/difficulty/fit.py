"""Trains a difficulty predictor offline on measured success rates, and says how good it is.

python -m dots_jax.difficulty.fit --rates=RATES.parquet --embeddings=EMB.npy --workdir=DIR
"""

import dataclasses
import functools
import json
import os
import re
import sys
import time
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import optax
from ml_collections import ConfigDict

from dots_jax.core import command_line, config_rules, files, picture, text
from dots_jax.core.errors import UserError
from dots_jax.difficulty import leave_out, predictor
from dots_jax.difficulty.baselines import ATTENTION, REGRESSIONS, kernel_ridge, raw_attention
from dots_jax.difficulty.rates import Predict, Table, mean, read, split
from dots_jax.run import metrics

HELP = """\
Trains a difficulty predictor on measured success rates, and compares it with simpler ones on held-out questions.
The default recipe distils kernel ridge regression on these rates; {default}:paper is the paper's.

usage: python -m dots_jax.difficulty.fit --rates=FILE --embeddings=FILE [--workdir=DIR] [--config.FIELD=VALUE ...]

  --rates=FILE            parquet with columns problem, policy, success_rate (0 to 1); several policies may have
                          measured a problem, one row each; also rollouts, the number of
                          completions behind a rate, from which the highest correlation possible is known
  --embeddings=FILE       .npy [distinct problems, D], in the order in which the problems first appear in the table
  --workdir=DIR           where everything is written (default: runs/<name of the config>)
  --config=FILE[:ARG]     the recipe (default: {default})
  --config.FIELD=VALUE    sets one field of it, such as --config.width=128
  --compilation_cache=DIR|off
                          where compiled programs are kept (default: dots_jax/compiled in the user's cache)

In the workdir: predictor.safetensors, report.json, report.png.
"""
FILES = (predictor.FILE, "report.json", "report.png")
BASELINES = {"raw attention": (raw_attention, ATTENTION)} | REGRESSIONS


@dataclasses.dataclass(frozen=True)
class EpochSpec:
    """What the jitted epoch is specialised to."""

    steps: int  # of the whole training
    learning_rate: float
    dropout: float
    calibration: str
    average: float

    def optimizer(self) -> optax.GradientTransformation:
        """Adam with linear warm-up of min(100, 10%) of the steps and linear decay to 0."""
        warmup = min(100, self.steps // 10)
        parts = [(0.0, self.learning_rate, warmup), (self.learning_rate, 0.0, self.steps - warmup)]
        return optax.adam(optax.join_schedules([optax.linear_schedule(*part) for part in parts], [warmup]))


@functools.partial(jax.jit, static_argnames="spec", donate_argnames="state")
def _epoch(state: tuple, embeddings: jax.Array, batches: dict, key: jax.Array, spec: EpochSpec):
    """One pass over `batches`; each leaf has a leading axis of steps, "reference" holds rows of `embeddings`.

    state: parameters, their running average, the optimizer's state. Returns the new state and the mean loss.
    """

    def loss(params: dict, batch: dict, key: jax.Array):
        predicted = predictor.forward(
            params, batch["query"], embeddings[batch["reference"]], batch["difficulty"], spec.calibration,
            mask=batch["mask"], dropout_key=key if spec.dropout else None, dropout=spec.dropout,
        )  # fmt: skip
        return predictor.cross_entropy(predicted, batch["label"])

    def step(state: tuple, batch_and_key: tuple):
        params, average, opt_state = state
        value, gradient = jax.value_and_grad(loss)(params, *batch_and_key)
        updates, opt_state = spec.optimizer().update(gradient, opt_state, params)
        params = optax.apply_updates(params, updates)
        average = optax.incremental_update(params, average, 1 - spec.average)
        return (params, average, opt_state), value

    state, losses = jax.lax.scan(step, state, (batches, jax.random.split(key, len(batches["label"]))))
    return state, losses.mean()


def train(
    config: ConfigDict, table: Table, questions: np.ndarray, kernel: tuple[float, float], epochs: int,
    on_epoch: Callable[[int, dict, float], bool],
) -> dict:  # fmt: skip
    """A predictor trained on `questions` of the table and on nothing else; returns its parameters.

    Of the schedule of `config.epochs` the first `epochs` are run. A batch is of one policy: queries, references and
    labels. A query is its question's embedding and up to `config.noise` times the difference of two others, noise with
    the embeddings' own covariance; it looks at no label of its own question. Its label is what kernel ridge regression
    (`kernel`: scale and penalty) on `questions` says of the noisy embedding, by the share `config.teacher`, and for
    the rest what was measured: with 1, the default recipe, that regression is distilled and measured rates enter as
    the teacher's labels and as those of the references.
    Returned is the running average of the parameters over the steps.
    on_epoch(epoch, params, loss) is called after each epoch and ends the training where it returns True.
    """
    rng = np.random.default_rng([config.seed, 1])
    groups = table.ids_by_policy(questions)
    batch = min(config.batch, *map(len, groups))
    per_epoch = sum(len(group) // batch for group in groups)
    x, key = table.embeddings, jax.random.key(config.seed)
    params = predictor.init(key, x.shape[1], config.width)
    teachers = [
        kernel_ridge(x[group], labels[group], *kernel) if config.teacher else lambda query: 0.0
        for group, labels in zip(groups, table.difficulty, strict=True)
    ]
    steps = config.epochs * per_epoch
    spec = EpochSpec(steps, config.learning_rate, config.dropout, config.calibration, config.average)
    state = (params, jax.tree.map(jnp.copy, params), spec.optimizer().init(params))
    for epoch in range(1, epochs + 1):
        parts = []
        for group, labels, teacher in zip(groups, table.difficulty, teachers, strict=True):
            ids = rng.permutation(group)[: len(group) // batch * batch]
            amount = config.noise * rng.random((len(ids), 1), np.float32)
            first, second = rng.choice(group, (2, len(ids)))
            query = x[ids] + amount * (x[first] - x[second])
            taught = np.clip(teacher(query), 0, 1)
            label = config.teacher * taught + (1 - config.teacher) * labels[ids]
            references = np.stack([rng.choice(group, config.references, False) for _ in range(len(ids) // batch)])
            ids = ids.reshape(-1, batch)
            parts.append({
                "query": query.reshape(*ids.shape, -1),
                "reference": references,
                "difficulty": labels[references],
                "mask": ids[:, :, None] != references[:, None],
                "label": label.reshape(ids.shape).astype(np.float32),
            })  # fmt: skip
        order = rng.permutation(per_epoch)
        batches = jax.tree.map(lambda *leaves, order=order: np.concatenate(leaves)[order], *parts)
        state, loss = _epoch(state, x, batches, jax.random.fold_in(key, epoch), spec)
        if on_epoch(epoch, state[1], float(loss)):
            break
    return state[1]


def fit(config: ConfigDict, workdir: str) -> dict:
    """Trains, compares and writes `FILES` to `workdir`; returns the report. Raises UserError."""
    start = time.perf_counter()
    if os.path.exists(os.path.join(workdir, metrics.FILE)):
        raise UserError(f"--workdir={workdir} holds a run of dots_jax.main and its predictor; use another")
    table = read(config.rates, config.embeddings)
    parts = split(len(table.embeddings), config.seed)
    _enough(config, table, parts)
    try:
        os.makedirs(workdir, exist_ok=True)
    except OSError as error:
        raise UserError(f"cannot write to --workdir={workdir}: {error.strerror}; use another") from error
    training, validation, eval_ids = parts.values()
    rest = np.concatenate([training, validation])
    print(
        f"difficulty predictor of width {config.width} for embeddings of {table.embeddings.shape[1]} numbers\n"
        f"{config.rates}: {len(table.embeddings):,} questions, {len(table.policies)} policies: "
        f"{', '.join(table.policies[:4])}{', ...' if len(table.policies) > 4 else ''}\n"
        f"split by question (seed {config.seed}): {len(training):,} to train on, {len(validation):,} for "
        f"validation, {len(eval_ids):,} held out; {config.references} references",
        flush=True,
    )
    table = table.with_text() if config.features else table
    baselines = {name: how for name, how in BASELINES.items() if config.features or "text" not in name}
    labelled = _labelled(table, config, training, 2)
    judge = functools.partial(_judge, table, validation)
    choices = {name: _best(name, table, labelled[name], judge) for name in baselines}
    params, curve = _learn(config, table, parts, choices["kernel ridge"], print)
    labelled = _labelled(table, config, rest, 3)
    predicted = {"predictor": _adapter(config, table, params, labelled["predictor"])}
    predicted |= {name: _fitted(name, choices[name], table, labelled[name]) for name in baselines}
    by_policy = {name: _judge(table, eval_ids, predict) for name, predict in predicted.items()}
    report = {
        "evaluation": {name: mean(rows) for name, rows in by_policy.items()},
        "by_policy": {name: dict(zip(table.policies, rows, strict=True)) for name, rows in by_policy.items()},
        "leave_policies_out": _leave_out(config, table, parts),
        "chosen": {name: list(values) for name, values in choices.items()} | {"epochs": _best_epoch(curve)},
        "validation_pearson": curve,
        "questions": {name: len(ids) for name, ids in parts.items()},
        "config": config.to_dict(),
        "seconds": time.perf_counter() - start,
    }
    _print(report)
    paths = [os.path.join(workdir, name) for name in FILES]
    predictor.save(paths[0], params)
    text = json.dumps(files.plain(report), indent=2, allow_nan=False)
    files.write_text(paths[1], text)
    _draw(paths[2], table, eval_ids, predicted, report)
    print(f"{report['seconds']:.0f} s; written: {', '.join(paths)}")
    return report


def _learn(config: ConfigDict, table: Table, parts: dict, kernel: tuple, tell: Callable) -> tuple[dict, list[float]]:
    """The predictor's parameters, trained on all but held-out questions, and the validation Pearson of each epoch.

    A first training, on training questions alone, finds how many epochs are best.
    """
    training, validation, _ = parts.values()
    references, curve = _labelled(table, config, training, 2)["predictor"], []

    def on_epoch(epoch: int, params: dict, loss: float):
        curve.append(mean(_judge(table, validation, _adapter(config, table, params, references)))["pearson"])
        tell(f"epoch {epoch}/{config.epochs}  loss {loss:.4f}  validation Pearson {curve[-1]:.3f}", flush=True)
        return epoch - (_argmax(curve, 0) + 1) >= config.patience

    train(config, table, training, kernel, config.epochs, on_epoch)
    epochs = _best_epoch(curve)
    tell(f"best after epoch {epochs}; training as long on training and validation questions", flush=True)
    return train(config, table, np.concatenate([training, validation]), kernel, epochs, lambda *_: False), curve


def _leave_out(config: ConfigDict, table: Table, parts: dict[str, np.ndarray]) -> dict:
    """`leave_out.report`; empty with one policy or one fold."""

    def learn(others: Table) -> Callable:
        judge = functools.partial(_judge, others, parts["validation"])
        kernel = _best("kernel ridge", others, others.ids_by_policy(parts["train"]), judge)
        params, _ = _learn(config, others, parts, kernel, lambda *_, **__: None)
        return functools.partial(_predict, config, params, table.embeddings)

    if min(config.folds, len(table.policies)) < 2:
        return {}
    print(f"leave-policies-out: {min(config.folds, len(table.policies))} folds of the policies", flush=True)
    return leave_out.report(table, parts, config.folds, config.references, config.seed, learn)


def _enough(config: ConfigDict, table: Table, parts: dict[str, np.ndarray]) -> None:
    """Raises UserError where a policy has measured too few questions of a part."""
    too_few = f"too few for config.references={config.references}; lower it or measure more"
    anywhere = "which is drawn over all problems; measure more of them or leave this policy out"
    limits = {"train": (config.references + 1, too_few), "validation": (2, anywhere), "evaluation": (2, anywhere)}
    for part, (least, why) in limits.items():
        for policy, ids in zip(table.policies, table.ids_by_policy(parts[part]), strict=True):
            if len(ids) < least:
                raise UserError(f"{config.rates}: of policy {policy} there are {len(ids)} questions for {part}, {why}")


def _labelled(table: Table, config: ConfigDict, questions: np.ndarray, purpose: int) -> dict[str, list[np.ndarray]]:
    """Of each method and policy the questions whose labels it gets: M references, or for a regression all."""
    rng, measured = np.random.default_rng([config.seed, purpose]), table.ids_by_policy(questions)
    references = [rng.choice(ids, config.references, False) for ids in measured]
    return {"predictor": references, "raw attention": references} | dict.fromkeys(REGRESSIONS, measured)


def _adapter(config: ConfigDict, table: Table, params: dict, references: list[np.ndarray]) -> Predict:
    """A prediction from this policy's references."""
    predict = functools.partial(_predict, config, params, table.embeddings)
    return lambda policy, ids: predict(ids, references[policy], table.difficulty[policy][references[policy]])


def _predict(
    config: ConfigDict, params: dict, x: np.ndarray, ids: np.ndarray, references: np.ndarray, labels: np.ndarray
) -> np.ndarray:
    """The predictor's difficulty of the questions `ids`."""
    return np.asarray(predictor.predict(params, x[ids], x[references], labels, config.calibration, config.refit))


def _fitted(name: str, values: tuple, table: Table, labelled: list[np.ndarray]) -> Predict:
    """A prediction by what is fitted on this policy's `labelled` questions."""
    make, x = BASELINES[name][0], table.sees(name)
    made = [make(x[ids], labels[ids], *values) for ids, labels in zip(labelled, table.difficulty, strict=True)]
    return lambda policy, ids: made[policy](x[ids])


def _judge(table: Table, questions: np.ndarray, predict: Predict) -> list[dict]:
    """The measures of each policy on `questions`."""
    measured = table.ids_by_policy(questions)
    return [table.judge(policy, ids, predict(policy, ids)) for policy, ids in enumerate(measured)]


def _best(name: str, table: Table, labelled: list[np.ndarray], judge: Callable) -> tuple:
    """The values of the method's grid with the highest Pearson correlation."""
    grid = BASELINES[name][1]
    return grid[_argmax([mean(judge(_fitted(name, values, table, labelled)))["pearson"] for values in grid], 0)]


def _best_epoch(curve: list[float]) -> int:
    return _argmax(curve, len(curve) - 1) + 1


def _argmax(values: list[float], default: int) -> int:
    """The index of the largest that is a number; `default` where none is."""
    return int(np.nanargmax(values)) if np.isfinite(values).any() else default


def _print(report: dict) -> None:
    tables = {"held-out questions": report["evaluation"]}
    for kind, methods in report["leave_policies_out"].items():
        name = f"held-out policies, questions {kind}"
        tables[name] = {method: mean(list(rows.values())) for method, rows in methods.items()}
    for name, rows in tables.items():
        columns = list(rows["predictor"])
        cells = [[method, *map(_cell, row.values())] for method, row in rows.items()]
        print("\n" + text.table([[name, *columns], *cells]), flush=True)


def _cell(value: float) -> str:
    return f"{value:.3f}" if np.isfinite(value) else "-"


def _draw(path: str, table: Table, eval_ids: np.ndarray, predicted: dict[str, Predict], report: dict) -> None:
    """Predicted against measured difficulty, with the means of ten equal bins, for each method.

    Below, where policies were held out, the Pearson correlation of each of them by each method.
    """
    measured = list(enumerate(table.ids_by_policy(eval_ids)))
    d = np.concatenate([table.difficulty[policy][ids] for policy, ids in measured])
    left_out = report["leave_policies_out"]
    rows = 2 if left_out else 1
    with picture.draw(path, 3.4 * len(predicted), 3.6 * rows) as figure:
        for i, (name, predict) in enumerate(predicted.items()):
            p = np.concatenate([predict(policy, ids) for policy, ids in measured])
            bins = np.array_split(np.argsort(p), 10)
            axis = figure.add_subplot(rows, len(predicted), i + 1)
            axis.plot([0, 1], [0, 1], color="#9aa0a6", linewidth=0.8)
            axis.scatter(p, d, s=4, alpha=0.25, color="#2e6f95", linewidths=0)
            axis.plot([p[b].mean() for b in bins], [d[b].mean() for b in bins], "o-", color="#d1495b", markersize=4)
            pearson = report["evaluation"][name]["pearson"]
            axis.set(title=f"{name}: Pearson {pearson:.3f}", xlabel="predicted difficulty", ylabel="measured")
            axis.set_xlim(0, 1)
        for i, (kind, methods) in enumerate(left_out.items()):
            axis = figure.add_subplot(rows, 2, 3 + i)
            for at, by_policy in enumerate(methods.values()):
                pearson = [row["pearson"] for row in by_policy.values()]
                axis.plot(pearson, [at] * len(pearson), "o", color="#2e6f95", markersize=4, alpha=0.5)
                axis.plot(mean(list(by_policy.values()))["pearson"], at, "|", color="#d1495b", markersize=14)
            axis.set_yticks(range(len(methods)), methods)
            axis.set(title=f"held-out policies, questions {kind}", xlabel="Pearson of each policy")


def main(argv: list[str] | None = None) -> int:
    """Runs `fit` as the flags say; returns the exit code."""
    argv = sys.argv[1:] if argv is None else argv
    argv = [re.sub(r"^--?(rates|embeddings)(?==|$)", r"--config.\1", arg) for arg in argv]

    def program(config: ConfigDict, workdir: str) -> None:
        fit(config, workdir)

    return command_line.run(program, "configs/difficulty_fit.py", HELP, argv, rules=config_rules.FIT)


if __name__ == "__main__":
    command_line.end(main())
