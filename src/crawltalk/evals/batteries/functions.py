"""Tools that the batteries offer to a model: what a person would reach for in such a question."""

from typing import Any

from crawltalk.tools.calculator import Calculator
from crawltalk.tools.tool import Tool, ToolResult, texts


class Count(Tool):
    name = "count"
    description = "How often a part occurs in a text."
    parameters = texts("text", "part")

    def call(self, arguments: dict[str, Any]) -> ToolResult:
        return ToolResult.of(str(arguments["text"].count(arguments["part"])), self.name)


class Reverse(Tool):
    name = "reverse"
    description = "A text backwards."
    parameters = texts("text")

    def call(self, arguments: dict[str, Any]) -> ToolResult:
        return ToolResult.of(arguments["text"][::-1], self.name)


class Spell(Tool):
    name = "spell"
    description = "The letters of a word, in order."
    parameters = texts("word")

    def call(self, arguments: dict[str, Any]) -> ToolResult:
        return ToolResult.of("-".join(arguments["word"]), self.name)


CALCULATOR, COUNT, REVERSE, SPELL = Calculator(), Count(), Reverse(), Spell()
