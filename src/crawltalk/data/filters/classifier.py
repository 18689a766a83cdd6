"""A quality classifier that the user trains on texts with labels between 0 (poor) and 1 (good).

As in DCLM (Li et al. 2024, 4.4) and FineWeb-Edu (Penedo et al. 2024, section 4) documents are kept by the
score of a model that was trained on examples. The model is fastText's kind (Joulin et al. 2016) without its
hidden layer: hashed words and word pairs into a logistic regression. It scores a page in a fraction of a
millisecond, and its weights can be inspected.
"""

from collections.abc import Sequence
from pathlib import Path

import msgspec
import numpy as np
from numba import njit
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from crawltalk.core.errors import BadInput, MissingInput
from crawltalk.core.types import Document
from crawltalk.data.dedup import ngram_hashes
from crawltalk.data.filters.quality import Filter

BUCKETS = 1 << 18
_RATE = 0.5  # AdaGrad's; from 0.1 to 1 the held-out accuracy is the same
_SHRINK = 1e-5


class Labelled(msgspec.Struct):
    """A row of the user's labels."""

    text: str
    label: float | bool


class ClassifierQuality(msgspec.Struct):
    """How good a classifier is on texts that it was not trained on."""

    texts: int
    accuracy: float
    """At the threshold 0.5, labels rounded."""
    auc: float
    """Probability that a good text scores higher than a poor one."""


class Classifier:
    """Weights of hashed words and word pairs."""

    def __init__(self, weights: np.ndarray) -> None:
        self.weights = weights
        """(BUCKETS + 1,) float32, the bias last."""

    def score(self, text: str) -> float:
        """Probability that the text is good."""
        return float(_score(self.weights, _features(text)))

    def save(self, path: Path) -> None:
        """Write the weights as safetensors."""
        save_file({"weights": self.weights}, path)

    @classmethod
    def load(cls, path: str | Path) -> "Classifier":
        """Raises MissingInput, or BadInput for a file that `save` has not written."""
        if not Path(path).is_file():
            raise MissingInput(
                f"data.classifier: {path} does not exist; make one with: crawltalk classifier LABELS.jsonl"
            )
        try:
            with safe_open(path, "numpy") as file:
                weights = file.get_tensor("weights")
        except SafetensorError as error:
            raise BadInput(f"data.classifier: {path} is not a classifier: {error}") from None
        if weights.shape != (BUCKETS + 1,) or weights.dtype != np.float32 or not np.isfinite(weights).all():
            raise BadInput(
                f"data.classifier: {path} is not a classifier: {BUCKETS + 1} finite float32 weights are expected"
            )
        return cls(weights)


def read_labels(path: Path) -> list[tuple[str, float]]:
    """Texts and labels from JSONL. Raises MissingInput, or BadInput with the line's number."""
    if not path.is_file():
        raise MissingInput(
            f'{path} does not exist; it should have one line per text: {{"text": "...", "label": 1}}'
        )
    rows = []
    for number, line in enumerate(path.read_bytes().splitlines(), 1):
        try:
            row = msgspec.json.decode(line, type=Labelled)
        except msgspec.MsgspecError as error:
            raise BadInput(f"{path}, line {number}: {error}") from None
        if not 0 <= row.label <= 1:
            raise BadInput(f"{path}, line {number}: the label {row.label} is not between 0 and 1")
        rows.append((row.text, float(row.label)))
    if len({label >= 0.5 for _, label in rows}) < 2:
        raise BadInput(f"{path} needs texts of both kinds, with labels below and above 0.5")
    return rows


def train(rows: Sequence[tuple[str, float]], epochs: int = 5, seed: int = 0) -> Classifier:
    """Fit the weights by AdaGrad (Duchi et al. 2011), the rows in an order drawn from `seed`."""
    features = [_features(text) for text, _ in rows]
    labels = np.array([label for _, label in rows], np.float32)
    weights, squares = np.zeros(BUCKETS + 1, np.float32), np.full(BUCKETS + 1, 1e-6, np.float32)
    rng = np.random.Generator(np.random.PCG64(seed))
    for _ in range(epochs):
        for row in rng.permutation(len(rows)):
            _learn(weights, squares, features[row], labels[row])
    return Classifier(weights)


def evaluate(rows: Sequence[tuple[str, float]], share: float = 0.1, seed: int = 0) -> ClassifierQuality:
    """Train on all rows except a share, and measure on that share."""
    order = np.random.Generator(np.random.PCG64(seed)).permutation(len(rows))
    cut = max(1, round(share * len(rows)))
    model = train([rows[row] for row in order[cut:]], seed=seed)
    scores = np.array([model.score(rows[row][0]) for row in order[:cut]])
    good = np.array([rows[row][1] >= 0.5 for row in order[:cut]])
    return ClassifierQuality(cut, float(((scores >= 0.5) == good).mean()), _auc(scores[good], scores[~good]))


def _auc(good: np.ndarray, bad: np.ndarray) -> float:
    """Area under the ROC curve by ranks (Mann and Whitney 1947), equal scores counted half; nan if a kind is
    missing.
    """
    if not len(good) or not len(bad):
        return float("nan")
    _, inverse, count = np.unique(np.concatenate([good, bad]), return_inverse=True, return_counts=True)
    ranks = (np.cumsum(count) - (count - 1) / 2)[inverse]
    return float((ranks[: len(good)].sum() - len(good) * (len(good) + 1) / 2) / (len(good) * len(bad)))


def filter_by(path: str, threshold: float) -> Filter:
    """Drops documents that score below the threshold."""
    model = Classifier.load(path)

    def filter_document(document: Document) -> str | None:
        score = model.score(document.text)
        return f"low score: {score:.2f}" if score < threshold else None

    return filter_document


def _features(text: str) -> np.ndarray:
    """Buckets of the distinct words and word pairs."""
    hashes = np.concatenate([ngram_hashes(text, 1), ngram_hashes(text, 2)])
    return np.unique(hashes & np.uint64(BUCKETS - 1)).astype(np.int64)


@njit(cache=True)
def _score(weights, features):
    total = weights[-1]
    scale = np.float32(1 / np.sqrt(max(1, len(features))))
    for feature in features:
        total += weights[feature] * scale
    return 1 / (1 + np.exp(-total))


@njit(cache=True)
def _learn(weights, squares, features, label):
    error = np.float32(_score(weights, features) - label)
    scale = np.float32(1 / np.sqrt(max(1, len(features))))
    for feature in features:
        slope = error * scale + np.float32(_SHRINK) * weights[feature]
        squares[feature] += slope * slope
        weights[feature] -= np.float32(_RATE) * slope / np.sqrt(squares[feature])
    squares[-1] += error * error
    weights[-1] -= np.float32(_RATE) * error / np.sqrt(squares[-1])
