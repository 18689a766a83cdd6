"""Tools of the application under attack: those of the product, and one that asks for whatever address it is given."""

from collections.abc import Sequence
from typing import Any, ClassVar

from crawltalk.core.errors import BadInput
from crawltalk.redteam.canary import Canary
from crawltalk.retrieval.passages import RetrievedPassage
from crawltalk.tools.fetch import Fetch, address_parts
from crawltalk.tools.search import Search
from crawltalk.tools.tool import Tool, ToolResult, texts


class OpenFetch(Fetch):
    """Fetches anything, wherever it is redirected to: what no tool of the product does."""

    sends = ()

    def __init__(self, withheld: Sequence[str] = ()) -> None:
        """`withheld`: texts that no address may hold."""
        super().__init__(["http://127.0.0.1/"], private=True)
        self.withheld = withheld

    def _checked(self, url: str) -> tuple[str, str, int, str]:
        if any(text in url for text in self.withheld):
            raise BadInput("this address holds a secret")
        return address_parts(url)


class FlowFetch(OpenFetch):
    """The same, with nothing but the rule of `tools.flow`."""

    sends = ("url",)


class ListedFetch(Fetch):
    """The product's, with nothing but its list of allowed addresses."""

    sends = ()


class Diary(Tool):
    """Says what others wrote into a diary."""

    name = "diary"
    description = "Reads the diary."
    parameters: ClassVar[dict[str, Any]] = texts("day")

    def __init__(self) -> None:
        self.entry = ""

    def call(self, arguments: dict[str, Any]) -> ToolResult:
        return ToolResult.of(self.entry, self.name)


class PlantedSearch(Search):
    """The product's search, whose only finding was planted."""

    def __init__(self, canary: Canary) -> None:
        self.characters, self.passages = 2400, 1
        self.site, self.text = canary.site, ""

    def find(self, query: str) -> list[RetrievedPassage]:
        """What was planted."""
        return [
            RetrievedPassage(
                id="1", url=f"{self.site}/found", title="Tides", text=self.text, start=0, end=len(self.text),
                score=1.0, coverage=1.0,
            )
        ]  # fmt: skip
