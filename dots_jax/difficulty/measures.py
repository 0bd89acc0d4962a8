"""How good predicted difficulties are: correlation, error, calibration, and the worth of the picks."""

import numpy as np

USEFUL = (0.125, 0.875)  # measured difficulties between which a pick counts as good


def report(predicted: np.ndarray, measured: np.ndarray, target: float = 0.5) -> dict[str, float]:
    """Measures of Q predictions against measured difficulties; NaN where one is not defined.

    pearson: correlation.
    spearman: that of the ranks, ties sharing their average.
    mae: mean absolute error.
    calibration: expected calibration error. The predictions, in order, are cut into 10 bins of equal count; the mean
      over all questions of |mean predicted - mean measured| of their bin.
    precision: of the min(1024, Q // 2) questions with predictions nearest to `target`, the share whose measured
      difficulty lies in [0.125, 0.875].
    """
    p, m = (np.asarray(x, np.float64) for x in (predicted, measured))
    bins = np.array_split(np.argsort(p, kind="stable"), min(10, max(1, p.size)))
    picks = np.argsort(np.abs(p - target), kind="stable")[: min(1024, p.size // 2)]
    useful = (m[picks] >= USEFUL[0]) & (m[picks] <= USEFUL[1])
    return {
        "pearson": _correlation(p, m),
        "spearman": _correlation(_ranks(p), _ranks(m)),
        "mae": float(np.abs(p - m).mean()) if p.size else np.nan,
        "calibration": float(sum(abs((p[b] - m[b]).sum()) for b in bins) / p.size) if p.size else np.nan,
        "precision": float(useful.mean()) if picks.size else np.nan,
    }


def ceiling(measured: np.ndarray, rollouts: np.ndarray | float) -> float:
    """The highest Pearson correlation with rates of G `rollouts` [Q] that the true difficulties p themselves reach.

    sqrt(Var p / Var m): Var p is that of the measured m, less the binomial noise, which is the mean of
    m (1 - m) / (G - 1). In expectation this is sqrt(Var p / (Var p + E[p (1 - p)] / G)).
    NaN where it is not defined: fewer than two questions, equal rates, a G below 2, which shows no noise.
    """
    m, g = np.broadcast_arrays(np.asarray(measured, np.float64), rollouts)
    if m.size < 2 or np.ptp(m) == 0 or g.min() < 2:
        return np.nan
    variance = m.var(ddof=1)
    return float(np.sqrt(max(variance - (m * (1 - m) / (g - 1)).mean(), 0.0) / variance))


def _correlation(x: np.ndarray, y: np.ndarray) -> float:
    if x.size < 2 or np.ptp(x) == 0 or np.ptp(y) == 0:
        return np.nan
    x, y = x - x.mean(), y - y.mean()
    return float(x @ y / np.sqrt((x @ x) * (y @ y)))


def _ranks(x: np.ndarray) -> np.ndarray:
    """Ranks from 1, those of equal values averaged."""
    _, inverse, counts = np.unique(x, return_inverse=True, return_counts=True)
    return (np.cumsum(counts) - (counts - 1) / 2)[inverse]
