"""DOTS: questions whose predicted difficulty is near the target (METHOD sections 1 and 2)."""

import os

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from dots_jax.core import distributed, sharding
from dots_jax.core.errors import UserError
from dots_jax.difficulty import online, predictor
from dots_jax.selection import draw
from dots_jax.selection.base import Context, Selector, check_distinct

FILE = "predictor.safetensors"


class Dots(Selector):
    """Measures a few reference questions each round, predicts the difficulty of all others from them, draws near 0.5.

    State:
      "params", "optimizer": the predictor and its training.
      "labels": the newest M measured groups, oldest overwritten first: "ids" int32 [M], "difficulty" float32 [M],
        "step" int32 [M] (-1: empty), "is_reference" bool [M] (not a training group); "written" int32 [], how
        many ever.
      "predicted", "spread": float32 [N], the last prediction and the deviation of the labels that it was made of.
    """

    embeds = True

    @classmethod
    def check(cls, config: ConfigDict):
        """Distinct questions, references that the pool and the window hold, and something that is learned."""
        check_distinct(config)
        c, p, batch, pool = config.selection, config.predictor, config.train.batch_size, config.data.num_questions
        if pool and c.references > pool:
            raise UserError(
                f"config.selection.references={c.references} is more than the pool's "
                f"config.data.num_questions={pool}; lower it"
            )
        fresh = round(config.replay.fresh_fraction * batch)
        if c.reuse_references > c.references or c.reuse_references >= fresh:
            raise UserError(
                f"config.selection.reuse_references={c.reuse_references} must be at most "
                f"config.selection.references={c.references} and below the {fresh} fresh groups of a step "
                f"(config.replay.fresh_fraction of config.train.batch_size={batch})"
            )
        if p.window < c.references:
            raise UserError(
                f"config.predictor.window={p.window} holds less than the config.selection.references={c.references} "
                "of one round; raise it"
            )
        if p.labels == "none" and not p.path:
            raise UserError(
                "config.predictor.labels is 'none' and config.predictor.path is empty: nothing would be learned; "
                "give a trained predictor, or learn from 'reference' or 'groups'"
            )

    @classmethod
    def num_queries(cls, config: ConfigDict):
        """M."""
        return config.selection.references

    def __init__(self, config: ConfigDict, context: Context):
        super().__init__(config, context)
        self.num_reused = config.selection.reuse_references
        self._selection, self._predictor = config.selection, config.predictor
        p = self._predictor
        embeddings = context.embeddings()
        self._num_questions = len(embeddings)
        self._hyper = online.FitSpec(
            p.steps, p.batch, p.references, p.learning_rate, p.weight_decay, p.dropout, p.calibration
        )
        if p.path:
            try:
                self._initial = predictor.load(p.path, embeddings.shape[1])
            except UserError as error:
                raise UserError(f"config.predictor.path: {error}; give another, or none") from error
        else:
            self._initial = predictor.init(jax.random.fold_in(context.key, 0), embeddings.shape[1], p.width)
        self._there = sharding.replicated(context.mesh)
        pad = -len(embeddings) % sharding.num_row_shards(context.mesh)
        rows = np.pad(embeddings, ((0, pad), (0, 0)))
        self._embeddings = jax.device_put(rows, sharding.rows(context.mesh))
        self._encoded = None, None  # parameters, and features of all questions by them: spared where nothing is learned

    def init(self) -> dict:
        """No label; the predictor as loaded or drawn."""
        M, N = self._predictor.window, self._num_questions
        params = jax.device_put(jax.tree.map(jnp.array, self._initial), self._there)
        labels = {
            "ids": np.zeros(M, np.int32),
            "difficulty": np.zeros(M, np.float32),
            "step": np.full(M, -1, np.int32),
            "is_reference": np.zeros(M, bool),
            "written": np.int32(0),
        }
        optimizer = jax.device_put(self._hyper.optimizer().init(params), self._there)
        blank = {"predicted": np.full(N, 0.5, np.float32), "spread": np.zeros(N, np.float32)}
        return {"params": params, "optimizer": optimizer, "labels": labels, **blank}

    def queries(self, state: dict, key: jax.Array):
        """M reference questions, uniformly without replacement."""
        key = jax.random.fold_in(key, 0)
        ids = jax.random.permutation(key, self._num_questions)[: self._selection.references]
        return np.asarray(ids, np.int32)

    def observe(
        self, state: dict, ids: np.ndarray, successes: np.ndarray, rollouts: int, step: int, is_reference: bool
    ):
        """Adds the groups to the labels: references, and training groups where the predictor learns from them."""
        if not (is_reference or self._predictor.labels == "groups"):
            return state
        labels = {name: np.copy(x) for name, x in state["labels"].items()}
        new = {"ids": ids, "difficulty": 1 - successes / rollouts, "step": step, "is_reference": is_reference}
        at = (labels["written"] + np.arange(len(ids))) % len(labels["ids"])
        for name, values in new.items():
            labels[name][at] = values
        return state | {"labels": labels | {"written": labels["written"] + np.int32(len(ids))}}

    def propose(self, state: dict, key: jax.Array, n: int, step: int):
        """Trains the predictor on the labels, predicts all N difficulties, draws n distinct questions."""
        labels, p = state["labels"], self._predictor
        present = labels["step"] >= 0
        weights = np.float32(present * 0.5 ** ((step - labels["step"]) / p.half_life))
        seen = present if p.context == "window" else labels["is_reference"] & (labels["step"] == step)
        ids, difficulty, weights, seen = jax.device_put(
            (labels["ids"], labels["difficulty"], weights, seen), self._there
        )
        known = self._embeddings[ids]
        if p.labels != "none":
            fitted = jax.tree.map(jnp.copy, (state["params"], state["optimizer"]))  # the state stays as it was
            params, optimizer, _ = online.fit(
                *fitted, known, ids, difficulty, weights, jax.random.fold_in(key, 1), self._hyper
            )
            state = state | {"params": params, "optimizer": optimizer}
        params = state["params"]
        if self._encoded[0] is not params:
            self._encoded = params, predictor.encode(params, self._embeddings)
        scores = predictor.score(params, self._encoded[1], known, difficulty, p.calibration, p.refit, mask=seen)
        predicted, spread = (x[: self._num_questions] for x in distributed.to_host(scores))
        if not np.isfinite(predicted).all():
            raise UserError(
                f"step {step}: predicted difficulties are not finite; lower config.predictor.learning_rate="
                f"{p.learning_rate} in another --workdir"
            )
        state = state | {"predicted": predicted, "spread": spread}
        return self._draw(state, jax.random.fold_in(key, 2), n, step), state

    def _draw(self, state: dict, key: jax.Array, n: int, step: int) -> np.ndarray:
        """Questions near the target, int32 [n]; the first `reuse` of them are references of this step."""
        c, labels, predicted = self._selection, state["labels"], state["predicted"]
        again = np.zeros(0, np.int32)
        if c.reuse_references:
            distance = np.full_like(predicted, np.inf)
            references = labels["ids"][labels["is_reference"] & (labels["step"] == step)]
            distance[references] = predicted[references]
            again = np.asarray(draw.near(key, distance, c.target, c.temperature, c.reuse_references))
        rest = predicted.copy()
        rest[again] = np.inf
        fresh = draw.near(jax.random.fold_in(key, 1), rest, c.target, c.temperature, n - c.reuse_references)
        return np.concatenate([again, fresh])

    def predict(self, state: dict):
        """As of the last round."""
        return state["predicted"], state["spread"]

    def save(self, state: dict, workdir: str):
        """The predictor, as `difficulty.predictor.load` reads it."""
        predictor.save(os.path.join(workdir, FILE), state["params"])
