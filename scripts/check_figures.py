"""The figures that the documents quote of a run of `small`: are they those of this run?

    python scripts/check_figures.py RUN

docs/figures.toml says where each stands and what of a run it is. Prints what a document says and what the run has,
and ends with exit code 1 if any differs by more than it may. Times and memory (×) are those of one machine, quiet and
with its code compiled: where they differ that is printed, and no failure.
"""

import json
import re
import sys
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

ROOT = Path(__file__).resolve().parents[1]
NUMBER = r"(\d[\d,]*(?:\.\d+)?)"
VALUE = re.compile(
    r"(?P<key>\S+)(?: /(?P<scale>\S+))?(?: (?:±(?P<off>\S+)|×(?P<factor>\S+)|(?P<bound>[≥≤])))?"
)


class Quoted(NamedTuple):
    """A figure in a document."""

    file: str
    text: str
    """The passage that it stands in."""
    said: str
    value: str
    """What of a run it is, and how far it may be off, as in docs/figures.toml."""

    def problem(self, figures: Mapping[str, float]) -> str | None:
        """What is wrong with it, seen from a run; None if nothing is."""
        match = VALUE.fullmatch(self.value)
        if match is None:
            return f"{self.value!r} is not KEY, /SCALE and ±OFF, ×FACTOR, ≥ or ≤"
        found = find(match["key"], figures)
        if not found:
            return f"the run has no {match['key']}"
        has = [value / float(match["scale"] or 1) for value in found]
        number = float(self.said.replace(",", ""))
        half = 0.5 * 10.0 ** -len(self.said.partition(".")[2])  # of the last digit
        match match["bound"], match["factor"]:
            case "≥", _:
                right = min(has) >= number
            case "≤", _:
                right = max(has) <= number
            case _, None:
                off = half + float(match["off"] or 0) + 1e-9
                right = all(abs(value - number) <= off for value in has)
            case _, factor:
                times = float(factor)
                right = all((number - half) / times <= value <= (number + half) * times for value in has)
        return None if right else f"the run has {', '.join(f'{value:.4g}' for value in has)}"


def quoted(table: Mapping[str, Any], root: Path = ROOT) -> Iterator[Quoted]:
    """Every figure of the table. Raises ValueError for a passage that does not stand once in its file."""
    for file, passages in table["run"].items():
        page = " ".join((root / file).read_text(encoding="utf-8").split())
        for text, values in passages.items():
            found = re.findall(pattern(text), page)
            if len(found) != 1:
                raise ValueError(f"{file}: {text!r} stands there {len(found)} times, and not once")
            said = found[0] if isinstance(found[0], tuple) else (found[0],)
            if len(said) != len(values):
                raise ValueError(f"{file}: {text!r} has {len(said)} figures and {len(values)} values")
            yield from (Quoted(file, text, *pair) for pair in zip(said, values, strict=True))


def pattern(text: str) -> str:
    """The passage as a regular expression: {} is a number."""
    return NUMBER.join(re.escape(part) for part in text.split("{}"))


def find(key: str, figures: Mapping[str, float]) -> list[float]:
    """The figures that a key means, which is a regular expression; with Σ in front their sum."""
    found = [value for name, value in figures.items() if re.fullmatch(key.removeprefix("Σ"), name)]
    return [sum(found)] if found and key.startswith("Σ") else found


def figures_of(run: Path) -> dict[str, float]:
    """The figures of a run by dotted names: STAGE.seconds, STAGE.metrics.NAME, STAGE.config.NAME, all.seconds,
    scores.NAME, recall.N.share (the N-th group of pages, by how often they were read) and loss.first.
    """
    found: dict[str, float] = {}
    for path in sorted(run.glob("*/manifest.json")):
        manifest, stage = json.loads(path.read_text(encoding="utf-8")), path.parent.name
        rows = {name: manifest[name] for name in ("seconds", "cpu_seconds", "peak_memory_bytes")}
        rows |= {
            f"{part}.{name}": value
            for part in ("metrics", "config")
            for name, value in manifest[part].items()
        }
        found |= {f"{stage}.{name}": float(v) for name, v in rows.items() if isinstance(v, int | float)}
    for name in ("seconds", "cpu_seconds"):
        found[f"all.{name}"] = sum(value for key, value in found.items() if key.endswith(f".{name}"))
    scores = json.loads((run / "evals" / "scores.json").read_text(encoding="utf-8"))
    found |= {f"scores.{name}": row["score"] for name, row in scores.items()}
    recall = (run / "evals" / "recall.jsonl").read_text(encoding="utf-8").splitlines()
    for number, row in enumerate(map(json.loads, recall)):
        found |= {f"recall.{number}.times": row["times"], f"recall.{number}.share": row["share"]}
    with open(run / "pretrain" / "log.jsonl", encoding="utf-8") as log:
        found["loss.first"] = next(row["loss"] for row in map(json.loads, log) if "loss" in row)
    return found


def main(run: Path) -> int:
    """Print every figure that a run contradicts. Returns the exit code."""
    if not (run / "evals" / "scores.json").exists():
        print(f"error: {run} is no finished run; make one with: crawltalk run small", file=sys.stderr)
        return 2
    try:
        figures = figures_of(run)
    except (OSError, ValueError, KeyError) as error:
        print(f"error: a file of {run} is damaged ({error}); see: crawltalk status {run}", file=sys.stderr)
        return 2
    rows = list(quoted(tomllib.loads((ROOT / "docs" / "figures.toml").read_text(encoding="utf-8"))))
    found = [(row, problem) for row in rows if (problem := row.problem(figures))]
    wrong = [row for row, _ in found if "×" not in row.value]
    for row, problem in found:
        kind = "wrong" if row in wrong else "another time or size"
        print(f"{kind}: {row.file}: {row.text!r} says {row.said} ({row.value}), {problem}")
    differ = len(found) - len(wrong)
    print(f"{len(rows)} figures, seen from {run}: {len(wrong)} wrong, {differ} of other times or sizes")
    return 1 if wrong else 0


if __name__ == "__main__":
    if len(sys.argv) != 2:
        print(__doc__, file=sys.stderr)
        sys.exit(2)
    sys.exit(main(Path(sys.argv[1])))
