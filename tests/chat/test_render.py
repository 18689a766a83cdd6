"""Conversations as ids: the one rendering against `transformers`, Jinja and the models' own templates."""

import dataclasses
import json
import re
import tempfile
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

import msgspec
import pytest
import transformers
from hypothesis import given, settings
from hypothesis import strategies as st
from jinja2.sandbox import SandboxedEnvironment

from crawltalk.chat.format import CHATML, CRAWLTALK, LLAMA3
from crawltalk.chat.messages import (
    AudioPart,
    Conversation,
    FunctionCall,
    ImagePart,
    ImageUrl,
    InputAudio,
    Message,
    TextPart,
    ToolCall,
)
from crawltalk.chat.render import ChatRenderer
from crawltalk.chat.tool_calls import Tool
from crawltalk.core.errors import BadInput
from crawltalk.tokenizer import Tokenizer, patterns, train
from crawltalk.tokenizer.tokenizer import CALL_START, RESPONSE_START, SPECIAL_TOKENS
from support.conversations import CALLING, CALLS, PLAIN, TOOLS, as_rows
from support.foreign import tokenizer_json, write
from support.tokenizers import TEXT

tricky = st.one_of(
    st.text(max_size=60),
    st.lists(st.sampled_from([*SPECIAL_TOKENS, " ", "\n", "123", "é", "🙂", "the"]), max_size=12).map(
        "".join
    ),
)


@cache
def tokenizer() -> Tokenizer:
    return train([TEXT], 600)


def renderer(kind: str) -> ChatRenderer:
    """Our vocabulary, with the control tokens of a kind of model."""
    names = {
        "chatml": ("<|endoftext|>", "<|im_start|>", "<|im_end|>"),
        "llama3": (
            *("<|begin_of_text|>", "<|end_of_text|>", "<|start_header_id|>"),
            *("<|end_header_id|>", "<|eot_id|>"),
        ),
    }.get(kind)
    if names is None:
        assert ChatRenderer(tokenizer()).format == CRAWLTALK
        return ChatRenderer(tokenizer())
    words = tokenizer().vocab
    specials = {name: len(words) + index for index, name in enumerate(names)}
    made = Tokenizer(words, tokenizer().merges, patterns.GPT4, specials)
    if kind == "llama3":
        assert ChatRenderer(made).format == LLAMA3
        return ChatRenderer(made)
    return ChatRenderer(made, dataclasses.replace(CHATML, default_system="You help.\nAlways 🙂."))


@pytest.mark.parametrize("reply", [False, True])
@pytest.mark.parametrize("tools", [[], TOOLS], ids=["no tools", "tools"])
@pytest.mark.parametrize("messages", [PLAIN, PLAIN[1:], CALLING], ids=["system", "no system", "calls"])
@pytest.mark.parametrize("kind", ["ours", "chatml", "llama3"])
def test_conversations_render_as_transformers_renders_them(kind, messages, tools, reply, tmp_path):
    chat = renderer(kind)
    chat.save(tmp_path)
    theirs = transformers.AutoTokenizer.from_pretrained(tmp_path)
    described = [tool.described() for tool in tools] or None
    ids = theirs.apply_chat_template(
        as_rows(messages), tools=described, add_generation_prompt=reply, tokenize=True, return_dict=True
    )["input_ids"]
    ours, _ = chat.render(messages, tools=tools, add_generation_prompt=reply)
    assert ours == ids
    assert (
        ChatRenderer.load(str(tmp_path)).encode_chat(messages, tools=tools, add_generation_prompt=reply)
        == ours
    )


@pytest.mark.parametrize("messages", [PLAIN, CALLING], ids=["plain", "calls"])
@pytest.mark.parametrize("kind", ["ours", "chatml", "llama3"])
def test_the_template_marks_for_transformers_what_the_loss_counts(kind, messages, tmp_path):
    chat = renderer(kind)
    chat.save(tmp_path)
    theirs = transformers.AutoTokenizer.from_pretrained(tmp_path)
    assert "{% generation %}" in theirs.chat_template  # as TRL looks for it
    read = theirs.apply_chat_template(
        as_rows(messages),
        tools=[tool.described() for tool in TOOLS],
        return_dict=True,
        return_assistant_tokens_mask=True,
    )
    ids, loss_mask = chat.render(messages, tools=TOOLS)
    assert (read["input_ids"], list(map(bool, read["assistant_masks"]))) == (ids, loss_mask)


words = st.text("the 12.,é🙂\n", max_size=9)
turns = st.one_of(
    st.builds(Message, st.just("user"), words),
    st.builds(Message, st.just("tool"), words),
    st.builds(
        lambda text, calls: Message("assistant", text, tool_calls=CALLS[:calls]), words, st.integers(0, 2)
    ),
)


@given(st.lists(turns, min_size=1, max_size=6), st.booleans(), st.booleans())
@settings(max_examples=60, deadline=None)
def test_any_conversation_has_the_ids_and_the_mask_that_transformers_gives(messages, in_parts, with_tools):
    chat, theirs = renderer("ours"), peer()
    rows = as_rows(messages)
    for row in rows if in_parts else ():
        half = len(row["content"]) // 2
        row["content"] = [
            {"type": "text", "text": part} for part in (row["content"][:half], row["content"][half:])
        ]
    read = theirs.apply_chat_template(
        rows,
        tools=[tool.described() for tool in TOOLS] if with_tools else None,
        return_dict=True,
        return_assistant_tokens_mask=True,
    )
    ids, loss_mask = chat.render(messages, tools=TOOLS if with_tools else [])
    assert read["input_ids"] == ids
    assert list(map(bool, read["assistant_masks"])) == loss_mask
    assert chat.encode_chat(rows, tools=TOOLS if with_tools else []) == ids


@cache
def peer() -> transformers.PreTrainedTokenizerBase:
    """Our tokenizer with its template, in `transformers`."""
    with tempfile.TemporaryDirectory() as folder:
        renderer("ours").save(folder)
        return transformers.AutoTokenizer.from_pretrained(folder)


def test_the_short_form_of_tools_takes_what_clients_leave_empty():
    chat = renderer("ours")
    empty = {"type": "function", "function": {"name": "time", "description": None, "parameters": {}}}
    theirs = peer().apply_chat_template(as_rows(PLAIN), tools=[empty], return_dict=True)["input_ids"]
    assert theirs == chat.encode_chat(PLAIN, tools=[Tool(name="time")])
    assert '<tools>\n{"name": "time"}\n</tools>\nTo call one: <tool_call>' in chat.tokenizer.decode(theirs)


@pytest.mark.parametrize("kind", ["ours", "chatml", "llama3"])
def test_the_template_alone_gives_the_text_of_our_ids(kind):
    chat = renderer(kind)
    assert chat.format is not None
    environment = SandboxedEnvironment()
    environment.filters["tojson"] = lambda value: json.dumps(value, ensure_ascii=False)
    rows = as_rows(CALLING)
    for row in rows:
        for call in row.get("tool_calls", ()):  # Hugging Face's own form: an object, not its text
            call["function"]["arguments"] = json.loads(call["function"]["arguments"])
    unmarked = re.sub(r"\{% (end)?generation %\}", "", chat.format.template())
    text = environment.from_string(unmarked).render(
        messages=rows, tools=[tool.described() for tool in TOOLS], add_generation_prompt=True
    )
    assert text == chat.tokenizer.decode(chat.encode_chat(CALLING, tools=TOOLS, add_generation_prompt=True))
    assert text == chat.tokenizer.decode(chat.encode_chat(rows, tools=TOOLS, add_generation_prompt=True))


def test_tools_stand_in_the_conversation_in_the_words_of_qwens_own_template():
    chat = renderer("chatml")
    question = [
        Message("user", "Now?"),
        Message("assistant", "", tool_calls=CALLS[:1]),
        Message("tool", "noon"),
    ]
    text = chat.tokenizer.decode(chat.encode_chat(question, tools=TOOLS[:1]))
    assert text == (
        "<|im_start|>system\nYou help.\nAlways 🙂.\n\n# Tools\n\n"
        "You may call one or more functions to assist with the user query.\n\n"
        "You are provided with function signatures within <tools></tools> XML tags:\n<tools>\n"
        '{"type": "function", "function": {"name": "time", "description": "What time is it, <now>?"}}'
        "\n</tools>\n\n"
        "For each function call, return a json object with function name and arguments within "
        "<tool_call></tool_call> XML tags:\n"
        '<tool_call>\n{"name": <function-name>, "arguments": <args-json-object>}\n</tool_call><|im_end|>\n'
        "<|im_start|>user\nNow?<|im_end|>\n"
        '<|im_start|>assistant\n<tool_call>\n{"name": "time", "arguments": {"zone": "UTC"}}\n</tool_call><|im_end|>\n'
        "<|im_start|>user\n<tool_response>\nnoon\n</tool_response><|im_end|>\n"
    )


@pytest.mark.parametrize("kind", ["ours", "chatml", "llama3"])
def test_the_loss_counts_what_the_assistant_writes(kind):
    chat = renderer(kind)
    assert chat.format is not None
    ids, loss_mask = chat.render(CALLING, tools=TOOLS, add_generation_prompt=True)
    learned = chat.tokenizer.decode([token for token, counts in zip(ids, loss_mask, strict=True) if counts])
    call = '<tool_call>\n{"name": "time", "arguments": {"zone": "UTC"}}\n</tool_call>'
    other = '<tool_call>\n{"name": "weather", "arguments": {}}\n</tool_call>'
    assert learned == chat.format.end.join(
        ["Four,\n\nI think.", f"Let me see.\n{call}\n{other}", call, "Noon, then one.", ""]
    )


@given(tricky, tricky)
@settings(deadline=None)
def test_a_text_cannot_open_or_end_a_turn_a_call_or_a_result(text, answer):
    chat = renderer("ours")
    names = {index: name for name, index in chat.tokenizer.special_tokens.items()}
    messages = [
        Message("user", text),
        Message("assistant", text, tool_calls=CALLS[:1]),
        Message("tool", answer),
    ]
    marks = [
        names[token] for token in chat.encode_chat(messages, add_generation_prompt=True) if token in names
    ]
    opened = ["<|im_start|>", "<|im_sep|>"]
    assert marks == [
        *(*opened, "<|im_end|>"),
        *(*opened, "<tool_call>", "</tool_call>", "<|im_end|>"),
        *(*opened, "<tool_response>", "</tool_response>", "<|im_end|>"),
        *opened,
    ]


def test_control_tokens_of_tools_may_be_ordinary_ones_as_in_qwens_vocabulary_or_missing():
    words = tokenizer().vocab | {CALL_START.encode(): 2000}
    qwen = ChatRenderer(
        Tokenizer(words, tokenizer().merges, patterns.GPT4, tokenizer().special_tokens), CHATML
    )
    del qwen.tokenizer.special_tokens[CALL_START], qwen.tokenizer.special_tokens[RESPONSE_START]
    ids = qwen.encode_chat([Message("assistant", CALL_START, tool_calls=CALLS[:1]), Message("tool", "x")])
    assert ids.count(2000) == 1
    assert qwen.tokenizer.decode(ids).count(CALL_START) == 2
    assert qwen.tokenizer.decode(ids).count(RESPONSE_START) == 1


def test_plain_dicts_are_messages_and_what_is_no_message_is_named():
    chat = renderer("ours")
    parts = [{"type": "text", "text": "H"}, {"type": "text", "text": "i"}]
    assert (
        chat.encode_chat([{"role": "user", "content": "Hi"}])
        == chat.encode_chat([{"role": "user", "content": parts}])
        == chat.encode_chat([Message("user", [TextPart("H"), TextPart("i")])])
        == chat.encode_chat([Message("user", "Hi")])
    )
    call = {"type": "function", "function": {"name": "time", "arguments": {"zone": "UTC"}}}
    assert chat.encode_chat(
        [{"role": "assistant", "content": None, "tool_calls": [call]}]
    ) == chat.encode_chat(
        [Message("assistant", "", tool_calls=[ToolCall(FunctionCall("time", '{"zone": "UTC"}'))])]
    )
    row = {"role": "user", "content": "Hi", "tool_calls": None, "name": None}  # as a table has it
    assert chat.encode_chat([row]) == chat.encode_chat([Message("user", "Hi")])
    unwritable = [
        {
            "role": "assistant",
            "tool_calls": [{"type": "function", "function": {"name": "f", "arguments": value}}],
        }
        for value in ({"a": {1}}, {(1, 2): 3}, {"a": float("nan")})
    ]
    for wrong, message in (
        *((wrong, "message 2: .*(JSON|keys)") for wrong in unwritable),
        ({"role": "user"}, "message 2: .*`content`"),
        ({"role": "judge", "content": "Hi"}, "message 2: .*judge"),
        ({"role": "user", "content": "Hi", "contnet": ""}, "message 2: .*contnet"),
        ({"role": "assistant", "tool_calls": ["time"]}, "message 2: .*tool_calls"),
        ({"role": "assistant", "content": "", "tool_calls": 5}, "message 2: .*tool_calls"),
        ("Hi", "message 2: "),
    ):
        with pytest.raises(BadInput, match=message) as error:
            chat.render([Message("user", "Hi"), wrong])
        assert "\n" not in str(error.value)


def test_a_call_without_arguments_has_an_empty_object_of_them():
    call = ToolCall(FunctionCall("time", ""))
    chat = renderer("ours")
    assert '"arguments": {}}' in chat.tokenizer.decode(
        chat.encode_chat([Message("assistant", "", tool_calls=[call])])
    )


def test_images_and_sounds_are_refused_by_models_that_read_text_only():
    for part in (ImagePart(ImageUrl("data:image/png;base64,")), AudioPart(InputAudio("", "wav"))):
        with pytest.raises(BadInput, match=r"reads text only, no (image_url|input_audio)"):
            renderer("ours").render([Message("user", [TextPart("What is this?"), part])])


def test_rows_leave_out_what_is_not_set():
    row = Conversation(messages=CALLING[5:7], source="test")
    assert msgspec.json.encode(Conversation(messages=PLAIN[1:2], source="sum")) == (
        b'{"messages":[{"role":"user","content":"What is 2 + 2?"}],"source":"sum"}'
    )
    assert msgspec.json.decode(msgspec.json.encode(row), type=Conversation) == row


QWEN_SHAPED = (
    "{% for message in messages %}{% if loop.first and messages[0]['role'] != 'system' %}"
    "{{ '<|im_start|>system\nYou are a {helpful} model.<|im_end|>\n' }}{% endif %}"
    "{{'<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n'}}{% endfor %}"
).replace("\n", "\\n")
CALLED = (
    "{{ bos_token }}{% if tools %}{{ tools | tojson }}{% endif %}{% for m in messages %}<|im_start|>{{ m.role }}\n"
    "{% if m.content %}{{ m.content | trim }}{% endif %}{% for c in m.tool_calls or [] %}\n<call>"
    "{{ c.function.name }}{% for key, value in c.function.arguments.items() %} {{ key }}={{ value }}{% endfor %}"
    "{% endfor %}<|im_end|>\n{% if loop.index > 90 %}{% break %}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
WITH_MARKS = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{% if m.role == 'assistant' %}{% generation %}{{ m.content }}"
    "<|im_end|>{% endgeneration %}{% else %}{{ m.content }}<|im_end|>{% endif %}{% endfor %}"
)


def template_folder(folder, where: str, template: str, **config) -> ChatRenderer:
    """A model's folder of another library with a template in one of the places that it may be in."""
    files = {"tokenizer": tokenizer_json(specials=("<|endoftext|>", "<|im_start|>", "<|im_end|>"))}
    config = {"bos_token": "<|endoftext|>", "eos_token": "<|im_end|>"} | config
    if where == "text":
        config["chat_template"] = template
    elif where == "list":
        config["chat_template"] = [{"name": "default", "template": template}]
    elif where == "chat_template.json":
        files["chat_template"] = {"chat_template": template}
    write(folder, **files, tokenizer_config=config)
    if where == "chat_template.jinja":
        (folder / where).write_text(template)
    return ChatRenderer.load(folder)


@pytest.mark.parametrize("where", ["text", "list", "chat_template.jinja", "chat_template.json"])
@pytest.mark.parametrize(
    "template", [QWEN_SHAPED, CALLED, WITH_MARKS], ids=["default system", "calls", "marks"]
)
def test_a_models_own_template_gives_the_ids_that_it_gives_in_transformers(where, template, tmp_path):
    chat = template_folder(tmp_path, where, template)
    theirs = transformers.AutoTokenizer.from_pretrained(tmp_path)
    theirs.chat_template = template
    messages, tools = (CALLING, TOOLS) if template is CALLED else (PLAIN[1:], [])
    rows = as_rows(messages)
    for row in rows:
        for call in row.get("tool_calls", ()):
            call["function"]["arguments"] = json.loads(call["function"]["arguments"])
    ids = theirs.apply_chat_template(
        rows,
        tools=[tool.described() for tool in tools] or None,
        tokenize=True,
        return_dict=True,
        add_generation_prompt=True,
    )["input_ids"]
    assert chat.encode_chat(messages, tools=tools, add_generation_prompt=True) == ids
    assert chat.chats and chat.notice is None and chat.stop_ids == {258}
    chat.save(tmp_path / "again")
    assert (
        ChatRenderer.load(tmp_path / "again").encode_chat(messages, tools=tools, add_generation_prompt=True)
        == ids
    )


@pytest.mark.parametrize(
    ("template", "reason"),
    [
        ("{% if", "end of template"),
        ("{{ messages[7].content }}", "has no element 7"),
        ("{{ 1 / 0 }}", "division by zero"),
        ("{{ raise_exception('only pairs') }}", "only pairs"),
        ("{{ messages.append(1) }}", "unsafe"),
        ("{{ ''.__class__.__mro__ }}", "unsafe"),
        ("{{ cycler.__init__.__globals__.os }}", "unsafe"),
        ("{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}", "calls itself"),
    ],
)
def test_a_template_that_fails_or_leaves_its_sandbox_is_said_in_one_line(template, reason, tmp_path):
    chat = template_folder(tmp_path, "text", template)
    with pytest.raises(BadInput, match=reason) as refused:
        chat.encode_chat(PLAIN)
    assert "\n" not in str(refused.value)


@given(text=tricky)
@settings(deadline=None, max_examples=60)
def test_a_text_cannot_open_or_end_a_turn_of_a_models_own_template(text):
    with TemporaryDirectory() as folder:
        chat = template_folder(Path(folder), "text", CALLED)
    plain = chat.encode_chat([Message("user", "x")])
    ids = chat.encode_chat([Message("user", f"x{text}x<|im_end|>x")])
    for index in (256, 257, 258):
        assert ids.count(index) == plain.count(index)
    assert chat.tokenizer.decode(ids) == f"<|endoftext|><|im_start|>user\nx{text}x<|im_end|>x<|im_end|>\n"


def test_tools_are_refused_where_the_template_has_no_place_for_them(tmp_path):
    chat = template_folder(tmp_path, "text", QWEN_SHAPED)
    with pytest.raises(BadInput, match="no place for tools"):
        chat.encode_chat(PLAIN, tools=TOOLS)


def test_a_long_conversation_of_a_models_own_template_begins_with_a_later_turn_of_the_user(tmp_path):
    chat = template_folder(tmp_path, "text", CALLED)
    turns = [Message(role, "word " * 10) for _ in range(20) for role in ("user", "assistant")]
    messages = [Message("system", "s"), *turns, Message("user", "last")]
    ids, dropped = chat.fit(messages, 512)
    assert ids == chat.encode_chat([messages[0], *messages[1 + dropped :]], add_generation_prompt=True)
    assert messages[1 + dropped].role == "user" and len(ids) <= 384
    assert len(chat.encode_chat([messages[0], *messages[dropped - 1 :]], add_generation_prompt=True)) > 384
    with pytest.raises(BadInput, match="make it shorter"):
        chat.fit([Message("user", "word " * 200)], 256)


def test_a_folder_without_a_template_says_how_its_turns_are_written(tmp_path):
    chat = template_folder(tmp_path, "nowhere", "")
    assert chat.format == CHATML and "no chat template" in (chat.notice or "")


@given(st.lists(st.sampled_from(["user", "assistant", "tool"]), min_size=1, max_size=9), st.booleans())
@settings(max_examples=60, deadline=None)
def test_as_few_of_the_oldest_messages_are_dropped_as_will_do(roles, with_tools):
    chat, tools = renderer("ours"), TOOLS if with_tools else []
    system = [Message("system", "s")]
    messages = [Message(role, "x" * 7) for role in roles]
    empty = len(chat.encode_chat(system, tools=tools, add_generation_prompt=True))
    context = (empty + 40) * 4 // 3
    room = context - context // 4
    try:
        ids, dropped = chat.fit([*system, *messages], context, tools=tools)
    except BadInput:
        last = len(roles) - next((i for i, role in enumerate(reversed(roles)) if role != "tool"), len(roles))
        turn = messages[last:] or messages[-1:]
        assert len(chat.encode_chat([*system, *turn], tools=tools, add_generation_prompt=True)) > room
        return
    assert ids == chat.encode_chat([*system, *messages[dropped:]], tools=tools, add_generation_prompt=True)
    assert len(ids) <= room
    if dropped:
        more = next(
            i for i in range(dropped - 1, -1, -1) if i == 0 or roles[i - 1] != "tool" or roles[i] != "tool"
        )
        assert (
            len(chat.encode_chat([*system, *messages[more:]], tools=tools, add_generation_prompt=True)) > room
        )
        assert (roles[dropped - 1], roles[dropped]) != ("tool", "tool")


def test_a_base_model_without_a_chat_format_says_so():
    chat = ChatRenderer(Tokenizer({bytes([b]): b for b in range(96)}, [], ".", {"<|endoftext|>": 96}))
    assert chat.stop_ids == {96}
    with pytest.raises(BadInput, match="crawltalk generate"):
        chat.render([Message("user", "hi")])
