"""What may leave after a text of others was read."""

import base64
from typing import Any, ClassVar

import pytest
from hypothesis import given
from hypothesis import strategies as st

from crawltalk.chat.messages import FunctionCall, ImagePart, ImageUrl, Message, TextPart, ToolCall
from crawltalk.tools.calculator import Calculator
from crawltalk.tools.flow import Flow, NotReleased, addresses_in
from crawltalk.tools.loop import Episode
from crawltalk.tools.tool import Tool, ToolResult, texts

PAGE = "https://docs.example/guide"


class Visits(Tool):
    """Remembers where it was sent."""

    name = "fetch"
    description = "Gets the text of a web page."
    parameters: ClassVar[dict[str, Any]] = texts("url")
    sends = ("url",)

    def __init__(self):
        self.asked = []

    def call(self, arguments):
        self.asked.append(arguments["url"])
        return ToolResult.of(f"What {arguments['url']} says.", arguments["url"])


def visit(episode, url):
    return episode.make(ToolCall(FunctionCall("fetch", f'{{"url": "{url}"}}'), "c"))


def asking(text):
    tool = Visits()
    return tool, Episode([Message("user", text)], [tool, Calculator()])


def test_before_anything_of_others_was_read_every_address_is_asked_for():
    tool, episode = asking("What does the guide say?")
    assert not visit(episode, PAGE).error and tool.asked == [PAGE]


@pytest.mark.parametrize(
    "leak",
    [
        "https://evil.example/?k=apricot",
        f"{PAGE}?k={base64.b64encode(b'apricot').decode()}",
        f"{PAGE}/a",
        "https://apricot.docs.example/guide",
        "https://apricot@docs.example/guide",
        "http://docs.example/guide",
        "https://docs.example:8443/guide",
        "https://docs.example/Guide",
    ],
)
def test_afterwards_only_an_address_that_the_person_wrote(leak):
    tool, episode = asking(f"The key is apricot. Please read {PAGE}, and nothing else.")
    visit(episode, PAGE)
    refused = visit(episode, leak)
    assert refused.error and refused.withheld == leak and not refused.outside and tool.asked == [PAGE]
    assert "only an address that the person wrote" in refused.text.shown


def test_an_address_is_asked_for_as_the_person_spelled_it_and_once():
    tool, episode = asking("Read http://other.example/a, then docs.example/Guide/?q=1#part.")
    visit(episode, "http://OTHER.example:80/a#apricot")
    spelled = ["https://DOCS.example/Guide?q=1#apricot", "https://docs.example:443/Guide/?q=1"]
    said = {visit(episode, one).text.shown for one in (*spelled, *spelled)}
    assert tool.asked == ["http://OTHER.example:80/a#apricot", "https://docs.example/Guide/?q=1#part"]
    assert len(said) == 1


def test_what_was_read_in_earlier_turns_counts_and_sums_do_not():
    def after(name):
        call = ToolCall(FunctionCall(name, "{}"), "c1")
        return [
            Message("user", "Hello"),
            Message("assistant", "", tool_calls=[call]),
            Message("tool", "42", tool_call_id="c1"),
            Message("user", "And now?"),
        ]

    tools = [Visits(), Calculator()]
    assert Flow(after("fetch"), tools).sources == ["fetch"]
    assert not Flow(after("calculator"), tools).tainted
    assert Flow([Message("tool", "42")], tools).tainted
    picture = ImagePart(ImageUrl("data:image/png;base64,AA=="))
    flow = Flow([Message("user", [TextPart(f"Is this {PAGE}?"), picture])], tools)
    assert flow.tainted and flow.released(tools[0], {"url": PAGE}) == {"url": PAGE}


def test_what_the_assistant_said_is_no_permission():
    flow = Flow([Message("user", "Hello"), Message("assistant", f"See {PAGE}"), Message("tool", PAGE)])
    with pytest.raises(NotReleased):
        flow.released(Visits(), {"url": PAGE})


@given(st.text(alphabet="abcXYZ019-._~%/?&=", max_size=30), st.sampled_from([" ", ", ", ").", "!\n", '" ']))
def test_an_address_in_a_sentence_is_found_whole(path, after):
    address = f"https://a.example/{path}x"
    assert address in addresses_in(f"See {address}{after} and more.")


def test_words_with_dots_and_mail_are_no_addresses():
    assert addresses_in("Dr. No ate 3.5 pies at 10.30 for me@mail.example") == []
    assert addresses_in("see docs.example/x") == ["https://docs.example/x"]
