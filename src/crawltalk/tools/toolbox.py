"""The tools by the names that people give them."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from crawltalk.core.errors import UserError
from crawltalk.run.folder import RunFolder
from crawltalk.tools.calculator import Calculator
from crawltalk.tools.fetch import Fetch
from crawltalk.tools.python import Python
from crawltalk.tools.search import Search
from crawltalk.tools.tool import Tool


@dataclass(frozen=True, kw_only=True)
class Surroundings:
    """What tools may need to know."""

    run: RunFolder | None = None
    """Whose documents are searched."""
    allowed: Sequence[str] = ()
    """What may be fetched."""
    once: bool = False
    """Whether a page is fetched only once: a training asks for the same ones again and again."""
    context: int = 4096
    """Tokens that the model reads."""


def make_search(around: Surroundings) -> Search:
    """Search whose results fit the context. Raises UserError without a run."""
    if around.run is None:
        raise UserError("search needs a run, whose documents it looks through: --documents runs/small")
    around.run.finished("data")
    if around.context < 1024:
        return Search(around.run, passages=1, characters=around.context)
    return Search(around.run, characters=min(2400, around.context // 2))


TOOLS: dict[str, Callable[[Surroundings], Tool]] = {
    "calculator": lambda _: Calculator(),
    "python": lambda _: Python(),
    "python:monty": lambda _: Python("monty"),
    "python:cpython": lambda _: Python("cpython"),
    "search": make_search,
    "fetch": lambda around: Fetch(around.allowed, once=around.once),
}


def make_tools(names: Sequence[str], around: Surroundings) -> list[Tool]:
    """Tools by their names, of which several may stand in one text between commas. Raises UserError for an unknown
    name, for two tools that a model could not tell apart, and where what a tool needs is not there.
    """
    chosen = [name.strip() for text in names for name in text.split(",") if name.strip()]
    tools: list[Tool] = []
    for name in dict.fromkeys(chosen):
        if name not in TOOLS:
            raise UserError(f"there is no tool {name!r}; there are: {', '.join(TOOLS)}")
        tools.append(TOOLS[name](around))
    if len({tool.name for tool in tools}) < len(tools):
        raise UserError("python is named twice; give one of python, python:monty and python:cpython")
    if around.allowed and "fetch" not in chosen:
        raise UserError("--allow is for the tool fetch; add it: --tools fetch")
    return tools
