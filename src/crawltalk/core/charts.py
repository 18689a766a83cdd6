"""Charts as SVG, in one style: thin lines, and a neutral grey that is readable on light and on dark backgrounds."""

from collections.abc import Sequence
from io import StringIO
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

GREY = "#8a93a3"
WIDTH, HEIGHT = 8.5, 3.2
"""Of a chart, in inches."""


def panels(labels: Sequence[tuple[str, str]]) -> tuple["Figure", list["Axes"]]:
    """An empty chart with a panel for each pair of labels (of x, of y), side by side."""
    import matplotlib as mpl

    mpl.use("svg")
    mpl.rcParams["svg.hashsalt"] = "crawltalk"  # the same input gives the same bytes
    mpl.rcParams["svg.fonttype"] = "none"
    from matplotlib.figure import Figure

    figure = Figure(figsize=(WIDTH, HEIGHT), layout="constrained")
    axes = [figure.add_subplot(1, len(labels), index) for index in range(1, len(labels) + 1)]
    for one, (x, y) in zip(axes, labels, strict=True):
        one.set_xlabel(x, color=GREY)
        one.set_ylabel(y, color=GREY)
        one.tick_params(colors=GREY, which="both")
        one.grid(alpha=0.25)
        one.spines[:].set_visible(False)
    return figure, axes


def svg(figure: "Figure") -> str:
    """The chart as SVG text, without the XML header; panels with several labelled lines get a legend."""
    for axes in figure.axes:
        if len(axes.get_legend_handles_labels()[0]) > 1:
            axes.legend(frameon=False, labelcolor=GREY)
    stream = StringIO()
    figure.savefig(stream, format="svg", transparent=True, metadata={"Date": None})
    text = stream.getvalue()
    return text[text.index("<svg") :]
