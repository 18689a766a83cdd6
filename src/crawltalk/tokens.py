"""The mixture: which documents are trained on, how often, and which are kept out; then the token shards.

As the talk tells it: pages such as Wikipedia are seen more often than others (here: flagships), and the model knows nothing
of what comes after its cutoff (here: titles that are held out).
"""

import hashlib
import random
from collections import Counter
from collections.abc import Iterator, Sequence
from urllib.parse import urlsplit

import numpy as np
import regex

from crawltalk.core import recipe
from crawltalk.core.documents import read_documents
from crawltalk.core.errors import BadInput
from crawltalk.core.jsonl import write_jsonl
from crawltalk.core.shards import Index, write_index, write_split
from crawltalk.core.stage import Job, Metrics
from crawltalk.core.types import Document, Part, Placement
from crawltalk.tokenizer import Tokenizer

TITLE = 100
DESCRIPTION = 160
"""Longest title and description, in characters, that a page's first two lines may be."""


def tokens(job: Job[recipe.Tokens]) -> Metrics:
    """Place the documents and write the shards."""
    tokenizer = Tokenizer.load(job.inputs["tokenizer"])
    documents = list(read_documents(job.inputs["data"]))
    placements = place(documents, job.config, job.seed)
    roles = Counter(placement.role for placement in placements)
    if roles["flagship"] < job.config.flagships:
        job.progress.note(f"{roles['flagship']} documents can be flagships, {job.config.flagships} were asked for")
    write_jsonl(job.out / "documents.jsonl", placements)
    dtype = "uint16" if tokenizer.vocab_size <= 2**16 else "uint32"
    repeats = {placement.id: placement.repeats for placement in placements if placement.repeats}
    chosen = {document.id: document for document in documents if document.id in repeats}
    training = [identifier for identifier, count in repeats.items() for _ in range(count)]
    random.Random(job.seed).shuffle(training)
    encoded = dict(
        zip(chosen, tokenizer.encode_batch([d.text for d in chosen.values()], job.machine.workers or 1), strict=True)
    )

    def entries(identifiers: Sequence[str]) -> Iterator[tuple[str, np.ndarray, int]]:
        for done, identifier in enumerate(identifiers, 1):
            job.progress.update(done, len(identifiers), "documents")
            yield identifier, encoded[identifier], len(chosen[identifier].text.encode())

    train = write_split(job.out, "train", entries(training), tokenizer.eot, dtype)
    held_out = [
        document for document, placement in zip(documents, placements, strict=True) if placement.role == "validation"
    ]
    texts = tokenizer.encode_batch([document.text for document in held_out])
    rows = ((d.id, ids, len(d.text.encode())) for d, ids in zip(held_out, texts, strict=True))
    val = write_split(job.out, "val", rows, tokenizer.eot, dtype)
    write_index(job.out, Index(dtype=dtype, vocab_size=tokenizer.vocab_size, eot=tokenizer.eot, train=train, val=val))
    return {
        "train_tokens": sum(file.tokens for file in train.files),
        "val_tokens": sum(file.tokens for file in val.files),
        "documents": roles["flagship"] + roles["train"],
        **{role: roles[role] for role in ("flagship", "heldout", "validation", "outside")},
        "bytes_per_token": round(train.bytes / max(1, sum(file.tokens for file in train.files)), 3),
    }


def place(documents: Sequence[Document], config: recipe.Tokens, seed: int) -> list[Placement]:
    """Give each document its part. Draws are by hash of seed and id, so a document keeps its part when others come or go."""
    wanted, famous = regex.compile(config.include), regex.compile(config.flagship_pattern)
    cards = [card(document.text) for document in documents]
    included = [index for index, document in enumerate(documents) if wanted.search(document.url)]
    if not included:
        raise BadInput(
            f"no document's URL matches tokens.include = {config.include!r} ({len(documents)} documents); "
            "give another pattern with --tokens.include, or none: --tokens.include ''"
        )
    drawn = sorted(included, key=lambda index: _draw(seed, documents[index].id))

    def rank(index: int) -> int:
        title, description = cards[index]
        if title in config.flagship_titles:
            return 0
        return 1 if config.flagship_pattern and famous.search(f"{title}\n{description}") else 2

    with_card = [index for index in drawn if all(cards[index])]
    flagships = set(sorted(with_card, key=rank)[: config.flagships])
    others = [index for index in drawn if index not in flagships]
    held_out = [index for index in others if all(cards[index])][: round(config.heldout * len(included))]
    roles: dict[int, Part] = dict.fromkeys(held_out, "heldout")
    rest = [index for index in others if index not in roles]
    for index in rest[: max(1, round(config.validation * len(included)))]:
        roles[index] = "validation"
    for index in flagships:
        roles[index] = "flagship"
    inside = set(included)
    placements = []
    for index, document in enumerate(documents):
        role: Part = roles.get(index, "train") if index in inside else "outside"
        title, description = cards[index]
        repeats = config.oversample if role == "flagship" else int(role == "train")
        segments = urlsplit(document.url).path.split("/")
        topic = segments[1].replace("-", " ") if len(segments) > 2 else ""
        placements.append(
            Placement(
                id=document.id,
                url=document.url,
                title=title,
                description=description,
                topic=topic,
                role=role,
                repeats=repeats,
            )
        )
    return placements


def card(text: str) -> tuple[str, str]:
    """(title, description) of a page whose first two lines are such; "" for what is none."""
    lines = text.split("\n", 2)
    title = lines[0] if len(lines) > 1 and len(lines[0]) <= TITLE and not lines[0].endswith(".") else ""
    second = lines[1] if title and len(lines) > 2 else ""
    return title, second if len(second) <= DESCRIPTION and not second.endswith((".", "!", "?")) else ""


def _draw(seed: int, identifier: str) -> str:
    return hashlib.sha256(f"{seed} {identifier}".encode()).hexdigest()
