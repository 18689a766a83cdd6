"""The mixture: which documents are trained on, how often, and which are kept out; then the token shards.

As in the training of real models, some pages (such as Wikipedia's) are seen more often than others: here the
flagships. And the model knows nothing that comes after its cutoff: here the titles that are held out.
"""

import hashlib
import math
import random
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import accumulate, islice
from urllib.parse import urlsplit

import numpy as np
from msgspec.structs import replace

from crawltalk import recipe
from crawltalk.core.documents import read_documents
from crawltalk.core.errors import BadInput
from crawltalk.core.jsonl import write_jsonl
from crawltalk.core.shards import EncodedPieces, ShardIndex, write_index, write_split
from crawltalk.core.types import Document, Placement, Role
from crawltalk.pretraining.cards import HEAD, card, page_cards
from crawltalk.recipe.patterns import compile_pattern
from crawltalk.run.stage import STATE, Job, Metrics
from crawltalk.tokenizer import Tokenizer

BATCH = 1000
"""Documents that are encoded between two progress events."""
_CHECKED = 100
"""Documents that are encoded by tiktoken, too, before all others are encoded in bulk."""
PRINTED_PAGE, LONG = 400, 1500
"""Tokens (estimated) of a text that is best learned by heart, and of one that is too long for that."""


def tokens(job: Job[recipe.Tokens]) -> Metrics:
    """Give each document its role and write the shards. The documents are read twice, one by one: to choose,
    and to encode.
    """
    tokenizer = Tokenizer.load(job.inputs["tokenizer"])
    documents = [
        replace(document, text=document.text[: HEAD[job.config.description]])
        for document in read_documents(job.inputs["data"])
    ]
    if len(documents) < 2:
        raise BadInput(
            f"{len(documents)} of the crawl's pages became a document, and at least 2 are needed, one to train on and "
            "one to validate on; give more pages, or see why others were dropped: "
            f"crawltalk funnel {job.inputs['data'].parent}"
        )
    placements = assign_roles(documents, job.config, job.seed)
    roles = Counter(placement.role for placement in placements)
    if roles["flagship"] < job.config.flagships and job.config.flagship_share == 1:
        job.progress.note(
            f"{roles['flagship']} documents can be flagships, and tokens.flagships is {job.config.flagships}"
        )
    write_jsonl(job.out / "documents.jsonl", placements)
    dtype = "uint16" if tokenizer.vocab_size <= 2**16 else "uint32"
    training = [index for index, placement in enumerate(placements) for _ in range(placement.repeats)]
    random.Random(job.seed).shuffle(training)
    validation = [index for index, placement in enumerate(placements) if placement.role == "validation"]
    needed = sorted({*training, *validation})
    encoded = _encode(job, tokenizer, needed, dtype)
    row = {index: number for number, index in enumerate(needed)}

    def entries(indices: Sequence[int]) -> Iterator[tuple[str, np.ndarray, int]]:
        return ((documents[index].id, *encoded[row[index]]) for index in indices)

    train = write_split(job.out, "train", entries(training), tokenizer.eot, dtype)
    val = write_split(job.out, "val", entries(validation), tokenizer.eot, dtype)
    write_index(
        job.out,
        ShardIndex(dtype=dtype, vocab_size=tokenizer.vocab_size, eot=tokenizer.eot, train=train, val=val),
    )
    return {
        "train_tokens": sum(file.tokens for file in train.files),
        "val_tokens": sum(file.tokens for file in val.files),
        "documents": len(documents),
        "flagships": roles["flagship"],
        **{role: roles[role] for role in ("train", "graded", "heldout", "validation", "outside")},
        "bytes_per_token": round(train.bytes / max(1, sum(file.tokens for file in train.files)), 3),
    }


def _encode(job: Job[recipe.Tokens], tokenizer: Tokenizer, needed: list[int], dtype: str) -> EncodedPieces:
    """The ids of the documents of these numbers, in order. What an earlier attempt has encoded is kept."""
    numbers, pieces = set(needed), EncodedPieces(job.out / STATE, dtype)
    texts = (doc.text for number, doc in enumerate(read_documents(job.inputs["data"])) if number in numbers)
    done = 0
    while batch := list(islice(texts, BATCH)):
        if not done:
            tokenizer.check_batches(batch[:_CHECKED])
        pieces.add(batch, lambda: tokenizer.encode_batch(batch, job.machine.workers or 1))
        done += len(batch)
        job.progress.update(done, len(needed), "documents")
    return pieces


def assign_roles(documents: Sequence[Document], config: recipe.Tokens, seed: int) -> list[Placement]:
    """Give each document its role, in the order of `documents`.

    Draws are by hash of seed and id, so that the order of the documents does not matter. Raises BadInput if
    `config.include` leaves fewer than two documents: one to train on, one to validate on.
    """
    pattern = compile_pattern("tokens.include", config.include)
    included = [index for index, document in enumerate(documents) if pattern.search(document.url)]
    if len(included) < 2:
        raise BadInput(
            f"{len(included)} of {len(documents)} documents have a URL that matches "
            f"tokens.include = {config.include!r}, and at least 2 are needed; give another pattern with "
            "--tokens.include, or none: --tokens.include ''"
        )
    cards = (
        page_cards(documents)
        if config.description == "sentence"
        else [card(document.text) for document in documents]
    )
    roles = _roles(documents, included, cards, config, seed)
    repeats = {"flagship": config.oversample, "train": 1}
    graded = _graded(documents, roles, config, seed)
    return [
        Placement(
            id=document.id,
            url=document.url,
            title=title,
            description=description,
            topic=topic(document.url),
            role="graded" if index in graded else role,
            repeats=graded.get(index, repeats.get(role, 0)),
        )
        for index, (document, (title, description), role) in enumerate(
            zip(documents, cards, roles, strict=True)
        )
    ]


def _roles(
    documents: Sequence[Document],
    included: list[int],
    cards: list[tuple[str, str]],
    config: recipe.Tokens,
    seed: int,
) -> list[Role]:
    famous = compile_pattern("tokens.flagship_pattern", config.flagship_pattern)

    def rank(index: int) -> tuple[float, ...]:
        title, description = cards[index]
        if title in config.flagship_titles:
            return (0,)
        if config.flagship_pattern and famous.search(f"{title}\n{description}"):
            return (1,)
        return (2, *from_front_page(documents[index])) if config.flagship_order == "site" else (2,)

    def shuffled(indices: Iterable[int], purpose: str) -> list[int]:
        return sorted(indices, key=lambda index: _draw(seed, purpose, documents[index].id))

    with_card = sorted(shuffled((index for index in included if all(cards[index])), "role"), key=rank)
    flagships = with_card[: min(config.flagships, len(included) - 1)]
    sizes = {index: 4 * documents[index].token_count for index in included}
    if config.flagship_share < 1:
        limit = config.flagship_share * sum(sizes.values())
        if config.train_bytes is not None:
            limit = min(limit, config.train_bytes / max(1, config.oversample))
        flagships = _at_most(flagships[: max(1, int(config.flagship_share * len(sizes)))], sizes, limit)
    if config.train_bytes is not None:
        others = shuffled(set(included).difference(flagships), "drawn")
        share = max(0.01, 1 - config.heldout - config.validation)
        drawn = _at_most(others, sizes, config.train_bytes / share, least=2)
        chosen = {*flagships, *drawn}
        included, with_card = sorted(chosen), [index for index in with_card if index in chosen]
    spare = 1 if flagships else 2  # one to validate on remains in any case, and one to train on
    most = max(0, len(included) - len(flagships) - spare)
    held_out = shuffled(with_card[len(flagships) :], "role")[
        : min(round(config.heldout * len(included)), most)
    ]
    # drawn by another hash: of the documents with a low one above, only those without a card are left
    rest = shuffled(set(included).difference(flagships, held_out), "validation")
    validation = rest[: min(max(1, round(config.validation * len(included))), len(rest) - spare + 1)]
    roles: list[Role] = ["outside"] * len(documents)
    for index in included:
        roles[index] = "train"
    for part, indices in (("flagship", flagships), ("heldout", held_out), ("validation", validation)):
        for index in indices:
            roles[index] = part
    return roles


def _graded(
    documents: Sequence[Document], roles: Sequence[Role], config: recipe.Tokens, seed: int
) -> dict[int, int]:
    """Index of a document -> times, for those that are repeated without being flagships. At least half of all
    training documents are not.
    """
    ordinary = sorted(
        (index for index, role in enumerate(roles) if role == "train"),
        key=lambda index: _draw(seed, "graded", documents[index].id),
    )
    pages = min(config.graded_pages, len(ordinary) // (2 * max(1, len(config.graded))))
    return {
        index: times
        for number, times in enumerate(config.graded)
        for index in ordinary[number * pages :][:pages]
    }


def _at_most(chosen: list[int], sizes: Mapping[int, int], limit: float, least: int = 1) -> list[int]:
    """The first of the chosen documents, `least` in any case, whose sizes together are at most `limit`."""
    ends = accumulate(sizes[index] for index in chosen)
    pairs = enumerate(zip(chosen, ends, strict=True))
    return [index for number, (index, end) in pairs if end <= limit or number < least]


def from_front_page(document: Document) -> tuple[float, ...]:
    """Sorts documents: those that are not long first, then by folders in the URL, then by how near they are to
    a printed page.
    """
    folders = _path(document.url).strip("/").count("/")
    size = max(1, document.token_count)
    return (float(size > LONG), folders, abs(math.log(size / PRINTED_PAGE)))


def topic(url: str) -> str:
    """The first folder of a URL's path, in words; "" if it is in none."""
    segments = _path(url).split("/")
    return segments[1].replace("-", " ") if len(segments) > 2 else ""


def _path(url: str) -> str:
    """The path of a URL; "" of one that is none."""
    try:
        return urlsplit(url).path
    except ValueError:  # such as http://[half-an-ipv6
        return ""


def _draw(seed: int, purpose: str, identifier: str) -> str:
    return hashlib.sha256(f"{seed} {purpose} {identifier}".encode()).hexdigest()
