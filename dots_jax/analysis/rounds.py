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
from dots_jax.difficulty import baselines, embed, measures, online, predictor
from dots_jax.policy import families, source
from dots_jax.policy import tokenizer as tok
from dots_jax.run import metrics, settings
from dots_jax.selection.history import History

COMMON = "configs/common.py"
_ROW = [("id", int), ("difficulty", float), ("predicted", float), ("is_reference", bool)]  # of a measured group


@dataclasses.dataclass(frozen=True)
class PredictedRound:
    """One selection round: the labels that were there, and what was measured after its prediction.

    Trained questions were chosen for their predicted difficulty, so a correlation over them alone says little; the
    next round's references are a uniform draw. Reused references count as neither.
    """

    step: int
    labels: np.ndarray  # int32 [L], question ids, oldest first
    difficulty: np.ndarray  # float [L], of the labels, as measured
    ages: np.ndarray  # int32 [L], in steps
    weights: np.ndarray  # float [L], of the labels in the predictor's training
    context: np.ndarray  # bool [L], labels that predictions attend to
    ids: np.ndarray  # int32 [M], measured afterwards
    predicted: np.ndarray  # float [M]
    measured: np.ndarray  # float [M]
    uniform: np.ndarray  # bool [M], references of the next round
    pool: np.ndarray  # int [20], histogram of the predicted difficulty of all questions over [0, 1]
    new: np.ndarray  # bool [M], never measured before the prediction; of the others an older label took part in the fit


class Workdir:
    """What any run of `dots_jax.main` has measured of its questions. Raises UserError where `workdir` holds none."""

    def __init__(self, workdir: str):
        self.workdir, path = workdir, f"{workdir}/{metrics.GROUPS}"
        self.config = _config(workdir)
        self.groups = metrics.read(workdir, metrics.GROUPS, kinds={"step": rules.whole()})
        steps = [row["step"] for row in metrics.read(workdir)][1:]
        if not self.groups or [row["step"] for row in self.groups][: len(steps)] != steps:
            raise UserError(f"{path} lacks steps of {metrics.FILE}; give a workdir that is whole")
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


class Run(Workdir):
    """A run that predicts difficulty. Raises UserError where `workdir` holds none."""

    def __init__(self, workdir: str):
        super().__init__(workdir)
        if not any("predicted" in row for row in self.groups):
            path = f"{workdir}/{metrics.GROUPS}"
            raise UserError(f"{path} holds no predictions; give a run whose selector predicts difficulty")

    @functools.cached_property
    def params(self) -> dict:
        """The predictor as the run ended. Raises UserError where the selector has left none."""
        return predictor.load(os.path.join(self.workdir, predictor.FILE), self.embeddings.shape[1])

    @functools.cached_property
    def rounds(self) -> list[PredictedRound]:
        """All selection rounds but those without labels, or whose training groups are not all measured."""
        groups, rounds, c = self.groups, [], self.config.selection
        learns_groups = self.config.predictor.labels == "groups" or not any("reference_ids" in row for row in groups)
        history, labels = History(len(self.questions), c.references), online.no_labels(self.config.predictor.window)
        for at, record in enumerate(groups):
            references, fresh = _measured(record, "reference_"), _measured(record)
            if set(fresh["id"][: c.reuse_references]) <= set(references["id"]):  # their groups existed
                fresh = fresh[c.reuse_references :]
            history.add_references(record)
            labels = online.add_labels(labels, references["id"], references["difficulty"], record["step"], True)
            later = groups[at : at + c.interval + 1]
            if labels["written"] and "pool" in record and len(later) >= c.interval:
                rows = [fresh, *map(_measured, later[1 : c.interval])]
                rows += [_measured(row, "reference_") for row in later[c.interval :] if "reference_predicted" in row]
                rounds.append(self._round(record, labels, np.concatenate(rows), history))
            history.add_groups(record)
            if learns_groups:
                labels = online.add_labels(labels, fresh["id"], fresh["difficulty"], record["step"], False)
        return rounds

    def _round(self, record: dict, labels: dict, rows: np.ndarray, history: History) -> PredictedRound:
        """The round that `record` opens, with what was measured after its prediction."""
        step, config, ids, uniform = record["step"], self.config.predictor, rows["id"], rows["is_reference"]
        order = (labels["written"] + np.arange(config.window)) % config.window
        order = order[labels["step"][order] >= 0]
        context = online.context(labels, step, config.context)[order]
        return PredictedRound(
            step=step,
            labels=labels["ids"][order],
            difficulty=labels["difficulty"][order].astype(float),
            ages=step - labels["step"][order],
            weights=online.weights(labels, step, config.half_life)[order],
            context=context if context.any() else ~context,
            ids=ids,
            predicted=rows["predicted"],
            measured=rows["difficulty"],
            uniform=uniform,
            pool=np.array(record["pool"]),
            new=~history.is_measured[ids] & ~(uniform & np.isin(ids, ids[~uniform])),
        )

    def attention(self, question: int, last: PredictedRound | None = None) -> tuple[np.ndarray, np.ndarray]:
        """The labels' indices and weights [L] that the final predictor gives to `question`, largest first."""
        last, E = last or self.rounds[-1], self.embeddings
        weights = np.asarray(predictor.attention(self.params, E[[question]], E[last.labels], last.context)[0])
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

        def ridge(r: PredictedRound, penalty: float):
            return baselines.ridge(E[r.labels], r.difficulty, penalty, r.weights)

        def raw_attention(r: PredictedRound, temperature: float):
            return baselines.raw_attention(E[r.labels[r.context]], r.difficulty[r.context], temperature)

        return {
            "adapter": judge([r.predicted for r in rounds]),
            "raw attention": best(raw_attention, baselines.ATTENTION),
            "ridge": best(ridge, ((1.0,), *baselines.RIDGE)),
        }


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


def _measured(record: dict, prefix: str = "") -> np.ndarray:
    """A row for each of a record's training groups, or with "reference_" of its references."""
    ids = record.get(f"{prefix}ids", [])
    rows = np.empty(len(ids), _ROW)
    rows["id"], rows["is_reference"] = ids, bool(prefix)
    rows["difficulty"] = 1 - np.array(record.get(f"{prefix}successes", [])) / record["rollouts"]
    rows["predicted"] = record.get(f"{prefix}predicted", math.nan)
    return rows
