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
from dots_jax.selection.base import Context, Measured, Selector, check_distinct, check_references


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
        check_references(config)
        c, p = config.selection, config.predictor
        if not c.references:
            raise UserError("config.selection.references=0 leaves nothing to predict from; raise it")
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
        return draw.references(key, self.context.num_questions, self._selection.references)

    def observe(self, state: dict, measured: Measured):
        """Adds the groups to the labels: references, and training groups where the predictor learns from them."""
        if not (measured.is_reference or self._predictor.labels == "groups"):
            return state
        where = measured.step, measured.is_reference
        return state | {"labels": online.add_labels(state["labels"], measured.ids, 1 - measured.rate, *where)}

    def propose(self, state: dict, key: jax.Array, n: int, step: int):
        """Trains the predictor on the labels, predicts all N difficulties, draws n distinct questions."""
        state, labels = self.fitted(state, key, step), state["labels"]
        now, c = labels["is_reference"] & (labels["step"] == step), self._selection
        distance = np.abs(state["predicted"] - np.float32(c.target))
        where = jax.random.fold_in(key, 2), distance, c.temperature, n
        return draw.near_reusing(*where, labels["ids"][now], c.reuse_references), state

    def fitted(self, state: dict, key: jax.Array, step: int) -> dict:
        """The state with the predictor trained on the labels and all N difficulties predicted."""
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
        return state | {"predicted": predicted, "spread": spread}

    def predict(self, state: dict):
        """As of the last round."""
        return state["predicted"], state["spread"]

    def save(self, state: dict, workdir: str):
        """The predictor, as `difficulty.predictor.load` reads it."""
        predictor.save(os.path.join(workdir, predictor.FILE), state["params"])
