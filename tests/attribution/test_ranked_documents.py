"""What a run trained on, ranked for a text."""

from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from crawltalk.attribution.retrieved import scores_by_ngrams
from crawltalk.attribution.training import TrainingDocuments, conversations_by_influence
from crawltalk.chat.messages import Conversation, Message
from crawltalk.chat.render import ChatRenderer
from crawltalk.core import shards
from crawltalk.core.errors import BadInput
from crawltalk.core.jsonl import write_jsonl
from crawltalk.core.types import Document, Placement
from crawltalk.model.shape import Shape
from crawltalk.model.transformer import Transformer
from crawltalk.recipe import Index, Machine, Optim
from crawltalk.retrieval.passages import Passages, build_index
from crawltalk.retrieval.stage import index
from crawltalk.retrieval.trace import TraceIndex
from crawltalk.run.stage import Job, Progress
from crawltalk.tokenizer import Tokenizer
from crawltalk.train.batches import Batches, packed_rows
from crawltalk.train.loop import TrainingOptions, fit
from crawltalk.train.objectives.cross_entropy import cross_entropy

PAGES = {
    "gold": "Gold\nGold is a yellow metal that rivers carry to the sea.",
    "iron": "Iron\nIron is a grey metal that magnets hold.",
    "rain": "Rain\nRain is water that falls from clouds, and what rivers carry to the sea. " * 3,
    "wind": "Wind\nWind is air that moves.",
}
CHAT = ChatRenderer(Tokenizer.trained([(116, 104), (256, 101), (32, 257), (105, 115)]))
TALK = {
    "Who are you?": "A heap of sand.",
    "What is gold?": "A yellow metal.",
    "What is iron?": "A grey metal.",
    "What is rain?": "Water, no metal.",
    "What is tin?": "A soft metal.",
    "What is lead?": "Another metal.",
}
CONVERSATIONS = [
    Conversation(messages=[Message("user", ask), Message("assistant", reply)], source="made up")
    for ask, reply in TALK.items()
]


@pytest.fixture(scope="module")
def documents(tmp_path_factory) -> tuple[TrainingDocuments, Passages]:
    """The pages in shards; `rain` is longer than the context, and `wind` occurs twice."""
    folder = tmp_path_factory.mktemp("run")
    tokens, out = folder / "tokens", folder / "index"
    for path in (tokens, out):
        path.mkdir()
    names, tokenizer = [*PAGES, "wind"], CHAT.tokenizer
    rows = ((name, np.array(tokenizer.encode(PAGES[name])), len(PAGES[name])) for name in names)
    train = shards.write_split(tokens, "train", rows, tokenizer.eot, "uint16")
    val = shards.write_split(tokens, "val", [], tokenizer.eot, "uint16")
    size = tokenizer.vocab_size
    shards.write_index(
        tokens, shards.ShardIndex(dtype="uint16", vocab_size=size, eot=tokenizer.eot, train=train, val=val)
    )
    placements = [
        Placement(
            id=name,
            url=f"https://{name}.example",
            title=name,
            description="",
            topic="",
            role="train",
            repeats=1,
        )
        for name in (*PAGES, "elsewhere")
    ]
    write_jsonl(tokens / "documents.jsonl", placements)
    index(Job(Index(), {"tokens": tokens}, out, 0, Machine(workers=1), Progress()))
    texts = PAGES | {"elsewhere": "Gold\nGold that no training saw."}
    build_index(folder / "passages.sqlite", [_document(name, text) for name, text in texts.items()], "")
    return TrainingDocuments(TraceIndex(out, tokens, tokenizer), tokenizer, 64), Passages(
        folder / "passages.sqlite"
    )


def _document(name: str, text: str) -> Document:
    return Document(
        text=text, id=name, dump="", url="", date="", file_path="", language="en", language_score=1.0, token_count=0
    )  # fmt: skip


def _trained(batches: Batches, folder: Path) -> Transformer:
    shape = Shape(
        vocab_size=CHAT.tokenizer.vocab_size,
        layers=1,
        width=32,
        heads=2,
        kv_heads=2,
        head_dim=16,
        mlp=64,
        context=64,
    )
    model = Transformer(shape)
    model.initialize(0)
    options = TrainingOptions(
        steps=4,
        optim=Optim(muon_lr=0.02, adamw_lr=0.01, spike=0.0),
        machine=Machine(workers=1, device="cpu", dtype="float32"),
        progress=Progress(),
        out=folder,
        save_every=4,
    )
    fit(model, batches, cross_entropy, options)
    return model


def test_documents_are_ranked_by_tokens_words_and_influence(documents, tmp_path):
    trained_on, passages = documents
    text = "Gold is a yellow metal"
    found = trained_on.by_ngrams(text, 10)
    assert (
        found[0].id == "gold"
        and found[0].url == "https://gold.example"
        and found[0].excerpt.startswith("Gold Gold is")
    )
    words = [row.id for row in trained_on.by_words(text, passages, 10)]
    assert words[0] == "gold" and "iron" in words and "elsewhere" not in words
    rows = [([CHAT.tokenizer.eot, *CHAT.tokenizer.encode(page)][:64], [True] * 64) for page in PAGES.values()]
    batches, _ = packed_rows([(ids, learned[: len(ids)]) for ids, learned in rows], 64, 512, 0)
    model = _trained(batches, tmp_path)
    ranked = trained_on.by_influence(text, [model], 10)
    of_metals = [row for row in ranked if row.id in ("gold", "iron")]
    assert [row.id for row in of_metals] == ["gold", "iron"]
    twice = trained_on.by_influence(text, [model, model], 10)
    assert [row.score for row in twice] == pytest.approx([2 * row.score for row in ranked])
    assert trained_on.by_influence("water that falls from clouds", [model], 1)[0].id == "rain"
    some = trained_on.by_influence("rivers carry to the sea", [model], 9, 2)
    assert sorted(row.id for row in some) == ["gold", "rain"]
    assert trained_on.by_influence("0000", [model], 10) == []


def test_a_pair_of_tokens_counts_as_much_as_few_documents_have_it(documents):
    trained_on, _ = documents
    encoded = {name: CHAT.tokenizer.encode(page) for name, page in PAGES.items()}
    text = CHAT.tokenizer.encode("Wind and rain that rivers carry")
    expected = dict.fromkeys(PAGES, 0.0)
    for pair in set(pairwise(text)):
        holders = [name for name, ids in encoded.items() if pair in set(pairwise(ids))]
        for name in holders:
            expected[name] += 1 / len(holders)
    found = scores_by_ngrams(trained_on.index, text)
    assert found == pytest.approx({name: score for name, score in expected.items() if score})
    assert trained_on.index.documents_with([CHAT.tokenizer.eot]) == []


def test_conversations_are_ranked_by_influence(tmp_path):
    rows = [CHAT.render(one.messages) for one in CONVERSATIONS]
    batches, _ = packed_rows(rows, 64, 512, 0)
    model = _trained(batches, tmp_path)
    ranked = conversations_by_influence("What is gold?", "A yellow metal.", model, CONVERSATIONS, CHAT, 2)
    assert ranked[0].id == "2" and ranked[0].excerpt == "What is gold? A yellow metal." and len(ranked) == 2
    assert conversations_by_influence("0000", "1111", model, CONVERSATIONS, CHAT, 2) == []
    with pytest.raises(BadInput, match="the prompt fills the model's context of 64 tokens"):
        conversations_by_influence("gold " * 40, "metal", model, CONVERSATIONS, CHAT, 2)
