"""Completions to read: what `completions.jsonl` holds of a step, a row for each."""

import collections

import jax
import numpy as np

from dots_jax import reward
from dots_jax.core.distributed import is_main
from dots_jax.core.files import plain
from dots_jax.core.rng import Purpose
from dots_jax.policy import tokenizer as tok
from dots_jax.reward.types import Verdict
from dots_jax.rollout.grading import GradedCompletions

_TOKENS = "token_"  # how the keys of what is known of each token begin
_ONCE = ("step", "kind")  # keys that a completion has anew when it is replayed


class Completions:
    """Collects the rows of a step; `config` holds the fields `completions`, `exp` is an `Experiment`."""

    def __init__(self, config, exp):
        self._config, self._exp, self._rows = config, exp, []
        # Step and question -> rows of the newest groups that the buffer may hold.
        self._replayable: collections.OrderedDict[tuple[int, int], list[dict]] = collections.OrderedDict()

    def restart(self, rows: list[dict]) -> None:
        """Takes over what earlier starts have written."""
        groups = collections.defaultdict(list)
        for row in rows:
            if row.get("kind") == "fresh":
                groups[row["step"], row["question"]].append(row)
        for group in groups.values():
            self._remember(group)

    def take(self) -> list[dict]:
        """The rows since the last call."""
        rows, self._rows = self._rows, []
        return rows

    def keep_groups(self, kind: str, state, groups, step: int) -> None:
        """Some of the groups, drawn by the step alone, with what sampler and learner say of each token."""
        exp, count = self._exp, min(self._config.groups, len(groups.ids))
        if not count:
            return
        order = jax.random.permutation(exp.stream(Purpose.LOG, step), len(groups.ids))
        indices = np.sort(np.asarray(order)[:count]).astype(np.int32)
        rollouts, logp, entropy = exp.scored(state, groups.rollouts, indices)
        if not is_main():
            return
        for n, i in enumerate(indices):
            graded = GradedCompletions(
                groups.texts[i], groups.rewards[i], groups.verdicts[i], groups.tokens[i], rollouts.finished[n]
            )
            rows = [self._row(kind, exp.pool, int(groups.ids[i]), j, graded, j) for j in range(len(graded.texts))]
            for j, row in enumerate(rows):
                length = row["tokens"]
                tokens, sampled = rollouts.tokens[n, j, :length], rollouts.logprobs[n, j, :length]
                row |= {
                    f"{_TOKENS}lengths": tok.lengths(exp.policy.tokenizer, tokens.tolist()),
                    f"{_TOKENS}logprobs": _short(sampled),
                    f"{_TOKENS}logprob_diffs": _short(logp[n, j, :length] - sampled),
                    f"{_TOKENS}entropies": _short(entropy[n, j, :length]),
                }
            self._rows += rows
            if kind == "fresh":
                self._remember([{"step": step} | row for row in rows])

    def keep_replayed(self, ids: np.ndarray, steps: np.ndarray, step: int) -> None:
        """Those of the groups replayed at a step, of the questions `ids` and the `steps`, that had been kept."""
        if not is_main():
            return
        drawn = sorted(set(zip(steps.tolist(), ids.tolist(), strict=True)) & self._replayable.keys())
        for key in drawn[: self._config.groups]:
            self._rows += [{"kind": "replayed"} | row | {"age": step - key[0]} for row in self._replayable[key]]

    def keep_evaluation(self, kind: str, evaluator, graded: GradedCompletions) -> None:
        """The completions of an evaluation's rows, of all or of as many, evenly spaced."""
        if not is_main():
            return
        count, rows = self._config.evaluations, np.arange(len(evaluator.rows))
        if 0 <= count < len(rows):
            rows = np.linspace(0, len(rows) - 1, count).astype(int)
        first = np.searchsorted(evaluator.rows, evaluator.rows)  # of the rows of the same question
        for m in rows.tolist():
            for j in range(evaluator.samples):
                sample = int(m - first[m]) * evaluator.samples + j
                row = self._row(kind, evaluator.questions, int(evaluator.rows[m]), sample, graded[m], j)
                self._rows.append(row)

    def _row(self, kind: str, questions, question: int, sample: int, graded: GradedCompletions, j: int) -> dict:
        """A completion of the question with that number; `graded` are those of its question [G], `j` which of them."""
        text = graded.texts[j]
        return {
            "kind": kind,
            "question": question,
            **({"name": questions.names[question]} if questions.names else {}),
            "sample": sample,
            "completion": text,
            "extracted": reward.extracted(self._exp.grader, text),
            "verdict": Verdict(graded.verdicts[j]).name.lower(),
            "reward": plain(graded.rewards[j]),
            "tokens": int(graded.lengths[j]),
            "truncated": not graded.finished[j],
        }

    def _remember(self, rows: list[dict]) -> None:
        if len({row["reward"] for row in rows}) > 1:  # others do not enter the buffer
            key = rows[0]["step"], rows[0]["question"]
            self._replayable[key] = [
                {name: x for name, x in row.items() if name not in _ONCE and not name.startswith(_TOKENS)}
                for row in rows
            ]
            if len(self._replayable) > self._exp.replay_spec.num_slots:
                self._replayable.popitem(last=False)


def _short(values: np.ndarray) -> list[float]:
    """In three digits."""
    return [float(f"{value:.3g}") for value in values.tolist()]
