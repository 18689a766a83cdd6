"""Tools as chat and server offer them."""

from collections.abc import Collection, Sequence

from crawltalk.chat.messages import Message
from crawltalk.core.errors import BadInput
from crawltalk.tools.flow import Flow
from crawltalk.tools.loop import Episode, Limits
from crawltalk.tools.toolbox import Surroundings, make_tools


class Answerer:
    """Begins answers of an assistant that has tools."""

    def __init__(self, names: Sequence[str], around: Surroundings, *, call_first: bool = False) -> None:
        """Raises UserError, as `make_tools`."""
        self.tools = make_tools(names, around)
        if call_first and not self.tools:
            raise BadInput("--call-first needs tools: --tools calculator")
        self.call_first, self.limits = call_first, Limits.of_context(around.context)

    @property
    def notices(self) -> list[str]:
        """What a person should know of the tools."""
        return list(dict.fromkeys(tool.notice for tool in self.tools if tool.notice))

    def begin(
        self, messages: Sequence[Message], *, flow: Flow | None = None, only: Collection[str] | None = None
    ) -> Episode:
        """An answer to the last message. `flow`: as `Episode` has it. `only`: the tools that the person permits."""
        tools = [tool for tool in self.tools if only is None or tool.name in only]
        return Episode(messages, tools, self.limits, call_first=self.call_first, flow=flow)

    def close(self) -> None:
        """End what the tools keep running."""
        for tool in self.tools:
            tool.close()
