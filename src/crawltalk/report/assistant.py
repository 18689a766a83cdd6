"""The chapters on the assistant: the same questions to each model of the run, conversations, and scores."""

from collections.abc import Sequence
from html import escape
from typing import Any

from crawltalk.report.chapter import Chapter
from crawltalk.report.html import bars, clip, conversation, percent, table, text, with_interval
from crawltalk.report.inputs import ReportJob, json_of, rows_of, run_of

KINDS = {
    "pretrain": "base model",
    "sft": "after fine-tuning",
    "dpo": "after preferences",
    "rlhf": "after a reward model",
    "grpo": "after reinforcement",
}
"""What the models of a run are called beside each other."""
TALKS = 6
"""Conversations that stand open."""


def assistant(job: ReportJob) -> Chapter | None:
    """The same questions to each model, and conversations with the last one."""
    questions = rows_of(job.inputs["evals"] / "models.jsonl")
    rows = rows_of(job.inputs["evals"] / "conversations.jsonl")[: job.config.conversations]
    if not questions and not rows:
        return None
    path = job.inputs["evals"] / "scores.json"
    about = {task: row.get("about") for task, row in json_of(path).items()} if path.exists() else {}
    talks = [
        conversation(
            [(m["role"], m["content"]) for m in row["messages"]], about.get(row["source"]) or row["source"]
        )
        for row in rows
    ]
    makers = [name for name, kind in job.models.items() if kind == "assistant"]
    return Chapter(
        "The base model goes on with a question as a web page would; fine-tuned on conversations, the same weights "
        "answer it"
        + (
            ", and what can be practised is practised afterwards. "
            if any((job.inputs[name] / "rollouts.jsonl").exists() for name in makers)
            else ". "
        )
        + "The same questions to each model of this run, side by side:",
        figure=_side_by_side(questions),
        reading=(
            f'<h3>Conversations with it</h3><div class="talks">{"".join(talks[:TALKS])}</div>'
            if talks
            else ""
        )
        + _who_it_is(job),
        details=[(f"{len(talks) - TALKS} more", f'<div class="talks">{"".join(talks[TALKS:])}</div>')]
        if len(talks) > TALKS
        else (),
        commands=[f"crawltalk chat --model {run_of(job)}"],
    )


def _who_it_is(job: ReportJob) -> str:
    """What it says of itself, which is what it was taught to say."""
    rows = [row for row in rows_of(job.inputs["evals"] / "samples.jsonl") if row["task"] == "identity"]
    if not rows:
        return ""
    share = sum(row["score"] for row in rows) / len(rows)
    return (
        "<h3>Who it says it is</h3><p>A model has no self to look at: it says of itself what some conversations taught "
        f"it to say. To {len(rows)} such questions it gives the reply that it was taught, word for word, in "
        f"{percent(share)} of the cases: “{escape(rows[0]['prompt'])}” – “{escape(rows[0]['reply'])}”</p>"
    )


def _side_by_side(questions: Sequence[dict[str, Any]]) -> str:
    if not questions:
        return ""
    names = list(questions[0]["replies"])
    head = "".join(f"<th>{text(KINDS.get(name, name))}</th>" for name in names)
    body = "".join(
        f'<tr><td colspan="{len(names)}" class="question">{escape(row["prompt"])}</td></tr>'
        f"<tr>{''.join(_said(name, row['replies'][name]) for name in names)}</tr>"
        for row in questions
    )
    return f'<div class="wide"><table class="beside"><thead><tr>{head}</tr></thead>{body}</table></div>'


def _said(name: str, reply: str) -> str:
    """A model's reply; on small screens its name stands before it."""
    said = escape(clip(reply.strip(), 240) or "(nothing)")
    return f'<td class="said" data-model="{text(KINDS.get(name, name))}">{said}</td>'


def scores(job: ReportJob) -> Chapter:
    """Every score with its interval, and examples of each task."""
    found = json_of(job.inputs["evals"] / "scores.json")
    shares = {task: row for task, row in found.items() if task != "bits_per_byte"}
    others = [
        (task, _with_interval(row), row.get("n", ""), row.get("stderr", "-"), row.get("about", ""))
        for task, row in found.items()
    ]
    samples = rows_of(job.inputs["evals"] / "samples.jsonl")
    examples = [
        (task, clip(row["prompt"], 160), clip(row["answer"], 160), clip(row["reply"], 200), row["score"])
        for task in dict.fromkeys(row["task"] for row in samples)
        for row in [row for row in samples if row["task"] == task][:4]
    ]
    return Chapter(
        f"{len(shares)} kinds of problems were put to the models of this run. Each bar is the share that went well, "
        f"with the interval that chance leaves it at {percent(0.95)} (Wilson's).",
        figure=bars(
            [(row.get("about") or task, row["score"], _with_interval(row)) for task, row in shares.items()],
            1.0,
        ),
        details=[
            (
                "All scores by name",
                table(("name", "score, 95 %", "problems", "standard error", "what it is"), others),
            ),
            ("Examples of each task", table(("task", "asked", "expected", "replied", "score"), examples)),
        ],
        commands=[f"crawltalk evals {run_of(job)}"],
    )


def _with_interval(row: dict[str, Any]) -> str:
    if row.get("stderr") is None:
        return f"{row['score']:.2f}"
    return with_interval(row["score"], row["n"])
