"""The chapter on the base model: it writes documents, recites those that it read often, and makes up the others."""

import shlex

from crawltalk.report.chapter import Chapter
from crawltalk.report.html import clip, lines_figure, percent, sample, table
from crawltalk.report.inputs import ReportJob, rows_of, run_of

RECALL = {
    "times": "times seen",
    "pages": "pages",
    "share": "share of tokens recalled",
    "longest": "longest verbatim passage of the page, tokens",
    "traced": "share that stands on any page",
    "quoted": "longest passage of any page, tokens",
    "source": "which page",
    "confidence": "mean probability of what it says",
}
"""Columns of the table of recall."""


def base_model(job: ReportJob) -> Chapter:
    """What it wrote while it learned, several samples of one prompt, and what it knows by heart."""
    written = rows_of(job.model("base") / "samples.jsonl")
    recalled = rows_of(job.inputs["evals"] / "recall.jsonl")
    sentence = "A base model does not answer: it goes on with a text as web pages would."
    if recalled:
        least, most = recalled[0], recalled[-1]
        sentence += (
            f" Of pages that it has read {most['times']:g} times it recites {percent(most['share'])} of the tokens; "
            + (
                f"pages that it has never seen it makes up in the same tone ({percent(least['share'])} are right)."
                if least["times"] == 0
                else f"of those that it has read {least['times']:g} times {percent(least['share'])}."
            )
        )
    reading = ""
    if written:
        reading += "<h3>What it wrote at the first steps, and at the last ones</h3>" + "".join(
            sample(f"step {row['step']:,}", row["prompt"], row["text"])
            for row in (*written[:2], *written[-2:])
        )
    prompt = written[0]["prompt"] if written else "The"
    return Chapter(
        sentence,
        figure=lines_figure(
            [("share of tokens", [row["times"] for row in recalled], [row["share"] for row in recalled])],
            "times that a page was seen in training",
            "share recalled",
            "Tokens of a page that it gets right when it sees only the beginning.",
        )
        if recalled
        else "",
        reading=reading,
        details=[
            ("The same prompt several times: each sample is another document", _samples(job)),
            ("Pages and what it makes of them", _recited(recalled)),
            (
                "Recall in figures",
                table(tuple(RECALL.values()), [tuple(row[name] for name in RECALL) for row in recalled])
                if recalled
                else "",
            ),
        ],
        commands=[f"crawltalk generate {shlex.quote(prompt)} --model {run_of(job)}"],
    )


def _samples(job: ReportJob) -> str:
    tables = []
    for row in rows_of(job.inputs["evals"] / "side_by_side.jsonl"):
        replies = [clip(reply, 200) for reply in row["replies"]]
        tables.append(
            table([f"{row['prompt']} ... ({index + 1})" for index in range(len(replies))], [replies])
        )
    return "".join(tables)


def _recited(recalled: list[dict]) -> str:
    return (
        "".join(
            sample(f"seen {row['times']:g} times: the model", row["prompt"], row["reply"])
            + sample("the page", row["prompt"], row["page"])
            for row in (recalled[0], recalled[-1])
            if recalled
        )
        if recalled
        else ""
    )
