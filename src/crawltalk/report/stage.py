"""The report: one HTML file that works offline, in light and in dark and on paper, and tells the whole journey in the
order of the talk.

A chapter is a plain function from the job, whose inputs are the stages' folders, to a `Chapter`, or to None if it has
nothing to show.
"""

from collections.abc import Callable
from pathlib import Path

from crawltalk import recipe
from crawltalk.core.files import write_atomically
from crawltalk.report import abilities, redteam, reinforcement
from crawltalk.report.assistant import assistant, scores
from crawltalk.report.base_model import base_model
from crawltalk.report.benchmarks import benchmarks
from crawltalk.report.chapter import Chapter, anchor, render
from crawltalk.report.claims import claims_of, read_claims
from crawltalk.report.corpus import corpus
from crawltalk.report.factuality import factuality
from crawltalk.report.html import page, text
from crawltalk.report.journey import costs, origin, summary
from crawltalk.report.tokenization import tokenization
from crawltalk.report.tokens_page import tokens_page
from crawltalk.report.training import pretraining
from crawltalk.run.stage import Job, Metrics

CHAPTERS: dict[str, Callable[[Job[recipe.Report]], Chapter | None]] = {
    "Crawl": corpus,
    "Tokens": tokenization,
    "Pretraining": pretraining,
    "Base model": base_model,
    "Assistant": assistant,
    "Hallucinations": factuality,
    "Weights and context": abilities.weights_and_context,
    "Tokens to think": abilities.thinking,
    "Jagged intelligence": abilities.jagged,
    "Reinforcement": reinforcement.reinforcement,
    "Red team": redteam.red_team,
    "Scores": scores,
    "Standard benchmarks": benchmarks,
    "Cost": costs,
    "Origin": origin,
}


def report(job: Job[recipe.Report]) -> Metrics:
    """Write report.html and tokens.html."""
    claims = read_claims(Path(job.config.lab)) if job.config.lab else {}
    parts, links = [], []
    for index, (title, chapter) in enumerate(CHAPTERS.items()):
        job.progress.update(index + 1, len(CHAPTERS), "chapters")
        told = chapter(job)
        if told is not None:
            links.append(f'<a href="#{anchor(title)}">{text(title)}</a>')
            parts.append(render(title, told, claims_of(title, claims)))
    sample = (job.inputs["crawl"] / "CREDITS.txt").exists()
    credit = " Encyclopedia text in the embedded crawl: Wikipedia, CC BY-SA 4.0." if sample else ""
    html = page(
        "crawltalk report",
        f"<nav>{''.join(links)}</nav><main><header><h1>First it crawls, then it talks</h1>{summary(job)}"
        f'<p class="soft">Each chapter names the command that makes its figures.{credit}</p></header>'
        f"{''.join(parts)}</main>",
    ).encode()
    write_atomically(job.out / "report.html", html)
    write_atomically(job.out / "tokens.html", tokens_page(job).encode())
    return {"chapters": len(parts), "bytes": len(html)}
