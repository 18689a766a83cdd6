"""Writes the classes of characters that the splitters ask for, as the installed tiktoken has them.

    python scripts/make_classes.py

Unicode's tables change with the years, and ids with them: the vocabularies that are in use were made with
tiktoken's. One line for each class: its name, and ranges of code points in hexadecimal.
"""

import sys
from itertools import chain
from pathlib import Path

import numpy as np
import tiktoken

TARGET = Path(__file__).parents[1] / "src" / "crawltalk" / "tokenizer" / "classes.txt"
CLASSES = {
    "LETTER": r"[\p{Lm}\p{Lo}]",
    "NUMBER": r"\p{N}",
    "MARK": r"\p{M}",
    "UPPER": r"[\p{Lu}\p{Lt}]",
    "LOWER": r"\p{Ll}",
    "SPACE": r"[^\S\r\n]",
    "NEWLINE": r"[\r\n]",
}
CODE_POINTS = [*chain(range(0xD800), range(0xE000, 0x110000))]


def members(pattern: str) -> list[int]:
    """Code points that a pattern matches: tiktoken passes over what it does not."""
    bytes_ = {bytes([value]): value for value in range(256)}
    engine = tiktoken.Encoding("members", pat_str=pattern, mergeable_ranks=bytes_, special_tokens={})
    matched = engine.encode_to_numpy("".join(map(chr, CODE_POINTS)), disallowed_special=())
    return list(map(ord, bytes(matched.astype(np.uint8)).decode()))


def text() -> str:
    """The file."""
    lines = ["# " + " ".join((__doc__ or "").split("\n\n")[2].split()) + "\n"]
    for name, pattern in CLASSES.items():
        codes = np.array(members(pattern))
        edges = np.flatnonzero(np.diff(codes) != 1)
        starts, ends = codes[[0, *(edges + 1)]].tolist(), codes[[*edges, -1]].tolist()
        ranges = (
            f"{start:X}" if start == end else f"{start:X}-{end:X}"
            for start, end in zip(starts, ends, strict=True)
        )
        lines.append(f"{name} {' '.join(ranges)}\n")
    return "".join(lines)


if __name__ == "__main__":
    TARGET.write_text(text())
    sys.stdout.write(f"{TARGET}\n")
