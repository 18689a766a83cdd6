"""Files of conversations and preferences, in the forms of the field; facts of real ones."""

import gzip
import json
import tempfile
from pathlib import Path
from typing import Any

import pyarrow
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pyarrow import parquet

from crawltalk.chat.messages import Conversation, Message
from crawltalk.core.errors import BadInput, BadRecipe, MissingInput
from crawltalk.posttraining.formats import (
    CONVERSATIONS,
    count_reasons,
    read_conversations,
    read_preferences,
)
from support.tokenizers import SHARED

QUESTION, ANSWER = {"role": "user", "content": "2 + 2?"}, {"role": "assistant", "content": "Four."}
WORSE = {"role": "assistant", "content": "Five."}
ASKED, ANSWERED = Message("user", "2 + 2?"), Message("assistant", "Four.")
CALL = {"type": "function", "function": {"name": "time", "arguments": {"zone": "UTC"}}}
TOOL = {"type": "function", "function": {"name": "time", "parameters": {"type": "object"}}}


def write(path: Path, *rows: Any) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def only(path: Path, *rows: Any, form: str | None = None) -> Conversation:
    [row] = read_conversations(write(path / "rows.jsonl", *rows), form)
    assert row.reason is None, row.reason
    [conversation] = row.items
    return conversation


def pairs(path: Path, *rows: Any) -> list[Any]:
    """Of each row, its pairs as (prompt, chosen, rejected) in texts, or why it was set aside."""
    return [
        row.reason
        or [
            tuple([m.content for m in side] for side in (p.messages, p.chosen, p.rejected)) for p in row.items
        ]
        for row in read_preferences(write(path / "pairs.jsonl", *rows))
    ]


@pytest.mark.parametrize(
    ("row", "turns"),
    [
        ({"messages": [QUESTION, ANSWER]}, [ASKED, ANSWERED]),
        ({"conversations": [QUESTION, ANSWER]}, [ASKED, ANSWERED]),
        (
            {"conversations": [{"from": "human", "value": "2 + 2?"}, {"from": "gpt", "value": "Four."}]},
            [ASKED, ANSWERED],
        ),
        ({"prompt": "2 + 2?", "completion": "Four."}, [ASKED, ANSWERED]),
        ({"prompt": [QUESTION], "completion": [ANSWER]}, [ASKED, ANSWERED]),
        ({"instruction": "2 + 2?", "context": "", "response": "Four.", "category": "qa"}, [ASKED, ANSWERED]),
        (
            {"instruction": "Add.", "input": "2, 2", "output": "Four."},
            [Message("user", "Add.\n\n2, 2"), ANSWERED],
        ),
        (
            {"instruction": "2 + 2?", "output": "Four.", "system": "Brief.", "history": [["Hi", "Hello"]]},
            [
                Message("system", "Brief."),
                Message("user", "Hi"),
                Message("assistant", "Hello"),
                ASKED,
                ANSWERED,
            ],
        ),
        (
            {"messages": [{"role": "developer", "content": "Brief."}, QUESTION, ANSWER]},
            [Message("system", "Brief."), ASKED, ANSWERED],
        ),
    ],
)
def test_the_forms_of_the_field_become_messages(row, turns, tmp_path):
    conversation = only(tmp_path, row)
    assert conversation.messages == turns
    assert (conversation.source, conversation.unlearned) == ("rows.jsonl", [])


@pytest.mark.parametrize("arguments", [{"zone": "UTC"}, '{"zone": "UTC"}'])
@pytest.mark.parametrize("tools", [[TOOL], json.dumps([TOOL]), [TOOL["function"]]])
def test_calls_have_arguments_as_text_or_object_and_tools_stand_beside_the_messages(
    arguments, tools, tmp_path
):
    call = {"type": "function", "id": "1", "function": {"name": "time", "arguments": arguments}}
    turns = [QUESTION, {"role": "assistant", "content": None, "tool_calls": [call]}]
    conversation = only(tmp_path, {"messages": turns, "tools": tools})
    [made] = conversation.messages[1].tool_calls
    assert json.loads(made.function.arguments) == {"zone": "UTC"}
    assert conversation.messages[1].content == ""
    assert [tool.get("function", tool)["name"] for tool in conversation.tools] == ["time"]


def test_sharegpt_calls_and_observations_are_calls_and_results(tmp_path):
    turns = [
        {"from": "human", "value": "Time?"},
        {"from": "function_call", "value": '{"name": "time", "arguments": {"zone": "UTC"}}'},
        {"from": "observation", "value": "noon"},
        {"from": "gpt", "value": "Noon."},
    ]
    conversation = only(tmp_path, {"conversations": turns, "tools": json.dumps([TOOL]), "system": "Brief."})
    assert [message.role for message in conversation.messages] == [
        "system",
        "user",
        "assistant",
        "tool",
        "assistant",
    ]
    assert conversation.messages[2].tool_calls[0].function.name == "time"


def test_only_the_completion_is_learned_and_openais_weight_0_is_not(tmp_path):
    row = {"prompt": [QUESTION, ANSWER, QUESTION], "completion": [ANSWER, QUESTION, ANSWER]}
    assert only(tmp_path, row).unlearned == [
        1
    ]  # the users' turns within the completion are no one's to learn
    row = {"messages": [QUESTION, ANSWER | {"weight": 0}, QUESTION, ANSWER | {"weight": 1}]}
    assert only(tmp_path, row).unlearned == [1]


def test_jsonl_json_and_parquet_hold_the_same_rows_compressed_or_not(tmp_path):
    rows = [
        {"messages": [QUESTION, ANSWER], "tools": []},
        {"messages": [QUESTION, {"role": "assistant", "content": "", "tool_calls": [CALL]}], "tools": [TOOL]},
    ]
    write(tmp_path / "a.jsonl", *rows)
    (tmp_path / "a.json").write_text(json.dumps(rows, indent=1))
    (tmp_path / "a.jsonl.gz").write_bytes(gzip.compress((tmp_path / "a.jsonl").read_bytes()))
    parquet.write_table(pyarrow.Table.from_pylist(rows), tmp_path / "a.parquet")
    read = [
        [
            (row.number, [c.messages for c in row.items], [c.tools for c in row.items])
            for row in read_conversations(path)
        ]
        for path in sorted(tmp_path.iterdir())
    ]
    assert len(read) == 4
    assert all(one == read[0] for one in read)
    assert [number for number, _, _ in read[0]] == [1, 2]


def test_a_row_that_is_none_is_set_aside_with_its_number_and_those_around_it_stay(tmp_path):
    path = write(
        tmp_path / "rows.jsonl", {"messages": [QUESTION, ANSWER]}, {"messages": [{"content": "a"}]}, 3
    )
    with path.open("a") as file:
        file.write('{"messages": [\n\n{"question": "a"}\n')
        file.write('{"messages": [{"role": "judge", "content": "a"}]}\n')
        file.write(json.dumps({"messages": [QUESTION, ANSWER], "tools": "{"}) + "\n")
    rows = list(read_conversations(path))
    reasons = {row.number: row.reason for row in rows if row.reason}
    assert [len(row.items) for row in rows] == [1, 0, 0, 0, 0, 0, 0]
    assert list(reasons) == [2, 3, 4, 6, 7, 8]  # lines; the fifth is empty
    for number, words in zip(
        reasons,
        (
            "message 1 has no role",
            "a row is an object",
            "no JSON",
            "known are",
            "judge",
            "tools are no JSON",
        ),
        strict=True,
    ):
        assert words in reasons[number]


def test_a_file_that_is_none_and_a_form_that_is_none_are_one_line(tmp_path):
    (tmp_path / "a.parquet").write_bytes(b"PAR1 and no more")
    (tmp_path / "a.txt").write_text("Hello")
    for path, error, words in (
        (tmp_path / "absent.jsonl", MissingInput, "does not exist"),
        (tmp_path / "a.parquet", BadInput, "is damaged"),
        (tmp_path / "a.txt", BadInput, "no JSONL, JSON or Parquet"),
    ):
        with pytest.raises(error, match=words):
            list(read_conversations(path))
    with pytest.raises(BadRecipe, match="no form 'vicuna' of conversations; forms: messages, sharegpt"):
        list(read_conversations(tmp_path / "a.txt", "vicuna"))


anything = st.recursive(
    st.none() | st.booleans() | st.integers(-9, 9) | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["role", "content", "from", "value", "replies", "text", "name"]),
            inner,
            max_size=3,
        )
    ),
    max_leaves=8,
)
FIELDS = [
    "messages",
    "conversations",
    "prompt",
    "completion",
    "chosen",
    "rejected",
    "instruction",
    "output",
    "tools",
]


@given(
    st.lists(
        st.dictionaries(st.sampled_from([*FIELDS, "input", "replies", "role"]), anything, max_size=4),
        max_size=4,
    )
)
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_no_row_ends_the_reading(rows):
    with tempfile.TemporaryDirectory() as folder:
        path = write(Path(folder) / "rows.jsonl", *rows)
        for read in (read_conversations, read_preferences):
            assert [row.number for row in read(path)] == list(range(1, len(rows) + 1))
        for form in CONVERSATIONS:
            assert len(list(read_conversations(path, form))) == len(rows)


def tree(role: str, text: str, *replies: Any, **fields: Any) -> dict[str, Any]:
    return {"role": role, "text": text, "replies": list(replies), **fields}


def test_each_branch_of_a_tree_is_a_conversation_that_ends_with_the_assistant(tmp_path):
    root = tree(
        "prompter",
        "1",
        tree("assistant", "2", tree("prompter", "3", tree("assistant", "4")), tree("prompter", "5")),
        tree("assistant", "6", tree("prompter", "7")),
        tree("assistant", "8", deleted=True),
        tree("prompter", "9"),
    )
    [row] = read_conversations(write(tmp_path / "trees.jsonl", {"prompt": root, "message_tree_id": "a"}))
    texts = ["".join(str(message.content) for message in one.messages) for one in row.items]
    assert texts == ["1234", "16"]  # that of 5 is the beginning of another, and 9 has no answer
    assert row.cut == 3


def test_ranked_replies_of_a_tree_are_pairs_and_those_without_rank_are_none(tmp_path):
    replies = [
        tree("assistant", text, rank=rank) for text, rank in (("c", 2), ("a", 0), ("b", 1), ("d", None))
    ]
    root = tree(
        "prompter",
        "q",
        *replies[:2],
        tree("assistant", "b", tree("prompter", "q2", tree("assistant", "only")), rank=1),
        replies[3],
    )
    [found] = pairs(tmp_path, {"prompt": root})
    assert found == [(["q"], ["a"], ["b"]), (["q"], ["a"], ["c"]), (["q"], ["b"], ["c"])]


def test_preferences_of_the_field_become_a_prompt_and_two_replies(tmp_path):
    told = pairs(
        tmp_path,
        {"prompt": "2 + 2?", "chosen": "Four.", "rejected": "Five."},
        {"prompt": [QUESTION], "chosen": [ANSWER], "rejected": [WORSE]},
        {"chosen": [QUESTION, ANSWER], "rejected": [QUESTION, WORSE]},
        {"prompt": "2 + 2?", "chosen": [QUESTION, ANSWER], "rejected": [QUESTION, WORSE]},  # UltraFeedback
        {"prompt": [QUESTION], "chosen": [QUESTION, ANSWER], "rejected": [QUESTION, WORSE]},
        {"messages": [QUESTION, ANSWER], "chosen": [QUESTION, ANSWER], "rejected": [QUESTION, WORSE]},
        {"messages": [QUESTION], "chosen": ANSWER, "rejected": WORSE, "source": "people"},
        {"input": {"messages": [QUESTION]}, "preferred_output": [ANSWER], "non_preferred_output": [WORSE]},
        {"instruction": "2 + 2?", "input": "", "output": "Four.", "chosen": "Four.", "rejected": "Five."},
        {
            "chosen": "\n\nHuman: 2 + 2?\n\nAssistant: Four.",
            "rejected": "\n\nHuman: 2 + 2?\n\nAssistant: Five.",
        },
        {"prompt": "\n\nHuman: 2 + 2?\n\nAssistant:", "chosen": " Four.", "rejected": " Five."},
    )
    assert told == [[(["2 + 2?"], ["Four."], ["Five."])]] * 11


def test_pairs_that_compare_nothing_are_set_aside_with_the_reason(tmp_path):
    told = pairs(
        tmp_path,
        {"prompt": "a", "chosen": "b", "rejected": "b"},
        {"prompt": "a", "chosen": "", "rejected": "b"},
        {"chosen": [ANSWER], "rejected": [WORSE]},
        {"chosen": [QUESTION, ANSWER, QUESTION, ANSWER], "rejected": [QUESTION, WORSE]},
        {"chosen": "\n\nHuman: a\n\nAssistant: b Human: c", "rejected": "\n\nHuman: a\n\nAssistant: b"},
        {"chosen": [QUESTION, ANSWER, QUESTION], "rejected": [QUESTION, WORSE]},
    )
    words = [
        "the same",
        "chosen reply is empty",
        "nothing of the user",
        "differ before",
        "speaker's label",
        "differ before",
    ]
    for reason, word in zip(told, words, strict=True):
        assert word in reason


def real(name: str) -> Path:
    path = SHARED / name
    if not path.exists():
        pytest.skip(f"{path} is not there: real data that this test reads")
    return path


@pytest.mark.parametrize("name", ["en_100_tree.jsonl", "en_100_message.jsonl"])
def test_of_open_assistants_branches_226_end_with_the_user_and_only_children_have_no_rank(name):
    path = real(f"oasst_trees/{name}")
    rows = list(read_conversations(path))
    assert (len(rows), sum(row.cut for row in rows), count_reasons(rows)) == (100, 226, {})
    conversations = [one for row in rows for one in row.items]
    assert all(one.messages[-1].role == "assistant" for one in conversations)
    assert len(conversations) == 546
    assert sum(len(row.items) for row in read_preferences(path)) == 754


def test_of_hh_5_rows_diverge_early_4_chosen_replies_are_empty_and_45_hold_a_label():
    rows = list(read_preferences(real("hh_rlhf/test.jsonl.gz")))
    assert count_reasons(rows) == {
        "the sides differ before the last turn of the user": 5,
        "the chosen reply is empty": 4,
        "a turn holds a speaker's label": 45,
    }
    assert sum(len(row.items) for row in rows) == 2312 - 54
    pair = rows[0].items[0]
    assert [message.role for message in pair.messages] == ["user", "assistant", "user", "assistant", "user"]


def test_of_instructions_with_preferences_6_have_the_same_reply_twice():
    path = real("instruction_small/instruction-data-with-preference.json")
    assert count_reasons(read_preferences(path)) == {"both sides are the same": 6}
    assert sum(len(row.items) for row in read_conversations(path)) == 1100
