"""Calls out of a reply, in any pieces, and the schema of a call that must be made."""

import json

from hypothesis import given
from hypothesis import strategies as st

from crawltalk.chat.messages import ToolCall
from crawltalk.chat.tool_calls import CallReader, Tool, call_schema

TIME = Tool(name="time")
CALL = '<tool_call>\n{"name": "time", "arguments": {"zone": "UTC"}}\n</tool_call>'
QUOTING = CALL.replace("UTC", r"a \"</tool_call>\" \\")
"""A call in whose JSON the end of a call is quoted."""


@given(
    st.lists(
        st.sampled_from(["Let me see. ", CALL, QUOTING, "<tool", "<tool_call>{</tool_call>", "1 < 2", "\n"]),
        max_size=6,
    ),
    st.data(),
)
def test_a_reply_in_any_pieces_gives_the_same_text_and_calls(parts, data):
    text = "".join(parts)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(text)), max_size=8)))
    pieces = [text[a:b] for a, b in zip([0, *cuts], [*cuts, len(text)], strict=True)]
    in_pieces, whole = CallReader([TIME]), list(CallReader([TIME]).read(text, final=True))
    read = [
        part
        for number, piece in enumerate(pieces, 1)
        for part in in_pieces.read(piece, final=number == len(pieces))
    ]

    def texts_and_calls(parts: list) -> tuple[str, list[str]]:
        text = "".join(part for part in parts if isinstance(part, str))
        return text, [part.function.arguments for part in parts if isinstance(part, ToolCall)]

    assert texts_and_calls(read) == texts_and_calls(whole)
    arguments = {CALL: '{"zone":"UTC"}', QUOTING: r'{"zone":"a \"</tool_call>\" \\"}'}
    assert texts_and_calls(whole)[1] == [arguments[part] for part in parts if part in arguments]
    assert in_pieces.num_calls == sum(part in arguments for part in parts)


@given(
    st.recursive(
        st.text() | st.integers() | st.none(), lambda one: st.lists(one) | st.dictionaries(st.text(), one)
    )
)
def test_arguments_may_hold_any_text(value):
    written = json.dumps({"name": "time", "arguments": {"</tool_call>": value}}, ensure_ascii=False)
    [call, rest] = CallReader([TIME]).read(f"<tool_call>\n{written}\n</tool_call> Done.", final=True)
    assert isinstance(call, ToolCall)
    assert (json.loads(call.function.arguments), rest) == ({"</tool_call>": value}, " Done.")


@given(st.lists(st.sampled_from(["<tool_call>", "</tool_call>", '"', "{", "x"]), max_size=9).map("".join))
def test_a_stray_quote_hides_no_later_call(noise):
    parts = list(CallReader([TIME]).read(f"<tool_call>{noise}</tool_call>{CALL}", final=True))
    assert sum(isinstance(part, ToolCall) for part in parts) == 1


def test_a_function_without_parameters_takes_an_empty_object():
    for parameters in (
        {},
        {"type": "object"},
        {"type": "object", "properties": {}},
        {"$id": "http://x/y"},
        {"type": ["object", "null"]},
    ):
        [schema] = call_schema([Tool(name="f", parameters=parameters)])["anyOf"]
        assert schema["properties"]["arguments"] == {"type": "object", "properties": {}}


def test_a_call_of_no_tool_is_text_and_a_second_call_may_be_unwanted():
    other = CALL.replace("time", "space")
    assert list(CallReader([TIME]).read(other, final=True)) == [other]
    assert list(CallReader([]).read(CALL, final=True)) == [CALL]
    assert len(list(CallReader([TIME], max_calls=1).read(CALL * 2, final=True))) == 1
    assert len(list(CallReader([TIME]).read(CALL.removesuffix("</tool_call>"), final=True))) == 1


@given(
    st.lists(
        st.sampled_from(
            [CALL, QUOTING, "<tool", "<tool_call>", "</tool_call>", " ", "\n", '{"name": "x"}', '"']
        )
        | st.text(max_size=3),
        max_size=8,
    ),
    st.booleans(),
)
def test_where_nothing_may_be_called_no_character_is_lost(pieces, offers):
    """Whether no function is offered, or none that these calls name."""
    reader = CallReader([Tool(name="space")] if offers else [])
    read = [part for piece in pieces for part in reader.read(piece, final=False)]
    read += reader.read("", final=True)
    assert "".join(str(part) for part in read) == "".join(pieces)


def test_a_reply_that_must_be_a_call_is_read_without_its_control_tokens():
    reader = CallReader([TIME], must_call=True)
    assert list(reader.read('{"name": "time", ', final=False)) == []
    [call] = reader.read('"arguments": {}}', final=True)
    assert isinstance(call, ToolCall)
    assert (call.function.name, call.function.arguments) == ("time", "{}")


def test_references_in_parameters_lead_to_where_these_stand_in_the_schema_of_a_call():
    day = Tool(
        name="day", parameters={"properties": {"n": {"$ref": "#/$defs/N"}}, "$defs": {"N": {"minimum": 1}}}
    )
    schema = json.loads(json.dumps(call_schema([TIME, day])))
    target = schema["anyOf"][1]["properties"]["arguments"]["properties"]["n"]["$ref"]
    for step in target.removeprefix("#/").split("/"):
        schema = schema[int(step)] if isinstance(schema, list) else schema[step]
    assert schema == {"minimum": 1}
