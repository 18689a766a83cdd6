"""Conversations as ids: the one rendering against `transformers`, Jinja and the models' own templates."""

import dataclasses
import json
import tempfile
from functools import cache

import jinja2
import msgspec
import pytest
import transformers
from hypothesis import given, settings
from hypothesis import strategies as st
from jinja2.sandbox import SandboxedEnvironment

from crawltalk.chat.format import CHATML, CRAWLTALK, LLAMA3, from_template, without_marks
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
    text = environment.from_string(without_marks(chat.format.template())).render(
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


@pytest.mark.parametrize("where", ["tokenizer_config.json", "chat_template.jinja"])
def test_the_default_system_message_is_read_from_a_models_own_template(where, tmp_path):
    renderer("chatml").tokenizer.save(tmp_path)
    template = {"chat_template": QWEN_SHAPED} if where == "tokenizer_config.json" else {}
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"eos_token": "<|im_end|>"} | template))
    if where == "chat_template.jinja":
        (tmp_path / where).write_text(QWEN_SHAPED)
    chat = ChatRenderer.load(tmp_path)
    assert chat.format == dataclasses.replace(CHATML, default_system="You are a {helpful} model.")
    theirs = transformers.AutoTokenizer.from_pretrained(tmp_path)
    theirs.chat_template = QWEN_SHAPED
    ids = theirs.apply_chat_template([{"role": "user", "content": "Hi."}], tokenize=True, return_dict=True)
    assert chat.encode_chat([Message("user", "Hi.")]) == ids["input_ids"]


@pytest.mark.parametrize(
    "template",
    [
        "{% if",
        "{{ messages[7].content }}",
        "{{ 1 / 0 }}",
        "{{ raise_exception('no') }}",
        "{{ messages.append(1) }}",
        "{{ ''.__class__.__mro__ }}",
        "{% for message in messages %}<|im_start|>{{ message.role }}{% endfor %}",
        "{% generation %}{% endfor %}",
    ],
)
def test_a_template_that_fails_or_forbids_gives_no_default_system_message(template):
    assert from_template(template, ["<|im_start|>"]) == CHATML
    assert from_template(template, ["<pad>"]) is None


def test_a_template_with_marks_of_what_the_assistant_writes_is_read():
    marked = QWEN_SHAPED.replace("{% if loop", "{% generation %}{%- endgeneration -%}{% if loop")
    chat = from_template(marked, ["<|im_start|>"])
    assert chat is not None
    assert chat.default_system == "You are a {helpful} model."


def test_a_template_has_no_way_out_of_its_sandbox():
    hostile = "<|im_start|>system\n{{ cycler.__init__.__globals__.os }}<|im_end|>"
    with pytest.raises(jinja2.exceptions.SecurityError):
        SandboxedEnvironment().from_string(hostile).render()
    assert from_template(hostile, ["<|im_start|>"]) == CHATML


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
