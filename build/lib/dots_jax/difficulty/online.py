"""The predictor's training within a run, on the labels that the run itself measures."""

import dataclasses
import functools

import jax
import numpy as np
import optax

from dots_jax.difficulty import predictor


@dataclasses.dataclass(frozen=True)
class FitSpec:
    """What a fit is specialised to; fields of `config.predictor`."""

    steps: int  # optimizer steps per selection round
    batch: int  # labels per optimizer step
    references: int  # references that each of them attends to, drawn anew each step; 0: all labels
    learning_rate: float
    weight_decay: float
    dropout: float
    calibration: str

    def optimizer(self) -> optax.GradientTransformation:
        """AdamW at a constant rate: a run's labels keep coming."""
        return optax.adamw(self.learning_rate, weight_decay=self.weight_decay)


def no_labels(size: int) -> dict:
    """Room for the newest `size` measured groups, L of them.

    "ids" int32 [L], "difficulty" float32 [L], "step" int32 [L] (-1: empty), "is_reference" bool [L] (not a training
    group); "written" int32 [], how many ever.
    """
    return {
        "ids": np.zeros(size, np.int32),
        "difficulty": np.zeros(size, np.float32),
        "step": np.full(size, -1, np.int32),
        "is_reference": np.zeros(size, bool),
        "written": np.int32(0),
    }


def add_labels(labels: dict, ids: np.ndarray, difficulty: np.ndarray, step: int, is_reference: bool) -> dict:
    """The labels with those of further groups, in place of the oldest."""
    new = {"ids": ids, "difficulty": difficulty, "step": step, "is_reference": is_reference}
    at = (labels["written"] + np.arange(len(ids))) % len(labels["ids"])
    added = {name: np.copy(labels[name]) for name in new}
    for name, values in new.items():
        added[name][at] = values
    return added | {"written": labels["written"] + np.int32(len(ids))}


def weights(labels: dict, step: int, half_life: float) -> np.ndarray:
    """How much each label counts in training at `step`, float [L]; 0: an empty slot."""
    return (labels["step"] >= 0) * 0.5 ** ((step - labels["step"]) / half_life)


def context(labels: dict, step: int, kind: str) -> np.ndarray:
    """The labels that predictions at `step` attend to, bool [L]; `kind` is `config.predictor.context`."""
    return labels["step"] >= 0 if kind == "window" else labels["is_reference"] & (labels["step"] == step)


@functools.partial(jax.jit, static_argnames="spec", donate_argnames=("params", "opt_state"))
def fit(
    params: dict,
    opt_state: optax.OptState,
    embeddings: jax.Array,
    ids: jax.Array,
    difficulty: jax.Array,
    weights: jax.Array,
    key: jax.Array,
    spec: FitSpec,
) -> tuple[dict, optax.OptState]:
    """Minimises soft-label cross-entropy on a window of L labels; returns params and opt_state.

    embeddings [L, D], ids int32 [L], difficulty and weights float32 [L] (0: an empty slot). Queries are drawn in
    proportion to their weight, and none attends to a label of its own question: it would learn to look itself up.
    """
    L = len(ids)
    present, M = weights > 0, min(spec.references or L, L)

    def loss(params: dict, key: jax.Array):
        query_key, reference_key, dropout_key = jax.random.split(key, 3)
        query = jax.random.choice(query_key, L, (spec.batch,), p=weights / weights.sum())
        reference = jax.lax.top_k(present + jax.random.uniform(reference_key, (L,)), M)[1]  # empty slots come last
        mask = present[reference] & (ids[query][:, None] != ids[reference])
        predicted = predictor.forward(
            params, embeddings[query], embeddings[reference], difficulty[reference], spec.calibration,
            mask=mask, dropout_key=dropout_key, dropout=spec.dropout,
        )  # fmt: skip
        return predictor.cross_entropy(predicted, difficulty[query])

    def step(carry: tuple, key: jax.Array):
        params, opt_state = carry
        grads = jax.grad(loss)(params, key)
        updates, opt_state = spec.optimizer().update(grads, opt_state, params)
        return (optax.apply_updates(params, updates), opt_state), None

    return jax.lax.scan(step, (params, opt_state), jax.random.split(key, spec.steps))[0]
