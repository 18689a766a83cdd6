"""The chapter on the tokenizer: how it cuts a text."""

from html import escape

from crawltalk.core.documents import read_documents
from crawltalk.report.chapter import Chapter
from crawltalk.report.html import table, text
from crawltalk.report.inputs import ReportJob, manifest_of, run_of
from crawltalk.report.words import words

SHOWN = 400
"""Characters of the text that is cut."""


def tokenization(job: ReportJob) -> Chapter:
    """Figures of the tokenizer, and how it cuts the first document."""
    from crawltalk.tokenizer import Tokenizer

    tokenizer = Tokenizer.load(job.inputs["tokenizer"])
    shown = next(iter(read_documents(job.inputs["data"]))).text[:SHOWN]
    tokens = tokenizer.encode(shown)
    pieces = "".join(f'<span class="token">{escape(tokenizer.decode([token]))}</span>' for token in tokens)
    metrics = manifest_of(job.inputs["tokenizer"]).metrics
    mixture = manifest_of(job.inputs["tokens"]).metrics
    return Chapter(
        f"A model reads no letters. Its texts are cut into {text(metrics['vocab_size'])} kinds of pieces, the tokens, "
        f"of {text(metrics['bytes_per_token'])} bytes on average; these {text(len(shown))} characters are "
        f"{text(len(tokens))} of them.",
        figure=f"<pre>{pieces}</pre>",
        reading='<p><a href="tokens.html">Type a text of your own, and watch words being built from letters</a></p>',
        details=[
            (
                "The tokenizer in figures",
                table(("", "value"), [(words(name), of) for name, of in metrics.items()]),
            ),
            (
                "Which documents are trained on, and how often",
                table(("", "value"), [(words(name), of) for name, of in mixture.items()]),
            ),
        ],
        commands=[f'crawltalk tokens "..." --model {run_of(job)}'],
    )
