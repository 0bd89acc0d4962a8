"""Evaluates a policy: `python -m dots_jax.evaluate --model=DIR --sets=gsm8k,math500,minerva,olympiadbench`."""

import collections
import json
import math
import os
import re
import sys

import jax
import numpy as np
from absl import flags
from ml_collections import ConfigDict

from dots_jax import data, reward
from dots_jax.core import command_line, config_rules, files, plugins, rules, sharding, text
from dots_jax.core.arithmetic import ceil_div
from dots_jax.core.distributed import from_main, main_only
from dots_jax.core.errors import UserError, tell
from dots_jax.data import real, sources
from dots_jax.evaluation import SMALLEST, Evaluator, by_set, combined_error, majority, mean_accuracy, pass_at
from dots_jax.policy import families, source
from dots_jax.reward.types import Verdict
from dots_jax.rollout import GradedCompletions
from dots_jax.run import metrics, settings
from dots_jax.run import workdir as workdirs

HELP = """\
Asks a policy the questions of evaluation sets, grades what it answers, and prints a table of accuracies.

usage: python -m dots_jax.evaluate --model=DIR [--sets=NAME,NAME] [--workdir=DIR] [--FIELD=VALUE ...]

  --model=DIR             Hugging Face directory of a policy (such as runs/orz/policy), or a name on
                          the hub
  --sets=NAME,..          gsm8k, math500, minerva, olympiadbench (these four: the default), amc23,
                          aime24; also a .parquet, .jsonl, .json or .csv file with the columns problem
                          and answer, a folder of such, or owner/dataset[:configuration]:split; a
                          question that is there k times gets k times the samples
  --workdir=DIR           where completions.jsonl (one object for each completion: question, answer,
                          verdict) and results.json are written (default: runs/evaluate); the same
                          command continues one that was stopped
  --FIELD=VALUE           samples, temperature, top_p, max_tokens, system, root, .. : all fields (also
                          as --config.FIELD), with their meaning and defaults, are in {default}
  --reward=NAME           math (the default), exact, proxy, or FILE.py:NAME, a function of your own
                          (docs/own.md); --reward.answer=last: math takes the last number of a
                          completion without a box
{processes}\
  --compilation_cache=DIR|off
                          where compiled programs are kept (default: dots_jax/compiled in the user's
                          cache; off for several processes, which need a directory that all see)

example:
  python -m dots_jax.evaluate --model=runs/orz/policy --sets=math500,aime24 --samples=4 --workdir=runs/orz-4
"""
RESULTS = "results.json"
CONTINUES = "; the same command continues after the last whole batch"
_RECORD = {  # of COMPLETIONS
    "batch": rules.whole(),
    "question": rules.text,
    "sample": rules.whole(),
    "problem": rules.text,
    "verdict": rules.one_of(*(v.name.lower() for v in Verdict)),
    "reward": rules.number(0, 1),
    "tokens": rules.whole(),
    "truncated": rules.flag,
    "answer": rules.text,
    "extracted": rules.optional(rules.text),
    "completion": rules.text,
}


def evaluate(config: ConfigDict, workdir: str) -> None:
    """Runs or continues the evaluation that `configs/evaluate.py` describes, and prints the table.

    Raises UserError for what the user can mend.
    """
    with main_only(workdirs.Claim)(workdir) as claim:
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
    prompts, lengths = policy.encode(questions.texts, config.system, config.instruction_in)
    rows = questions.rows()
    batch = min(config.batch, len(rows))
    sampling = {"mesh": mesh} | {name: config[name] for name in ("temperature", "top_p", "chunk", "slots")}
    grader = reward.make(**config.reward)
    evaluator = Evaluator(
        policy, questions, rows, prompts, lengths, grader, config.samples, batch, config.max_tokens, sampling
    )
    try:
        records = main_only(_Records)(config, workdir, evaluator)
        records.begin(claim)
        done = from_main(records.done, np.zeros(ceil_div(len(rows), batch), bool))
        key = jax.jit(lambda: jax.random.key(config.seed), out_shardings=sharding.replicated(mesh))()
        for graded in evaluator.evaluate_batches(params, key, skip=np.flatnonzero(done).tolist()):
            records.add(*graded)
        records.end()
    finally:
        grader.close()


class _Records:
    """The lines of COMPLETIONS and what is printed of them: the main process's part of an evaluation.

    Raises UserError where the workdir holds something else.
    """

    def __init__(self, config: ConfigDict, workdir: str, evaluator: Evaluator):
        self._config, self._workdir, self._evaluator = config, workdir, evaluator
        self._path = os.path.join(workdir, metrics.COMPLETIONS)
        counts = zip(evaluator.questions.names, (np.bincount(evaluator.rows) * config.samples).tolist(), strict=True)
        self._expected = [(name, sample) for name, samples in counts for sample in range(samples)]
        self._records = _read(config, workdir, self._expected, evaluator.batch * config.samples)
        self._told = False  # that completions have no answer

    def begin(self, claim: workdirs.Claim) -> None:
        """Writes the config and the whole batches that are there, and says what is to be done."""
        config, workdir, evaluator = self._config, self._workdir, self._evaluator
        files_of = {
            "family": plugins.path(config.family, families.FAMILIES, "family"),
            "reward": plugins.path(config.reward.name, reward.REWARDS, "reward"),
        }
        questions, rows = evaluator.questions, evaluator.rows
        prints = settings.fingerprints(evaluator.policy.directory, files_of, questions=questions)
        settings.same_inputs(prints, workdir)
        claim.take()
        settings.write_config(config, workdir, prints)
        files.replace(self._path, lambda partial: _append(partial, self._records))
        of_rows = f" of their {len(rows):,} rows (repeats are further samples)" if questions.repeats else ""
        done = self.done()
        print(f"{len(questions):,} questions, {config.samples} completions of each{of_rows}, by {config.model}")
        print(f"in {done.size} batches, of which {done.sum()} are there, to {self._path}", end="")
        print("; the first compiles", flush=True)
        for line in data.unreadable(evaluator.grader.readable(questions.items())):
            print(line, flush=True)

    def done(self) -> np.ndarray:
        """Which batches are there, bool [batches]."""
        count = ceil_div(len(self._evaluator.rows), self._evaluator.batch)
        return np.isin(np.arange(count), [record["batch"] for record in self._records])

    def add(self, number: int, numbers: np.ndarray, graded: GradedCompletions) -> None:
        """Writes a batch, as `Evaluator.evaluate_batches` yields it."""
        new, questions, samples = [], self._evaluator.questions, self._config.samples
        for n, row in enumerate(numbers.tolist()):
            question = self._evaluator.rows[row]
            for j in range(samples):
                name, sample = self._expected[row * samples + j]
                new.append({
                    "batch": number,
                    "question": name,
                    "sample": sample,
                    "problem": questions.texts[question],
                    "verdict": Verdict(graded.verdicts[n, j]).name.lower(),
                    "reward": float(graded.rewards[n, j]),
                    "tokens": int(graded.lengths[n, j]),
                    "truncated": not graded.finished[n, j],
                    "answer": questions.answers[question],
                    "extracted": reward.extracted(self._evaluator.grader, graded.texts[n, j]),
                    "completion": graded.texts[n, j],
                })  # fmt: skip
        _append(self._path, new)
        self._records += new
        total = self.done().size
        print(f"batch {number + 1} of {total}: mean reward {graded.rewards.mean():.3f}", flush=True)
        no_answer, truncated = (graded.verdicts == Verdict.NO_ANSWER).mean(), 1 - graded.finished.mean()
        if not self._told and (told := reward.no_answers(no_answer, truncated, **self._config.reward)):
            self._told = tell(told, "warning") or True

    def end(self) -> None:
        """Writes RESULTS and prints the table."""
        path, table = os.path.join(self._workdir, RESULTS), results(self._records, self._evaluator)
        files.write_text(path, json.dumps(files.plain(table), indent=2))
        print(f"\n{show(table)}{path}")


def results(records: list[dict], evaluator: Evaluator) -> dict[str, dict]:
    """`evaluation.by_set` of the records of COMPLETIONS, with what several samples tell; "average": the sets' mean."""
    records = [record | {"verdict": Verdict[record["verdict"].upper()]} for record in records]
    records.sort(key=lambda record: record["batch"])
    columns = {"completion": object, "reward": float, "verdict": np.int8, "tokens": int, "truncated": bool}
    arrays = [np.array([record[name] for record in records], dtype) for name, dtype in columns.items()]
    *arrays, truncated = (array.reshape(len(evaluator.rows), evaluator.samples) for array in arrays)
    table = by_set(GradedCompletions(*arrays, finished=~truncated), evaluator)
    of_question = [[] for _ in evaluator.questions.names]
    for i, record in enumerate(records):
        of_question[evaluator.rows[i // evaluator.samples]].append(record)
    votes = getattr(evaluator.grader, "extracted", None) is not None
    for name, row in table.items():
        pairs = zip(of_question, evaluator.questions.families, strict=True)
        row |= _several([group for group, family in pairs if family == name], votes)

    def reach(end: str) -> float:  # the sets are asked independently: distances to the ends add up as deviations do
        return math.sqrt(sum((row[end] - row["accuracy"]) ** 2 for row in table.values())) / len(table)

    mean, first = mean_accuracy(table), next(iter(table.values()))
    average = {"accuracy": mean, "low": mean - reach("low"), "high": mean + reach("high")}
    average["standard_error"] = combined_error(table)
    shared = [name for name in first if "@" in name and all(name in row for row in table.values())]
    average |= {name: float(np.mean([row[name] for row in table.values()])) for name in shared}
    table["average"] = average
    for row in table.values():
        row["smallest_difference"] = SMALLEST * row["standard_error"] or math.nan
    return table


def _several(groups: list[list[dict]], votes: bool) -> dict[str, float]:
    """pass@k and, where the grader finds answers that can vote, maj@n, of the records of a set's questions.

    n is how many completions each question has at least, k the powers of two up to it and n itself; {} where n is 1.
    """
    n = min(map(len, groups))
    if n == 1:
        return {}
    counts = [(len(group), sum(record["verdict"] == Verdict.CORRECT for record in group)) for group in groups]
    ks = [*(2**i for i in range(n.bit_length()) if 2**i < n), n]
    row = {f"pass@{k}": float(np.mean([pass_at(k, *count) for count in counts])) for k in ks}
    if votes:
        columns = [[[record[name] for record in group[:n]] for name in ("extracted", "reward")] for group in groups]
        row[f"maj@{n}"] = float(np.mean([majority(*column) for column in columns]))
    return row


def show(table: dict[str, dict]) -> str:
    """The table of `results` as two, in at most 100 columns; the pass@k that have no room there are left out."""
    failures = [v.name.lower().replace("_", " ") for v in Verdict if v != Verdict.CORRECT]
    several = {name for row in table.values() for name in row if "@" in name}
    several = sorted(several, key=lambda name: (name.startswith("maj"), int(name.partition("@")[2])))
    columns = ["questions", "std. error", "smallest difference", *several]
    rows = [(name[:14], _cells(row)) for name, row in table.items()]

    def part(columns: list[str]) -> str:
        return text.table([["set", *columns], *([name, *(cells.get(c, "") for c in columns)] for name, cells in rows)])

    while max(map(len, part(columns).splitlines())) > text.WIDTH:
        del columns[4]  # after pass@1
    return f"{part(['accuracy', '95% interval', 'tokens', 'truncated', *failures])}\n{part(columns)}"


def _cells(row: dict) -> dict[str, str]:
    """What the tables show of a set, by column."""
    cells = {name.replace("_", " "): f"{value:.3f}" if "@" in name else f"{value}" for name, value in row.items()}
    cells |= {"accuracy": f"{row['accuracy']:.3f}", "95% interval": f"{row['low']:.3f}-{row['high']:.3f}"}
    for column, name in (("std. error", "standard_error"), ("smallest difference", "smallest_difference")):
        cells[column] = "-" if math.isnan(row[name]) else f"{row[name]:.3f}"
    if "tokens" in row:
        cells |= {"tokens": f"{row['tokens']:.0f}", "truncated": f"{row['truncated']:.1%}"}
    return cells


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
    if any("problem" not in record for record in metrics.read(workdir, metrics.COMPLETIONS, key="batch")):
        raise UserError(f"{path} is of an earlier version, which kept no question's text; use another --workdir")
    for name, old, new in settings.differences(config, workdir):
        if not name.startswith(("mesh", "root")):
            raise UserError(
                f"{workdir} holds an evaluation with {name}={old!r}, not {new!r}; give the same "
                "to continue it, or use another --workdir"
            )
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
    argv, values = sys.argv[1:] if argv is None else argv, flags.FlagValues()
    join = command_line.process_flags(values)
    others = "|".join([*values, "config", "workdir", "compilation_cache", "h"])
    argv = [re.sub(rf"^--?(?!(?:{others})\b|help)(?=\w)", "--config.", arg) for arg in argv]

    def program(config: ConfigDict, workdir: str) -> None:
        join()
        evaluate(config, workdir)

    rules_of = {"rules": config_rules.EVALUATE, "interrupted": CONTINUES}
    return command_line.run(program, "configs/evaluate.py", HELP, argv, values, **rules_of)


if __name__ == "__main__":
    command_line.end(main())
