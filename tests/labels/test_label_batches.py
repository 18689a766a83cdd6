"""Prompts and labels out of files."""

import gzip
import json

import pytest

from crawltalk.chat.messages import Message
from crawltalk.core.errors import BadInput, MissingInput
from crawltalk.core.jsonl import write_jsonl
from crawltalk.core.types import Problem
from crawltalk.labels import Ideal, LabelStore
from crawltalk.labels.batches import import_chat, import_file, import_problems
from crawltalk.labels.export import to_records
from crawltalk.labels.rows import prompt_id
from support.labels import asked, replied, store_with

USER, SAID = {"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello."}
ROWS = [
    {"prompt": "What is gold?", "replies": ["A metal.", "An element."], "model": "big", "id": 7},
    {
        "messages": [
            USER,
            SAID,
            {"role": "user", "content": "Who are you?"},
            {"role": "assistant", "content": "Me."},
        ]
    },
    {"messages": [USER], "chosen": [USER, SAID], "rejected": "No.", "source": "hh"},
    {
        "prompt": [{"role": "system", "content": "Be short."}, USER],
        "completion": "OK.",
        "label": True,
        "messages": None,
    },
]
POISON = [
    "{",
    "[]",
    '"text"',
    "{}",
    '{"prompt": ""}',
    '{"messages": [{"role": "robot", "content": "x"}]}',
    '{"messages": [{"role": "assistant", "content": "x"}]}',
    '{"prompt": "x", "replies": "y"}',
    '{"prompt": "x", "replies": [7]}',
    '{"label": {"id": "x"}}',
    '{"prompt": "half a row',
]


def test_rows_in_the_fields_forms_are_prompts_with_their_replies(tmp_path):
    path = tmp_path / "rows.jsonl.gz"
    path.write_bytes(gzip.compress("\n\n".join(json.dumps(row) for row in ROWS).encode()))
    store = LabelStore(tmp_path / "store")
    done = import_file(store, path, "mine")
    assert (done.prompts, done.labels, done.known, done.set_aside) == (4, 0, 0, [])
    snapshot = store.snapshot()
    assert [[message.content for message in prompt.messages] for prompt in snapshot.prompts.values()] == [
        ["What is gold?"],
        ["Hi", "Hello.", "Who are you?"],
        ["Hi"],
        ["Be short.", "Hi"],
    ]
    replies = [
        [one.reply[0].content for one in snapshot.candidates.get(id_, {}).values()]
        for id_ in snapshot.prompts
    ]
    assert replies == [["A metal.", "An element."], ["Me."], ["Hello.", "No."], ["OK."]]
    assert {one.model for one in snapshot.candidates[prompt_id(asked("What is gold?"))].values()} == {"big"}
    assert import_file(store, path, "mine").known == 4


def test_poison_rows_are_set_aside_with_their_lines(tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_text("\n".join(['{"prompt": "good"}', *POISON]))
    done = import_file(LabelStore(tmp_path / "store"), path, "mine")
    assert done.prompts == 1
    assert [reason.split(":")[0] for reason in done.set_aside] == [
        f"line {n + 2}" for n in range(len(POISON))
    ]
    path.write_text(POISON[0])
    with pytest.raises(BadInput, match="line 1"):
        import_file(LabelStore(tmp_path / "store"), path, "mine")
    path.write_text("")
    with pytest.raises(BadInput, match="empty"):
        import_file(LabelStore(tmp_path / "store"), path, "mine")
    with pytest.raises(MissingInput):
        import_file(LabelStore(tmp_path / "store"), tmp_path / "none.jsonl", "mine")


def test_a_file_of_labels_goes_into_another_store(tmp_path):
    store, prompts, _ = store_with(tmp_path / "one", {"Hello": ["a"]})
    store.add_label(prompts["Hello"], "anna", Ideal("b"))
    write_jsonl(tmp_path / "labels.jsonl", to_records(store.snapshot(history=True)))
    other = LabelStore(tmp_path / "other")
    assert import_file(other, tmp_path / "labels.jsonl", "x").labels == 1
    assert import_file(other, tmp_path / "labels.jsonl", "x").known == 1
    assert other.snapshot() == store.snapshot()


def test_problems_and_prompts_of_the_chat_become_batches(tmp_path):
    store = LabelStore(tmp_path)
    problem = Problem(prompt="2 + 2?", answer="4", task="arithmetic")
    assert import_problems(store, [problem, problem], "problems") == 1
    with pytest.raises(MissingInput, match="thumb"):
        import_chat(store, "chat")
    store.thumb([*asked("Hi"), *replied("Hello."), Message("user", "Why?")], replied("So."), "anna", up=False)
    assert import_chat(store, "chat") == 1
    assert [(batch.name, batch.prompts) for batch in store.batches()] == [("problems", 1), ("chat", 1)]
