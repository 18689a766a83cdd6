"""The graph of a run's stages as SVG: what was made from what."""

from collections.abc import Mapping, Sequence

from crawltalk.report.html import text

WIDTH, HEIGHT, GAP_X, GAP_Y = 96, 34, 28, 14
"""Of a box, and between two of them."""


def graph(inputs: Mapping[str, Sequence[str]]) -> str:
    """Stage -> the stages that it was made from, in the order in which they were built. The longest chain stands on
    the first line, every other stage on one of its own. What a stage also gets through another one has no arrow.
    """
    known = {name: [other for other in made_from if other in inputs] for name, made_from in inputs.items()}
    behind: dict[str, set[str]] = {}
    chain: dict[str, list[str]] = {}
    for name, made_from in known.items():
        behind[name] = set(made_from).union(*(behind[other] for other in made_from))
        chain[name] = [*max((chain[other] for other in made_from), key=len, default=[]), name]
    longest = max(chain.values(), key=len, default=[])
    others = [name for name in known if name not in longest]
    corners = {
        name: (
            (len(chain[name]) - 1) * (WIDTH + GAP_X),
            (others.index(name) + 1 if name in others else 0) * (HEIGHT + GAP_Y),
        )
        for name in known
    }
    arrows = [
        _arrow(corners[other], corners[name])
        for name, made_from in known.items()
        for other in made_from
        if not any(other in behind[between] for between in made_from)
    ]
    width, height = len(longest) * (WIDTH + GAP_X) - GAP_X, (len(others) + 1) * (HEIGHT + GAP_Y) - GAP_Y
    return (
        f'<figure class="wide"><svg class="graph" viewBox="-1 -1 {width + 2} {height + 2}" role="img" '
        f'aria-label="which stage was made from which">{"".join(arrows)}'
        + "".join(_box(name, *corner) for name, corner in corners.items())
        + "</svg><figcaption>What was made from what, from left to right.</figcaption></figure>"
    )


def _box(name: str, x: int, y: int) -> str:
    return (
        f'<rect x="{x}" y="{y}" width="{WIDTH}" height="{HEIGHT}" rx="8"/>'
        f'<text x="{x + WIDTH // 2}" y="{y + HEIGHT // 2 + 5}" text-anchor="middle">{text(name)}</text>'
    )


def _arrow(start: tuple[int, int], end: tuple[int, int]) -> str:
    """From the right side of a box to the left side of another: along the lower one's line, which is free."""
    (x0, y0), (x1, y1) = start, end
    x0, y0, y1 = x0 + WIDTH, y0 + HEIGHT // 2, y1 + HEIGHT // 2
    bend = GAP_X // 2
    if y1 >= y0:  # down at once
        return f'<path d="M{x0} {y0} C{x0 + bend} {y0} {x0 + bend} {y1} {x0 + GAP_X} {y1} H{x1}"/>'
    turn = x1 - GAP_X
    return f'<path d="M{x0} {y0} H{turn} C{turn + bend} {y0} {turn + bend} {y1} {x1} {y1}"/>'
