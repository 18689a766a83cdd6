"""Train the block classifier of `crawltalk.data.extract.main_text` and write its weights.

    pip install trafilatura
    python scripts/train_extractor.py --page-types WCXB --passages TRAFILATURA --crawl runs/small/crawl \\
        [--articles ARTICLES]

The sets are described in `crawltalk.data.extract.gold`: WCXB's `dev` pages (CC BY 4.0) teach what content is
on pages of seven types; passages that people marked on three of four of trafilatura's pages (Apache-2.0)
teach it in other languages, and trafilatura labels what nobody marked there; the embedded crawl's true main
text is known. `names` says how much a word in a class name speaks for content, in nats: over the pages that
have it, the share of the text below it that is content against the page's. Printed are F1 on the pages that
did not teach.
"""

import argparse
import json
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from hashlib import sha256
from itertools import pairwise
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import torch
from torch.nn import functional

from crawltalk.core.jsonl import read_jsonl
from crawltalk.data.extract import gold
from crawltalk.data.extract.blocks import features
from crawltalk.data.extract.main_text import FARTHEST, WEIGHTS, BlockClassifier, main_text, plain
from crawltalk.data.extract.scan import END, START, WITHIN, WORDS_END, Scan, scan, word_hash
from crawltalk.data.read.charset import to_utf8
from crawltalk.data.read.warc import read_pages

HIDDEN, STEPS, BATCH, RATE = 32, 3000, 4096, 3e-3
TEACHERS = 6
"""Networks whose mean the one that is kept learns: from one start to the next, F1 differs by 0.004."""
FALSE = 1.25
"""Weight of text that is not content: too much is worse than too little."""
SAMPLE = 900
"""Pages of the embedded crawl: they are all alike."""
NAMES, LEAST_PAGES, PRIOR = 3000, 8, 4.0
"""Most words in class names; on how many pages each has to occur; pages' worth of belief that a word says
nothing.
"""
WORD = re.compile(r"[A-Z]*[a-z]+|[A-Z]+")
ATTRIBUTE = re.compile(r"""\b(?:class|id|role)\s*=\s*("[^"]*"|'[^']*'|[^\s>]+)""", re.I)


class Example(msgspec.Struct):
    """A page with its labels, a row a block."""

    name: str
    page: Scan
    html: str
    target: np.ndarray
    weight: np.ndarray
    generic: bool = True
    """Whether its class names are those of the web at large."""
    checked: bool = False
    """Whether it is looked through for missing labels."""


def squeeze(text: str) -> str:
    """Letters and digits only, lower case."""
    return "".join(filter(str.isalnum, text.lower()))


def label(source: gold.Gold, truth: str) -> Example | None:
    """A page whose blocks are content if they are lines of `truth`, or long and within it, or short and among
    content.
    """
    html = to_utf8(source.html)
    page = scan(html)
    count = len(page.blocks)
    if not count:
        return None
    pieces = [plain(page.text, block) for block in page.blocks]
    squeezed = list(map(squeeze, pieces))
    lines, whole = {squeeze(line) for line in truth.split("\n")}, squeeze(truth)
    known = [
        1 if piece in lines else (piece in whole) * (1 if len(piece) >= 25 else -1) for piece in squeezed
    ]
    target = np.maximum(0, known).astype(np.float32)
    weight = np.array([min(6 * len(piece.split()), 400) ** 0.5 / 10 for piece in pieces], np.float32)
    for index in range(count):
        if not squeezed[index]:
            target[index], weight[index] = 0, 0
        elif known[index] < 0:  # "Share" is in many a main text
            near = [*range(max(0, index - 6), index)][-3:] + [*range(index + 1, min(count, index + 7))][:3]
            sure = [target[other] for other in near if squeezed[other] and known[other] >= 0]
            target[index] = bool(sure) and np.mean(sure) > 0.5
            weight[index] *= 0.3
        if any(passage in pieces[index] for passage in source.keep):
            target[index], weight[index] = 1, 3 * weight[index]
        if any(
            passage in pieces[index] and len(pieces[index]) < 8 * len(passage) + 80 for passage in source.drop
        ):
            target[index], weight[index] = 0, 3 * weight[index]
    return Example(source.name, page, html.decode(), target, weight + 0.001)


def labelled(sources: Iterable[tuple[gold.Gold, str]], **facts: bool) -> list[Example]:
    """Examples of all pages that have text."""
    examples = [example for source, truth in sources if (example := label(source, truth))]
    for example in examples:
        for name, value in facts.items():
            setattr(example, name, value)
    return examples


def sample_pages(folder: Path) -> list[tuple[gold.Gold, str]]:
    """Pages of the embedded crawl."""
    truth = {row["record_id"]: row["main_text"] for row in read_jsonl(folder / "truth.jsonl", dict[str, Any])}
    pages = [page for path in sorted(folder.glob("*.warc.gz")) for page in read_pages(path, 1_000_000, print)]
    known = [page for page in pages if truth.get(page.id) and not page.fault]
    return [
        (gold.Gold(page.id, page.body), truth[page.id]) for page in known[:: max(1, len(known) // SAMPLE)]
    ]


def name_scores(examples: Sequence[Example]) -> dict[str, float]:
    """What the words in class names speak for."""
    content, pages, expected = Counter[int](), Counter[int](), Counter[int]()
    spelled: dict[int, str] = {}
    for example in examples:
        text = " ".join(ATTRIBUTE.findall(example.html))
        spelled |= {word_hash(word.lower().encode()): word.lower() for word in WORD.findall(text)}
        elements, words = example.page.elements, example.page.words
        held = np.zeros((len(elements), 2))
        within = example.page.blocks[:, WITHIN]
        np.add.at(held, within, np.stack([example.weight * example.target, example.weight], 1))
        for element in range(len(elements) - 1, 0, -1):
            held[elements[element, 0]] += held[element]
        below: dict[int, np.ndarray] = {}
        for element, (start, end) in enumerate(pairwise(elements[:, WORDS_END].tolist()), 1):
            for word in words[start:end].tolist():
                below[word] = below.get(word, 0) + held[element]
        usual = min(0.95, max(0.05, held[0, 0] / held[0, 1]))
        for word, (right, all_) in below.items():
            if all_:
                content[word] += right / all_
                pages[word] += 1
                expected[word] += usual
    scores = {}
    for word, count in pages.items():
        if count >= LEAST_PAGES and word in spelled:
            usual = expected[word] / count
            odds = (content[word] + PRIOR * usual) / (count - content[word] + PRIOR * (1 - usual))
            scores[word] = np.log(odds * (1 - usual) / usual)
    best = sorted(scores, key=lambda word: -abs(scores[word]) * pages[word] ** 0.5)[:NAMES]
    return {
        spelled[word]: round(float(scores[word]), 3) for word in sorted(best, key=lambda word: spelled[word])
    }


def train(examples: Sequence[Example], teachers: int = TEACHERS) -> dict[str, Any]:
    """The content of `extraction.json`. The network learns, by 0.7, the outputs of its teachers, and by 0.3 the labels
    (Hinton 2015).
    """
    names = name_scores([example for example in examples if example.generic])
    hashes = sorted((word_hash(word.encode()), score) for word, score in names.items())
    table = (
        np.array([hash_ for hash_, _ in hashes], np.uint64),
        np.array([score for _, score in hashes], np.float32),
    )
    rows = torch.from_numpy(np.concatenate([features(example.page, table) for example in examples]))
    target = torch.from_numpy(np.concatenate([example.target for example in examples]))
    weight = torch.from_numpy(np.concatenate([example.weight for example in examples]))
    weight = torch.where(target > 0.5, weight, FALSE * weight)
    mean, scale = rows.mean(0), rows.std(0) + 1e-3
    rows = ((rows - mean) / scale).clamp(-FARTHEST, FARTHEST)
    if teachers:
        networks = [fit(rows, target, weight, seed) for seed in range(teachers)]
        with torch.no_grad():
            taught = torch.stack([network(rows)[:, 0] for network in networks]).mean(0).sigmoid()
        target = 0.7 * taught + 0.3 * target
    hidden, _, output = fit(rows, target, weight, teachers)
    weights_by_name = {"mean": mean, "scale": scale, "hidden": hidden.weight.T, "hidden_bias": hidden.bias}
    weights_by_name |= {"output": output.weight[0], "output_bias": output.bias}
    return {"names": names} | {
        name: np.round(value.detach().double().numpy(), 4).tolist() for name, value in weights_by_name.items()
    }


def fit(rows: torch.Tensor, target: torch.Tensor, weight: torch.Tensor, seed: int) -> torch.nn.Sequential:
    """A network: log-odds of content from the features."""
    torch.manual_seed(seed)
    network = torch.nn.Sequential(
        torch.nn.Linear(rows.shape[1], HIDDEN), torch.nn.ReLU(), torch.nn.Linear(HIDDEN, 1)
    )
    optimizer = torch.optim.AdamW(network.parameters(), weight_decay=0.1)
    for step in range(STEPS):
        for group in optimizer.param_groups:
            group["lr"] = RATE * (1 - step / STEPS)
        chosen = torch.randint(len(rows), (BATCH,))
        losses = functional.binary_cross_entropy_with_logits(
            network(rows[chosen])[:, 0], target[chosen], reduction="none"
        )
        loss = (losses * weight[chosen]).sum() / weight[chosen].sum()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return network


def without_gaps(examples: Sequence[Example]) -> list[Example]:
    """The examples, less the pages whose truth seems to lack much: the other half of the examples is sure of
    more text.
    """
    half = [sha256(f"gaps {example.name}".encode()).digest()[0] % 2 for example in examples]
    kept = []
    for part in (0, 1):
        taught = [example for example, other in zip(examples, half, strict=True) if other != part]
        classifier = BlockClassifier.of(train(taught, teachers=0))
        for example in [example for example, own in zip(examples, half, strict=True) if own == part]:
            blocks = example.page.blocks
            size = (blocks[:, END] - blocks[:, START]) * (example.weight > 0.01)
            sure = classifier.probabilities(example.page) > 0.8
            missing = (size * sure * (example.target == 0)).sum()
            if not example.checked or missing <= 0.35 * max(1, (size * example.target).sum()):
                kept.append(example)
    return kept


def main() -> None:
    """Train, write the weights, and print the F1 on each gold set."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    for name in ("page-types", "passages", "crawl"):
        parser.add_argument(f"--{name}", type=Path, required=True)
    parser.add_argument("--articles", type=Path)
    flags = parser.parse_args()
    from trafilatura import extract

    marked = gold.passages(flags.passages)
    dev = gold.page_types(flags.page_types, "dev")
    examples = labelled(((page, page.text) for page in dev), checked=True)
    taught = [page for page in marked if not page.held_out]
    examples += labelled((page, extract(page.html, include_comments=False) or "") for page in taught)
    examples += labelled(sample_pages(flags.crawl), generic=False)
    print(
        f"{len(dev)} pages of all types, {len(taught)} with marked passages; {len(examples)} examples in all"
    )
    examples = without_gaps(examples)
    print(f"{len(examples)} examples without gaps")
    table = train(examples)
    WEIGHTS.write_text(json.dumps(table, separators=(",", ":"), ensure_ascii=False) + "\n", encoding="utf-8")
    print(f"{WEIGHTS}: {WEIGHTS.stat().st_size:,} bytes, {len(table['names'])} words")
    classifier = BlockClassifier.of(table)

    def extracted(html: bytes) -> str | None:
        page = scan(to_utf8(html))
        return main_text(page, classifier.probabilities(page)) if len(page.blocks) else None

    for folder in (flags.passages, flags.page_types, *([flags.articles] if flags.articles else [])):
        for known in gold.gold_sets(folder):
            print(
                f"{known.name}: F1 {known.score(extracted):.4f} on {len(known.pages)} pages that were not trained on"
            )


if __name__ == "__main__":
    main()
