"""Train the block classifier of `crawltalk.data.extraction` and write its weights.

    python tools/train_extractor.py PAGES runs/small/crawl

PAGES is a checkout of trafilatura's evaluation data (github.com/adbar/trafilatura, Apache-2.0: `evaldata.json` and
`tests/**/*.html`), 990 pages on which people marked passages to keep and passages to drop. What nobody marked is labelled by
trafilatura itself (`pip install trafilatura`), so that the classifier learns its taste without its cost. The second argument
is an embedded crawl, whose true main text is known. Half of the pages judge what the other half taught; then all teach.
"""

import hashlib
import json
import sys
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import torch
from torch.nn import functional

from crawltalk.core.jsonl import read_jsonl
from crawltalk.data.blocks import features
from crawltalk.data.extraction import THRESHOLD, WEIGHTS, as_weights, choose, plain, probabilities
from crawltalk.data.scan import scan
from crawltalk.data.warc import decode, read_pages

HIDDEN, STEPS, BATCH = 32, 2000, 4096
SAMPLE = 1500
"""Pages of the embedded crawl."""


class Example(msgspec.Struct):
    """A page with its labels."""

    name: str
    text: bytes
    blocks: np.ndarray
    rows: np.ndarray
    wanted: np.ndarray
    weight: np.ndarray
    keep: list[str]
    drop: list[str]


def squeeze(text: str) -> str:
    """Letters and digits only, lower case."""
    return "".join(filter(str.isalnum, text.lower()))


def label(name: str, html: bytes, truth: str, exact: bool, keep: list[str], drop: list[str]) -> Example | None:
    """A page; its blocks are content if `truth` holds them (as lines, if `exact`), but for what people said."""
    text, blocks = scan(decode(html).encode("utf-8", "replace"))
    if not len(blocks):
        return None
    wanted, weight = np.zeros(len(blocks), np.float32), np.zeros(len(blocks), np.float32)
    known = {squeeze(line) for line in truth.split("\n")} if exact else squeeze(truth)
    for place, block in enumerate(blocks):
        piece = plain(text, block)
        squeezed = squeeze(piece)
        wanted[place] = bool(squeezed) and squeezed in known
        weight[place] = min(len(piece), 400) ** 0.5 / 10 if squeezed else 0.01
        if any(passage in piece for passage in keep):
            wanted[place], weight[place] = 1, 4
        if any(passage in piece and len(piece) < 8 * len(passage) + 80 for passage in drop):
            wanted[place], weight[place] = 0, 4
    return Example(name, text, blocks, features(text, blocks), wanted, weight, keep, drop)


def marked_pages(folder: Path) -> list[Example]:
    """Pages on which people marked passages."""
    from trafilatura import extract

    files = {path.name: path for path in folder.rglob("*.html")}
    examples = []
    for entry in json.loads((folder / "evaldata.json").read_text(encoding="utf-8")).values():
        html = files[entry["file"]].read_bytes()
        silver = extract(html, include_comments=False) or ""
        examples.append(label(entry["file"], html, silver, False, entry["with"], entry["without"]))
    return [example for example in examples if example is not None]


def sample_pages(folder: Path) -> list[Example]:
    """Pages of the embedded crawl."""
    truth = {row["record_id"]: row["main_text"] for row in read_jsonl(folder / "truth.jsonl", dict[str, Any])}
    examples: list[Any] = []
    for path in sorted(folder.glob("*.warc.gz")):
        for page in list(read_pages(path, 1_000_000, print))[:: max(1, 30_000 // SAMPLE)]:
            if truth.get(page.id) and not page.fault:
                examples.append(label(page.id, page.body, truth[page.id], True, [], []))
    return [example for example in examples if example is not None]


def train(examples: list[Example]) -> dict[str, np.ndarray]:
    """Weights of the network, in the names of `extraction.json`."""
    torch.manual_seed(0)
    rows = torch.from_numpy(np.concatenate([example.rows for example in examples]))
    wanted = torch.from_numpy(np.concatenate([example.wanted for example in examples]))
    weight = torch.from_numpy(np.concatenate([example.weight for example in examples]))
    mean, scale = rows.mean(0), rows.std(0) + 1e-3
    rows = (rows - mean) / scale
    hidden, output = torch.nn.Linear(rows.shape[1], HIDDEN), torch.nn.Linear(HIDDEN, 1)
    optimizer = torch.optim.AdamW([*hidden.parameters(), *output.parameters()], weight_decay=0.1)
    for step in range(STEPS):
        for group in optimizer.param_groups:
            group["lr"] = 3e-3 * (1 - step / STEPS)
        chosen = torch.randint(len(rows), (BATCH,))
        guess = output(hidden(rows[chosen]).relu())[:, 0]
        losses = functional.binary_cross_entropy_with_logits(guess, wanted[chosen], reduction="none")
        loss = (losses * weight[chosen]).sum() / weight[chosen].sum()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    found = {"mean": mean, "scale": scale, "hidden": hidden.weight.T, "hidden_bias": hidden.bias}
    found |= {"output": output.weight[0], "output_bias": output.bias[0]}
    return {name: value.detach().numpy() for name, value in found.items()}


def judge(weights: dict[str, np.ndarray], examples: list[Example]) -> tuple[np.ndarray, np.ndarray]:
    """(kept and lost passages to keep, kept and lost passages to drop; blocks right and wrong, by weight)."""
    marks, blocks = np.zeros(4), np.zeros(2)
    for example in examples:
        content = probabilities(example.rows, as_weights(weights)) > THRESHOLD
        lines = [plain(example.text, example.blocks[place]) for place in choose(example.text, example.blocks, content)]
        text = "\n".join(lines)
        for passage in example.keep:
            marks[0 if passage in text else 1] += 1
        for passage in example.drop:
            marks[2 if passage in text else 3] += 1
        blocks += [example.weight[content == example.wanted].sum(), example.weight[content != example.wanted].sum()]
    return marks, blocks


def main(pages: Path, crawl: Path) -> None:
    """Cross-validate, then train on everything and write the weights."""
    examples, sample = marked_pages(pages), sample_pages(crawl)
    half = [int(hashlib.sha256(example.name.encode()).hexdigest(), 16) % 2 for example in examples]
    marks, blocks, own = np.zeros(4), np.zeros(2), np.zeros(2)
    for fold in (0, 1):
        weights = train([e for e, h in zip(examples, half, strict=True) if h != fold] + sample[fold::2])
        found = judge(weights, [e for e, h in zip(examples, half, strict=True) if h == fold])
        marks, blocks, own = marks + found[0], blocks + found[1], own + judge(weights, sample[1 - fold :: 2])[1]
    precision, recall = marks[0] / (marks[0] + marks[2]), marks[0] / (marks[0] + marks[1])
    print(
        f"{len(examples)} marked pages, 2-fold: P {precision:.3f} R {recall:.3f} F1 {2 / (1 / precision + 1 / recall):.3f}"
    )
    print(
        f"blocks right: marked pages {blocks[0] / blocks.sum():.4f}, embedded crawl {own[0] / own.sum():.4f} ({len(sample)})"
    )
    values = {name: np.round(value.astype(float), 4).tolist() for name, value in train([*examples, *sample]).items()}
    WEIGHTS.write_text(json.dumps(values, separators=(",", ":")) + "\n")
    print(f"{WEIGHTS}: {WEIGHTS.stat().st_size:,} bytes")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
