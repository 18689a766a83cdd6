"""Search over the documents of a run, for the assistant."""

from typing import Any

from crawltalk.retrieval.lookup import Passage, find_passages
from crawltalk.retrieval.search import Search as Index
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
        self.index, self.passages, self.characters = Index(run), passages, characters

    @property
    def notice(self) -> str:
        return f"search looks through the documents of {self.index.run.path}"

    def find(self, query: str) -> list[Passage]:
        """The passages, the best first. Raises BadInput for a query without a word."""
        return find_passages(
            self.index, query, count=self.passages, characters=self.characters // self.passages
        )

    def call(self, arguments: dict[str, Any]) -> ToolResult:
        """The passages, numbered, each after the title and the address of its document."""
        return self.result(self.find(arguments["query"]))

    def result(self, passages: list[Passage]) -> ToolResult:
        """Passages as the assistant reads them."""
        if not passages:
            return ToolResult.of("nothing found", self.name)
        return ToolResult.of("\n".join(map(_written, range(1, len(passages) + 1), passages)), self.name)


def _written(number: int, passage: Passage) -> str:
    return f"[{number}] {passage.title} ({passage.url})\n{passage.text}"
