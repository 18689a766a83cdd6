"""What a person sees while stages run: a live table on a terminal, JSON lines elsewhere."""

import json
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from types import TracebackType
from typing import Any, Self

from rich.console import Console
from rich.live import Live
from rich.markup import escape
from rich.table import Table

from crawltalk.core.errors import GateFailed, StageCrashed, UserError, disk_is_full, is_denied
from crawltalk.core.printable import harmless

LINE_EVERY = 5.0
"""Seconds between two progress lines of one stage when the output is not a terminal."""

BARS = "▁▂▃▄▅▆▇█"
"""Characters of a curve in one line, from its lowest value to its highest."""


class _Console(Console):
    """A console on which pages and models write nothing that steers the terminal."""

    def print(self, *objects: Any, **options: Any) -> None:
        super().print(*(harmless(one) if isinstance(one, str) else one for one in objects), **options)


console = _Console(highlight=False)
errors = _Console(stderr=True, highlight=False)


def clock(seconds: float) -> str:
    """75.2 -> "1:15"; below ten seconds "7.5 s"."""
    if seconds < 10:
        return f"{seconds:.1f} s"
    return f"{int(seconds) // 60}:{int(seconds) % 60:02d}"


def size(count: float) -> str:
    """12,345,678 -> "12.3 MB"."""
    for unit in ("B", "kB", "MB", "GB"):
        if count < 1000 or unit == "GB":
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1000
    raise AssertionError


def number(value: Any) -> str:
    """A metric for people: 1234567 -> "1,234,567", 0.123456 -> "0.1235"."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return str(value)
    return f"{value:,}" if isinstance(value, int) else f"{value:,.4g}"


def sparkline(values: Sequence[float], columns: int = 24) -> str:
    """A curve in one line: [3.0, 2.0, 1.0] -> "█▄▁"; more values than columns are averaged."""
    count = min(columns, len(values))
    edges = [index * len(values) // count for index in range(count + 1)] if count else []
    means = [sum(values[a:b]) / (b - a) for a, b in pairwise(edges)]
    low, high = min(means, default=0.0), max(means, default=0.0)
    return "".join(
        BARS[round((mean - low) / (high - low) * (len(BARS) - 1)) if high > low else 0] for mean in means
    )


def print_table(columns: Sequence[str], rows: Sequence[Sequence[Any]], title: str | None = None) -> None:
    """A table; columns whose cells are numbers are right-aligned."""
    table = Table(title=title, title_justify="left", header_style="bold", box=None, pad_edge=False)
    for index, column in enumerate(columns):
        numeric = bool(rows) and all(isinstance(row[index], (int, float)) for row in rows)
        table.add_column(column, justify="right" if numeric else "left", overflow="fold")
    for row in rows:
        table.add_row(*(escape(harmless(number(cell))) for cell in row))
    console.print(table)


class StageBoard:
    """Shows the events of `run.execute.build`."""

    def __init__(self, about: Mapping[str, str]) -> None:
        self.about = about
        self.rows: dict[str, dict[str, Any]] = {}
        self._line_at: dict[str, float] = {}
        self.live = (
            Live(console=console, get_renderable=self._table, refresh_per_second=4)
            if console.is_terminal
            else None
        )

    def __enter__(self) -> Self:
        if self.live:
            self.live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.live:
            self.live.stop()

    def __call__(self, event: dict[str, Any]) -> None:
        """Show one event."""
        if self.live is None:
            self._print_line(event)
            return
        kind, stage = event["event"], event.get("stage", "")
        if kind == "plan":
            self.rows = {name: {"state": "waiting"} for name in event["stages"]}
        elif kind == "start":
            self.rows[stage] = {"state": "working", "began": time.monotonic()}
            for reason in event["reasons"]:
                self.live.console.print(f"[dim]{stage} is built again: {escape(reason)}")
        elif kind == "progress":
            self.rows[stage].setdefault("first", (time.monotonic(), event["done"]))
            self.rows[stage]["progress"] = event
            if "loss" in event:
                self.rows[stage].setdefault("losses", []).append(event["loss"])
        elif kind in ("finish", "skip"):
            self.rows[stage] = {"state": "done" if kind == "finish" else "fresh", "figures": event}
        elif kind in ("note", "warning"):
            style = "dim" if kind == "note" else "yellow"
            self.live.console.print(f"[{style}]{stage}: {escape(event['text'])}")

    def _print_line(self, event: dict[str, Any]) -> None:
        stage, now = event.get("stage", ""), time.monotonic()
        if event["event"] == "progress":
            if now - self._line_at.get(stage, -LINE_EVERY) < LINE_EVERY:
                return
            self._line_at[stage] = now
        print(json.dumps(event, ensure_ascii=False), flush=True)

    def _table(self) -> Table:
        table = Table(box=None, pad_edge=False, header_style="bold")
        for column in ("stage", "", "done", "rate", "figures", "left", "time"):
            table.add_column(
                column, justify="right" if column in ("rate", "left", "time") else "left", no_wrap=True
            )
        for stage, row in self.rows.items():
            table.add_row(*self._cells(stage, row))
        return table

    def _cells(self, stage: str, row: dict[str, Any]) -> tuple[str, ...]:
        state = row["state"]
        if state in ("done", "fresh"):
            mark = "[green]✓[/]" if state == "done" else "[green]·[/]"
            metrics = row["figures"]["metrics"]
            shown = "  ".join(f"{name} {number(value)}" for name, value in list(metrics.items())[:3])
            return stage, mark, escape(shown), "", "", "", clock(row["figures"]["seconds"])
        if state == "waiting":
            return f"[dim]{stage}[/]", "", f"[dim]{escape(self.about[stage])}[/]", "", "", "", ""
        seconds = time.monotonic() - row["began"]
        event = row.get("progress")
        if event is None:
            return f"[bold]{stage}[/]", "[cyan]▸[/]", escape(self.about[stage]), "", "", "", clock(seconds)
        began, first = row["first"]
        rate = (event["done"] - first) / max(time.monotonic() - began, 1e-3)
        total = event["total"]
        left = clock((total - event["done"]) / rate) if total and rate > 0 else ""
        done = f"{event['done']:,.0f}" + (f" / {total:,.0f}" if total else "") + f" {event['unit']}"
        extra = {
            key: value
            for key, value in event.items()
            if key not in ("event", "stage", "done", "total", "unit")
        }
        figures = "  ".join(f"{name} {number(value)}" for name, value in extra.items())
        figures += f"  {sparkline(row['losses'])}" if "losses" in row else ""
        speed = f"{rate:,.0f}/s" if rate >= 10 else f"{rate:.1f}/s"
        return f"[bold]{stage}[/]", "[cyan]▸[/]", done, speed, escape(figures), left, clock(seconds)


def fail(text: str, code: int) -> int:
    """Print one error to standard error; returns the exit code."""
    errors.print(f"[bold red]error:[/] {escape(text)}", soft_wrap=True)
    return code


def run_verb(verb: Callable[[], object], resumes: bool = False) -> int:
    """Run a verb. A UserError becomes one line and exit code 2, an interruption exit code 130.

    `resumes`: the same command goes on where an interruption ended it.
    """
    try:
        verb()
    except UserError as error:
        return fail(str(error), 2)
    except (StageCrashed, GateFailed) as error:
        return fail(str(error), 1)
    except KeyboardInterrupt:
        kept = "finished work is kept, run the same command again to continue"
        return fail(f"interrupted; {kept if resumes else 'the same command begins anew'}", 130)
    except BrokenPipeError:  # `crawltalk show ... | head`
        sys.stderr.close()
        return 0
    except OSError as error:
        if is_denied(error):
            text = f"{error.filename}: {error.strerror}; go to a folder that you may write, or give one with --out"
        elif disk_is_full(error):
            text = f"the disk is full ({error}); free some space and run the same command again"
        else:
            raise
        return fail(text, 2)
    return 0
