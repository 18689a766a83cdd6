"""The chapter on the data stage: the funnel from raw pages to documents, and how right each step was."""

from itertools import zip_longest
from typing import Any

from crawltalk.report.chapter import Chapter
from crawltalk.report.html import bars, lines_figure, percent, table, text
from crawltalk.report.inputs import ReportJob, json_of, manifest_of, run_of

STEPS = {
    "crawl": "raw pages",
    "broken": "that can be read",
    "url": "on addresses that are not blocked",
    "early_language": "in the languages asked for, at a first look",
    "extraction": "with a main text",
    "site_lines": "without lines that a site repeats",
    "language": "in the languages asked for",
    "quality": "that read like text",
    "signature": "with a signature",
    "duplicate": "that are not nearly the same as another",
    "pii": "with addresses of people masked",
}
"""The pages that are left after each step of the data stage, in words."""
WENT = {
    "broken": "could not be read",
    "url": "stood on blocked addresses",
    "extraction": "had no main text",
    "early_language": "were in other languages",
    "language": "were in other languages",
    "quality": "did not read like text",
    "duplicate": "were nearly the same as another",
}
"""Why pages went, in words."""


def corpus(job: ReportJob) -> Chapter:
    """Pages left after each step, why the others were dropped, and, if the truth is known, how right that was."""
    data = json_of(job.inputs["data"] / "funnel.json")
    steps, run = data["steps"], run_of(job)
    first, last = steps[0]["pages"], steps[-1]["pages"]
    lost: dict[str, int] = {}
    for row in data["removed"]:
        lost[row["step"]] = lost.get(row["step"], 0) + row["pages"]
    why = ", ".join(
        f"{text(pages)} {WENT.get(step, f'went at the step {step}')}"
        for step, pages in sorted(lost.items(), key=lambda pair: -pair[1])[:3]
    )
    sentence = f"Of {text(first)} raw pages {text(last)} are left as documents" + (
        f": {why}." if why else "."
    )
    truth = data.get("truth")
    details = [("Why pages went, with an example of each reason", _reasons(data["removed"]))]
    if truth:
        verdicts = truth["steps"].values()
        worst = min((min(row["precision"], row["recall"]) for row in verdicts), default=1.0)
        sentence += (
            " What each page of this crawl is, is known; so the steps can be judged: the least precision or recall of "
            f"any of them is {percent(worst)}."
        )
        details.append(("Each step against the truth", _truth(truth)))
    return Chapter(
        sentence,
        figure=bars(
            [(STEPS.get(row["step"], row["step"]), row["pages"], text(row["pages"])) for row in steps],
            max(1, first),
            "Pages left after each step.",
        ),
        details=[
            *details,
            ("Languages, hosts, lengths", _counts(data)),
            ("Near-duplicates", _duplicates(job, data["duplicates"])),
            ("The table of the funnel", _funnel(steps)),
        ],
        commands=[
            f"crawltalk funnel {run}",
            f"crawltalk show {run}/data/removed-00000.parquet --find duplicate",
        ],
    )


def _funnel(steps: list[dict[str, Any]]) -> str:
    return table(
        ("after the step", "pages", "bytes or characters"),
        [
            (
                row["step"],
                row["pages"],
                f"{row.get('bytes', row.get('characters', 0)):,} {'bytes' if 'bytes' in row else 'characters'}",
            )
            for row in steps
        ],
    )


def _reasons(removed: list[dict[str, Any]]) -> str:
    reasons = sorted(removed, key=lambda row: -row["pages"])[:24]
    return table(
        ("step", "reason", "pages", "example"),
        [
            (row["step"], row["reason"], row["pages"], row["examples"][0] if row["examples"] else "")
            for row in reasons
        ],
    )


def _truth(truth: dict[str, Any]) -> str:
    verdicts = [
        (step, row["precision"], row["recall"], row["found"], row["expected"])
        for step, row in truth["steps"].items()
    ]
    return (
        table(("step", "precision", "recall", "pages dropped", "pages to drop"), verdicts)
        + f"<p>Words of the extracted text that are right (F1): {text(truth['extract_f1'])}. "
        f"Planted addresses of people left: {text(truth['pii_left'])}.</p>"
    )


def _counts(data: dict[str, Any]) -> str:
    """The most frequent languages and hosts, and quantiles of the lengths, side by side."""
    columns = {
        ("language", "pages"): data["languages"],
        ("host in the crawl", "pages"): data["hosts"]["crawl"],
        ("host of documents", "documents"): data["hosts"]["documents"],
        ("share of documents", "characters at most"): {
            f"{name[1:]} %": count for name, count in data["characters"].items()
        },
    }
    pairs = [list(counts.items())[:8] for counts in columns.values()]
    rows = [sum(row, ()) for row in zip_longest(*pairs, fillvalue=("", ""))]
    return table([name for pair in columns for name in pair], rows)


def _duplicates(job: ReportJob, duplicates: dict[str, Any]) -> str:
    """Sizes of the clusters, similarities of dropped pages to kept ones, and the probability that a pair is found at
    each similarity.
    """
    config = manifest_of(job.inputs["data"]).config
    bands, rows = config["bands"], config["rows"]
    steps = [step / 50 for step in range(51)]
    seen = duplicates["similarities"]
    most = max(seen.values(), default=1)
    curve = lines_figure(
        [
            ("probability that a pair is found", steps, [1 - (1 - step**rows) ** bands for step in steps]),
            (
                "dropped pages (of the most frequent)",
                [float(step) for step in seen],
                [count / most for count in seen.values()],
            ),
        ],
        "exact Jaccard similarity",
        "",
        f"{bands} bands of {rows} rows; and how alike dropped pages really are to the page that stays.",
    )
    return table(("documents alike", "clusters"), list(duplicates["sizes"].items())[:12]) + curve
