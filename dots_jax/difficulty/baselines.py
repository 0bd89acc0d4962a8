"""Simpler predictors of difficulty, to compare with.

Each is fitted on `known` [n, D] with `labels` [n] and returns a function from `query` [m, D] to difficulty [m].
"""

import jax
import numpy as np

# Hyper-parameters worth trying, as arguments.
RIDGE = ((10.0,), (30.0,), (100.0,), (300.0,), (1000.0,))  # penalty
KERNEL = tuple((scale, penalty) for scale in (1.0, 2.0, 4.0) for penalty in (0.3, 1.0, 3.0))
ATTENTION = ((0.02,), (0.05,), (0.1,), (0.2,))  # temperature


def ridge(known: np.ndarray, labels: np.ndarray, penalty: float, weights: jax.Array | None = None):
    """Ridge regression from centred embeddings; `weights` [n] of the labels."""
    weights = np.ones(len(labels), known.dtype) if weights is None else weights
    centre, mean = np.average(known, 0, weights), np.average(labels, weights=weights)
    x = known - centre
    weighted = x.T * weights
    line = np.linalg.solve(weighted @ x + penalty * np.eye(x.shape[1], dtype=x.dtype), weighted @ (labels - mean))
    return lambda query: (query - centre) @ line + mean


def kernel_ridge(known: np.ndarray, labels: np.ndarray, scale: float, penalty: float):
    """Kernel ridge regression with exp(-scale |x - y|^2) on embeddings of length 1."""
    x, mean = _unit(known), labels.mean()
    weights = np.linalg.solve(_gaussian(x, x, scale) + penalty * np.eye(len(x), dtype=x.dtype), labels - mean)
    return lambda query: _gaussian(_unit(query), x, scale) @ weights + mean


def raw_attention(known: np.ndarray, labels: np.ndarray, temperature: float):
    """Softmax over the cosines of raw embeddings."""

    def predict(query: jax.Array):
        logits = _unit(query) @ _unit(known).T / temperature
        weights = np.exp(logits - logits.max(1, keepdims=True))
        return weights @ labels / weights.sum(1)

    return predict


def _unit(x: jax.Array):
    return x / np.maximum(np.linalg.norm(x, axis=1, keepdims=True), 1e-12)


def _gaussian(x: jax.Array, y, scale: float):
    return np.exp(-scale * (2 - 2 * x @ y.T))
