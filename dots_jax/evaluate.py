"""Evaluation: the share of held-out questions that the policy answers; within training, and as a program.

python -m dots_jax.evaluate --model=DIR --sets=gsm8k,math500,minerva,olympiadbench
"""

import collections
import dataclasses
import json
import math
import os
import re
import sys
from collections.abc import Callable, Collection, Iterator, Sequence

import jax
import jax.numpy as jnp
import numpy as np

from dots_jax import distributed, metrics, policy, reward, rollout, runtime, settings, validate
from dots_jax import main as flags
from dots_jax import workdir as workdirs
from dots_jax.data import real, sources
from dots_jax.errors import UserError
from dots_jax.policy import find, sharding
from dots_jax.policy import tokenizer as tok
from dots_jax.reward import Verdict

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
_ROW = {  # of COMPLETIONS
    "batch": validate.whole(),
    "question": validate.TEXT,
    "sample": validate.whole(),
    "verdict": validate.one_of([v.name.lower() for v in Verdict], "a verdict"),
    "reward": validate.number(0, 1),
    "tokens": validate.whole(),
    "ended": validate.FLAG,
    "answer": validate.TEXT,
    "completion": validate.TEXT,
}


@dataclasses.dataclass(frozen=True)
class Answers:
    """What came of asking N questions, G completions each."""

    texts: np.ndarray  # str [N, G], completions
    rewards: np.ndarray  # float32 [N, G]
    verdicts: np.ndarray  # int8 [N, G]
    lengths: np.ndarray  # int32 [N, G], tokens
    finished: np.ndarray  # bool [N, G], ended by itself


class Grading:
    """Grades the completions of P questions, G each, while they are generated: `watch` is for `rollout.sample`."""

    def __init__(self, grader, tokenizer, answers: Sequence[str], group_size: int):
        shape = (len(answers), group_size)
        self._grader, self._tokenizer, self._answers = grader, tokenizer, answers
        self._waiting = []  # (rows, function that waits for their rewards and verdicts)
        self._submitted, self._texts = np.zeros(shape, bool), np.full(shape, "", object)

    def watch(self, tokens: np.ndarray, lengths: np.ndarray, done: np.ndarray) -> None:
        """Hands those completions to the grader that are `done` and have not been handed over."""
        rows = np.nonzero(done & ~self._submitted)
        if len(rows[0]) and distributed.is_main():
            texts = tok.decode(self._tokenizer, tokens[rows], lengths[rows])
            self._waiting.append((rows, self._grader.submit(texts, [self._answers[i] for i in rows[0]])))
            self._submitted[rows], self._texts[rows] = True, texts

    def finish(self, rollouts: rollout.Rollouts) -> Callable[[], Answers]:
        """Hands over the rest; the function that it returns waits for the verdicts."""
        tokens, lengths, finished = distributed.to_host((rollouts.tokens, rollouts.lengths, rollouts.finished))
        self.watch(tokens, lengths, np.ones_like(self._submitted))
        rewards, verdicts = np.zeros(lengths.shape, np.float32), np.zeros(lengths.shape, np.int8)

        def judge():
            for rows, result in self._waiting:
                rewards[rows], verdicts[rows] = result()
            return rewards, verdicts

        def wait():
            graded = distributed.from_main(judge, (rewards, verdicts))  # what times out there may not elsewhere
            return Answers(self._texts, *graded, lengths, finished)

        return wait


def ask(
    params,
    config,
    tokenizer,
    prompts,
    lengths,
    answers: Sequence[str],
    grader,
    key,
    *,
    samples: int,
    max_tokens: int,
    batch: int = 0,
    skip: Collection[int] = (),
    **sampling,
) -> Iterator[tuple[int, np.ndarray, Answers]]:
    """Asks every question `samples` times; yields each batch's number, questions and answers, while the next one runs.

    Args:
      params: the policy's parameters.
      config: their shape.
      tokenizer: of the policy.
      prompts: int32 [N, S]; one that leaves fewer than `max_tokens` positions gets so many.
      lengths: int32 [N].
      answers: N, or what else the grader compares with.
      grader: see `dots_jax.reward`.
      key: PRNG key.
      samples: completions per question.
      max_tokens: per completion.
      batch: questions at a time, 0 for all; with the key it decides what is drawn.
      skip: numbers of batches that are not asked.
      **sampling: the other arguments of `rollout.sample`.
    """
    batch, pending = min(batch or len(prompts), len(prompts)), None
    room = np.minimum(max_tokens, config.max_positions - lengths)
    max_tokens = int(room.max())

    def collect(number, ids, wait):
        found = wait()  # without what filled the batch up
        return number, ids, Answers(*(getattr(found, f.name)[: len(ids)] for f in dataclasses.fields(Answers)))

    for number, start in enumerate(range(0, len(prompts), batch)):
        if number in skip:
            continue
        ids = np.arange(start, start + batch)
        asked = ids < len(prompts)
        ids = np.where(asked, ids, start)  # the last batch is filled up: one shape to compile
        grading = Grading(grader, tokenizer, [answers[i] for i in ids], samples)
        rollouts = rollout.sample(
            params,
            config,
            prompts[ids],
            lengths[ids],
            key if asked.sum() == len(prompts) else jax.random.fold_in(key, number),
            samples,
            max_tokens,
            limits=np.repeat(room[ids, None], samples, 1),
            watch=grading.watch if grader.slow else None,
            **sampling,
        )
        wait = grading.finish(rollouts)
        if pending:
            yield collect(*pending)
        pending = number, ids[asked], wait
    if pending:
        yield collect(*pending)


def run(*args, **options) -> Answers:
    """All answers that `ask` yields, in one."""
    parts = [answers for *_, answers in ask(*args, **options)]
    return Answers(*(np.concatenate([getattr(p, f.name) for p in parts]) for f in dataclasses.fields(Answers)))


def shares(verdicts: np.ndarray) -> dict[str, float]:
    """Each verdict's share of all."""
    return {v.name.lower(): float((verdicts == v).mean()) for v in Verdict}


def accuracy(success: np.ndarray, questions) -> float:
    """Mean success: of named questions (real sets) the mean over the sets' means, as in the paper."""
    if questions.names is None:
        return success.mean()
    return float(np.mean([success[rows].mean() for rows in by_set(questions).values()]))


def by_set(questions) -> dict[str, np.ndarray]:
    """Rows of each set, in the order in which they come."""
    families = np.array(questions.families)
    return {name: np.flatnonzero(families == name) for name in dict.fromkeys(questions.families)}


def by_level(success: np.ndarray, questions) -> dict[str, list[float | None]]:
    """Mean success of each level of each family, easiest first; None where the held-out set has no such question."""
    table, families = {}, np.array(questions.families)
    for family in dict.fromkeys(sorted(questions.families)):
        levels = range(questions.levels.min(), questions.levels.max() + 1)
        cells = [success[(families == family) & (questions.levels == level)] for level in levels]
        table[family] = [float(c.mean()) if len(c) else None for c in cells]
    return table


def interval(success: np.ndarray, samples: float) -> tuple[float, float]:
    """95% confidence interval of the mean of `success` [N], each the mean of about `samples` verdicts on a question.

    Wilson's score interval for N x samples verdicts, of which as many count as independent as the variance between
    questions allows (at least N, since the questions are the draw). Unlike mean ± 2 deviations it is not empty where
    no or every question is solved.
    """
    n, p = len(success), float(np.mean(success))
    between = float(np.var(success, ddof=1)) if n > 1 else 0.0
    count = min(max(n, n * p * (1 - p) / between), n * samples) if between else n
    z2 = 1.959964**2
    middle = (p + z2 / (2 * count)) / (1 + z2 / count)
    half = math.sqrt(z2 * (p * (1 - p) / count + z2 / (4 * count**2))) / (1 + z2 / count)
    return max(0.0, middle - half), min(1.0, middle + half)


# ---- The program -------------------------------------------------------------------------------------------------


def evaluate(config, workdir: str) -> None:
    """Runs or continues the evaluation that `configs/evaluate.py` describes, and prints the table.

    Raises UserError for what the user can mend.
    """
    with workdirs.Claim(workdir) as claim:
        _evaluate(config, workdir, claim)


def _evaluate(config, workdir: str, claim: workdirs.Claim) -> None:
    if not config.model:
        raise UserError("--model is missing; give --model=DIR, a Hugging Face directory (--help shows the flags)")
    root = sources.root(config.root)
    questions, _ = real.load_sets(config.sets, root, config.questions, config.seed)
    directory, mesh = find.find(config.model, root), sharding.make_mesh(**config.mesh)
    runtime.full_precision(config.dtype)
    model, params = policy.load(directory, mesh, jnp.dtype(config.dtype))
    tokenizer = tok.load(directory)
    prompts, lengths = tok.encode(tokenizer, questions.texts, model.max_positions - 1, config.system)
    asked = questions.rows()
    batch = min(config.batch, len(asked))
    prints = settings.fingerprints(directory, {}, questions=questions)
    stop_ids = tok.stop_ids(directory, tokenizer)
    counts = zip(questions.names, (np.bincount(asked) * config.samples).tolist(), strict=True)
    wanted = [(name, sample) for name, samples in counts for sample in range(samples)]
    rows, total = _there(config, workdir, wanted, batch * config.samples), -(-len(asked) // batch)
    settings.same_inputs(prints, workdir)
    claim.take()
    settings.write_config(config, workdir, prints)
    path = os.path.join(workdir, metrics.COMPLETIONS)
    metrics.replace(path, lambda partial: _write(partial, rows))
    there = {row["batch"] for row in rows}
    each = f" of their {len(asked):,} rows (repeats are further samples)" if questions.repeats else ""
    print(f"{len(questions):,} questions, {config.samples} completions of each{each}, by {config.model}")
    print(f"in {total} batches, of which {len(there)} are there, to {path}", flush=True)
    grader = reward.make(config.reward)
    sampling = {"stop_ids": stop_ids, "mesh": mesh}
    sampling |= {name: config[name] for name in ("samples", "max_tokens", "temperature", "top_p", "chunk", "slots")}
    against, key = reward.against(config.reward, questions), jax.random.key(config.seed)
    inputs = prompts[asked], lengths[asked], [against[i] for i in asked]
    try:
        readable = reward.readable(grader, against)
        if readable is not None and not readable.all():
            print(f"{(~readable).sum():,} gold answers that cannot be read match only as text", flush=True)
        for number, ids, found in ask(
            params, model, tokenizer, *inputs, grader, key, batch=batch, skip=there, **sampling
        ):
            new = [
                {
                    "batch": number,
                    "question": wanted[row * config.samples + j][0],
                    "sample": wanted[row * config.samples + j][1],
                    "verdict": Verdict(found.verdicts[n, j]).name.lower(),
                    "reward": float(found.rewards[n, j]),
                    "tokens": int(found.lengths[n, j]),
                    "ended": bool(found.finished[n, j]),
                    "answer": questions.answers[asked[row]],
                    "completion": found.texts[n, j],
                }
                for n, row in enumerate(ids.tolist())
                for j in range(config.samples)
            ]
            _write(path, new)
            rows += new
            print(f"batch {number + 1} of {total}: mean reward {found.rewards.mean():.3f}", flush=True)
    finally:
        grader.close()
    table = results(rows)
    text = json.dumps(table, indent=2)
    metrics.replace(os.path.join(workdir, RESULTS), lambda partial: metrics.write_text(partial, text))
    print(f"\n{show(table)}\n{os.path.join(workdir, RESULTS)}")


def results(rows: list[dict]) -> dict[str, dict]:
    """Accuracy with its interval of each set, with what became of completions, and as "average" of the sets."""
    asked = collections.defaultdict(lambda: collections.defaultdict(list))  # set -> question -> rows
    for row in rows:
        asked[row["question"].rpartition(":")[0]][row["question"]].append(row)
    table = {}
    for name, questions in asked.items():
        success = np.array([np.mean([row["reward"] for row in mine]) for mine in questions.values()])
        mine = [row for found in questions.values() for row in found]
        low, high = interval(success, len(mine) // len(success))
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
    columns = {  # name -> width
        "questions": 10, "accuracy": 9, "95% interval": 14, "tokens": 7, "cut": 7, "wrong": 7, "no answer": 10,
        "timeout": 8, "crashed": 8,
    }  # fmt: skip
    lines = [f"{'set':<14}" + "".join(f"{name:>{width}}" for name, width in columns.items())]
    for name, row in table.items():
        cells = {n: f"{row.get(n.replace(' ', '_'), '')}" for n in columns}
        cells |= {"accuracy": f"{row['accuracy']:.3f}", "95% interval": f"{row['low']:.3f}-{row['high']:.3f}"}
        if "tokens" in row:
            cells |= {"tokens": f"{row['tokens']:.0f}", "cut": f"{row['cut']:.1%}"}
        lines.append(f"{name[:14]:<14}" + "".join(f"{cells[n]:>{width}}" for n, width in columns.items()))
    return "\n".join(lines)


def _there(config, workdir: str, wanted: list[tuple[str, int]], batch: int) -> list[dict]:
    """The completions of whole batches that an evaluation of the same settings has left in `workdir`.

    `wanted` are the question and sample of each completion, `batch` of them in each batch.

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
        whole_batch = wanted[number * batch : (number + 1) * batch]
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
    return flags.run(evaluate, "configs/evaluate.py", HELP, argv)


if __name__ == "__main__":
    flags.end(main())
