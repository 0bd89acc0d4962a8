"""How well difficulty is predicted for policies that nothing was learned from: leave-policies-out.

Questions that other policies have measured ("seen") and that nobody has ("unseen") are judged apart.
"""

import functools
from collections.abc import Callable
from typing import Any

import numpy as np

from dots_jax.difficulty import measures, rates
from dots_jax.difficulty.baselines import REGRESSIONS, kernel_ridge

ITEM, REFERENCES = "item mean", "references alone"
_PENALTIES = (0.3, 1.0, 3.0, 10.0)  # of kernel ridge regression on references

Train = Callable[[rates.Table], Callable]  # table -> (questions, references, labels of these) -> difficulty


def report(
    table: rates.Table, parts: dict[str, np.ndarray], count: int, references: int, seed: int, train: Train
) -> dict[str, dict[str, dict[str, dict]]]:
    """Kind of questions ("seen", "unseen") -> method -> policy -> its measures when held out.

    The policies are drawn into `count` folds, each held out in turn. Of a held-out policy, methods get the labels of
    its M = `references` references or none. parts: as `rates.split` has them; train: trains the predictor on the table
    of the other policies.
    """
    rows: dict = {"seen": {}, "unseen": {}}
    for held in folds(len(table.policies), count, seed):
        for policy, (ids, predicted) in predict(table, parts, held, references, seed, train).items():
            for kind, questions in ids.items():
                for method, values in predicted.items():
                    if kind == "unseen" and method.startswith(ITEM):
                        continue
                    row = table.judge(policy, questions, values[questions])
                    rows[kind].setdefault(method, {})[table.policies[policy]] = row
    return rows


def folds(num_policies: int, count: int, seed: int) -> list[np.ndarray]:
    """The numbers of the policies that are held out together; at most one fold for each policy."""
    order = np.random.default_rng([seed, 4]).permutation(num_policies)
    return np.array_split(order, min(count, num_policies))


def predict(
    table: rates.Table, parts: dict[str, np.ndarray], held: np.ndarray, references: int, seed: int, train: Train
) -> dict[int, tuple[dict, dict]]:
    """Held-out policy -> (questions "seen" and "unseen" to judge on, method -> predicted difficulty [N])."""
    others = np.setdiff1d(np.arange(len(table.policies)), held)
    difficulty = table.difficulty[others]
    seen = np.sort(np.concatenate([parts["train"], parts["validation"]]))
    item = np.full(len(table.texts), np.nan)
    item[seen] = item_mean(difficulty[:, seen])
    bases, scale = _from_others(table, item, parts)
    adapter = train(table.of(others))
    result = {}
    for policy in map(int, held):
        measured, unseen = (table.ids_by_policy(ids)[policy] for ids in (seen, parts["evaluation"]))
        chosen = np.random.default_rng([seed, 5, policy]).choice(measured, references, False)
        labels = table.difficulty[policy][chosen]
        move = functools.partial(
            adapt, x=table.sees(_methods(table)[-1]), references=chosen, labels=labels, scale=scale
        )
        predicted = bases | {f"{name} + references": move(base) for name, base in bases.items()}
        predicted[REFERENCES] = move(np.zeros(len(item)))
        predicted["predictor"] = adapter(np.arange(len(item)), chosen, labels)
        judged = np.setdiff1d(measured, chosen)
        result[policy] = {"seen": judged[~np.isnan(item[judged])], "unseen": unseen}, predicted
    return result


def item_mean(difficulty: np.ndarray) -> np.ndarray:
    """Of each question the mean of `difficulty` [policies, Q] over policies that measured it, [Q]; else NaN.

    What a policy measured counts less its own mean: a question is not easy because a strong policy alone had it.
    """
    level = np.nanmean(difficulty, 1, keepdims=True)
    measured = ~np.isnan(difficulty)
    total, count = np.where(measured, difficulty - level, 0).sum(0), measured.sum(0)
    return np.divide(total, count, out=np.full(total.shape, np.nan), where=count > 0) + level.mean()


def adapt(base: np.ndarray, x: Any, references: np.ndarray, labels: np.ndarray, scale: float) -> np.ndarray:
    """`base` [N] moved to one policy by its references: a line, and kernel ridge regression on what the line leaves.

    The penalty, or no regression, is chosen by cross-validation over five parts of the references.
    """
    known = ~np.isnan(base[references])
    references, labels = references[known], labels[known]
    if len(references) < 10:
        return base
    given = base[references]
    slope = np.cov(given, labels)[0, 1] / given.var(ddof=1) if np.ptp(given) > 0 else 0.0
    moved = labels.mean() + slope * (base - given.mean())
    left = labels - moved[references]
    part = np.arange(len(left)) % 5  # references stand in random order

    def error(penalty: float) -> float:
        squares = 0.0
        for i in range(5):
            fitted = kernel_ridge(x[references[part != i]], left[part != i], scale, penalty)
            squares += ((fitted(x[references[part == i]]) - left[part == i]) ** 2).sum()
        return squares

    errors = [error(penalty) for penalty in _PENALTIES]
    if min(errors) >= (left**2).sum():
        return moved
    return moved + kernel_ridge(x[references], left, scale, _PENALTIES[int(np.argmin(errors))])(x)


def _from_others(table: rates.Table, item: np.ndarray, parts: dict[str, np.ndarray]) -> tuple[dict, float]:
    """Predictions [N] from the item means alone, and the scale chosen for kernel ridge regression."""
    training, validation = (parts[name][~np.isnan(item[parts[name]])] for name in ("train", "validation"))
    both, predicted, values = np.concatenate([training, validation]), {ITEM: item}, ()
    for name in _methods(table):
        (make, grid), x = REGRESSIONS[name], table.sees(name)
        made = [make(x[training], item[training], *values)(x[validation]) for values in grid]
        scores = [measures.report(guess, item[validation])["pearson"] for guess in made]
        values = grid[int(np.nanargmax(scores)) if np.isfinite(scores).any() else 0]
        predicted[name] = make(x[both], item[both], *values)(x)
    return predicted, values[0]


def _methods(table: rates.Table) -> list[str]:
    """Ridge and kernel ridge regression: with the text where the table has its features."""
    return list(table.features) or ["ridge", "kernel ridge"]
