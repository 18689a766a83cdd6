"""Answers with tools, as chat and server begin them."""

from collections.abc import Sequence

from crawltalk.chat.messages import Message, text_of
from crawltalk.core.errors import BadInput
from crawltalk.retrieval.passages import RetrievedPassage
from crawltalk.tools.loop import Episode, Limits
from crawltalk.tools.toolbox import Surroundings, make_search, make_tools


class Answerer:
    """Tools, and what is done before the assistant speaks."""

    def __init__(
        self,
        names: Sequence[str],
        around: Surroundings,
        *,
        search_first: bool = False,
        call_first: bool = False,
    ) -> None:
        """Raises UserError, as `make_tools`."""
        self.tools = make_tools(names, around)
        if call_first and not self.tools:
            raise BadInput("--call-first needs tools: --tools calculator")
        self.search = make_search(around) if search_first else None
        self.call_first, self.limits = call_first, Limits.of_context(around.context)

    @property
    def notices(self) -> list[str]:
        """What a person should know of the tools."""
        used = [*self.tools, *([self.search] if self.search is not None else [])]
        return list(dict.fromkeys(tool.notice for tool in used if tool.notice))

    def begin(self, messages: Sequence[Message]) -> tuple[Episode, list[RetrievedPassage]]:
        """An answer to the last message, and the passages that were found for it. With them the assistant needs no
        definition of a tool, for which a small context has no room.
        """
        messages, passages = list(messages), []
        if self.search is not None and messages and messages[-1].role == "user":
            passages = self.search.find(text_of(messages[-1]))
            found = self.search.result(passages).as_message()
            messages.insert(-1, found)  # the question last: it is read best there
        return Episode(messages, self.tools, self.limits, call_first=self.call_first), passages

    def close(self) -> None:
        """End what the tools keep running."""
        for tool in self.tools:
            tool.close()
