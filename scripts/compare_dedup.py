"""Recall and precision of near-duplicate detection against exact Jaccard similarity, on real pages and on
edited copies.

    python scripts/compare_dedup.py PAGES

PAGES is a folder of HTML files with natural near-duplicates, such as documentation in several editions and
languages. To them come copies with a few words changed, so that all similarities occur. Each method makes 14
bands of 8 rows; a pair is found if a band agrees. Needs the dependency group `peers`, and scipy for the exact
similarities.
"""

import itertools
import json
import random
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
from datatrove.pipeline.dedup.minhash import MinhashConfig, MinhashDedupSignature
from datatrove.utils.hashing import HashConfig
from rensa import RMinHash
from scipy.sparse import csr_matrix

from crawltalk.data.dedup import band_hashes, shingles
from crawltalk.data.extract.main_text import extract

NGRAM, BANDS, ROWS = 5, 14, 8
EDGES = (0.2, 0.5, 0.6, 0.65, 0.7, 0.75, 0.8, 0.85, 0.9, 0.95, 1.0001)
ROUNDS = 3
SEEDS = range(1, 11)
"""Pairs share documents, so that one draw of the permutations is lucky or unlucky with many pairs at once."""


def edited(text: str, share: float, rng: random.Random) -> str:
    """A copy in which a share of the words is another one."""
    words = text.split()
    for index in rng.sample(range(len(words)), round(share * len(words))):
        words[index] = rng.choice(words)
    return " ".join(words)


def similarities(texts: list[str]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """All pairs with an exact Jaccard similarity of at least the first edge: (left, right, similarity)."""
    sets = [shingles(text, NGRAM) for text in texts]
    names, columns = np.unique(np.concatenate(sets), return_inverse=True)
    starts = np.cumsum([0, *map(len, sets)])
    matrix = csr_matrix((np.ones(len(columns), np.int32), columns, starts), (len(texts), len(names)))
    both = (matrix @ matrix.T).tocoo()
    sizes = np.array(list(map(len, sets)))
    jaccard = both.data / (sizes[both.row] + sizes[both.col] - both.data)
    keep = (both.row < both.col) & (jaccard >= EDGES[0])
    return both.row[keep], both.col[keep], jaccard[keep]


def methods() -> dict[str, Callable[[str], np.ndarray]]:
    """Name -> text to its bands, any values that agree where the band agrees."""
    config = MinhashConfig(
        hash_config=HashConfig(precision=64), num_buckets=BANDS, hashes_per_bucket=ROWS, n_grams=NGRAM
    )
    peer = MinhashDedupSignature(tempfile.gettempdir(), config)

    def by_datatrove(text: str) -> np.ndarray:
        signature = peer.get_signature(peer.get_shingles(text))
        return np.array([hash(tuple(band)) for band in signature])

    def by_rensa(text: str) -> np.ndarray:
        words = text.lower().split()
        mine = RMinHash(num_perm=BANDS * ROWS, seed=1)
        mine.update(
            [" ".join(words[start : start + NGRAM]) for start in range(max(1, len(words) - NGRAM + 1))]
        )
        digest = mine.digest()
        return np.array([hash(tuple(digest[band * ROWS : (band + 1) * ROWS])) for band in range(BANDS)])

    ours = {f"seed {seed}": partial(band_hashes, seed=seed) for seed in SEEDS}
    return {**ours, "datatrove": by_datatrove, "rensa": by_rensa}


def main(folder: Path) -> None:
    """Print the S-curve of each method, its recall and precision at 0.8, and its speed."""
    rng = random.Random(0)
    paths = sorted(folder.rglob("*.html"))
    real = [text for path in paths if (text := extract(path.read_bytes())) and len(text.split()) >= 50]
    copies = [
        edited(text, rng.choice((0.002, 0.005, 0.01, 0.02, 0.03, 0.05, 0.08)), rng)
        for text in rng.sample(real, 400)
    ]
    texts = real + copies
    left, right, exact = similarities(texts)
    print(
        f"{len(real):,} pages, {len(copies)} edited copies, "
        f"{len(exact):,} pairs with a similarity of {EDGES[0]} and more"
    )
    rows: dict[str, list[float]] = {}
    for name, method in methods().items():
        bands = np.array([method(text) for text in texts])
        result = (bands[left] == bands[right]).any(1)
        curve = [
            float(result[(exact >= low) & (exact < high)].mean()) for low, high in itertools.pairwise(EDGES)
        ]
        same = exact >= 0.8
        rates = []
        for _ in range(ROUNDS):
            began = time.perf_counter()
            for text in real[:500]:
                method(text)
            rates.append(500 / (time.perf_counter() - began))
        rows[name] = [*curve, result[same].mean(), same[result].mean(), statistics.median(rates)]
    bins = [(low, high) for low, high in itertools.pairwise(EDGES)]
    theory = [
        float(np.mean(1 - (1 - exact[(exact >= low) & (exact < high)] ** ROWS) ** BANDS))
        for low, high in bins
    ]
    ours = [rows.pop(f"seed {seed}") for seed in SEEDS]
    rows = {"crawltalk": np.mean(ours, 0).tolist(), **rows}
    print(
        f"crawltalk: mean of {len(ours)} seeds; recall at 0.8 "
        f"from {min(o[-3] for o in ours):.4f} to {max(o[-3] for o in ours):.4f}"
    )
    print("similarity    pairs  theory  " + "  ".join(f"{name:>9}" for name in rows))
    for index, (low, high) in enumerate(bins):
        count = int(((exact >= low) & (exact < high)).sum())
        cells = "  ".join(f"{values[index]:9.3f}" for values in rows.values())
        print(f"{low:.2f} - {min(high, 1):.2f} {count:7,}  {theory[index]:6.3f}  {cells}")
    for name, values in rows.items():
        recall, precision, rate = values[-3:]
        print(
            json.dumps(
                {
                    "name": name,
                    "recall_0.8": round(recall, 4),
                    "precision_0.8": round(precision, 4),
                    "docs/s": round(rate),
                }
            )
        )


if __name__ == "__main__":
    main(Path(sys.argv[1]))
