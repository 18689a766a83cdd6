"""The report: one HTML file that works offline, in light and in dark, and shows the whole journey.

A section is a plain function from the job, whose inputs are the stages' folders, to HTML, or to None if it
has nothing to show.
"""

from collections.abc import Callable
from importlib.resources import files

from crawltalk import recipe
from crawltalk.core.files import write_atomically
from crawltalk.report import abilities, redteam, reinforcement, sections
from crawltalk.report.html import text
from crawltalk.report.tokens_page import tokens_page
from crawltalk.run.stage import Job, Metrics

Section = Callable[[Job[recipe.Report]], str | None]

SECTIONS: dict[str, Section] = {
    "The journey": sections.journey,
    "Crawl to corpus": sections.funnel,
    "Tokenizer": sections.tokenizer,
    "Pretraining": sections.pretrain,
    "Scaling": sections.scaling,
    "The base model": sections.base_samples,
    "Recall": sections.recall,
    "Factuality": sections.factuality,
    "The assistant": sections.conversations,
    "Reinforcement": reinforcement.reinforcement,
    "Evaluation": sections.evaluation,
    "Weights and context": abilities.weights_and_context,
    "Tokens to think": abilities.thinking,
    "Jagged intelligence": abilities.jagged,
    "Red team": redteam.red_team,
    "Lineage": sections.lineage,
}


def report(job: Job[recipe.Report]) -> Metrics:
    """Write report.html and tokens.html."""
    parts, links = [], []
    for index, (title, section) in enumerate(SECTIONS.items()):
        job.progress.update(index + 1, len(SECTIONS), "sections")
        html = section(job)
        if html is not None:
            anchor = title.lower().replace(" ", "-")
            links.append(f'<a href="#{anchor}">{text(title)}</a>')
            parts.append(f'<section id="{anchor}"><h2>{text(title)}</h2>{html}</section>')
    sample = (job.inputs["crawl"] / "CREDITS.txt").exists()
    credit = " Encyclopedia text in the embedded crawl: Wikipedia, CC BY-SA 4.0." if sample else ""
    style = files("crawltalk.report").joinpath("style.css").read_text(encoding="utf-8")
    page = (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width">'
        f"<title>crawltalk report</title><style>{style}</style></head>"
        "<body><main><header><h1>First it crawls, then it talks</h1>"
        f"<p>From a raw web crawl to an assistant, each figure with the command that makes it.{credit}</p></header>"
        f"<nav>{''.join(links)}</nav>{''.join(parts)}</main></body></html>\n"
    )
    write_atomically(job.out / "report.html", page.encode())
    write_atomically(job.out / "tokens.html", tokens_page(job).encode())
    return {"sections": len(parts), "bytes": len(page.encode())}
