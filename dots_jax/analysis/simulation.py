"""Selectors on a recorded history: what they would have chosen, and what that would have been worth.

The recorded policy does not depend on what a selector proposes: this judges prediction, not learning. What a visit has
shown of a question counts once: a group is not judged that the selector has seen as a reference of the same visit.
A run's own groups are few of its pool: each visit is judged among those that it has measured, in the order in which the
selector proposes the whole pool. They are the choice of the run that measured them: shares of two runs do not compare.
"""

import dataclasses
import functools
import math
from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from dots_jax.analysis import compare
from dots_jax.analysis.recording import Recording
from dots_jax.core.rng import Purpose, stream
from dots_jax.difficulty import measures
from dots_jax.selection import Measured, Selector, draw

_LEAST = 20  # questions between which a correlation says something
NUMBERS = (
    *("useful", "variance", "pearson_seen", "pearson_seen_of_ceiling", "pearson_unseen", "pearson_unseen_of_ceiling"),
    *("distinct", "returns", "groups", "rollouts", "useful_per_rollout"),
)


@dataclasses.dataclass(frozen=True)
class Simulation:
    """How selectors are tried: they propose B of the recording's N questions at each of its V visits."""

    recording: Recording
    batch: int  # B
    references: int  # M, measured at each visit, whether the selector asks for them or not

    @functools.cached_property
    def best(self) -> np.ndarray:
        """The largest share of useful groups that B questions of each visit have, [V]."""
        return np.minimum(1, self._mixed.sum(1) / self.batch)

    @functools.cached_property
    def _mixed(self) -> np.ndarray:
        """Groups with successes and failures, bool [V, N]."""
        return (self.recording.successes > 0) & (self.recording.successes < self.recording.rollouts)

    def play(self, make: Callable[[jax.Array], Selector], seed: int) -> dict[str, Any]:
        """One pass over the history: `NUMBERS`, and "by_visit", the share of useful groups at each, [V].

        `make` returns the selector for a key. useful, variance: of the groups proposed, the share with successes and
        failures and the mean of p (1 - p), over the visits. pearson_*: of predicted and recorded success, over all
        questions that earlier visits have measured (seen) or none has (unseen), without the visit's references;
        *_of_ceiling: divided by the largest that the recorded noise allows. distinct: different questions proposed, of
        as many as could be; returns: how often one of them came back. groups, rollouts: what was paid for, references
        included; useful_per_rollout: groups of it.
        """
        key, recording = jax.random.key(seed), self.recording
        selector = make(stream(key, Purpose.SELECTION, 0))
        state, seen = selector.init(), np.zeros(len(recording.texts), bool)
        visits, proposed = [], []
        for step in range(1, len(recording.successes) + 1):
            visit = _Visit(self, selector, step, key, state)
            visits.append(visit.play(seen))
            state = visit.state
            proposed += visit.kept.tolist()
            seen |= visit.is_seen
        table = {name: np.array([visit[name] for visit in visits]) for name in visits[0]}
        distinct, rollouts = len(set(proposed)), table["rollouts"].sum()
        numbers = {name: _mean(table[name]) for name in ("useful", "variance", "pearson_seen", "pearson_unseen")}
        for kind in ("seen", "unseen"):
            ceiling = _mean(table[f"ceiling_{kind}"]) or math.nan
            numbers[f"pearson_{kind}_of_ceiling"] = numbers[f"pearson_{kind}"] / ceiling
        return numbers | {
            "distinct": distinct / min(len(seen), len(proposed)),
            "returns": len(proposed) / distinct - 1,
            "groups": rollouts / recording.rollouts,
            "rollouts": rollouts,
            "useful_per_rollout": np.nansum(table["useful"] * table["kept"]) / rollouts,
            "by_visit": table["useful"],
        }


class _Visit:
    """A visit of a history, as `train.select_questions` and `train.roll_out` go about a round of one step."""

    def __init__(self, simulation: Simulation, selector: Selector, step: int, key: jax.Array, state: Any):
        self.simulation, self.selector, self.step, self.key, self.state = simulation, selector, step, key, state
        self.recording = simulation.recording
        self.successes = self.recording.successes[step - 1]
        self.measured = np.isfinite(self.successes)
        self.is_reference = np.zeros(len(self.successes), bool)  # of this visit: the selector knows the result
        self.is_seen = self.is_reference.copy()  # at this visit
        self.rollouts = 0  # paid for

    def play(self, seen: np.ndarray) -> dict[str, float]:
        """What the visit is worth, `seen` being the questions of earlier ones."""
        self._references()
        known = self.is_seen.copy()
        ids = self._propose(self._stream(Purpose.SELECTION))
        prediction = self.selector.predict(self.state)
        self.kept = self._roll_out(ids)
        judged = self.kept[self.measured[self.kept] & ~self.is_reference[self.kept]]
        p, G = self.successes[judged] / self.recording.rollouts, self.recording.rollouts
        mixed = self.simulation._mixed[self.step - 1]
        numbers = {
            "useful": mixed[judged].mean() if len(judged) else math.nan,
            "variance": (p * (1 - p)).mean() if len(judged) else math.nan,
            "kept": len(self.kept),
            "rollouts": self.rollouts,
        }
        for kind, among in (("seen", seen), ("unseen", ~seen)):
            ids = np.flatnonzero(among & self.measured & ~known)
            rates, pearson = self.successes[ids] / G, math.nan
            if prediction and len(ids) >= _LEAST:
                pearson = measures.report(1 - prediction[0][ids], rates)["pearson"]
            numbers |= {f"pearson_{kind}": pearson}
            numbers |= {f"ceiling_{kind}": measures.ceiling(rates, G) if math.isfinite(pearson) else math.nan}
        return numbers

    def _stream(self, purpose: Purpose) -> jax.Array:
        return stream(self.key, purpose, self.step)

    def _references(self) -> None:
        """Shows the selector what it asks for, or as many random questions as others ask for."""
        selector, M = self.selector, self.simulation.references
        ids = selector.queries(self.state, self._stream(Purpose.SELECTION))
        if selector.cost_excluded:
            ids = ids[self.measured[ids]]
        elif not len(ids) or self.recording.is_sparse:
            among = np.flatnonzero(self.measured)
            ids = among[draw.references(self._stream(Purpose.REFERENCE), len(among), M)].astype(np.int32)
        self._observe(ids, self.successes[ids], self.recording.rollouts, is_reference=True)
        self.is_reference[ids] = not selector.cost_excluded

    def _propose(self, key: jax.Array) -> np.ndarray:
        """B questions; where few are measured, the first B of these."""
        B, is_sparse = self.simulation.batch, self.recording.is_sparse
        ids, self.state = self.selector.propose(self.state, key, len(self.successes) if is_sparse else B, self.step)
        if not is_sparse:
            return ids
        ids = np.fromiter(dict.fromkeys(ids.tolist()), np.int32)
        return ids[self.measured[ids] & ~self.is_reference[ids]][:B]

    def _roll_out(self, ids: np.ndarray) -> np.ndarray:
        """The questions that are trained on, once the selector has had them screened and drawn others as it may."""
        selector, G, key = self.selector, self.recording.rollouts, self._stream(Purpose.SELECTION)
        first = selector.screening or G
        kept, shown = np.zeros(0, np.int32), np.zeros(0, np.float32)
        tried = kept
        for number in range(selector.max_draws):
            if number:
                ids = self._propose(jax.random.fold_in(key, number))
                ids = ids[~np.isin(ids, tried)]  # of each question one group is recorded at a visit
            tried = np.append(tried, ids)
            counts = self._screened(ids, first, number)
            self._observe(ids, counts, first)
            kept, shown = np.concatenate([kept, ids]), np.concatenate([shown, counts])
            mixed = (shown > 0) & (shown < first)
            order = np.argsort(~mixed, kind="stable")[: self.simulation.batch]
            kept, shown = kept[order], shown[order]
            if mixed[order].all():
                break
        if first < G:
            self._observe(kept, self.successes[kept] - shown, G - first)
        return kept

    def _screened(self, ids: np.ndarray, count: int, number: int) -> np.ndarray:
        """Successes among `count` of each question's completions, drawn without replacement, float32 [P]."""
        G, successes = self.recording.rollouts, self.successes[ids]
        if count == G:
            return successes
        key = jax.random.fold_in(self._stream(Purpose.ROLLOUT), number)
        order = np.argsort(jax.random.uniform(key, (len(ids), G)), axis=1)[:, :count]
        return (order < successes[:, None]).sum(1).astype(np.float32)

    def _observe(self, ids: np.ndarray, successes: np.ndarray, rollouts: int, is_reference: bool = False) -> None:
        """Books the groups, and shows the selector those that are recorded and not known to it."""
        self.rollouts += 0 if is_reference and self.selector.cost_excluded else rollouts * len(ids)
        new = self.measured[ids] & ~self.is_reference[ids]
        ids, successes = ids[new], successes[new]
        if len(ids):
            tokens = self.recording.tokens[self.step - 1, ids]
            measured = Measured(ids, successes, rollouts, tokens, self.step, is_reference)
            self.state = self.selector.observe(self.state, measured)
        self.is_seen[ids] = True


def interval(values: list[float]) -> dict[str, float]:
    """Mean of the values that are numbers, and its 95% t interval: "mean", "low", "high"; NaN where there is none."""
    found = compare.mean_interval(values)
    return {"mean": found["value"], "low": found["low"], "high": found["high"]}


def summary(runs: dict[str, list[dict]], baseline: str) -> dict[str, dict]:
    """For each selector the intervals of `NUMBERS` over its runs, the same seeds for all, and "by_visit", their mean.

    Under "less_baseline" those of the differences from the `baseline`, seed by seed, where that is among them.
    """
    table = {}
    for name, own in runs.items():
        table[name] = {number: interval([run[number] for run in own]) for number in NUMBERS}
        table[name]["by_visit"] = np.mean([run["by_visit"] for run in own], axis=0)
        if baseline in runs:
            pairs = list(zip(own, runs[baseline], strict=True))
            table[name]["less_baseline"] = {n: interval([a[n] - b[n] for a, b in pairs]) for n in NUMBERS}
    return table


def _mean(values: np.ndarray) -> float:
    """Of those that are numbers; NaN where none is."""
    values = values[np.isfinite(values)]
    return float(values.mean()) if len(values) else math.nan
