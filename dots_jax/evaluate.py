"""Evaluates a policy: `python -m dots_jax.evaluate --model=DIR --sets=gsm8k,math500,minerva,olympiadbench`."""

import collections
import json
import math
import os
import re
import sys

import jax
import numpy as np
from ml_collections import ConfigDict

from dots_jax import data, reward
from dots_jax.core import command_line, config_rules, files, plugins, rules, sharding, text
from dots_jax.core.arithmetic import ceil_div
from dots_jax.core.errors import UserError, tell
from dots_jax.data import real, sources
from dots_jax.evaluation import Evaluator, by_set, mean_accuracy
from dots_jax.policy import families, source
from dots_jax.reward.types import Verdict
from dots_jax.rollout import GradedCompletions
from dots_jax.run import metrics, settings
from dots_jax.run import workdir as workdirs

HELP = """\
Asks a policy the questions of evaluation sets, grades what it answers, and prints a table of accuracies.

usage: python -m dots_jax.evaluate --model=DIR [--sets=NAME,NAME] [--workdir=DIR] [--FIELD=VALUE ...]

  --model=DIR       Hugging Face directory of a policy (such as runs/orz/policy), or a name on the hub
  --sets=NAME,..    gsm8k, math500, minerva, olympiadbench (these four: the default), amc23, aime24; also a .parquet,
                    .jsonl, .json or .csv file with the columns problem and answer, a folder of such, or
                    owner/dataset[:configuration]:split; a question that is there k times gets k times the samples
  --workdir=DIR     where completions.jsonl (one object for each completion, with its verdict) and results.json are
                    written (default: runs/evaluate); the same command continues one that was stopped
  --reward=NAME     math (the default), exact, proxy, or FILE.py:NAME, a function of your own (docs/own.md);
                    --reward.answer=last: math takes the last number of a completion without a box
  --FIELD=VALUE     samples, temperature, top_p, max_tokens, system, root, .. : all fields (also as --config.FIELD),
                    with their meaning and defaults, are in {default}
  --compilation_cache=DIR|off
                    where compiled programs are kept (default: dots_jax/compiled in the user's cache)

example:
  python -m dots_jax.evaluate --model=runs/orz/policy --sets=math500,aime24 --samples=4 --workdir=runs/orz-4
"""
RESULTS = "results.json"
CONTINUES = "; the same command continues after the last whole batch"
_RECORD = {  # of COMPLETIONS
    "batch": rules.whole(),
    "question": rules.text,
    "sample": rules.whole(),
    "verdict": rules.one_of(*(v.name.lower() for v in Verdict)),
    "reward": rules.number(0, 1),
    "tokens": rules.whole(),
    "truncated": rules.flag,
    "answer": rules.text,
    "completion": rules.text,
}


def evaluate(config: ConfigDict, workdir: str) -> None:
    """Runs or continues the evaluation that `configs/evaluate.py` describes, and prints the table.

    Raises UserError for what the user can mend.
    """
    with workdirs.Claim(workdir) as claim:
        _evaluate(config, workdir, claim)


def _evaluate(config: ConfigDict, workdir: str, claim: workdirs.Claim) -> None:
    if not config.model:
        raise UserError("--model is missing; give --model=DIR, a Hugging Face directory (--help shows the flags)")
    reward.check(**config.reward)
    family = families.find(config.family, "family")
    root = sources.root(config.root)
    own = config.reward.name not in reward.REWARDS
    questions, _ = real.load_sets(config.sets, root, config.questions, config.seed, columns=own)
    mesh = sharding.make_mesh(**config.mesh)
    policy, params = source.load(source.find(config.model, root), mesh, config.dtype, family)
    prompts, lengths = policy.encode(questions.texts, config.system)
    rows = questions.rows()
    batch = min(config.batch, len(rows))
    files_of = {
        "family": plugins.path(config.family, families.FAMILIES, "family"),
        "reward": plugins.path(config.reward.name, reward.REWARDS, "reward"),
    }
    prints = settings.fingerprints(policy.directory, files_of, questions=questions)
    counts = zip(questions.names, (np.bincount(rows) * config.samples).tolist(), strict=True)
    expected = [(name, sample) for name, samples in counts for sample in range(samples)]
    records, total = _read(config, workdir, expected, batch * config.samples), ceil_div(len(rows), batch)
    settings.same_inputs(prints, workdir)
    claim.take()
    settings.write_config(config, workdir, prints)
    path = os.path.join(workdir, metrics.COMPLETIONS)
    files.replace(path, lambda partial: _append(partial, records))
    done = {record["batch"] for record in records}
    of_rows = f" of their {len(rows):,} rows (repeats are further samples)" if questions.repeats else ""
    print(f"{len(questions):,} questions, {config.samples} completions of each{of_rows}, by {config.model}")
    print(f"in {total} batches, of which {len(done)} are there, to {path}; the first compiles", flush=True)
    sampling = {"mesh": mesh} | {name: config[name] for name in ("temperature", "top_p", "chunk", "slots")}
    grader, told = reward.make(**config.reward), ""
    evaluator = Evaluator(
        policy, questions, rows, prompts, lengths, grader, config.samples, batch, config.max_tokens, sampling
    )
    try:
        for line in data.unreadable(grader.readable(questions.items())):
            print(line, flush=True)
        for number, numbers, graded in evaluator.evaluate_batches(params, jax.random.key(config.seed), skip=done):
            new = []
            for n, row in enumerate(numbers.tolist()):
                for j in range(config.samples):
                    name, sample = expected[row * config.samples + j]
                    new.append({
                        "batch": number,
                        "question": name,
                        "sample": sample,
                        "verdict": Verdict(graded.verdicts[n, j]).name.lower(),
                        "reward": float(graded.rewards[n, j]),
                        "tokens": int(graded.lengths[n, j]),
                        "truncated": not graded.finished[n, j],
                        "answer": questions.answers[rows[row]],
                        "completion": graded.texts[n, j],
                    })  # fmt: skip
            _append(path, new)
            records += new
            print(f"batch {number + 1} of {total}: mean reward {graded.rewards.mean():.3f}", flush=True)
            no_answer, truncated = (graded.verdicts == Verdict.NO_ANSWER).mean(), 1 - graded.finished.mean()
            if not told and (told := reward.no_answers(no_answer, truncated, **config.reward)):
                tell(told, "warning")
    finally:
        grader.close()
    table = results(records, evaluator)
    files.write_text(os.path.join(workdir, RESULTS), json.dumps(table, indent=2))
    print(f"\n{show(table)}{os.path.join(workdir, RESULTS)}")


def results(records: list[dict], evaluator: Evaluator) -> dict[str, dict]:
    """`evaluation.by_set` of the records of COMPLETIONS, and as "average" the mean of the sets."""
    records = [record | {"verdict": Verdict[record["verdict"].upper()]} for record in records]
    records.sort(key=lambda record: record["batch"])
    columns = {"completion": object, "reward": float, "verdict": np.int8, "tokens": int, "truncated": bool}
    arrays = [np.array([record[name] for record in records], dtype) for name, dtype in columns.items()]
    *arrays, truncated = (array.reshape(len(evaluator.rows), evaluator.samples) for array in arrays)
    table = by_set(GradedCompletions(*arrays, finished=~truncated), evaluator)
    mean = mean_accuracy(table)

    def reach(end: str) -> float:  # the sets are asked independently: distances to the ends add up as deviations do
        return math.sqrt(sum((row[end] - row["accuracy"]) ** 2 for row in table.values())) / len(table)

    return table | {"average": {"accuracy": mean, "low": mean - reach("low"), "high": mean + reach("high")}}


def show(table: dict[str, dict]) -> str:
    """The table of `results` in at most 100 columns."""
    failures = [v.name.lower().replace("_", " ") for v in Verdict if v != Verdict.CORRECT]
    columns = ["questions", "accuracy", "95% interval", "tokens", "truncated", *failures]
    lines = [["set", *columns]]
    for name, row in table.items():
        cells = {n: f"{row.get(n.replace(' ', '_'), '')}" for n in columns}
        cells |= {"accuracy": f"{row['accuracy']:.3f}", "95% interval": f"{row['low']:.3f}-{row['high']:.3f}"}
        if "tokens" in row:
            cells |= {"tokens": f"{row['tokens']:.0f}", "truncated": f"{row['truncated']:.1%}"}
        lines.append([name[:14], *cells.values()])
    return text.table(lines)


def _read(config: ConfigDict, workdir: str, expected: list[tuple[str, int]], batch: int) -> list[dict]:
    """The records of whole batches that an evaluation of the same settings has left in `workdir`.

    `expected` are the question and sample of each completion, `batch` of them in each batch.

    Raises UserError where the settings differ, or the workdir holds something else.
    """
    path = os.path.join(workdir, metrics.COMPLETIONS)
    if not workdirs.has_begun(workdir):
        if os.path.exists(path):
            settings.read(workdir)  # raises where it is somebody else's
        return []
    for name, old, new in settings.differences(config, workdir):
        if not name.startswith(("mesh", "root")):
            raise UserError(
                f"{workdir} holds an evaluation with {name}={old!r}, not {new!r}; give the same "
                "to continue it, or use another --workdir"
            )
    if any("ended" in record for record in metrics.read(workdir, metrics.COMPLETIONS, key="batch")):
        raise UserError(f"{path} is of an earlier version: it says ended, not truncated; use another --workdir")
    by_batch, whole = collections.defaultdict(list), []
    for record in metrics.read(workdir, metrics.COMPLETIONS, key="batch", kinds=_RECORD):
        by_batch[record["batch"]].append(record)
    for number, records in sorted(by_batch.items()):
        whole_batch = expected[number * batch : (number + 1) * batch]
        samples = [(record["question"], record["sample"]) for record in records]
        if samples != whole_batch[: len(samples)] or not whole_batch:
            raise UserError(f"batch {number} in {path} is not of this evaluation's questions; use another --workdir")
        whole += records if samples == whole_batch else []
    return whole


def _append(path: str, records: list[dict]) -> None:
    with open(path, "a", encoding="utf-8") as file:
        file.writelines(json.dumps(record) + "\n" for record in records)


def main(argv: list[str] | None = None) -> int:
    """Evaluates as the flags say; returns the exit code."""
    argv = sys.argv[1:] if argv is None else argv
    argv = [re.sub(r"^--?(?!config\b|workdir\b|compilation_cache\b|h\b|help)(?=\w)", "--config.", arg) for arg in argv]
    return command_line.run(
        evaluate, "configs/evaluate.py", HELP, argv, rules=config_rules.EVALUATE, interrupted=CONTINUES
    )


if __name__ == "__main__":
    command_line.end(main())
