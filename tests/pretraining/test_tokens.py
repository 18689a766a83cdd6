"""The mixture and its shards: who is trained on, how often, and what stands where."""

import dataclasses
import io
import json
import math
from collections import Counter
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from crawltalk import recipe
from crawltalk.core import shards
from crawltalk.core.documents import write_documents
from crawltalk.core.errors import BadInput, MissingInput, UserError
from crawltalk.core.jsonl import read_jsonl
from crawltalk.core.shards import TokenShards, write_index, write_split
from crawltalk.core.types import Document, Placement
from crawltalk.pretraining import tokens as stage
from crawltalk.pretraining.tokens import assign_roles, card, tokens, topic
from crawltalk.run.stage import Job, Metrics, Progress
from crawltalk.tokenizer import Tokenizer
from crawltalk.tokenizer.bpe import learn_merges
from crawltalk.tokenizer.count import count_chunks

METALS = ("Iron", "Zinc", "Dysprosium", "Gold", "Tin", "Lead", "Silver", "Copper", "Nickel", "Cobalt")


def document(number: int, text: str, folder: str = "physical-sciences") -> Document:
    return Document(
        text=text,
        id=f"<urn:uuid:{number:032x}>",
        dump="test",
        url=f"https://site{number % 3}.example/{folder}/page-{number}",
        date="2025-01-01T00:00:00Z",
        file_path="test.warc.gz",
        language="en",
        language_score=1.0,
        token_count=len(text) // 4,
    )


@cache
def corpus() -> list[Document]:
    """120 pages: 80 of one topic with a card, 20 of it without, 20 of another."""
    pages = []
    for number in range(120):
        metal = METALS[number] if number < len(METALS) else f"Page {number}"
        described = "Chemical element" if number < len(METALS) else "Thing"
        text = f"{metal}\n{described} with number {number}\n{metal} is <|im_end|> thing {number}.\n"
        text += f"More: é 🙂 {'x' * number}"
        if 80 <= number < 100:
            text = f"This page {number} begins with a sentence.\nAnd goes on."
        pages.append(document(number, text, "culture" if number >= 100 else "physical-sciences"))
    return pages


@cache
def vocabulary() -> Tokenizer:
    texts = [page.text for page in corpus()]
    return Tokenizer.trained(learn_merges(count_chunks(texts), 150))


CONFIG = recipe.Tokens(
    include="/physical-sciences/",
    flagships=12,
    flagship_titles=("Page 50",),
    flagship_pattern="Chemical element",
    oversample=5,
)


def run(
    folder: Path,
    config: recipe.Tokens = CONFIG,
    *,
    seed: int = 0,
    workers: int = 1,
    pages: list[Document] | None = None,
):
    """The stage on real folders; its metrics."""
    data, out = folder / "data", folder / "tokens"
    for path in (data, out):
        path.mkdir(parents=True, exist_ok=True)
    write_documents(data / "documents-00000.parquet", corpus() if pages is None else pages)
    vocabulary().save(folder / "tokenizer")
    machine = recipe.Machine(workers=workers)
    inputs = {"data": data, "tokenizer": folder / "tokenizer"}
    return tokens(Job(config, inputs, out, seed, machine, Progress()))


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Metrics]:
    folder = tmp_path_factory.mktemp("built")
    return folder / "tokens", run(folder)


def rows(folder: Path) -> list[Placement]:
    return list(read_jsonl(folder / "documents.jsonl", Placement))


def test_every_document_has_one_part_and_stands_in_the_order_of_the_data(built):
    folder, metrics = built
    assert [row.id for row in rows(folder)] == [page.id for page in corpus()]
    parts = Counter(row.role for row in rows(folder))
    assert parts == {"flagship": 12, "heldout": 10, "validation": 2, "train": 76, "outside": 20}
    assert metrics["documents"] == 120
    assert [metrics[name] for name in ("flagships", "heldout", "validation", "train", "outside")] == [
        12,
        10,
        2,
        76,
        20,
    ]
    assert all(row.repeats == {"flagship": 5, "train": 1}.get(row.role, 0) for row in rows(folder))


def test_packing_loses_no_token(built):
    folder, metrics = built
    train = TokenShards(folder, "train")
    texts = {page.id: page.text for page in corpus()}
    ends = [offset for offset, _ in train.documents[1:]] + [len(train)]
    for (start, identifier), end in zip(train.documents, ends, strict=True):
        expected = [vocabulary().eot, *vocabulary().encode(texts[identifier])]
        assert train.window(start, end - start).tolist() == expected
    assert Counter(identifier for _, identifier in train.documents) == {
        row.id: row.repeats for row in rows(folder) if row.repeats
    }
    assert metrics["train_tokens"] == len(train)


def test_occurrences_are_shuffled(built):
    train = TokenShards(built[0], "train")
    order = [identifier for _, identifier in train.documents]
    assert order != sorted(order)
    assert len({order.index(row.id) // 34 for row in rows(built[0]) if row.role == "flagship"}) > 1


def test_the_validation_shard_holds_the_validation_texts_and_their_bytes(built):
    folder, metrics = built
    val = TokenShards(folder, "val")
    texts = [page.text for page, row in zip(corpus(), rows(folder), strict=True) if row.role == "validation"]
    whole = "".join("<|endoftext|>" + text for text in texts)
    assert vocabulary().decode(val.window(0, len(val)).tolist()) == whole
    assert val.bytes == sum(len(text.encode()) for text in texts)
    assert metrics["val_tokens"] == len(val)


def test_what_is_kept_out_never_reaches_the_training_shards(built):
    folder, _ = built
    train = TokenShards(folder, "train")
    read = vocabulary().decode(train.window(0, len(train)).tolist())
    for page, row in zip(corpus(), rows(folder), strict=True):
        assert (page.text in read) == (row.role in ("flagship", "train"))


def test_graded_documents_occur_as_often_as_is_asked_for_and_play_no_other_part(tmp_path):
    config = dataclasses.replace(CONFIG, graded=(3, 8), graded_pages=4)
    run(tmp_path, config)
    placed = rows(tmp_path / "tokens")
    assert Counter(row.repeats for row in placed if row.role == "graded") == {3: 4, 8: 4}
    others = {row.id: row.role for row in placed if row.role != "graded"}
    assert others.items() <= {row.id: row.role for row in assign_roles(corpus(), CONFIG, 0)}.items()
    shards = TokenShards(tmp_path / "tokens", "train")
    seen = Counter(identifier for _, identifier in shards.documents)
    assert all(seen[row.id] == row.repeats for row in placed if row.role != "validation")


def test_at_least_half_of_the_ordinary_documents_stay_ordinary():
    placed = assign_roles(corpus(), dataclasses.replace(CONFIG, graded=(2, 4, 8), graded_pages=1000), 0)
    parts = Counter(row.role for row in placed)
    assert 0 < parts["graded"] <= parts["train"]


def test_flagships_are_those_named_then_those_that_match_then_others_with_a_card(built):
    titles = {row.title for row in rows(built[0]) if row.role == "flagship"}
    assert titles > {"Page 50", *METALS}
    assert len(titles) == 12
    assert all(row.title and row.description for row in rows(built[0]) if row.role in ("flagship", "heldout"))


def test_validation_is_drawn_from_all_that_is_left():
    placements = assign_roles(
        corpus(), recipe.Tokens(include="/physical", flagships=30, heldout=0.3, validation=0.2), 0
    )
    validation = [row for row in placements if row.role == "validation"]
    assert 0 < sum(bool(row.description) for row in validation) < len(validation)


def test_another_seed_draws_another_mixture(built, tmp_path):
    run(tmp_path, seed=1)
    assert [row.role for row in rows(tmp_path / "tokens")] != [row.role for row in rows(built[0])]


def content(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir()) if path.is_file()}


def test_partial_work_and_the_number_of_workers_change_nothing(built, tmp_path):
    out = tmp_path / "tokens"
    out.mkdir()
    whole = content(built[0])
    (out / "documents.jsonl").write_bytes(whole["documents.jsonl"])
    (out / "train-00000.bin.tmp").write_bytes(whole["train-00000.bin"][:99])
    run(tmp_path, workers=3)
    assert content(out) == whole


def test_what_was_encoded_before_an_interruption_is_not_encoded_again(built, tmp_path, monkeypatch):
    monkeypatch.setattr(stage, "BATCH", 7)
    run(tmp_path)
    whole = content(tmp_path / "tokens")
    assert whole == content(built[0])
    for name in ("train-00000.bin", "index.json", "state/encoded-00001.sizes"):
        (tmp_path / "tokens" / name).unlink()
    sizes: list[int] = []
    encode = Tokenizer.encode_batch
    monkeypatch.setattr(
        Tokenizer,
        "encode_batch",
        lambda self, texts, *more: sizes.append(len(texts)) or encode(self, texts, *more),
    )
    monkeypatch.setattr(Tokenizer, "check_batches", lambda self, texts: None)
    run(tmp_path)
    assert sizes == [7]
    assert content(tmp_path / "tokens") == whole


def test_encoding_that_differs_from_tiktokens_is_refused(monkeypatch, tmp_path):
    encode = Tokenizer.encode_batch
    monkeypatch.setattr(
        Tokenizer, "encode_batch", lambda self, texts, *more: [ids[:-1] for ids in encode(self, texts, *more)]
    )
    with pytest.raises(UserError, match="other ids than tiktoken"):
        run(tmp_path)


def test_the_order_of_the_documents_decides_no_part():
    backwards = assign_roles(corpus()[::-1], CONFIG, 0)
    assert {row.id: row.role for row in backwards} == {
        row.id: row.role for row in assign_roles(corpus(), CONFIG, 0)
    }


@settings(deadline=None)
@given(
    st.integers(2, 60),
    st.integers(0, 70),
    st.floats(0, 1),
    st.floats(0, 1),
    st.integers(0, 5),
)
def test_something_to_train_on_and_to_validate_on_is_left_whatever_is_asked_for(
    count, flagships, heldout, validation, seed
):
    config = recipe.Tokens(flagships=flagships, heldout=heldout, validation=validation)
    parts = Counter(row.role for row in assign_roles(corpus()[:count], config, seed))
    assert parts["validation"] >= 1
    assert parts["flagship"] + parts["train"] >= 1
    assert parts["flagship"] <= flagships
    assert sum(parts.values()) == count


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("include", "/nowhere/", "0 of 120 documents .* '/nowhere/'.* --tokens.include"),
        ("include", "page-7$", "1 of 120 documents"),
        ("include", "(", "tokens.include = '\\(' is not a regular expression"),
        ("flagship_pattern", "[", "tokens.flagship_pattern"),
    ],
)
def test_a_pattern_that_leaves_nothing_or_is_none_is_refused_by_name(field, value, message):
    import dataclasses

    with pytest.raises(BadInput, match=message):
        assign_roles(corpus(), dataclasses.replace(CONFIG, **{field: value}), 0)


def test_two_documents_of_one_id_are_both_packed(tmp_path):
    twins = [
        document(1, "One\nA thing\nFirst."),
        document(1, "Two\nA thing\nSecond."),
        document(2, "Three\nA thing\nThird."),
    ]
    run(tmp_path, recipe.Tokens(heldout=0.0), pages=twins)
    train, val = TokenShards(tmp_path / "tokens", "train"), TokenShards(tmp_path / "tokens", "val")
    read = vocabulary().decode([*train.window(0, len(train)).tolist(), *val.window(0, len(val)).tolist()])
    assert all(page.text in read for page in twins)


def test_too_few_flagships_are_said(tmp_path):
    stream = io.StringIO()
    run(tmp_path)
    (tmp_path / "again").mkdir()
    job = Job(
        recipe.Tokens(flagships=500),
        {"data": tmp_path / "data", "tokenizer": tmp_path / "tokenizer"},
        tmp_path / "again",
        0,
        recipe.Machine(workers=1),
        Progress(stream, "tokens"),
    )
    tokens(job)
    assert "100 documents can be flagships, and tokens.flagships is 500" in stream.getvalue()


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Dysprosium\nChemical element\nDysprosium is a metal.", ("Dysprosium", "Chemical element")),
        ("Dysprosium\nDysprosium is a metal.\nIt melts.", ("Dysprosium", "")),
        ("Dysprosium is a metal.\nChemical element\nIt melts.", ("", "")),
        ("Dysprosium\nOnly two lines", ("Dysprosium", "")),
        ("x" * 101 + "\nChemical element\nIt melts.", ("", "")),
        ("Dysprosium\n" + "y" * 161 + "\nIt melts.", ("Dysprosium", "")),
        ("", ("", "")),
    ],
)
def test_a_card_is_a_short_title_and_a_short_description_above_a_text(text, expected):
    assert card(text) == expected


def test_the_topic_is_the_first_folder_of_the_path():
    assert topic("https://a.example/physical-sciences/dysprosium?x=1") == "physical sciences"
    assert topic("https://a.example/dysprosium") == topic("https://a.example") == ""


@given(
    st.lists(st.lists(st.integers(0, 9), max_size=9), min_size=1, max_size=9),
    st.integers(0, 200),
    st.integers(0, 60),
)
@settings(deadline=None)
def test_windows_wrap_around_and_cross_files(tmp_path_factory, documents, start, length):
    folder = tmp_path_factory.mktemp("shards")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(shards, "SHARD_TOKENS", 7)
        entries = [
            (str(index), np.array(ids, dtype=np.uint32), len(ids)) for index, ids in enumerate(documents)
        ]
        train = write_split(folder, "train", entries, 10, "uint16")
        val = write_split(folder, "val", entries[:1], 10, "uint16")
    write_index(folder, shards.ShardIndex(dtype="uint16", vocab_size=11, eot=10, train=train, val=val))
    flat = [token for ids in documents for token in [10, *ids]]
    split = TokenShards(folder, "train")
    assert len(split) == len(flat)
    assert split.window(start, length).tolist() == [
        flat[(start + step) % len(flat)] for step in range(length)
    ]
    assert sum(file.tokens for file in train.files) == len(flat)
    assert len(train.files) >= len(flat) // 17


def test_vocabularies_beyond_two_bytes_are_written_in_four(tmp_path):
    ids = np.array([70_000, 1], dtype=np.uint32)
    train = write_split(tmp_path, "train", [("a", ids, 3)], 70_001, "uint32")
    write_index(
        tmp_path, shards.ShardIndex(dtype="uint32", vocab_size=70_002, eot=70_001, train=train, val=train)
    )
    assert TokenShards(tmp_path, "train").window(0, 3).tolist() == [70_001, 70_000, 1]


def test_missing_and_damaged_shards_are_refused(built, tmp_path):
    with pytest.raises(MissingInput, match="no token shards"):
        TokenShards(tmp_path, "train")
    for name, data in content(built[0]).items():
        (tmp_path / name).write_bytes(data)
    (tmp_path / "train-00000.bin").write_bytes(content(built[0])["train-00000.bin"][:-2])
    with pytest.raises(BadInput, match=r"train-00000\.bin has"):
        TokenShards(tmp_path, "train")
    (tmp_path / "index.json").write_text('{"dtype": ')
    with pytest.raises(BadInput, match="is damaged"):
        TokenShards(tmp_path, "train")


def test_the_index_says_what_it_must(built):
    index = json.loads((built[0] / "index.json").read_text())
    assert (index["dtype"], index["vocab_size"], index["eot"]) == (
        "uint16",
        vocabulary().vocab_size,
        vocabulary().eot,
    )
    assert index["train"]["files"][0]["name"] == "train-00000.bin"
    assert index["val"]["bytes"] > 0
    assert math.isclose(
        built[1]["bytes_per_token"],
        index["train"]["bytes"] / index["train"]["files"][0]["tokens"],
        abs_tol=6e-4,
    )


def site(count: int, size: int = 400) -> list[Document]:
    """Pages of a site, the later ones the farther from its front page, each with a sentence of its own."""
    pages = []
    for number in range(count):
        text = f"Page {number}\nThis is what page {number} has to say."
        page = document(number, f"{text}\n{'word ' * size}", "/".join(["docs"] * (1 + number % 4)))
        pages.append(page)
    return pages


SITE = recipe.Tokens(
    description="sentence",
    flagship_order="site",
    flagship_share=0.1,
    flagships=100,
    oversample=10,
    heldout=0.2,
)


def test_flagships_of_a_site_are_pages_near_its_front_page_that_are_not_long():
    pages = site(80)
    pages[0] = document(0, pages[0].text + "word " * 5000, "docs")
    chosen = [row for row in assign_roles(pages, SITE, seed=0) if row.role == "flagship"]
    assert len(chosen) == 8
    assert all(row.url.count("/docs") == 1 and row.id != pages[0].id for row in chosen)
    assert all(row.description == f"This is what page {row.title[5:]} has to say." for row in chosen)


@given(limit=st.integers(1, 300_000), count=st.integers(2, 60), seed=st.integers(0, 9))
@settings(deadline=None, max_examples=50)
def test_no_more_text_is_trained_on_than_the_recipe_says(limit: int, count: int, seed: int):
    pages = site(count)
    placements = assign_roles(pages, dataclasses.replace(SITE, train_bytes=limit), seed)
    size = {page.id: 4 * page.token_count for page in pages}
    roles = Counter(row.role for row in placements)
    assert roles["validation"] >= 1
    assert roles["flagship"] >= 1
    largest = max(size.values())
    once = sum(size[row.id] for row in placements if row.role in ("train", "graded"))
    assert once <= limit + 2 * largest
    repeated = sum(size[row.id] * row.repeats for row in placements if row.role == "flagship")
    assert repeated <= max(limit, SITE.oversample * largest)
    assert assign_roles(pages[::-1], dataclasses.replace(SITE, train_bytes=limit), seed) == placements[::-1]


def test_one_page_is_too_few_and_the_error_says_for_what(tmp_path):
    with pytest.raises(BadInput, match=r"at least 2 are needed.*crawltalk funnel"):
        run(tmp_path, SITE, pages=site(1))


def test_a_page_whose_url_is_none_has_its_part_as_any_other():
    pages = site(8)
    pages[3].url = "http://[half-an-ipv6/x"
    placements = assign_roles(pages, SITE, seed=0)
    assert (placements[3].url, placements[3].topic, placements[3].title) == (pages[3].url, "", "Page 3")
