"""Verbs that look at the data stage: its funnel, one page's path through it, two runs side by side, the price
of a bigger crawl.
"""

import json as jsonlib
import math
from hashlib import blake2b
from pathlib import Path
from typing import Annotated, Any

from cyclopts import Parameter

from crawltalk.core.documents import read_documents, read_table
from crawltalk.core.errors import MissingInput, UserError
from crawltalk.core.types import Document
from crawltalk.run.console import console, print_table, size
from crawltalk.run.folder import RunFolder, find_run

Json = Annotated[bool, Parameter(negative=(), help="Print one JSON object instead.")]
_BAR = 40
_SORTING_STEPS = {"cluster"}
"""Steps whose time grows as n log n."""


def funnel(path: Path = Path("runs/small"), *, rows: int = 15, json: Json = False) -> None:
    """What the data stage dropped and why: pages and bytes after each step, reasons, languages, hosts,
    lengths, duplicates.
    """
    record, path = _record(path, "funnel.json"), find_run(path).path
    if json:
        print(jsonlib.dumps(record, ensure_ascii=False))
        return
    first = max(1, record["steps"][0]["pages"])
    table = [
        (
            row["step"],
            f"{row['pages']:,}",
            size(row["bytes"]) if "bytes" in row else f"{row['characters']:,} characters",
            "#" * round(_BAR * row["pages"] / first),
        )
        for row in record["steps"]
    ]
    print_table(("after", "pages", "left", ""), table)
    reasons = sorted(record["removed"], key=lambda row: -row["pages"])[:rows]
    print_table(
        ("step", "reason", "pages", "example"),
        [
            (row["step"], row["reason"], f"{row['pages']:,}", "".join(row["examples"][:1])[:80])
            for row in reasons
        ],
    )
    for name, counts in (
        ("languages", record["languages"]),
        ("hosts in the crawl", record["hosts"]["crawl"]),
        ("hosts of documents", record["hosts"]["documents"]),
        ("characters of a document", record["characters"]),
        ("sizes of clusters", record["duplicates"]["sizes"]),
    ):
        shown = "  ".join(f"{key} {count:,}" for key, count in list(counts.items())[:8])
        console.print(f"{name}: {shown or 'none'}", markup=False)
    for warning in record["poison"]["warnings"][:rows]:
        console.print(f"warning: {warning}", markup=False)
    console.print(f"one page's path through the steps: crawltalk show {path}/data --page URL", markup=False)


def show_page(folder: Path, page: str) -> None:
    """The path of one page through the steps: `page` is its URL or id; every filter's decision on its text."""
    from crawltalk.data.pipeline import load_filters
    from crawltalk.data.record.funnel import STEPS

    row, step = _find(folder, page)
    config = RunFolder(folder.parent).recipe().data
    fields = ("url", "id", "dump", "file_path", "date", "language", "language_score", "token_count", "detail")
    for name in fields:
        if row.get(name) not in (None, ""):
            console.print(f"{name}: {row[name]}", markup=False, soft_wrap=True)
    table: list[tuple[str, str]] = []
    for name in STEPS:
        if name == step:
            table.append((name, f"dropped: {row['reason']}"))
            break
        if name != "early_language" or config.early_language:
            table.append((name, "passed"))
    if row["text"]:
        filters = load_filters(config)
        text = {
            "text": row["text"],
            "language": row.get("language") or "",
            "language_score": row.get("language_score") or 0.0,
        }
        document = Document(
            **text,
            **{key: row.get(key) or "" for key in ("id", "dump", "url", "date", "file_path")},
            token_count=0,
        )
        for name, check in filters.items():
            result = check(document)
            if isinstance(result, Document):
                document, result = result, None
            table.append((f"  {name}", f"would drop it: {result}" if result else "passes"))
    print_table(("step", "decision"), table)
    console.print(
        row["text"] or "(no text: the page was dropped before extraction)", markup=False, soft_wrap=True
    )


def _find(folder: Path, page: str) -> tuple[dict[str, Any], str | None]:
    """The row of a page and the step that dropped it, None if it is a document."""
    from crawltalk.core.documents import COLUMNS
    from crawltalk.data.record.funnel import REMOVED_COLUMNS

    for name, columns in (("documents", COLUMNS), ("removed", REMOVED_COLUMNS)):
        for path in sorted(folder.glob(f"{name}-*.parquet")):
            for row in read_table(path, list(columns)):
                if page in (row["url"], row["id"]):
                    return row, row.get("step")
    raise MissingInput(
        f"no page of {folder} has the URL or id {page!r}; look for one with: crawltalk funnel {folder.parent}"
    )


def diff_data(left: Path, right: Path, *, rows: int = 10, json: bool = False) -> None:
    """Which documents two runs do not share, and where each went in the other run; which have another text."""
    sides = [_fates(run) for run in (left, right)]
    moves: dict[str, int] = {}
    examples: dict[str, str] = {}
    for id_ in sides[0] | sides[1]:
        (fate, url, text), (other_fate, other_url, other_text) = (
            side.get(id_, ("absent", "", b"")) for side in sides
        )
        if fate == other_fate == "document":
            move = "document in both" if text == other_text else "document in both, with another text"
        elif "document" not in (fate, other_fate):
            continue
        else:
            move = f"{fate} -> {other_fate}"
        moves[move] = moves.get(move, 0) + 1
        examples.setdefault(move, url or other_url)
    ordered = sorted(moves, key=lambda move: -moves[move])
    if json:
        print(
            jsonlib.dumps(
                {move: {"pages": moves[move], "example": examples[move]} for move in ordered},
                ensure_ascii=False,
            )
        )
        return
    console.print(f"{left} -> {right}", markup=False)
    print_table(
        ("fate", "pages", "example"), [(move, f"{moves[move]:,}", examples[move]) for move in ordered[:rows]]
    )


def _fates(run: Path) -> dict[str, tuple[str, str, bytes]]:
    """Id -> what became of the page, its URL, a hash of its text."""
    folder = find_run(run).finished("data")
    fates = {
        document.id: (
            "document",
            document.url,
            blake2b(document.text.encode("utf-8", "replace"), digest_size=8).digest(),
        )
        for document in read_documents(folder)
    }
    for path in sorted(folder.glob("removed-*.parquet")):
        for row in read_table(path, ["id", "url", "step", "reason"]):
            fates.setdefault(row["id"], (f"{row['step']}: {row['reason']}", row["url"], b""))
    return fates


def classifier(labels: Path, *, out: Path = Path("classifier.safetensors")) -> None:
    """Train a quality classifier on your labels, measure it on a held-out tenth of them, and save it for
    --data.classifier.

    Parameters
    ----------
    labels
        JSONL: {"text": "...", "label": 1}; labels from 0 (poor) to 1 (good).
    """
    from crawltalk.data.filters.classifier import evaluate, read_labels, train

    rows = read_labels(labels)
    result = evaluate(rows)
    train(rows).save(out)
    console.print(
        f"{out}: trained on {len(rows):,} texts. On {result.texts:,} of them, held out: accuracy "
        f"{result.accuracy:.3f}, area under the"
        f" curve {result.auc:.3f}.\nnext: crawltalk data RUN --data.classifier {out}",
        markup=False,
        soft_wrap=True,
    )


def price_crawl(path: Path, pages: float, cores: int, dollars: float, *, json: bool) -> None:
    """Print what refining a crawl of so many pages would cost, from the cost per page that a run measured on
    this machine.

    `cores` would work at once, each for `dollars` an hour.
    """
    record, costs = _record(path, "funnel.json"), _record(path, "costs.json")
    measured = record["metrics"]["pages"]
    if pages < 1 or cores < 1:
        raise UserError("--pages and --cores are at least 1")
    scales = sorted({measured, *(10**power for power in (6, 8)), round(pages)})
    steps: list[dict[str, Any]] = [
        {"step": step, "pages": int(row[0]), "microseconds_a_page": round(1e6 * row[1] / measured, 1)}
        | {"core_hours": [_seconds(step, row[1], measured, scale) / 3600 for scale in scales]}
        for step, row in costs.items()
    ]
    hours = [sum(step["core_hours"][index] for step in steps) for index in range(len(scales))]
    sizes = _sizes(path, record)
    totals = [
        {
            "pages": scale,
            "core_hours": round(total, 3),
            "hours": round(total / cores, 3),
            "dollars": round(total * dollars, 2),
            **{name: round(each * scale) for name, each in sizes.items()},
        }
        for scale, total in zip(scales, hours, strict=True)
    ]
    if json:
        print(jsonlib.dumps({"measured_pages": measured, "steps": steps, "totals": totals}))
        return
    heads = [f"{scale:,} pages" for scale in scales]
    print_table(
        ("step", "us a page", *(f"core h, {head}" for head in heads)),
        [
            (step["step"], step["microseconds_a_page"], *(f"{value:,.3g}" for value in step["core_hours"]))
            for step in steps
        ],
    )
    names = {
        "core_hours": "core hours",
        "hours": f"hours on {cores:,} cores",
        "dollars": f"dollars at {dollars:g} a core hour",
    }
    table = [(label, *(f"{row[name]:,.4g}" for row in totals)) for name, label in names.items()]
    table += [(name.replace("_", " "), *(size(row[name]) for row in totals)) for name in sizes]
    print_table(("all", *heads), table)
    console.print(
        f"measured on {measured:,} pages of {size(record['steps'][0]['bytes'] / max(1, measured))} each. "
        "Every step grows with the pages, sorting signatures a little faster (n log n). "
        "Transfer and storage are not priced.",
        markup=False,
    )


def _seconds(step: str, seconds: float, measured: int, pages: int) -> float:
    growth = pages / measured
    return (
        seconds
        * growth
        * (math.log2(max(2, pages)) / math.log2(max(2, measured)) if step in _SORTING_STEPS else 1)
    )


def _sizes(path: Path, record: dict[str, Any]) -> dict[str, float]:
    """Bytes a page: read, written, and on disk while deduplicating."""
    path = find_run(path).path
    folder, measured = path / "data", record["metrics"]["pages"]
    files = (
        jsonlib.loads((path / "crawl" / "files.json").read_text())
        if (path / "crawl" / "files.json").exists()
        else []
    )
    written = sum(file.stat().st_size for file in folder.glob("documents-*.parquet"))
    dropped = sum(file.stat().st_size for file in folder.glob("removed-*.parquet"))
    candidates = next(row["pages"] for row in record["steps"] if row["step"] == "quality")
    bands = find_run(path).recipe().data.bands
    return {
        "crawl_files": sum(file["bytes"] for file in files) / measured,
        "documents": written / measured,
        "dropped_pages": dropped / measured,
        "signatures_and_clusters_on_disk": candidates * (8 * bands + 64) / measured,
    }


def _record(path: Path, name: str) -> Any:
    file = find_run(path).finished("data") / name
    return jsonlib.loads(file.read_text(encoding="utf-8"))
