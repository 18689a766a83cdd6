"""The chapter on what models know, decline and make up."""

from html import escape
from pathlib import Path
from typing import Any

from crawltalk.report.chapter import Chapter
from crawltalk.report.html import clip, lines_figure, percent, table, with_interval
from crawltalk.report.inputs import ReportJob, json_of, manifest_of, rows_of, run_of

SHARES = ("questions", "correct", "declined", "incorrect")
WAYS = {
    "quoted": "by a sentence of the page",
    "free": "in words of its own",
    "without": "when the page is not among those searched",
}
"""How an assistant answers about what search has found."""


def factuality(job: ReportJob) -> Chapter | None:
    """What both models know, decline and make up; whether agreement tells it; and the same questions with a page."""
    path = job.inputs["evals"] / "factuality.json"
    if not path.exists():
        return None
    result = json_of(path)
    # the model that was asked, if it is not the run's own
    elsewhere = manifest_of(job.inputs["factuality"]).config.get("base")
    asker = Path(str(elsewhere)).name if elsewhere else "base model"
    asked = [row for row in rows_of(job.inputs["factuality"] / "questions.jsonl") if row["replies"]]
    unknown = next((group for group in result["groups"] if group["seen"] == "never"), result["groups"][-1])
    return Chapter(
        f"Asked about what it has never read, the {escape(asker)} makes something up in "
        f"{percent(unknown['base']['incorrect'])} of the cases, and never says that it does not know. So it was asked "
        "many questions, several times each; what it got wrong each time was taught as something to decline. The "
        f"assistant makes something up in {percent(unknown['assistant']['incorrect'])} of the cases and declines "
        f"{percent(unknown['assistant']['declined'])}.",
        figure=_groups(result["groups"], asker, bool(elsewhere)),
        reading=_searched(result),
        details=[
            (
                f"Does agreement among the samples of the {asker} tell what it knows?",
                _reliability(result, asker),
            ),
            (f"What the {asker} was asked", _examples(asked, asker, bool(elsewhere))),
        ],
        commands=[f"crawltalk show {run_of(job)}/factuality/questions.jsonl"],
    )


def _groups(groups: list[dict[str, Any]], asker: str, elsewhere: bool) -> str:
    """A bar of three colours for each group of questions and model."""
    about = "names that other documents mention" if elsewhere else "pages that training showed"
    rows = "".join(
        f"<tr><td>{about} {escape(str(group['seen']))}</td><td>{escape(name)}</td><td class='track'>"
        + "".join(
            f"<div class='part {kind}' style='width:{100 * group[model][kind]:.1f}%' "
            f"title='{kind}: {group[model][kind]:.2f}'></div>"
            for kind in SHARES[1:]
        )
        + "</td></tr>"
        for group in groups
        for model, name in (("base", asker), ("assistant", "assistant"))
    )
    legend = " ".join(f"<span class='part {kind}'></span> {kind}" for kind in SHARES[1:])
    figures = table(
        ("seen", "model", *SHARES),
        [
            (group["seen"], name, *_shares(group[model]))
            for group in groups
            for model, name in (("base", asker), ("assistant", "assistant"))
        ],
    )
    return (
        f'<figure class="wide"><table class="bars">{rows}</table><figcaption>{legend}</figcaption></figure>'
        f"<details><summary>In figures</summary>{figures}</details>"
    )


def _shares(row: dict[str, Any]) -> list[Any]:
    """The cells of a row: how many questions, and the shares with their intervals."""
    count = row["questions"]
    return [count, *(with_interval(row[name], count) if count else "-" for name in SHARES[1:])]


def _searched(result: dict[str, Any]) -> str:
    """The same questions with the page that search finds."""
    rows = [(WAYS.get(way, way), *_shares(row)) for way, row in result["searched"].items()]
    return (
        "<h3>Pages that were never read, found by search and put before the question</h3>"
        f"<p>The right page is found for {percent(result['found'])} of the questions. A random sentence of its passage "
        f"would answer {percent(result['chance'])} of them.</p>" + table(("how it answers", *SHARES), rows)
    )


def _reliability(result: dict[str, Any], asker: str) -> str:
    bins, points = result["reliability"], result["risk"]
    return lines_figure(
        [
            ("most frequent reply", [row["agreement"] for row in bins], [row["correct"] for row in bins]),
            ("as sure as right", [0, 1], [0, 1]),
        ],
        "share of samples that agree",
        "share that is right",
        f"Questions in each group: {', '.join(str(row['questions']) for row in bins)}.",
    ) + lines_figure(
        [
            (asker, [row["coverage"] for row in points], [row["risk"] for row in points]),
            ("assistant", [result["assistant"]["coverage"]] * 2, [0, result["assistant"]["risk"]]),
        ],
        "share of questions answered",
        "share of the answers that are wrong",
        f"If the {asker} answered only where its samples agree; and the assistant, which decides by itself.",
    )


def _examples(asked: list[dict[str, Any]], asker: str, elsewhere: bool) -> str:
    return table(
        ("mentioned" if elsewhere else "read", "title", f"answers of the {asker}", "right", "then"),
        [
            (
                row["seen"],
                row["title"],
                clip(" / ".join(row["replies"][:3]), 200),
                row["answer"],
                row["decision"],
            )
            for seen in ("often", "rarely", "never")
            for row in [row for row in asked if row["seen"] == seen and row["split"] == "train"][:3]
        ],
    )
