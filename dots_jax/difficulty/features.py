"""What a question's text and its embedding say of its difficulty, as numbers for a regression. N questions."""

import dataclasses
import re
from collections import Counter
from collections.abc import Sequence

import numpy as np
from scipy import sparse  # which JAX requires

_NUMBER = re.compile(r"\d+(?:\.\d+)?")
_WORD = re.compile(r"\\?[a-z]+|\d+|[^\sa-z0-9]")
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


def words(texts: Sequence[str]) -> sparse.csr_array:
    """Which words and pairs of words each text has, sparse float32 [N, terms], rows of length 1 or 0.

    A term counts 1 + log(times) and by how few of the texts have it, log(N / number); those of one text alone are out.
    """
    documents = [Counter(_terms(text)) for text in texts]
    frequency = Counter(term for document in documents for term in document)
    columns = {term: i for i, term in enumerate(term for term, number in frequency.items() if number > 1)}
    entries = [
        (row, columns[term], (1 + np.log(times)) * np.log(len(texts) / frequency[term]))
        for row, document in enumerate(documents)
        for term, times in document.items()
        if term in columns
    ]
    rows, places, values = np.array(entries, np.float64).reshape(-1, 3).T
    length = np.sqrt(np.bincount(rows.astype(int), values**2, len(texts)))[rows.astype(int)]
    values = (values / np.maximum(length, 1e-12)).astype(np.float32)
    return sparse.csr_array((values, (rows.astype(int), places.astype(int))), (len(texts), max(len(columns), 1)))


def _terms(text: str) -> list[str]:
    single = _WORD.findall(text.lower())
    return single + [f"{first} {second}" for first, second in zip(single, single[1:], strict=False)]


@dataclasses.dataclass(frozen=True)
class Questions:
    """N questions as kernel ridge regression sees them: embeddings, `surface` and `words`."""

    embeddings: np.ndarray  # float32 [N, D], rows of length 1
    surface: np.ndarray  # float32 [N, 10]
    words: sparse.csr_array  # float32 [N, terms]

    def __getitem__(self, ids: np.ndarray) -> "Questions":
        return Questions(self.embeddings[ids], self.surface[ids], self.words[ids])

    def __len__(self) -> int:
        return len(self.embeddings)

    def kernel(self, other: "Questions", scale: float) -> np.ndarray:
        """Similarity to M others, float32 [N, M]: half a Gaussian of the embeddings (exp(-scale |x - y|^2)), 0.2 of one
        of the surface (of deviation sqrt 10), 0.3 of the cosine of the words.
        """
        parts = (
            0.5 * np.exp(-scale * _distances(self.embeddings, other.embeddings)),
            0.2 * np.exp(-_distances(self.surface, other.surface) / 20),
            0.3 * (self.words @ other.words.T).toarray(),
        )
        return sum(parts).astype(np.float32)


def questions(embeddings: np.ndarray, texts: Sequence[str]) -> Questions:
    """The questions of a regression from their embeddings [N, D] and texts."""
    return Questions(unit(embeddings), surface(texts), words(texts))


def linear(embeddings: np.ndarray, texts: Sequence[str], width: int) -> np.ndarray:
    """Features for ridge regression, float32 [N, F]: the first `width` principal components, and `surface`.

    Both halves have rows whose squares add up to 1 on average, half each: one penalty suits any embedding.
    """
    return _halves(_components(embeddings, width), surface(texts))


def kernel(embeddings: np.ndarray, texts: Sequence[str], width: int, seed: int = 0) -> np.ndarray:
    """Features whose products are about those of Gaussian kernels of the embedding and of `surface`, float32 [N, F].

    By the Nystroem method: `width` questions, drawn by the seed, are the landmarks.
    """
    parts = unit(embeddings - embeddings.mean(0)), _scaled(surface(texts))
    chosen = np.random.default_rng(seed).permutation(len(embeddings))[:width]
    similar = sum(0.5 * np.exp(-_distances(x, x[chosen])) for x in parts)
    values, vectors = np.linalg.eigh(similar[chosen] + 1e-6 * np.eye(len(chosen)))
    return (similar @ vectors / np.sqrt(np.maximum(values, 1e-6))).astype(np.float32)


def states(prompts: np.ndarray, width: int) -> np.ndarray:
    """Features from a policy's states at N prompts, as `scoring.prompt_states` has them: float32 [N, width].

    The first `width` - 1 principal components of the hidden states, and the mean log-prob; halves as in `linear`.
    """
    prompts = np.float64(prompts)
    found = _halves(_components(prompts[:, :-1], width - 1), _standardised(prompts[:, -1:]))
    return np.pad(found, ((0, 0), (0, width - found.shape[1])))


def _components(x: np.ndarray, width: int) -> np.ndarray:
    """The first principal components of the centred rows, each made of length 1."""
    x = unit(x - x.mean(0))
    _, directions = np.linalg.eigh(x.T @ x)
    return x @ directions[:, ::-1][:, :width]


def _distances(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    return np.maximum((x**2).sum(1)[:, None] + (y**2).sum(1) - 2 * x @ y.T, 0.0)


def _halves(*parts: np.ndarray) -> np.ndarray:
    return np.concatenate([_scaled(x) / np.sqrt(len(parts)) for x in parts], 1).astype(np.float32)


def _scaled(x: np.ndarray) -> np.ndarray:
    return x / np.sqrt(max((x**2).sum(1).mean(), 1e-12))


def unit(x: np.ndarray) -> np.ndarray:
    """The rows of length 1; those of length 0 stay."""
    return x / np.maximum(np.linalg.norm(x, axis=1, keepdims=True), 1e-12)


def _standardised(x: np.ndarray) -> np.ndarray:
    deviation = x.std(0)
    return np.where(deviation > 1e-9, (x - x.mean(0)) / np.maximum(deviation, 1e-9), 0.0)
