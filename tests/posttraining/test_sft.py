"""The stage of supervised fine-tuning."""

import pytest

from crawltalk.chat.messages import Conversation, Message
from crawltalk.chat.render import ChatRenderer
from crawltalk.core.errors import BadInput
from crawltalk.posttraining.sft import rows_that_fit
from support.engines import TOKENIZER


def test_conversations_longer_than_the_context_are_left_out_and_none_that_fits_is_an_error():
    chat = ChatRenderer(TOKENIZER)
    short, long = (
        Conversation(messages=[Message("user", text), Message("assistant", text)], source="")
        for text in ("x", "x" * 99)
    )
    length = len(chat.render(short.messages).ids)
    assert rows_that_fit([short, long], chat, length) == [chat.render(short.messages)]
    with pytest.raises(
        BadInput, match=r"all 1 conversations are longer than the context of 9 tokens; .*context"
    ):
        rows_that_fit([long], chat, 9)
