"""Evaluates a policy: `python -m dots_jax.evaluate --model=DIR --sets=gsm8k,math500,minerva,olympiadbench`."""

import collections
import json
import math
import os
import re
import sys

import jax
import numpy as np

from dots_jax import data, reward
from dots_jax.core import command_line, config_rules, files, plugins, rules, sharding, text
from dots_jax.core.arithmetic import ceil_div
from dots_jax.core.errors import UserError
from dots_jax.data import real, sources
from dots_jax.evaluation import Evaluator, interval
from dots_jax.policy import source
from dots_jax.reward.types import Verdict
from dots_jax.run import metrics, settings
from dots_jax.run import workdir as workdirs

HELP = """\
Asks a policy the questions of evaluation sets, grades what it answers, and prints a table of accuracies.

usage: python -m dots_jax.evaluate --model=DIR [--sets=NAME,NAME] [--workdir=DIR] [--FIELD=VALUE ...]

  --model=DIR       Hugging Face directory of a Qwen2.5 model (such as runs/orz/policy), or a name on the hub
  --sets=NAME,..    gsm8k, math500, minerva, olympiadbench (these four: the default), amc23, aime24; also a .parquet,
                    .jsonl, .json or .csv file with the columns problem and answer, a folder of such, or
                    owner/dataset[:configuration]:split; a question that is there k times gets k times the samples
  --workdir=DIR     where completions.jsonl (one object for each completion, with its verdict) and results.json are
                    written (default: runs/evaluate); the same command continues one that was stopped
  --FIELD=VALUE     samples, temperature, top_p, max_tokens, system, root, .. : all fields (also as --config.FIELD),
                    with their meaning and defaults, are in {default}
  --compilation_cache=DIR|off
                    where compiled programs are kept (default: dots_jax/compiled in the user's cache)

example:
  python -m dots_jax.evaluate --model=runs/orz/policy --sets=math500,aime24 --samples=4 --workdir=runs/orz-4
"""
RESULTS = "results.json"
CONTINUES = "; the same command continues after the last whole batch"
_ROW = {  # of COMPLETIONS
    "batch": rules.whole(),
    "question": rules.text,
    "sample": rules.whole(),
    "verdict": rules.one_of(*(v.name.lower() for v in Verdict)),
    "reward": rules.number(0, 1),
    "tokens": rules.whole(),
    "ended": rules.flag,
    "answer": rules.text,
    "completion": rules.text,
}


def evaluate(config, workdir: str) -> None:
    """Runs or continues the evaluation that `configs/evaluate.py` describes, and prints the table.

    Raises UserError for what the user can mend.
    """
    with workdirs.Claim(workdir) as claim:
        _evaluate(config, workdir, claim)


def _evaluate(config, workdir: str, claim: workdirs.Claim) -> None:
    if not config.model:
        raise UserError("--model is missing; give --model=DIR, a Hugging Face directory (--help shows the flags)")
    reward.find(config.reward)
    root = sources.root(config.root)
    questions, _ = real.load_sets(config.sets, root, config.questions, config.seed)
    mesh = sharding.make_mesh(**config.mesh)
    policy, params = source.load(source.find(config.model, root), mesh, config.dtype)
    prompts, lengths = policy.encode(questions.texts, config.system)
    asked = questions.rows()
    batch = min(config.batch, len(asked))
    files_of = {"reward": plugins.path(config.reward, reward.REWARDS, "reward")}
    prints = settings.fingerprints(policy.directory, files_of, questions=questions)
    counts = zip(questions.names, (np.bincount(asked) * config.samples).tolist(), strict=True)
    expected = [(name, sample) for name, samples in counts for sample in range(samples)]
    rows, total = _there(config, workdir, expected, batch * config.samples), ceil_div(len(asked), batch)
    settings.same_inputs(prints, workdir)
    claim.take()
    settings.write_config(config, workdir, prints)
    path = os.path.join(workdir, metrics.COMPLETIONS)
    files.replace(path, lambda partial: _write(partial, rows))
    done = {row["batch"] for row in rows}
    each = f" of their {len(asked):,} rows (repeats are further samples)" if questions.repeats else ""
    print(f"{len(questions):,} questions, {config.samples} completions of each{each}, by {config.model}")
    print(f"in {total} batches, of which {len(done)} are there, to {path}; the first compiles", flush=True)
    evaluator = Evaluator(
        policy,
        questions,
        asked,
        prompts,
        lengths,
        reward.make(config.reward),
        config.samples,
        batch,
        config.max_tokens,
        {"mesh": mesh} | {name: config[name] for name in ("temperature", "top_p", "chunk", "slots")},
    )
    try:
        for line in data.unreadable(evaluator.grader.readable(questions.items())):
            print(line, flush=True)
        for number, numbers, graded in evaluator.evaluate_batches(params, jax.random.key(config.seed), skip=done):
            new = [
                {
                    "batch": number,
                    "question": expected[row * config.samples + j][0],
                    "sample": expected[row * config.samples + j][1],
                    "verdict": Verdict(graded.verdicts[n, j]).name.lower(),
                    "reward": float(graded.rewards[n, j]),
                    "tokens": int(graded.lengths[n, j]),
                    "ended": bool(graded.finished[n, j]),
                    "answer": questions.answers[asked[row]],
                    "completion": graded.texts[n, j],
                }
                for n, row in enumerate(numbers.tolist())
                for j in range(config.samples)
            ]
            _write(path, new)
            rows += new
            print(f"batch {number + 1} of {total}: mean reward {graded.rewards.mean():.3f}", flush=True)
    finally:
        evaluator.grader.close()
    table = results(rows)
    files.write_text(os.path.join(workdir, RESULTS), json.dumps(table, indent=2))
    print(f"\n{show(table)}{os.path.join(workdir, RESULTS)}")


def results(rows: list[dict]) -> dict[str, dict]:
    """Accuracy with its interval of each set, with what became of completions, and as "average" of the sets."""
    asked = collections.defaultdict(lambda: collections.defaultdict(list))  # set -> question -> rows
    for row in rows:
        asked[row["question"].rpartition(":")[0]][row["question"]].append(row)
    table = {}
    for name, questions in asked.items():
        success = np.array([np.mean([row["reward"] for row in mine]) for mine in questions.values()])
        mine = [row for found in questions.values() for row in found]
        low, high = interval(success, len(mine) / len(success))
        table[name] = {
            "questions": len(success),
            "samples": len(mine) // len(success),
            "accuracy": float(success.mean()),
            "low": low,
            "high": high,
            "tokens": float(np.mean([row["tokens"] for row in mine])),
            "cut": float(np.mean([not row["ended"] for row in mine])),
            **{v.name.lower(): sum(row["verdict"] == v.name.lower() for row in mine) for v in Verdict},
        }
    mean = float(np.mean([row["accuracy"] for row in table.values()]))

    def reach(end):  # the sets are asked independently: distances to the ends add up as deviations do
        return math.sqrt(sum((row[end] - row["accuracy"]) ** 2 for row in table.values())) / len(table)

    return table | {"average": {"accuracy": mean, "low": mean - reach("low"), "high": mean + reach("high")}}


def show(table: dict[str, dict]) -> str:
    """The table of `results` in at most 100 columns."""
    columns = ["questions", "accuracy", "95% interval", "tokens", "cut", "wrong", "no answer", "timeout", "crashed"]
    lines = [["set", *columns]]
    for name, row in table.items():
        cells = {n: f"{row.get(n.replace(' ', '_'), '')}" for n in columns}
        cells |= {"accuracy": f"{row['accuracy']:.3f}", "95% interval": f"{row['low']:.3f}-{row['high']:.3f}"}
        if "tokens" in row:
            cells |= {"tokens": f"{row['tokens']:.0f}", "cut": f"{row['cut']:.1%}"}
        lines.append([name[:14], *cells.values()])
    return text.table(lines)


def _there(config, workdir: str, expected: list[tuple[str, int]], batch: int) -> list[dict]:
    """The completions of whole batches that an evaluation of the same settings has left in `workdir`.

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
    by_batch, whole = collections.defaultdict(list), []
    for row in metrics.read(workdir, metrics.COMPLETIONS, key="batch", kinds=_ROW):
        by_batch[row["batch"]].append(row)
    for number, rows in sorted(by_batch.items()):
        whole_batch = expected[number * batch : (number + 1) * batch]
        found = [(row["question"], row["sample"]) for row in rows]
        if found != whole_batch[: len(found)] or not whole_batch:
            raise UserError(f"batch {number} in {path} is not of this evaluation's questions; use another --workdir")
        whole += rows if found == whole_batch else []
    return whole


def _write(path: str, rows: list[dict]) -> None:
    with open(path, "a", encoding="utf-8") as file:
        file.writelines(json.dumps(row) + "\n" for row in rows)


def main(argv: list[str] | None = None) -> int:
    """Evaluates as the flags say; returns the exit code."""
    argv = sys.argv[1:] if argv is None else argv
    argv = [re.sub(r"^--?(?!config\b|workdir\b|compilation_cache\b|h\b|help)(?=\w)", "--config.", arg) for arg in argv]
    return command_line.run(
        evaluate, "configs/evaluate.py", HELP, argv, rules=config_rules.EVALUATE, interrupted=CONTINUES
    )


if __name__ == "__main__":
    command_line.end(main())
