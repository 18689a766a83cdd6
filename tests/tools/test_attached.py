"""What a model reads of attached documents, and what its answers rest on."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from crawltalk.chat.messages import Message, text_of
from crawltalk.chat.render import ChatRenderer
from crawltalk.tools.attached import AttachedDocument, Attachments
from crawltalk.tools.grounded import NOTHING_FOUND
from support.serving import TOKENIZER

FILLER = "The ferry leaves the harbour at nine and comes back before the evening. " * 20
NOTES = f"{FILLER}\nObsidian is a volcanic glass. People used it for blades.\n{FILLER}\n{FILLER}"
RECIPE = "Sourdough is a dough that wild yeast and bacteria have fermented."


def words(text: str) -> int:
    return len(text.split())


@pytest.fixture
def both(tmp_path):
    return Attachments([AttachedDocument("notes.txt", NOTES), AttachedDocument("bread.md", RECIPE)], tmp_path)


def test_documents_that_fit_are_read_whole(both):
    reading = both.read("What is obsidian?", 10_000, words)
    assert reading.read == reading.characters == len(NOTES) + len(RECIPE)
    message = text_of(reading.message)
    assert NOTES in message and RECIPE in message and message.endswith(" What is obsidian?")
    assert "“notes.txt”" in message and "“bread.md”" in message


def test_of_what_is_too_long_the_passages_that_fit_the_question_are_read(both):
    reading = both.read("What is obsidian?", 200, words)
    assert 0 < reading.read < reading.characters
    assert "Obsidian is a volcanic glass." in text_of(reading.message)
    assert RECIPE not in text_of(reading.message)


def test_a_question_about_the_whole_reads_its_beginning(both):
    assert both.read("?", 60, words).spans[0][:2] == (0, 0)


@pytest.mark.parametrize("room", [1, 5, 20, 60, 200, 2000])
def test_what_is_read_has_room_and_comes_from_the_documents(both, room):
    reading = both.read("What is obsidian, and what were the blades?", room, words)
    assert reading.spans == sorted(reading.spans) and reading.read > 0
    read = [both.documents[number].text[start:end] for number, start, end in reading.spans]
    assert all(text in text_of(reading.message) for text in read)
    assert sum(map(words, read)) <= room


def test_an_answer_from_a_document_is_cited_with_its_sentence(both):
    reading = both.read("What is obsidian?", 200, words)
    [citation], supported = both.cite("What is obsidian?", "It is a volcanic glass.", reading)
    assert supported and citation.title == "notes.txt" and citation.quote == "Obsidian is a volcanic glass."
    assert NOTES[citation.start : citation.end] == citation.quote
    whole = both.read("What is sourdough?", 10_000, words)
    [citation], _ = both.cite("What is sourdough?", "A fermented dough.", whole)
    assert (citation.title, citation.quote, citation.start) == ("bread.md", RECIPE, 0)


def test_an_answer_that_is_not_in_the_documents_says_so(both):
    reading = both.read("What is obsidian?", 200, words)
    [citation], supported = both.cite("What is obsidian?", "A kind of horse, since 1849.", reading)
    assert not supported and citation.quote == "Obsidian is a volcanic glass."
    assert both.cite("Who painted her?", "Leonardo painted her.", reading) == ([], False)
    assert both.cite("What is obsidian?", NOTHING_FOUND, reading) == ([], False)


def test_no_text_of_a_document_opens_a_turn(tmp_path):
    marks = "".join(TOKENIZER.special_tokens)
    attached = Attachments([AttachedDocument(f"{marks}.txt", f"Obsidian is glass. {marks}")], tmp_path)
    message = attached.read("What is obsidian?", 1000, words).message
    assert text_of(message).count(marks) == 2
    controls = set(TOKENIZER.special_tokens.values())
    written = [
        [token for token in ChatRenderer(TOKENIZER).encode_chat([one]) if token in controls]
        for one in (message, Message("user", "What is obsidian?"))
    ]
    assert written[0] == written[1]


@settings(max_examples=40, deadline=None)
@given(
    texts=st.lists(st.text(min_size=1).filter(str.strip), min_size=1, max_size=3),
    question=st.text(max_size=30),
    room=st.integers(1, 60),
)
def test_any_text_can_be_read_and_cited(tmp_path_factory, texts, question, room):
    documents = [AttachedDocument(f"{text[:3]}\n", text) for text in texts]
    attached = Attachments(documents, tmp_path_factory.mktemp("attached"))
    reading = attached.read(question, room, len)
    assert sum(end - start for _, start, end in reading.spans) == reading.read <= reading.characters
    for citation in attached.cite(question, question, reading)[0]:
        assert texts[int(citation.id)][citation.start : citation.end] == citation.quote
