"""Functions that the batteries offer to a model: what a person would reach for in such a question."""

import ast
import operator
from collections.abc import Callable, Mapping, Sequence
from decimal import Decimal, DecimalException
from typing import Any, NamedTuple

from crawltalk.chat.tool_calls import Tool

MAX_EXPRESSION = 200
"""Characters of an expression, at most."""
_BINARY: dict[type[ast.AST], Callable[[Any, Any], Any]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
}
_COMPARED: dict[type[ast.AST], Callable[[Any, Any], bool]] = {
    ast.Lt: operator.lt,
    ast.Gt: operator.gt,
    ast.Eq: operator.eq,
    ast.LtE: operator.le,
    ast.GtE: operator.ge,
}


class Function(NamedTuple):
    """A function that a model may call: what it is told, and what is called."""

    name: str
    description: str
    parameters: dict[str, Any]
    """A JSON schema of the arguments."""
    function: Callable[[Mapping[str, Any]], str]

    def call(self, arguments: Mapping[str, Any]) -> str:
        """The result, or what is wrong with the call, for the model to read."""
        missing = [name for name in self.parameters["properties"] if not isinstance(arguments.get(name), str)]
        if missing:
            return f"error: {missing[0]} must be a text"
        try:
            return self.function(arguments)
        except (ValueError, ArithmeticError) as error:
            return f"error: {error}"

    @property
    def tool(self) -> Tool:
        """As the system message lists it."""
        return Tool(name=self.name, description=self.description, parameters=self.parameters)


def calculate(expression: str) -> str:
    """The value of sums, differences, products, quotients and comparisons of decimal numbers. Raises ValueError for
    anything else.
    """
    if len(expression) > MAX_EXPRESSION:
        raise ValueError("the expression is too long")
    try:
        value = _value(ast.parse(expression.strip().replace("x", "*"), mode="eval").body, expression.strip())
    except (SyntaxError, RecursionError, DecimalException):
        raise ValueError("not an expression") from None
    return str(value).lower() if isinstance(value, bool) else f"{value.normalize():f}"


def _value(node: ast.expr, text: str) -> Any:
    match node:
        case ast.Constant(value=int() | float()) if not isinstance(node.value, bool):
            return Decimal(text[node.col_offset : node.end_col_offset])
        case ast.UnaryOp(op=ast.USub(), operand=operand):
            return -_value(operand, text)
        case ast.BinOp(left=left, op=operation, right=right) if type(operation) in _BINARY:
            return _BINARY[type(operation)](_value(left, text), _value(right, text))
        case ast.Compare(left=left, ops=[operation], comparators=[right]) if type(operation) in _COMPARED:
            return _COMPARED[type(operation)](_value(left, text), _value(right, text))
    raise ValueError("only numbers, + - * / and < > == are known")


def _texts(*names: str) -> dict[str, Any]:
    properties = {name: {"type": "string"} for name in names}
    return {"type": "object", "properties": properties, "required": list(names)}


CALCULATOR = Function(
    "calculator",
    "The value of an arithmetic expression.",
    _texts("expression"),
    lambda arguments: calculate(arguments["expression"]),
)
COUNT = Function(
    "count",
    "How often a part occurs in a text.",
    _texts("text", "part"),
    lambda arguments: str(arguments["text"].count(arguments["part"])),
)
REVERSE = Function("reverse", "A text backwards.", _texts("text"), lambda arguments: arguments["text"][::-1])
SPELL = Function(
    "spell", "The letters of a word, in order.", _texts("word"), lambda arguments: "-".join(arguments["word"])
)


def call_function(functions: Sequence[Function], name: str, arguments: Mapping[str, Any]) -> str:
    """The result of the call of one of the functions."""
    by_name = {function.name: function for function in functions}
    return by_name[name].call(arguments) if name in by_name else f"error: there is no function {name}"
