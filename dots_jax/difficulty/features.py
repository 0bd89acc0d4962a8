"""What a question's text and its embedding say of its difficulty, as numbers for a regression. N questions."""

import re
from collections.abc import Sequence

import numpy as np

_NUMBER = re.compile(r"\d+(?:\.\d+)?")
_SENTENCE = re.compile(r"[.!?](?:\s|$)")
SURFACE = (
    "characters",
    "words",
    "numbers",
    "distinct numbers",
    "largest number",
    "sentences",
    "percent signs",
    "fractions",
    "backslashes",
    "dollar signs",
)


def surface(texts: Sequence[str]) -> np.ndarray:
    """Ten counts of each text, float32 [N, 10] in the order of `SURFACE`: log(1 + x), twice for the first two and the
    largest number, then standardised over the texts; a count that is the same everywhere is 0.
    """
    x = np.log1p(np.array([_counts(text) for text in texts], np.float64).reshape(-1, len(SURFACE)))
    return _standardised(x).astype(np.float32)


def _counts(text: str) -> tuple[float, ...]:
    numbers = _NUMBER.findall(text)
    largest = min(max(map(float, numbers), default=0.0), 1e12)
    return (
        np.log1p(len(text)),
        np.log1p(len(text.split())),
        len(numbers),
        len(set(numbers)),
        np.log1p(largest),
        len(_SENTENCE.findall(text)),
        text.count("%"),
        text.count("\\frac"),
        text.count("\\"),
        text.count("$"),
    )


def linear(embeddings: np.ndarray, texts: Sequence[str], width: int) -> np.ndarray:
    """Features for ridge regression, float32 [N, F]: the first `width` principal components, and `surface`.

    Both halves have rows whose squares add up to 1 on average, half each: one penalty suits any embedding.
    """
    x = _unit(embeddings - embeddings.mean(0))
    _, directions = np.linalg.eigh(x.T @ x)
    return _halves(x @ directions[:, ::-1][:, :width], surface(texts))


def kernel(embeddings: np.ndarray, texts: Sequence[str], width: int, seed: int = 0) -> np.ndarray:
    """Features whose products are about those of Gaussian kernels of the embedding and of `surface`, float32 [N, F].

    By the Nystroem method: `width` questions, drawn by the seed, are the landmarks.
    """
    parts = _unit(embeddings - embeddings.mean(0)), _scaled(surface(texts))
    chosen = np.random.default_rng(seed).permutation(len(embeddings))[:width]
    similar = sum(0.5 * np.exp(-_distances(x, x[chosen])) for x in parts)
    values, vectors = np.linalg.eigh(similar[chosen] + 1e-6 * np.eye(len(chosen)))
    return (similar @ vectors / np.sqrt(np.maximum(values, 1e-6))).astype(np.float32)


def _distances(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    return np.maximum((x**2).sum(1)[:, None] + (y**2).sum(1) - 2 * x @ y.T, 0.0)


def _halves(*parts: np.ndarray) -> np.ndarray:
    return np.concatenate([_scaled(x) / np.sqrt(len(parts)) for x in parts], 1).astype(np.float32)


def _scaled(x: np.ndarray) -> np.ndarray:
    return x / np.sqrt(max((x**2).sum(1).mean(), 1e-12))


def _unit(x: np.ndarray) -> np.ndarray:
    return x / np.maximum(np.linalg.norm(x, axis=1, keepdims=True), 1e-12)


def _standardised(x: np.ndarray) -> np.ndarray:
    deviation = x.std(0)
    return np.where(deviation > 1e-9, (x - x.mean(0)) / np.maximum(deviation, 1e-9), 0.0)
