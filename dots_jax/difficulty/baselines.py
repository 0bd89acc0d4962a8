"""Simpler predictors of difficulty, to compare with.

Each is fitted on `embeddings` [n, D] with `labels` [n] and returns a function from `query` [m, D] to difficulty [m].
"""

import numpy as np

from dots_jax.difficulty.features import Questions, unit

# Hyper-parameters worth trying, as arguments.
RIDGE = ((1.0,), (3.0,), (10.0,), (30.0,), (100.0,), (300.0,), (1000.0,))  # penalty
KERNEL = tuple((scale, penalty) for scale in (1.0, 2.0, 4.0) for penalty in (0.3, 1.0, 3.0))
ATTENTION = ((0.02,), (0.05,), (0.1,), (0.2,))  # temperature


def ridge(embeddings: np.ndarray, labels: np.ndarray, penalty: float, weights: np.ndarray | None = None):
    """Ridge regression from centred embeddings; `weights` [n] of the labels."""
    weights = np.ones(len(labels), embeddings.dtype) if weights is None else weights
    centre, mean = np.average(embeddings, 0, weights), np.average(labels, weights=weights)
    x = embeddings - centre
    weighted = x.T * weights
    line = np.linalg.solve(weighted @ x + penalty * np.eye(x.shape[1], dtype=x.dtype), weighted @ (labels - mean))
    return lambda query: (query - centre) @ line + mean


def kernel_ridge(embeddings: np.ndarray | Questions, labels: np.ndarray, scale: float, penalty: float):
    """Kernel ridge regression with exp(-scale |x - y|^2) on embeddings of length 1, or the kernel of `Questions`."""
    mean, similar = labels.mean(), _kernel(embeddings, embeddings, scale)
    weights = np.linalg.solve(similar + penalty * np.eye(len(similar), dtype=similar.dtype), labels - mean)
    return lambda query: _kernel(query, embeddings, scale) @ weights + mean


def raw_attention(embeddings: np.ndarray, labels: np.ndarray, temperature: float):
    """Softmax over the cosines of raw embeddings."""

    def predict(query: np.ndarray):
        logits = unit(query) @ unit(embeddings).T / temperature
        weights = np.exp(logits - logits.max(1, keepdims=True))
        return weights @ labels / weights.sum(1)

    return predict


def _kernel(x: np.ndarray | Questions, y: np.ndarray | Questions, scale: float):
    return x.kernel(y, scale) if isinstance(x, Questions) else np.exp(-scale * (2 - 2 * unit(x) @ unit(y).T))


# With ", text" they also see what `features` says of a question's text; `rates.Table.features` has it.
REGRESSIONS = {
    "ridge": (ridge, RIDGE),
    "kernel ridge": (kernel_ridge, KERNEL),
    "ridge, text": (ridge, RIDGE),
    "kernel ridge, text": (kernel_ridge, KERNEL),
}
