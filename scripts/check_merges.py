"""Our merges against those of rustbpe: the same tokens in the same order?

    python scripts/check_merges.py TEXT

TEXT: a folder of .txt files, a .tar.gz of such, or one file. Prints one line of JSON for each split pattern
and size of vocabulary (control tokens not counted). Needs the dependency group `test`.
"""

import json
import sys
from pathlib import Path

import rustbpe

from crawltalk.bench.tokenizer import read_texts
from crawltalk.tokenizer import train
from crawltalk.tokenizer.patterns import splitter
from crawltalk.tokenizer.tokenizer import SPECIAL_TOKENS

SIZES = 4_096, 32_768, 100_257


def main(path: Path) -> None:
    """Train every vocabulary by both."""
    texts = [text.decode() for text in read_texts(path)]
    for name in ("gpt2", "gpt4"):
        known = splitter(name)
        assert known is not None
        for size in SIZES:
            ours = list(train(texts, size + len(SPECIAL_TOKENS), name, threads=2).vocab)
            peer = rustbpe.Tokenizer()  # pyrefly: ignore[missing-attribute]
            peer.train_from_iterator(iter(texts), size, pattern=known.pattern)
            theirs = [bytes(word) for word, _ in sorted(peer.get_mergeable_ranks(), key=lambda row: row[1])]
            same = next(
                (n for n, pair in enumerate(zip(ours, theirs, strict=False)) if pair[0] != pair[1]), len(ours)
            )
            row = {
                "pattern": name,
                "size": size,
                "ours": len(ours),
                "rustbpe": len(theirs),
                "same_up_to": same,
            }
            print(json.dumps(row), flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
