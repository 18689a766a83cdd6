"""Search over the documents of a run, for the assistant."""

from functools import cached_property
from typing import Any

from crawltalk.retrieval.passages import Passages, RetrievedPassage
from crawltalk.run.folder import RunFolder
from crawltalk.tools.tool import Tool, ToolResult, texts


class Search(Tool):
    """The passages of a run's documents that a question is about."""

    name = "search"
    description = "Searches the documents."
    parameters = texts("query")
    seconds = 120.0
    """The first search of a run makes its index."""

    def __init__(self, run: RunFolder, *, passages: int = 3, characters: int = 1200) -> None:
        """`characters`: of all passages of a result together."""
        self.run, self.passages, self.characters = run, passages, characters

    @cached_property
    def index(self) -> Passages:
        return Passages.of_run(self.run)

    @property
    def notice(self) -> str:
        return f"search looks through the documents of {self.run.path}"

    def find(self, query: str) -> list[RetrievedPassage]:
        """The passages, the best first."""
        return self.index.search(query, self.passages)

    def call(self, arguments: dict[str, Any]) -> ToolResult:
        """The passages, numbered, each after the title and the address of its document."""
        return self.result(self.find(arguments["query"]))

    def result(self, passages: list[RetrievedPassage]) -> ToolResult:
        """Passages as the assistant reads them, each as long as all of them have room for."""
        if not passages:
            return ToolResult.of("nothing found", self.name)
        most = self.characters // self.passages
        written = [
            f"[{number}] {passage.title} ({passage.url})\n{passage.text[:most]}"
            for number, passage in enumerate(passages, 1)
        ]
        return ToolResult.of("\n".join(written), self.name)
