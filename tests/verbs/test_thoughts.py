"""A thought is told from the answer however the reply is cut into pieces."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from crawltalk.verbs.thoughts import ThoughtReader

REPLIES = {
    "<think>\n14 - 9\n13 8\n</think>\n\n5 <b": ("14 - 9\n13 8", "5 <b"),
    " <think>cut </thi off": ("cut </thi off", ""),
    "<think></think>So.": ("", "So."),
    " So <think>it</think> is.": ("", " So <think>it</think> is."),
    "<thin": ("", "<thin"),
    "": ("", ""),
}


def told(pieces):
    reader, found = ThoughtReader(), {"thought": "", "said": ""}
    for number, piece in enumerate([*pieces, ""]):
        for kind, text in reader.read(piece, final=number == len(pieces)):
            found[kind] += text
    return found["thought"], found["said"]


@pytest.mark.parametrize("reply", REPLIES)
@given(data=st.data())
def test_the_parts_do_not_depend_on_the_pieces(reply, data):
    cuts = sorted(data.draw(st.lists(st.integers(0, len(reply)), max_size=6)))
    bounds = [0, *cuts, len(reply)]
    pieces = [reply[start:end] for start, end in pairwise(bounds)]
    assert told(pieces) == REPLIES[reply]


def test_a_thought_is_shown_while_it_goes_on():
    reader = ThoughtReader()
    assert list(reader.read("<think>6 times")) == [("thought", "6 times")]
    assert list(reader.read(" 7</th")) == [("thought", " 7")]
    assert list(reader.read("ink> 42")) == [("said", "42")]
