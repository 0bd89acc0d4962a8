"""PCL: a value head says which of four times as many candidates are nearest the target (arXiv 2510.01135)."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
from ml_collections import ConfigDict

from dots_jax.selection import draw
from dots_jax.selection.base import Context, Measured, Selector, check_distinct

_CANDIDATES = 4  # times the questions that are drawn


class Pcl(Selector):
    """The n of 4 n random candidates whose value V is nearest to a success rate of 1 - target.

    V is a head of two layers on the frozen embeddings, `predictor.width` wide, where the paper has one on the policy;
    it is trained on (V - r)^2 with r the mean reward of each measured group, `predictor.steps` steps of AdamW for each
    batch.

    State: "params" and "optimizer" of the head; "predicted" float32 [N].
    """

    embeds = True

    @classmethod
    def check(cls, config: ConfigDict):
        """A round's questions are distinct."""
        check_distinct(config)

    def __init__(self, config: ConfigDict, context: Context):
        super().__init__(config, context)
        x, p = context.embeddings(), config.predictor
        x = x - x.mean(0)
        self._x = jnp.asarray(x / np.sqrt(np.maximum((x**2).mean(), 1e-12)))
        self._optimizer, self._steps = (p.learning_rate, p.weight_decay), p.steps

    def init(self) -> dict:
        """A head that says one half."""
        N, D = self._x.shape
        W = self.config.predictor.width
        first = jax.random.normal(jax.random.fold_in(self.context.key, 1), (D, W)) / np.sqrt(D)
        params = {"in": first, "bias": jnp.zeros(W), "out": jnp.zeros(W), "shift": jnp.zeros(())}
        state = {"params": params, "optimizer": _adamw(*self._optimizer).init(params)}
        return jax.tree.map(np.asarray, state) | {"predicted": np.full(N, 0.5, np.float32)}

    def observe(self, state: dict, measured: Measured):
        """Trains the head on the groups."""
        args = self._x, measured.ids, jnp.float32(measured.rate), self._optimizer, self._steps
        fitted = _fit(state["params"], state["optimizer"], *args)
        return dict(zip(("params", "optimizer", "predicted"), jax.tree.map(np.asarray, fitted), strict=True))

    def propose(self, state: dict, key: jax.Array, n: int, step: int):
        """Of 4 n candidates those nearest the target."""
        ids = np.asarray(jax.random.permutation(key, self.context.num_questions)[: _CANDIDATES * n], np.int32)
        return ids[draw.nearest(state["predicted"][ids], self.config.selection.target, n)], state

    def predict(self, state: dict):
        """1 - V; its uncertainty is not known."""
        return state["predicted"], np.zeros_like(state["predicted"])


def _value(w: dict, x: jax.Array) -> jax.Array:
    return jax.nn.sigmoid(jnp.tanh(x @ w["in"] + w["bias"]) @ w["out"] + w["shift"])


def _adamw(learning_rate: float, weight_decay: float) -> optax.GradientTransformation:
    return optax.adamw(learning_rate, weight_decay=weight_decay)


@functools.partial(jax.jit, static_argnames=("optimizer", "steps"))
def _fit(
    params: dict, state: optax.OptState, x: jax.Array, ids: jax.Array, rate: jax.Array, optimizer: tuple, steps: int
) -> tuple[dict, optax.OptState, jax.Array]:
    """The head after so many steps of AdamW (learning rate, weight decay) on (V - r)^2, its state, and 1 - V of all."""
    adamw = _adamw(*optimizer)

    def step(carry: tuple, _):
        params, state = carry
        grads = jax.grad(lambda w: ((_value(w, x[ids]) - rate) ** 2).mean())(params)
        updates, state = adamw.update(grads, state, params)
        return (optax.apply_updates(params, updates), state), None

    params, state = jax.lax.scan(step, (params, state), None, steps)[0]
    return params, state, 1 - _value(params, x)
