"""What a run predicted and measured, question by question, read from its workdir."""

import dataclasses
import functools
import math
import os
from collections.abc import Callable

import numpy as np
from ml_collections import ConfigDict

from dots_jax import data
from dots_jax.core import command_line, config_rules, files, rules
from dots_jax.core.errors import UserError
from dots_jax.data import sources
from dots_jax.difficulty import baselines, embed, measures, predictor
from dots_jax.policy import families, source
from dots_jax.policy import tokenizer as tok
from dots_jax.run import metrics, settings

COMMON = "configs/common.py"


@dataclasses.dataclass(frozen=True)
class Round:
    """One selection round: the labels that were there, and what was measured after its prediction.

    Trained questions were chosen for their predicted difficulty, so a correlation over them alone says little; the
    next round's references are a uniform draw. Reused references count as neither.
    """

    step: int
    labels: np.ndarray  # int32 [L], question ids, oldest first
    difficulty: np.ndarray  # float32 [L], of the labels, as measured
    ages: np.ndarray  # int32 [L], in steps
    ids: np.ndarray  # int32 [M], measured afterwards
    predicted: np.ndarray  # float32 [M]
    measured: np.ndarray  # float32 [M]
    uniform: np.ndarray  # bool [M], references of the next round
    pool: np.ndarray  # int [20], histogram of the predicted difficulty of all questions over [0, 1]
    new: np.ndarray  # bool [M], never measured before the prediction; of the others an older label took part in the fit


class Run:
    """A workdir of `dots_jax.main`. Raises UserError where it holds no run that predicts difficulty."""

    def __init__(self, workdir: str):
        self.workdir, path = workdir, f"{workdir}/{metrics.GROUPS}"
        self.config = _config(workdir)
        self.groups = metrics.read(workdir, metrics.GROUPS, kinds={"step": rules.whole()})
        steps = [row["step"] for row in metrics.read(workdir)][1:]
        if not self.groups or [row["step"] for row in self.groups][: len(steps)] != steps:
            raise UserError(f"{path} lacks steps of {metrics.FILE}; give a workdir that is whole")
        if not any("predicted" in row for row in self.groups):
            raise UserError(f"{path} holds no predictions; give a run whose selector predicts difficulty")
        self._root = sources.root(self.config.data.root)
        self._policy = source.of_config(self.config.policy, self._root, workdir, self.config.seed)
        self.questions = data.load(self.config, tok.load(self._policy))[0]
        _check(self.groups, self.config.selection.interval, len(self.questions), path)

    @functools.cached_property
    def embeddings(self) -> np.ndarray:
        """Of the pool, as the predictor saw them, float32 [N, D]."""
        named = self.config.embedding.path
        path = source.find(named, self._root) if named else self._policy
        family = families.find(self.config.policy.family) if path == self._policy else None
        return embed.load(path, self.questions.texts, self.config.embedding, family=family)

    @functools.cached_property
    def params(self) -> dict:
        """The predictor as the run ended. Raises UserError where the selector has left none."""
        return predictor.load(os.path.join(self.workdir, predictor.FILE), self.embeddings.shape[1])

    @functools.cached_property
    def rounds(self) -> list[Round]:
        """All selection rounds but those without labels, or whose training groups are not all measured."""
        groups, interval, labels, rounds = self.groups, self.config.selection.interval, [], []
        has_references = any("reference_ids" in record for record in groups)
        labels_groups = self.config.predictor.labels == "groups" or not has_references
        seen = np.zeros(len(self.questions), bool)
        for at, record in enumerate(groups):
            reused = self._num_reused(record)
            labels += _measured(record, "reference_")
            seen[record.get("reference_ids", [])] = True
            later = groups[at : at + interval]
            if labels and "pool" in record and len(later) == interval:
                following = groups[at + interval] if at + interval < len(groups) else {}
                references = _measured(following, "reference_") if "reference_predicted" in following else []
                trained = _measured(record, "", reused)
                trained += [label for other in later[1:] for label in _measured(other, "")]
                window = zip(*labels[-self.config.predictor.window :], strict=True)
                ids, difficulty, steps, _ = map(np.array, window)
                after, measured, _, predicted = map(np.array, zip(*trained, *references, strict=True))
                uniform = np.arange(len(after)) >= len(trained)
                new = ~seen[after] & ~(uniform & np.isin(after, after[~uniform]))
                step, pool = record["step"], np.array(record["pool"])
                rounds.append(
                    Round(step, ids, difficulty, step - steps, after, predicted, measured, uniform, pool, new)
                )
            seen[record["ids"]] = True
            labels += _measured(record, "", reused) if labels_groups else []
        return rounds

    def _num_reused(self, record: dict) -> int:
        """How many of a step's first questions are references of that step, whose groups existed."""
        reused = record["ids"][: self.config.selection.reuse_references]
        return len(reused) if set(reused) <= set(record.get("reference_ids", ())) else 0

    def attention(self, question: int, last: Round | None = None) -> tuple[np.ndarray, np.ndarray]:
        """The labels' indices and weights [L] that the final predictor gives to `question`, largest first."""
        last, E = last or self.rounds[-1], self.embeddings
        weights = np.asarray(predictor.attention(self.params, E[[question]], E[last.labels], self._context(last))[0])
        order = np.argsort(-weights)
        return order, weights[order]

    def compare(self) -> dict[str, dict[str, float]]:
        """How well this run's predictor, raw-embedding attention and ridge regression predicted the same questions.

        Each from the labels known at the round; ridge weighs them by age as the predictor's training does. The
        temperature of the one and the penalty of the other are the best in hindsight. Measures over all rounds but
        the first together: of questions never measured before; under "uniform_" of the references among these; under
        "references_" of all references, a uniform draw from the pool.
        """
        rounds, E = self.rounds[1:], self.embeddings
        if not rounds:
            raise UserError(f"{self.workdir} has fewer than two whole selection rounds; let it run on")
        names = ("new", "measured", "uniform")
        new, measured, uniform = (np.concatenate([getattr(r, name) for r in rounds]) for name in names)

        def judge(predicted: list[np.ndarray]) -> dict[str, float]:
            predicted, reports = np.concatenate(predicted), {}
            for prefix, which in (("", new), ("uniform_", new & uniform), ("references_", uniform)):
                report = measures.report(predicted[which], measured[which], self.config.selection.target)
                reports |= {prefix + name: value for name, value in report.items()}
            return reports

        def best(fit: Callable, choices: tuple) -> dict[str, float]:
            reports = [judge([fit(r, *choice)(E[r.ids]) for r in rounds]) for choice in choices]
            order = "uniform_pearson" if (new & uniform).any() else "pearson"
            return max(reports, key=lambda report: report[order])

        def ridge(r: Round, penalty: float):
            weights = 0.5 ** (r.ages / self.config.predictor.half_life)
            return baselines.ridge(E[r.labels], r.difficulty, penalty, weights)

        def raw_attention(r: Round, temperature: float):
            context = self._context(r)
            return baselines.raw_attention(E[r.labels[context]], r.difficulty[context], temperature)

        return {
            "adapter": judge([r.predicted for r in rounds]),
            "raw attention": best(raw_attention, baselines.ATTENTION),
            "ridge": best(ridge, ((1.0,), *baselines.RIDGE)),
        }

    def _context(self, r: Round) -> np.ndarray:
        """The labels that predictions of the round attend to, bool [L]: the round's references, or all."""
        fresh = r.ages == 0
        return fresh if self.config.predictor.context != "window" and fresh.any() else r.ages >= 0


def _config(workdir: str) -> ConfigDict:
    """The config of the run in `workdir`. Raises UserError where it is not one of this version."""
    fields = settings.read(workdir)
    try:
        config = ConfigDict(fields)
        command_line.same_fields(config, command_line.load(os.path.join(files.ROOT, COMMON)), COMMON)
        config_rules.check(config, config_rules.RUN)
    except (UserError, ValueError) as error:  # ValueError: names with dots
        raise UserError(f"{workdir} holds no run that this version can open: {error}") from error
    return config


def _check(groups: list[dict], interval: int, num_questions: int, path: str) -> None:
    """Raises UserError at the first record that lacks what its step has, or holds what cannot be."""
    has_references, predicts = any("reference_ids" in record for record in groups), False
    for record in groups:
        where, opens_round = f"step {record['step']} of {path}", (record["step"] - 1) % interval == 0
        rules.check_row(record, {"rollouts": rules.whole(1)}, where)
        predicted_before, predicts = predicts, predicts or "predicted" in record
        parts = {"": predicts} | ({"reference_": predicted_before} if opens_round and has_references else {})
        for prefix, is_predicted in parts.items():
            rules.check_row(record, {f"{prefix}ids": rules.some(rules.whole(0, num_questions - 1))}, where)
            count = len(record[f"{prefix}ids"])
            kinds = {"successes": rules.some(rules.number(0, record["rollouts"]), count)}
            kinds |= {"predicted": rules.some(rules.number(), count)} if is_predicted else {}
            rules.check_row(record, {prefix + name: kind for name, kind in kinds.items()}, where)
        if opens_round and predicts:
            rules.check_row(record, {"pool": rules.some(rules.whole(), 20)}, where)


def _measured(record: dict, prefix: str, skip: int = 0) -> list[tuple[int, float, int, float]]:
    """(id, difficulty, step, prediction) of a record's training groups, or with "reference_" of its references.

    `skip` of the first are left out.
    """
    ids = record.get(f"{prefix}ids", [])
    predicted = record.get(f"{prefix}predicted", [math.nan] * len(ids))
    rows = zip(ids, record.get(f"{prefix}successes", []), predicted, strict=True)
    return [(i, 1 - s / record["rollouts"], record["step"], p) for i, s, p in rows][skip:]
