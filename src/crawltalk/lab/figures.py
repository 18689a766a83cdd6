"""The charts that several experiments draw of their seeds."""

from collections.abc import Mapping, Sequence

from crawltalk.core.charts import panels, svg


def bar_chart(bars: Mapping[str, Sequence[float]], y: str) -> str:
    """The mean of each bar's seeds, with a dot for each seed."""
    chart, (axes,) = panels([("", y)])
    for index, (name, values) in enumerate(bars.items()):
        axes.bar(index, sum(values) / len(values), width=0.6, color=f"C{index}", alpha=0.6)
        axes.plot([index] * len(values), values, "o", color=f"C{index}", markersize=4)
        axes.annotate(name, (index, 0), xytext=(0, -14), textcoords="offset points", ha="center", fontsize=8)
    axes.set_xticks([])
    return svg(chart)


def line_chart(lines: Mapping[str, Sequence[Sequence[float]]], at: Sequence[float], x: str, y: str) -> str:
    """A line for each seed of each name, through its values at `at`."""
    chart, (axes,) = panels([(x, y)])
    for index, (name, seeds) in enumerate(lines.items()):
        for number, values in enumerate(seeds):
            axes.plot(at, values, color=f"C{index}", linewidth=1.2, label=None if number else name)
    return svg(chart)
