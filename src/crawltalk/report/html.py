"""Small pieces of HTML; every text from outside is escaped here."""

from collections.abc import Sequence
from html import escape
from typing import Any

from crawltalk.core.charts import panels, svg


def text(value: Any) -> str:
    """A value for people, escaped: 1234567 -> 1,234,567; 0.123456 -> 0.1235."""
    if isinstance(value, int) and not isinstance(value, bool):
        return f"{value:,}"
    return escape(f"{value:,.4g}" if isinstance(value, float) else str(value))


def table(columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    """A table; numbers to the right. "-" stands for one that there is not."""
    cells = [[row[i] for row in rows if row[i] != "-"] for i in range(len(columns))]
    numeric = [bool(column) and all(isinstance(cell, (int, float)) for cell in column) for column in cells]
    kinds = [' class="number"' if is_number else "" for is_number in numeric]
    head = "".join(f"<th{kind}>{text(column)}</th>" for kind, column in zip(kinds, columns, strict=True))
    body = "".join(
        "<tr>"
        + "".join(f"<td{kind}>{text(cell)}</td>" for kind, cell in zip(kinds, row, strict=True))
        + "</tr>"
        for row in rows
    )
    return f'<div class="wide"><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>'


def tiles(figures: Sequence[tuple[Any, str]]) -> str:
    """Large figures with small labels."""
    cells = (
        f'<div class="tile"><b>{text(value)}</b><span>{text(label)}</span></div>' for value, label in figures
    )
    return f'<div class="tiles">{"".join(cells)}</div>'


def command(line: str) -> str:
    """The command that makes the figures above it."""
    return f'<p class="command">made by <code>{escape(line)}</code></p>'


def conversation(messages: Sequence[tuple[str, str]], label: str) -> str:
    """Turns as bubbles: (role, content)."""
    turns = "".join(f'<div class="turn {escape(role)}">{escape(content)}</div>' for role, content in messages)
    return f'<div class="talk"><div class="label">{escape(label)}</div>{turns}</div>'


def lines_figure(
    series: Sequence[tuple[str, Sequence[float], Sequence[float]]],
    x: str,
    y: str,
    caption: str,
    *,
    log_x: bool = False,
) -> str:
    """A line chart as inline SVG: (label, xs, ys) per line."""
    figure, (axes,) = panels([(x, y)])
    for label, xs, ys in series:
        axes.plot(xs, ys, label=label, linewidth=1.6, marker="o" if log_x else None)
    if log_x:
        axes.set_xscale("log")
    return f"<figure>{svg(figure)}<figcaption>{escape(caption)}</figcaption></figure>"
