"""Small pieces of HTML; every text from outside is escaped here."""

from collections.abc import Mapping, Sequence
from html import escape
from importlib.resources import files
from typing import Any

from crawltalk.core.charts import panels, svg
from crawltalk.core.statistics import wilson


def text(value: Any) -> str:
    """A value for people, escaped: 1234567 -> 1,234,567; 0.123456 -> 0.1235; -0.0 -> 0."""
    if isinstance(value, int) and not isinstance(value, bool):
        return f"{value:,}"
    return escape(f"{value + 0.0:,.4g}" if isinstance(value, float) else str(value))


def percent(share: float) -> str:
    """A share for a sentence: 0.0429 -> 4 %."""
    return f"{share:.0%}".replace("%", "&nbsp;%")


def with_interval(share: float, count: int) -> str:
    """A share of so many, with the interval that chance leaves it at 95 % (Wilson's): 0.76 (0.71 to 0.81)."""
    low, high = wilson(share * count, count)
    return f"{share:.2f} ({low:.2f} to {high:.2f})"


def page(title: str, body: str) -> str:
    """A whole document that needs no other file."""
    style = files("crawltalk.report").joinpath("style.css").read_text(encoding="utf-8")
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width">'
        f"<title>{text(title)}</title><style>{style}</style></head><body>{body}</body></html>\n"
    )


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


def bars(rows: Sequence[tuple[str, float, str]], most: float, caption: str = "") -> str:
    """Horizontal bars: (label, value, what is written beside it); a bar of `most` fills the width."""
    body = "".join(
        f'<tr><td>{text(label)}</td><td class="track"><div class="bar" style="width:{100 * value / most:.1f}%">'
        f'</div></td><td class="number">{text(beside)}</td></tr>'
        for label, value, beside in rows
    )
    under = f"<figcaption>{escape(caption)}</figcaption>" if caption else ""
    return f'<figure class="wide"><table class="bars">{body}</table>{under}</figure>'


def command(line: str) -> str:
    """The command that makes the figures above it."""
    return f'<p class="command"><code>{escape(line)}</code></p>'


def conversation(messages: Sequence[tuple[str, str]], label: str) -> str:
    """Turns as bubbles: (role, content)."""
    turns = "".join(f'<div class="turn {escape(role)}">{escape(content)}</div>' for role, content in messages)
    return f'<div class="talk"><div class="label">{escape(label)}</div>{turns}</div>'


def sample(label: str, prompt: str, continuation: str) -> str:
    """A prompt in bold, and how a text goes on."""
    return f'<div class="label">{escape(label)}</div><pre><b>{escape(prompt)}</b>{escape(clip(continuation))}</pre>'


def clip(value: str, length: int = 600) -> str:
    """The beginning of a long text."""
    return value if len(value) <= length else value[:length] + " ..."


def lines_figure(
    series: Sequence[tuple[str, Sequence[float], Sequence[float]]],
    x: str,
    y: str,
    caption: str,
    *,
    log_x: bool = False,
    bands: Mapping[str, Sequence[tuple[float, float]]] = {},
) -> str:
    """A line chart as inline SVG: (label, xs, ys) per line. `bands`: label -> (low, high) at each of its xs."""
    figure, (axes,) = panels([(x, y)])
    for label, xs, ys in series:
        (line,) = axes.plot(xs, ys, label=label, linewidth=1.6, marker="o" if log_x else None)
        if label in bands:
            lows, highs = zip(*bands[label], strict=True)
            axes.fill_between(xs, lows, highs, color=line.get_color(), alpha=0.18, linewidth=0)
    if log_x:
        axes.set_xscale("log")
    return f"<figure>{svg(figure)}<figcaption>{escape(caption)}</figcaption></figure>"
