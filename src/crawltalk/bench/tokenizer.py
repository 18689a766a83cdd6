"""bench tokenizer: training, encoding and decoding against their peers on the same text, each call cold in a
process of its own.

`python -m crawltalk.bench.tokenizer TASK SIDE TEXT WHAT...` is such a process. It prints one JSON object: the
seconds of the call, the memory that it took beyond the text, and a hash of the result.
"""

import json
import os
import re
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Callable, Iterator
from hashlib import blake2b
from pathlib import Path
from typing import Any

import numpy as np

from crawltalk.bench.data import figure
from crawltalk.core.errors import MissingInput, UserError
from crawltalk.tokenizer import Tokenizer
from crawltalk.tokenizer.files import vocabulary_name

THREADS = 2
SIZE, LARGE = 32_768, 100_257
"""Tokens without control tokens."""
TIMES = 10
"""How much more text for the memory at ten times the text."""

Call = Callable[[], Any]


def tokenizer(text: str | Path, vocabulary: str | Path, runs: int) -> Iterator[dict[str, Any]]:
    """One figure per comparison, as soon as it is known."""
    text, vocabulary = Path(text), Path(vocabulary)
    Tokenizer.load(vocabulary)  # a missing file is reported before minutes of work
    yield from _training(text, runs)
    yield from _coding(text, vocabulary, runs)


def _training(text: Path, runs: int) -> Iterator[dict[str, Any]]:
    size = sum(map(len, read_texts(text))) / 1e6
    sides = [("ours", "gpt4"), ("rustbpe", "gpt4"), ("hf", "gpt4"), ("ours", "gpt2"), ("gigabpe", "gpt2")]
    rounds = [{side: _cold("train", side[0], text, SIZE, side[1], 1) for side in sides} for _ in range(runs)]

    def speeds(peer: str, pattern: str) -> list[float]:
        return [size / row[peer, pattern]["seconds"] for row in rounds]

    for peer, name in (("rustbpe", "train_rustbpe"), ("hf", "train_hf")):
        same = all(row[peer, "gpt4"]["hash"] == row["ours", "gpt4"]["hash"] for row in rounds)
        label = f"{peer}, {SIZE:,} tokens, {'the same merges' if same else 'other merges'}"
        yield figure(
            f"tokenizer.{name}", "MB/s", speeds("ours", "gpt4"), speeds(peer, "gpt4"), label, THREADS
        )
    label = f"gigabpe, {SIZE:,} tokens, split of GPT-2"
    yield figure(
        "tokenizer.train_gigabpe", "MB/s", speeds("ours", "gpt2"), speeds("gigabpe", "gpt2"), label, THREADS
    )
    large = [_cold("train", "ours", text, LARGE, "gpt4", 1)["seconds"] for _ in range(runs)]
    small = [row["ours", "gpt4"]["seconds"] for row in rounds]
    yield figure(
        "tokenizer.train_100k", "s", large, small, f"itself, {SIZE:,} instead of {LARGE:,} tokens", THREADS
    )
    taken = {side: [row[side, "gpt4"]["megabytes"] for row in rounds] for side in ("ours", "rustbpe")}
    yield figure(
        "tokenizer.train_memory", "MB", taken["ours"], taken["rustbpe"], "rustbpe, beyond the text", THREADS
    )
    more = [_cold("train", "ours", text, SIZE, "gpt4", TIMES)["megabytes"]]
    yield figure(
        "tokenizer.train_memory", "MB", more, taken["ours"], f"itself, {TIMES} times less text", THREADS
    )


def _coding(text: Path, vocabulary: Path, runs: int) -> Iterator[dict[str, Any]]:
    texts = read_texts(text)
    size = sum(map(len, texts)) / 1e6
    for task in ("encode", "decode"):
        rounds = [
            {side: _cold(task, side, text, vocabulary) for side in ("ours", "tiktoken")} for _ in range(runs)
        ]
        differ = sum(
            a != b for a, b in zip(rounds[0]["ours"]["hash"], rounds[0]["tiktoken"]["hash"], strict=True)
        )
        speeds = {side: [size / row[side]["seconds"] for row in rounds] for side in ("ours", "tiktoken")}
        label = f"tiktoken, {vocabulary_name(vocabulary)}, {differ} of {len(texts)} texts differ"
        yield figure(f"tokenizer.{task}", "MB/s", speeds["ours"], speeds["tiktoken"], label)


def _cold(*words: Any) -> dict[str, Any]:
    environment = os.environ | {"RAYON_NUM_THREADS": str(THREADS), "TOKENIZERS_PARALLELISM": "true"}
    command = [sys.executable, "-m", "crawltalk.bench.tokenizer", *map(str, words)]
    done = subprocess.run(command, check=False, capture_output=True, text=True, env=environment)
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["no message"])[-1]
        raise UserError(
            f"{words[1]} failed ({last}); the peers are installed with: pip install --group peers"
        )
    return json.loads(done.stdout)


def read_texts(path: str | Path) -> list[bytes]:
    """Texts out of a folder of *.txt, a tar.gz of such, or one file."""
    path = Path(path)
    if path.is_dir():
        texts = [file.read_bytes() for file in sorted(path.rglob("*.txt"))]
    elif path.name.endswith((".tar.gz", ".tgz")):
        with tarfile.open(path) as archive:
            files = (archive.extractfile(member) for member in archive if member.name.endswith(".txt"))
            texts = [file.read() for file in files if file is not None]
    else:
        texts = [path.read_bytes()] if path.is_file() else []
    if not texts:
        raise MissingInput(
            f"{path} holds no text; give a folder of .txt files, a .tar.gz of such, or a file with --text"
        )
    return [text.decode("utf-8", "replace").encode() for text in texts]


def _train(side: str, texts: list[bytes], size: int, pattern: str, times: int) -> Call:
    """A call that trains, with its library loaded; it returns the tokens in order."""
    from crawltalk.tokenizer.alphabet import to_bytes
    from crawltalk.tokenizer.patterns import splitter

    known = splitter(pattern)
    assert known is not None
    strings = [f"{copy} " * (times > 1) + text.decode() for copy in range(times) for text in texts]
    if side == "ours":
        from crawltalk.tokenizer.bpe import train
        from crawltalk.tokenizer.tokenizer import SPECIAL_TOKENS

        return lambda: list(train(strings, size + len(SPECIAL_TOKENS), pattern, threads=THREADS).vocab)
    if side == "rustbpe":
        import rustbpe

        made = rustbpe.Tokenizer()  # pyrefly: ignore[missing-attribute]

        def by_rustbpe() -> list[bytes]:
            made.train_from_iterator(iter(strings), size, pattern=known.pattern)
            return [bytes(word) for word, _ in sorted(made.get_mergeable_ranks(), key=lambda row: row[1])]

        return by_rustbpe
    if side == "gigabpe":
        import gigabpe

        folder = Path(tempfile.mkdtemp(prefix="crawltalk-bench-"))  # it reads files
        paths = [folder / f"{number}.txt" for number in range(len(texts))]
        for path, text in zip(paths, texts, strict=True):
            path.write_bytes(text)
        names = [str(path) for path in paths]
        learn = gigabpe.train_bpe  # pyrefly: ignore[missing-attribute]
        # its merges, in an alphabet of its own
        return lambda: learn(names, size, special_tokens=[], threads=THREADS)[1]
    from tokenizers import Regex, models, pre_tokenizers, trainers
    from tokenizers import Tokenizer as Peer

    peer = Peer(models.BPE())
    split = pre_tokenizers.Split(Regex(known.pattern), "isolated")
    peer.pre_tokenizer = pre_tokenizers.Sequence(
        [split, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)]
    )
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=size, show_progress=False, initial_alphabet=alphabet)

    def by_hf() -> list[bytes]:
        peer.train_from_iterator(strings, trainer)
        vocab = peer.get_vocab()
        return [to_bytes(word) for word in sorted(vocab, key=vocab.__getitem__)]

    return by_hf


def _code(task: str, side: str, texts: list[bytes], vocabulary: Path) -> Call:
    """A call that encodes or decodes all texts on one thread, with its library loaded; it returns the results."""
    from crawltalk.tokenizer import bulk  # noqa: F401 - as tiktoken is

    made = Tokenizer.load(vocabulary)
    strings = [text.decode() for text in texts]
    if side == "tiktoken":
        import tiktoken

        peer = tiktoken.Encoding("peer", pat_str=made.pattern, mergeable_ranks=made.vocab, special_tokens={})
        if task == "encode":
            return lambda: peer.encode_ordinary_batch(strings, num_threads=1)
        ids = peer.encode_ordinary_batch(strings, num_threads=1)
        return lambda: [peer.decode_bytes(row) for row in ids]
    if task == "encode":
        return lambda: made.encode_batch(strings)
    arrays = made.encode_batch(strings)
    return lambda: [made.decode_bytes(row) for row in arrays]


def memory(name: str) -> float:
    """A size of this process as Linux names it, in MB; 0 elsewhere."""
    match = re.search(rf"{name}:\s+(\d+) kB", Path("/proc/self/status").read_text())
    return int(match[1]) / 1e3 if match else 0.0


def main(task: str, side: str, text: str, *rest: str) -> None:
    """Time one call, and print the result as JSON."""
    texts = read_texts(text)
    call = (
        _train(side, texts, int(rest[0]), rest[1], int(rest[2]))
        if task == "train"
        else _code(task, side, texts, Path(rest[0]))
    )
    before = memory("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")  # the peak from here on
    began = time.perf_counter()
    result = call()
    seconds = time.perf_counter() - began
    megabytes = memory("VmHWM") - before
    rows = (
        [repr(result)]
        if task == "train"
        else [repr(np.asarray(row).tolist() if task == "encode" else row) for row in result]
    )
    hashes = [blake2b(row.encode(), digest_size=8).hexdigest() for row in rows]
    print(json.dumps({"seconds": seconds, "megabytes": megabytes, "hash": hashes}))


if __name__ == "__main__":
    main(*sys.argv[1:])
