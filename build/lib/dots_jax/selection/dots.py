"""DOTS: questions whose predicted difficulty is near the target (arXiv 2506.05316)."""

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


class Dots(Selector):
    """Measures a few reference questions each round, predicts all difficulties from them, draws near the target.

    State:
      "params", "optimizer": the predictor and its training.
      "labels": the newest measured groups, as `online.no_labels` has them.
      "predicted", "spread": float32 [N], the last prediction and the deviation of the labels that it was made of.
    """

    embeds = True

    @classmethod
    def check(cls, config: ConfigDict):
        """Distinct questions, references that the pool and the window hold, and something that is learned."""
        check_distinct(config)
        c, p, batch, pool = config.selection, config.predictor, config.train.batch_size, config.data.num_questions
        references, fresh = f"config.selection.references={c.references}", round(config.replay.fresh_fraction * batch)
        if pool and c.references > pool:
            raise UserError(f"{references} is more than the pool's config.data.num_questions={pool}; lower it")
        if c.reuse_references > c.references or c.reuse_references >= fresh:
            raise UserError(
                f"config.selection.reuse_references={c.reuse_references} must be at most {references} and below the "
                f"{fresh} fresh groups of a step (config.replay.fresh_fraction of config.train.batch_size={batch})"
            )
        if p.window < c.references:
            raise UserError(
                f"config.predictor.window={p.window} holds less than the {references} of one round; raise it"
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
        p, embeddings = self._predictor, context.embeddings()
        self._fit_spec = online.FitSpec(
            p.steps, p.batch, p.references, p.learning_rate, p.weight_decay, p.dropout, p.calibration
        )
        if p.path:
            try:
                self._initial = predictor.load(p.path, embeddings.shape[1])
            except UserError as error:
                raise UserError(f"config.predictor.path: {error}; give another, or none") from error
        else:
            self._initial = predictor.init(jax.random.fold_in(context.key, 0), embeddings.shape[1], p.width)
        self._replicated = sharding.replicated(context.mesh)
        pad = -len(embeddings) % sharding.num_row_shards(context.mesh)
        self._embeddings = jax.device_put(np.pad(embeddings, ((0, pad), (0, 0))), sharding.rows(context.mesh))
        self._encoded = None, None  # parameters, and features of all questions by them: spared where nothing is learned

    def init(self) -> dict:
        """No label; the predictor as loaded or drawn."""
        N = self.context.num_questions
        params = jax.device_put(jax.tree.map(jnp.array, self._initial), self._replicated)
        optimizer = jax.device_put(self._fit_spec.optimizer().init(params), self._replicated)
        blank = {"predicted": np.full(N, 0.5, np.float32), "spread": np.zeros(N, np.float32)}
        labels = online.no_labels(self._predictor.window)
        return {"params": params, "optimizer": optimizer, "labels": labels, **blank}

    def queries(self, state: dict, key: jax.Array):
        """M reference questions, uniformly without replacement."""
        ids = jax.random.permutation(jax.random.fold_in(key, 0), self.context.num_questions)
        return np.asarray(ids[: self._selection.references], np.int32)

    def observe(
        self, state: dict, ids: np.ndarray, successes: np.ndarray, rollouts: int, step: int, is_reference: bool
    ):
        """Adds the groups to the labels: references, and training groups where the predictor learns from them."""
        if not (is_reference or self._predictor.labels == "groups"):
            return state
        return state | {"labels": online.add_labels(state["labels"], ids, 1 - successes / rollouts, step, is_reference)}

    def propose(self, state: dict, key: jax.Array, n: int, step: int):
        """Trains the predictor on the labels, predicts all N difficulties, draws n distinct questions."""
        labels, p = state["labels"], self._predictor
        weights, mask = np.float32(online.weights(labels, step, p.half_life)), online.context(labels, step, p.context)
        window = labels["ids"], labels["difficulty"], weights, mask
        ids, difficulty, weights, mask = jax.device_put(window, self._replicated)
        references = self._embeddings[ids]
        if p.labels != "none":
            params, optimizer = jax.tree.map(jnp.copy, (state["params"], state["optimizer"]))  # the state's stay
            fit_key = jax.random.fold_in(key, 1)
            args = references, ids, difficulty, weights, fit_key, self._fit_spec
            params, optimizer = online.fit(params, optimizer, *args)
            state = state | {"params": params, "optimizer": optimizer}
        params = state["params"]
        if self._encoded[0] is not params:
            self._encoded = params, predictor.encode(params, self._embeddings)
        scores = predictor.score(params, self._encoded[1], references, difficulty, p.calibration, p.refit, mask)
        predicted, spread = (x[: self.context.num_questions] for x in distributed.to_host(scores))
        if not np.isfinite(predicted).all():
            raise UserError(
                f"step {step}: predicted difficulties are not finite; lower config.predictor.learning_rate="
                f"{p.learning_rate} in another --workdir"
            )
        state = state | {"predicted": predicted, "spread": spread}
        return self._draw(state, jax.random.fold_in(key, 2), n, step), state

    def _draw(self, state: dict, key: jax.Array, n: int, step: int) -> np.ndarray:
        """Questions near the target, int32 [n]; the first `reuse_references` of them are references of this step."""
        c, labels, predicted = self._selection, state["labels"], state["predicted"]
        reused = np.zeros(0, np.int32)
        if c.reuse_references:
            difficulty = np.full_like(predicted, np.inf)
            references = labels["ids"][labels["is_reference"] & (labels["step"] == step)]
            difficulty[references] = predicted[references]
            reused = np.asarray(draw.near(key, difficulty, c.target, c.temperature, c.reuse_references))
        rest = predicted.copy()
        rest[reused] = np.inf
        fresh = draw.near(jax.random.fold_in(key, 1), rest, c.target, c.temperature, n - c.reuse_references)
        return np.concatenate([reused, fresh])

    def predict(self, state: dict):
        """As of the last round."""
        return state["predicted"], state["spread"]

    def save(self, state: dict, workdir: str):
        """The predictor, as `difficulty.predictor.load` reads it."""
        predictor.save(os.path.join(workdir, predictor.FILE), state["params"])
