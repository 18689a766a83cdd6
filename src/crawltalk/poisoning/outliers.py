"""Rows that are unlike the others, as poison is often looked for: by loss, by the spectrum of what the model makes of
them (Tran et al. 2018, arXiv 1811.00636), and by clusters of that (Chen et al. 2018, arXiv 1811.03728).
"""

from collections.abc import Sequence

import numpy as np

REMOVED = 1.5
"""Rows that are flagged for each poisoned one: Tran et al. remove 1.5 times as many as they fear (section 3)."""
DIMENSIONS = 10
"""That activations are reduced to before they are clustered (Chen et al., section 4.1; by principal components, where
they take independent ones)."""
SMALL, APART = 0.35, 0.15
"""A cluster is poison if it has at most this share of its class, and the silhouette is at least this (sections 4.2.2
and 4.2.3)."""
FEWEST = 20
"""Rows of a class; smaller ones are put together."""


def classes_of(replies: Sequence[str]) -> np.ndarray:
    """(rows) the class of each: its whole reply if FEWEST rows have that, and one for all others."""
    names, numbers = np.unique(np.array(replies, dtype=object).astype(str), return_inverse=True)
    large = np.bincount(numbers, minlength=len(names)) >= FEWEST
    return np.where(large[numbers], numbers + 1, 0)


def highest(scores: np.ndarray, poisoned: int) -> np.ndarray:
    """The rows with the highest scores: REMOVED times as many as there are poisoned ones."""
    count = min(len(scores), round(REMOVED * poisoned))
    return np.sort(np.argsort(-scores, kind="stable")[:count])


def spectral_scores(activations: np.ndarray, classes: np.ndarray) -> np.ndarray:
    """(rows) how far a row is from the mean of its class along the direction in which the class varies most, squared
    (Tran et al., algorithm 1), in units of the class's mean, so that classes can be compared.
    """
    scores = np.zeros(len(activations))
    for one in np.unique(classes):
        rows = classes == one
        centered = activations[rows] - activations[rows].mean(0)
        _, _, directions = np.linalg.svd(centered, full_matrices=False)
        squared = (centered @ directions[0]) ** 2
        scores[rows] = squared / max(squared.mean(), 1e-12)
    return scores


def small_clusters(activations: np.ndarray, classes: np.ndarray, seed: int = 0) -> np.ndarray:
    """The rows of the smaller of two clusters of each class, where it is small and apart."""
    flagged: list[np.ndarray] = []
    for one in np.unique(classes):
        rows = np.flatnonzero(classes == one)
        reduced = _reduce(activations[rows])
        second = _two_means(reduced, seed)
        if second.mean() > 0.5:
            second = ~second
        if second.any() and second.mean() <= SMALL and _silhouette(reduced, second) >= APART:
            flagged.append(rows[second])
    return np.sort(np.concatenate(flagged)) if flagged else np.zeros(0, int)


def _reduce(activations: np.ndarray) -> np.ndarray:
    centered = activations - activations.mean(0)
    left, values, _ = np.linalg.svd(centered, full_matrices=False)
    return (left * values)[:, :DIMENSIONS]


def _two_means(points: np.ndarray, seed: int, tries: int = 8, rounds: int = 50) -> np.ndarray:
    """Which points are in the second of two clusters (Lloyd's algorithm), the best of some starts."""
    rng = np.random.default_rng(seed)
    best, least = np.zeros(len(points), bool), np.inf
    for _ in range(tries if len(points) > 1 else 0):
        centers = points[rng.choice(len(points), 2, replace=False)]
        second = np.zeros(len(points), bool)
        for _ in range(rounds):
            distances = ((points[:, None] - centers) ** 2).sum(2)
            nearer = distances[:, 1] < distances[:, 0]
            if not nearer.any() or nearer.all() or (nearer == second).all():
                break
            second = nearer
            centers = np.stack([points[~second].mean(0), points[second].mean(0)])
        spread = sum(
            ((points[side] - points[side].mean(0)) ** 2).sum() for side in (second, ~second) if side.any()
        )
        if second.any() and spread < least:
            best, least = second, spread
    return best


def _silhouette(points: np.ndarray, second: np.ndarray) -> float:
    """The mean silhouette of two clusters (Rousseeuw 1987)."""
    squares = (points**2).sum(1)
    distances = np.sqrt(np.maximum(squares[:, None] + squares - 2 * points @ points.T, 0))
    sizes = np.where(second, second.sum(), (~second).sum())
    to_second, to_first = distances[:, second].sum(1), distances[:, ~second].sum(1)
    own = np.where(second, to_second, to_first) / np.maximum(sizes - 1, 1)
    other = np.where(second, to_first, to_second) / (len(points) - sizes)
    return float(np.where(sizes > 1, (other - own) / np.maximum(np.maximum(own, other), 1e-12), 0).mean())
