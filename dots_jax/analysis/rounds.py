"""What a run predicted and measured, question by question, read from its workdir."""

import dataclasses
import functools
import os

import numpy as np
from ml_collections import ConfigDict

from dots_jax import data
from dots_jax.core import command_line, config_rules, files, rules
from dots_jax.core.errors import UserError
from dots_jax.difficulty import baselines, embed, measures, predictor
from dots_jax.policy import tokenizer as tok
from dots_jax.run import metrics, settings
from dots_jax.selection import dots

COMMON = "configs/common.py"


@dataclasses.dataclass(frozen=True)
class Round:
    """One selection round: the labels that were there, and what was measured after its prediction.

    Trained questions were chosen for their predicted difficulty, so a correlation over them alone says little; the
    next round's references are a uniform draw. Reused references count as neither.
    """

    step: int
    labels: np.ndarray  # int32 [L], question ids, oldest first
    known: np.ndarray  # float32 [L], their measured difficulty
    ages: np.ndarray  # int32 [L], in steps
    ids: np.ndarray  # int32 [M], measured afterwards
    predicted: np.ndarray  # float32 [M]
    measured: np.ndarray  # float32 [M]
    uniform: np.ndarray  # bool [M], drawn uniformly
    pool: np.ndarray  # int [20], histogram of the predicted difficulty of all questions over [0, 1]
    new: np.ndarray  # bool [M], never measured before the prediction; of the others an older label took part in the fit


class Run:
    """A workdir of `dots_jax.main`. Raises UserError where it holds no run that predicts difficulty."""

    def __init__(self, workdir: str):
        self.workdir = workdir
        self.config = _config(workdir)
        self.groups = metrics.read(workdir, metrics.GROUPS, kinds={"step": rules.whole()})
        steps = [row["step"] for row in metrics.read(workdir)][1:]
        if not self.groups or [row["step"] for row in self.groups][: len(steps)] != steps:
            raise UserError(f"{workdir}/{metrics.GROUPS} lacks steps of {metrics.FILE}; give a workdir that is whole")
        if not any("predicted" in row for row in self.groups):
            raise UserError(f"{workdir}/{metrics.GROUPS} holds no predictions; give a run with selection.name=dots")
        self._policy = settings.policy(self.config, workdir)
        self.questions = data.load(self.config, tok.load(self._policy))[0]
        _check(self.groups, self.config, len(self.questions), f"{workdir}/{metrics.GROUPS}")

    @functools.cached_property
    def embeddings(self) -> np.ndarray:
        """Of the pool, as the predictor saw them, float32 [N, D]."""
        path = settings.embedder(self.config, self._policy)
        return embed.load(path, self.questions.texts, self.config.embedding)

    @functools.cached_property
    def params(self) -> dict:
        """The predictor as the run ended."""
        return predictor.load(os.path.join(self.workdir, dots.FILE), self.embeddings.shape[1])

    @functools.cached_property
    def rounds(self) -> list[Round]:
        """All selection rounds but those whose training groups are not all measured."""
        config, every, reuse = self.config, self.config.selection.interval, self.config.selection.reuse_references
        labels, rounds, seen = [], [], np.zeros(len(self.questions), bool)
        for at, row in enumerate(self.groups):
            if "pool" in row and at + every <= len(self.groups):
                labels += _labels(row, asked=True)
                seen[row["reference_ids"]] = True
                ids, known, steps = (np.array(x) for x in zip(*labels[-config.predictor.window :], strict=True))
                after = [
                    label for i, later in enumerate(self.groups[at : at + every])
                    for label in _labels(later, asked=False, skip=0 if i else reuse)
                ]  # fmt: skip
                following = self.groups[at + every] if at + every < len(self.groups) else {}
                asked = _labels(following, asked=True) if "reference_predicted" in following else []
                ids_after, measured, _ = (np.array(x) for x in zip(*after, *asked, strict=True))
                predicted = [p for later in self.groups[at : at + every] for p in later["predicted"]]
                predicted = predicted[reuse:] + following.get("reference_predicted", [])
                uniform = np.arange(len(ids_after)) >= len(after)
                new = ~seen[ids_after] & ~(uniform & np.isin(ids_after, ids_after[~uniform]))
                rounds.append(
                    Round(row["step"], ids, known, row["step"] - steps, ids_after, np.array(predicted), measured,
                          uniform, np.array(row["pool"]), new)
                )  # fmt: skip
            seen[row["ids"]] = True
            if config.predictor.labels == "groups":
                labels += _labels(row, asked=False, skip=reuse if "pool" in row else 0)
        return rounds

    def attention(self, question: int, last: Round | None = None) -> tuple[np.ndarray, np.ndarray]:
        """The labels' places and weights [L] that the final predictor gives to `question`, largest first."""
        last, E = last or self.rounds[-1], self.embeddings
        weights = predictor.attention(self.params, E[[question]], E[last.labels], self._seen(last))
        order = np.argsort(-np.asarray(weights[0]))
        return order, np.asarray(weights[0])[order]

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
        new, measured, uniform = (
            np.concatenate([getattr(r, n) for r in rounds]) for n in ("new", "measured", "uniform")
        )

        def judge(predicted):
            predicted, found = np.concatenate(predicted), {}
            for prefix, which in (("", new), ("uniform_", new & uniform), ("references_", uniform)):
                row = measures.report(predicted[which], measured[which], self.config.selection.target)
                found |= {prefix + name: value for name, value in row.items()}
            return found

        def best(fit, choices):
            found = [judge([fit(r, *choice)(E[r.ids]) for r in rounds]) for choice in choices]
            return max(found, key=lambda row: row["uniform_pearson"])

        def ridge(r, penalty):
            weights = 0.5 ** (r.ages / self.config.predictor.half_life)
            return baselines.ridge(E[r.labels], r.known, penalty, weights)

        def raw_attention(r, temperature):
            seen = self._seen(r)
            return baselines.raw_attention(E[r.labels[seen]], r.known[seen], temperature)

        return {
            "adapter": judge([r.predicted for r in rounds]),
            "raw attention": best(raw_attention, baselines.ATTENTION),
            "ridge": best(ridge, ((1.0,), *baselines.RIDGE)),
        }

    def _seen(self, r: Round) -> np.ndarray:
        """The labels that predictions of the round attend to, bool [L]."""
        return r.ages >= 0 if self.config.predictor.context == "window" else r.ages == 0


def _config(workdir: str) -> ConfigDict:
    """The config of the run in `workdir`. Raises UserError where it is not one of this version."""
    found = settings.read(workdir)
    try:
        config = ConfigDict(found)
        command_line.same_fields(config, command_line.load(os.path.join(files.ROOT, COMMON)), COMMON)
        config_rules.check(config, config_rules.RUN)
    except (UserError, ValueError) as error:  # ValueError: names with dots
        raise UserError(f"{workdir} holds no run that this version can open: {error}") from error
    return config


def _check(groups: list[dict], config, questions: int, path: str) -> None:
    """Raises UserError at the first row that lacks what its step has, or holds what cannot be."""
    ids, predicted = rules.whole(0, questions - 1), rules.number()
    for row in groups:
        where = f"step {row['step']} of {path}"
        rules.check_row(row, {"rollouts": rules.whole(1), "ids": rules.some(ids)}, where)
        successes = rules.number(0, row["rollouts"])
        of_each = {"successes": (successes, "ids"), "predicted": (predicted, "ids")}
        if (row["step"] - 1) % config.selection.interval == 0:
            rules.check_row(row, {"reference_ids": rules.some(ids), "pool": rules.some(rules.whole(), 20)}, where)
            of_each |= {"reference_successes": (successes, "reference_ids")}
            of_each |= {"reference_predicted": (predicted, "reference_ids")} if row["step"] > 1 else {}
        kinds = {name: rules.some(kind, len(row[of])) for name, (kind, of) in of_each.items()}
        rules.check_row(row, kinds, where)


def _labels(row: dict, asked: bool, skip: int = 0) -> list[tuple]:
    """(id, difficulty, step) of a row's references (`asked`) or of its training groups, but for the first `skip`."""
    groups = zip(
        *(row[name] for name in (("reference_ids", "reference_successes") if asked else ("ids", "successes"))),
        strict=True,
    )
    return [(i, 1 - s / row["rollouts"], row["step"]) for i, s in list(groups)[skip:]]
