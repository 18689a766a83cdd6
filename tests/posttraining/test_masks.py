"""Conversations that teach nothing, or never to stop, are refused; long ones are cut."""

import pytest

from crawltalk.chat.messages import Conversation, FunctionCall, Message, ToolCall
from crawltalk.chat.render import ChatRenderer, Rendered
from crawltalk.core.errors import BadInput
from crawltalk.posttraining.masks import check_mask, learned_spans, make_lesson
from support.conversations import CALLING, TOOLS
from support.engines import TOKENIZER

CHAT = ChatRenderer(TOKENIZER)
END = TOKENIZER.special_tokens["<|im_end|>"]
SYSTEM, USER, ANSWER, RESULT = (
    Message(role, "the")  # type: ignore[arg-type]
    for role in ("system", "user", "assistant", "tool")
)
DESCRIBED = [tool.described() for tool in TOOLS]


def lesson(*messages: Message, context: int = 5000, unlearned: tuple[int, ...] = ()):
    conversation = Conversation(
        messages=list(messages), source="", tools=DESCRIBED, unlearned=list(unlearned)
    )
    return make_lesson(conversation, CHAT, context)


def call(name: str = "time", arguments: str = "{}", id: str | None = None, text: str = "") -> Message:
    return Message("assistant", text, tool_calls=[ToolCall(FunctionCall(name, arguments), id=id)])


@pytest.mark.parametrize(
    ("messages", "words"),
    [
        ([SYSTEM, SYSTEM, USER, ANSWER], "message 2: there are two system messages"),
        ([USER, ANSWER, SYSTEM, USER, ANSWER], "message 3: a system message stands at the front only"),
        ([USER, USER, ANSWER], "message 2: the user speaks after the user"),
        ([ANSWER, USER], "message 1: the assistant speaks first"),
        ([USER, ANSWER, ANSWER], "message 3: the assistant speaks after the assistant"),
        ([USER, Message("assistant", " \n")], "message 2: the assistant says nothing and calls nothing"),
        ([USER, call("clock")], "message 2: it calls 'clock', and its tools are: time, weather"),
        ([USER, call(arguments="{zone")], "message 2: the arguments of 'time' are no JSON object: {zone"),
        ([USER, call(arguments="[1]")], "no JSON object"),
        ([USER, RESULT, ANSWER], "message 2: the result of a tool, and no call waits for one"),
        ([USER, call(), USER, ANSWER], "message 3: 1 calls before it have no result"),
        ([USER, call(), RESULT, RESULT, ANSWER], "message 4: the result of a tool, and no call waits"),
        (
            [USER, call(id="1"), Message("tool", "a", tool_call_id="2"), ANSWER],
            "answers the call '2', which nobody",
        ),
        ([USER], "no turn of the assistant to learn"),
        ([], "no turn of the assistant to learn"),
    ],
)
def test_what_cannot_be_a_conversation_is_refused_with_the_message(messages, words):
    with pytest.raises(BadInput, match=words.replace("(", r"\(")):
        lesson(*messages)


def test_all_turns_of_the_assistant_are_learned_with_their_ends_and_results_of_tools_are_not():
    learned = lesson(*CALLING).rendered
    spans = learned_spans(learned.loss_mask)
    assert len(spans) == 4
    assert all(learned.ids[span.stop - 1] == END for span in spans)
    text = TOKENIZER.decode([index for index, it in zip(*learned, strict=True) if it])
    assert "Let me see." in text
    assert "noon" not in text
    assert "1 pm" not in text


def test_what_follows_the_last_answer_is_left_out_and_unlearned_answers_are_only_read():
    whole = lesson(USER, ANSWER, USER, ANSWER, USER)
    assert whole.conversation.messages == [USER, ANSWER, USER, ANSWER]
    assert whole.cut == 0
    part = lesson(USER, ANSWER, USER, ANSWER, unlearned=(1,)).rendered
    assert part.ids == whole.rendered.ids
    assert learned_spans(part.loss_mask) == learned_spans(whole.rendered.loss_mask)[1:]
    assert lesson(USER, ANSWER, USER, ANSWER, unlearned=(3,)).conversation.messages == [USER, ANSWER]
    with pytest.raises(BadInput, match="no turn of the assistant to learn"):
        lesson(USER, ANSWER, unlearned=(1,))


def test_a_long_conversation_is_cut_behind_the_last_answer_that_fits():
    turns = [USER, ANSWER] * 9
    lengths = {count: len(lesson(*turns[:count]).rendered.ids) for count in range(2, 19, 2)}
    for context in range(lengths[2], lengths[18] + 2):
        fitting = max(count for count, length in lengths.items() if length <= context)
        made = lesson(*turns, context=context)
        assert (len(made.conversation.messages), made.cut) == (fitting, 18 - fitting)
        assert len(made.rendered.ids) == lengths[fitting]
    with pytest.raises(BadInput, match=f"needs {lengths[2]} tokens .* and the context has {lengths[2] - 1}"):
        lesson(*turns, context=lengths[2] - 1)


def test_a_mask_without_tokens_without_ends_or_with_more_behind_an_end_is_refused():
    word = TOKENIZER.encode("the")[0]
    for ids, mask, words in (
        ([word, END], [False, False], "no token to learn"),
        ([word, END], [True, False], "no token to learn"),  # nothing stands before the first
        ([word, word, END], [False, True, False], "so a model would not stop"),
        ([word, word, END, word], [False, True, True, True], "goes on behind its end"),
        ([word, word, END, word, END], [False, True, True, False, True], "writes 2 of its 1 learned turns"),
    ):
        with pytest.raises(BadInput, match=words):
            check_mask(Rendered(ids, mask), CHAT, 1)
    check_mask(Rendered([word, word, END, *TOKENIZER.encode("\n")], [False, True, True, True]), CHAT, 1)
