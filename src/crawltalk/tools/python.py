"""Python for the assistant, in one of two sandboxes (`crawltalk.tools.sandbox`)."""

from typing import Any, Literal, Protocol

from crawltalk.tools.sandbox.cpython import CPythonSandbox, NotConfined
from crawltalk.tools.sandbox.monty import MontySandbox
from crawltalk.tools.sandbox.outcome import Limits, Outcome
from crawltalk.tools.tool import Tool, ToolResult, Untrusted, texts

Tier = Literal["monty", "cpython"]


class Sandbox(Protocol):
    """Runs a program, and keeps it in."""

    @property
    def layers(self) -> tuple[str, ...]: ...

    def run(self, code: str) -> Outcome: ...

    def close(self) -> None: ...


class Python(Tool):
    """Runs a program of the assistant."""

    name = "python"
    description = "Runs Python code and returns what it prints."
    parameters = texts("code")
    outside = False  # it reaches nothing but the program that the assistant wrote

    def __init__(self, tier: Tier | None = None, limits: Limits | None = None) -> None:
        """`tier` None: CPython where the system can confine it, else Monty. Raises NotConfined for `cpython` where it
        cannot.
        """
        limits = limits or Limits()
        self.seconds = limits.wall + 5
        self.tier, self.sandbox = _sandbox(tier, limits)

    @property
    def notice(self) -> str:
        kind = {"monty": "Monty, a part of Python", "cpython": "CPython"}[self.tier]
        return f"python runs in {kind}, kept in by {', '.join(self.sandbox.layers)}"

    def call(self, arguments: dict[str, Any]) -> ToolResult:
        """The output; at its end why the program did not end well, unless the output says it."""
        outcome = self.sandbox.run(arguments["code"])
        output = outcome.output.rstrip("\n")
        if outcome.problem and outcome.problem not in output:
            output = f"{output}\n{outcome.problem}".lstrip("\n")
        return ToolResult(
            text=Untrusted(output or "(no output)"),
            source=self.name,
            truncated=outcome.truncated,
            error=bool(outcome.problem),
        )

    def close(self) -> None:
        self.sandbox.close()


def _sandbox(tier: Tier | None, limits: Limits) -> tuple[Tier, Sandbox]:
    if tier == "monty":
        return tier, MontySandbox(limits)
    try:
        return "cpython", CPythonSandbox(limits)
    except NotConfined:
        if tier == "cpython":
            raise
        return "monty", MontySandbox(limits)
