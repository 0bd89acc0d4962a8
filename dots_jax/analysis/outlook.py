"""What a run can expect of a pool, from beliefs about every question's success rate: numbers of `dots_jax.probe`."""

import dataclasses
from collections.abc import Sequence

import numpy as np

from dots_jax.difficulty import measures
from dots_jax.selection.counts import mixed_chance

GROUP_SIZES = (2, 4, 8, 16, 32)
BINS = 10  # of the histograms


@dataclasses.dataclass(frozen=True)
class Beliefs:
    """Beta distributions of the success rates of N questions."""

    a: np.ndarray  # float [N]
    b: np.ndarray  # float [N]

    @classmethod
    def of(cls, difficulty: np.ndarray, deviation: np.ndarray) -> "Beliefs":
        """With the means 1 - difficulty [N] and the deviations [N] of a selector's prediction."""
        mean = np.clip(1 - np.float64(difficulty), 1e-3, 1 - 1e-3)
        total = np.maximum(mean * (1 - mean) / np.maximum(np.float64(deviation), 1e-6) ** 2 - 1, 1e-2)
        return cls(total * mean, total * (1 - mean))

    @property
    def mean(self) -> np.ndarray:
        """Expected success rate, float [N]."""
        return self.a / (self.a + self.b)

    def mixed(self, group_size: int) -> np.ndarray:
        """Chance that a group has successes and failures, float [N]."""
        return mixed_chance(self.a, self.b, group_size)


def silent(beliefs: Beliefs, chosen: dict[str, np.ndarray], group_size: int) -> dict[str, float]:
    """Expected share of groups whose rewards are all equal: of the whole pool ("uniform"), and of what was chosen."""
    mixed = beliefs.mixed(group_size)
    return {"uniform": 1 - mixed.mean()} | {name: 1 - mixed[ids].mean() for name, ids in chosen.items()}


def by_group_size(beliefs: Beliefs, chosen: dict[str, np.ndarray]) -> dict[int, dict[str, float]]:
    """Useful groups of a thousand completions to train on, for each number of completions that a group may have."""
    per_group = {G: silent(beliefs, chosen, G) for G in GROUP_SIZES}
    return {G: {name: 1000 * (1 - share) / G for name, share in row.items()} for G, row in per_group.items()}


def by_part(beliefs: Beliefs, parts: Sequence[str], group_size: int) -> dict[str, dict[str, float]]:
    """Of each part of the pool (`parts` [N] names that of each question): questions, success, mixed groups expected.

    The parts with most mixed groups first.
    """
    parts, mixed, table = np.asarray(parts), beliefs.mixed(group_size), {}
    for name in dict.fromkeys(parts.tolist()):
        of = parts == name
        table[name] = {"questions": int(of.sum()), "success": beliefs.mean[of].mean(), "mixed": mixed[of].mean()}
    return dict(sorted(table.items(), key=lambda item: -item[1]["mixed"]))


def left_out(predict, ids: np.ndarray, rate: np.ndarray, group_size: int, folds: int = 5) -> dict[str, float]:
    """How well measured questions are predicted from others: each of `folds` parts of `ids` from the rest.

    `predict(rest)` returns Beliefs of all questions once those at the indices `rest` of `ids` are measured. "pearson"
    of expected and measured `rate` and "ceiling", what the noise of G completions allows; "mixed", the share of groups
    expected to be mixed, beside "mixed_measured"; "top" and "top_measured", the same of the fifth that is likeliest to
    be mixed: what a selector would take. NaN where there are fewer than two a fold.
    """
    if len(ids) < 2 * folds:
        return dict.fromkeys(("pearson", "ceiling", "mixed", "mixed_measured", "top", "top_measured"), np.nan)
    expected, mixed = np.zeros((2, len(ids)))
    for fold in range(folds):
        held = np.arange(len(ids)) % folds == fold
        beliefs = predict(np.flatnonzero(~held))
        expected[held], mixed[held] = beliefs.mean[ids[held]], beliefs.mixed(group_size)[ids[held]]
    found, top = (rate > 0) & (rate < 1), np.argsort(-mixed, kind="stable")[: len(ids) // folds]
    return {
        "pearson": measures.report(expected, rate)["pearson"],
        "ceiling": measures.ceiling(rate, group_size),
        "mixed": mixed.mean(),
        "mixed_measured": found.mean(),
        "top": mixed[top].mean(),
        "top_measured": found[top].mean(),
    }
