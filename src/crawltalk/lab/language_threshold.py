"""What the threshold of language identification does to a corpus, and to a model that is trained on it."""

from collections.abc import Mapping, Sequence

import pyarrow.parquet as pq

from crawltalk.core.charts import panels, svg
from crawltalk.core.documents import read_documents
from crawltalk.core.jsonl import read_jsonl
from crawltalk.data.filters.language import likely
from crawltalk.data.record.truth import Truth
from crawltalk.lab.corpora import Corpora
from crawltalk.lab.experiment import Experiment, Figures, Judgement, Trial, verdict_of
from crawltalk.lab.journeys import FOLDER, journey
from crawltalk.run.folder import RunFolder

TOKENS = 200_000
THRESHOLDS = (0.0, 0.1, 0.3, 0.5, 0.65, 0.8, 0.9, 0.95)
"""Least probabilities of English."""
TRAINED = (0.0, 0.1, 0.65, 0.9)
FINEWEB = 0.65
LEAST_WORSE, MOST_APART, LEAST_PRECISE = 0.05, 0.02, 0.99
LANGUAGES = 176
"""That the model of languages knows."""


def run(trial: Trial) -> Figures:
    """Precision and recall of English at each threshold, and bits per byte of English pages after a training on what
    some of them keep.
    """
    made = journey(trial, until="tokenizer")
    corpora = Corpora(made)
    pages = _pages(made)
    english = {text: likely(text, LANGUAGES).get("en", 0.0) for text in pages}
    figures: Figures = {}
    for threshold in THRESHOLDS:
        kept = [text for text, score in english.items() if score >= threshold]
        right = sum(pages[text] for text in kept)
        figures[f"{threshold:g}"] = {
            "pages": len(kept),
            "precision": right / max(1, len(kept)),
            "recall": right / max(1, sum(pages.values())),
        }
    texts = [*corpora.kept, *corpora.dropped["language"]]
    for threshold in TRAINED:
        chosen = [text for text in texts if english[text] >= threshold]
        bits = corpora.loss(trial, f"threshold-{threshold:g}", chosen, TOKENS)
        figures[f"{threshold:g}"]["bits per byte"] = bits
    return figures


def _pages(made: RunFolder) -> Mapping[str, bool]:
    """Text -> whether it is English, of the pages that the data stage keeps or drops for their language."""
    truth = {row.record_id: row.language for row in read_jsonl(made.folder("crawl") / "truth.jsonl", Truth)}
    found = {
        document.text: truth.get(document.id) == "en" for document in read_documents(made.folder("data"))
    }
    for path in sorted(made.folder("data").glob("removed-*.parquet")):
        rows = pq.read_table(path, columns=["id", "step", "text"]).to_pylist()
        found |= {
            row["text"]: truth.get(row["id"]) == "en"
            for row in rows
            if row["step"] == "language" and row["text"]
        }
    return found


def rule(figures: Sequence[Figures]) -> Judgement:
    """No threshold costs loss, and where it stands between low and FineWeb's does not."""
    none, low, usual, high = (
        [row[f"{threshold:g}"]["bits per byte"] for row in figures] for threshold in TRAINED
    )
    worse = [a / b - 1 for a, b in zip(none, usual, strict=True)]
    lower = [a / b - 1 for a, b in zip(low, usual, strict=True)]
    higher = [a / b - 1 for a, b in zip(high, usual, strict=True)]
    fineweb = [row[f"{FINEWEB:g}"] for row in figures]
    clear = [
        a >= LEAST_WORSE and abs(b) <= MOST_APART and min(row["precision"], row["recall"]) >= LEAST_PRECISE
        for a, b, row in zip(worse, lower, fineweb, strict=True)
    ]
    count = len(figures)
    lost = 1 - sum(row[f"{TRAINED[-1]:g}"]["recall"] for row in figures) / count
    return Judgement(
        verdict=verdict_of(clear),
        effect={
            "no threshold: more bits per byte": sum(worse) / count,
            f"{TRAINED[1]}: more bits per byte": sum(lower) / count,
            f"{TRAINED[-1]}: more bits per byte": sum(higher) / count,
            f"precision at {FINEWEB}": sum(row["precision"] for row in fineweb) / count,
            f"recall at {FINEWEB}": sum(row["recall"] for row in fineweb) / count,
            f"English pages lost at {TRAINED[-1]}": lost,
        },
        summary=(
            f"Without a threshold a model needs {sum(worse) / count:+.1%} bits per byte of English pages on equally "
            f"many tokens; with {TRAINED[1]} instead of FineWeb's {FINEWEB} {sum(lower) / count:+.1%}, with "
            f"{TRAINED[-1]}, which loses {lost:.0%} of the English pages, {sum(higher) / count:+.1%}."
        ),
    )


def figure(figures: Sequence[Figures]) -> str:
    """Precision, recall and bits per byte against the threshold."""
    chart, (shares, losses) = panels(
        [("threshold of English", "share of the pages"), ("threshold of English", "bits per byte")]
    )
    for number, row in enumerate(figures):
        for index, name in enumerate(("precision", "recall")):
            values = [row[f"{threshold:g}"][name] for threshold in THRESHOLDS]
            shares.plot(THRESHOLDS, values, color=f"C{index}", label=None if number else name)
        bits = [row[f"{threshold:g}"]["bits per byte"] for threshold in TRAINED]
        losses.plot(TRAINED, bits, "o-", color="C2", markersize=4)
    return svg(chart)


EXPERIMENT = Experiment(
    name="language_threshold",
    claim="Pages below a threshold of English are to be dropped; where it stands matters less than that there is one.",
    source="Karpathy, Deep Dive into LLMs (2025), on FineWeb's 0.65 (Penedo et al. 2024, section 3.2)",
    prediction=(
        f"In each seed a model without a threshold needs {LEAST_WORSE:.0%} more bits per byte of English pages at "
        f"least than with {FINEWEB}, one with {TRAINED[1]} needs as many to {MOST_APART:.0%}, and {FINEWEB} has a "
        f"precision and a recall of {LEAST_PRECISE} at least. Else: partly, or not at this scale if no seed shows it."
    ),
    method=(
        "The pages of the embedded crawl that the data stage keeps or drops for their language, with fastText's "
        "probability of English; what each page is in, the crawl itself says. Models of 0.6 M parameters, "
        f"{TOKENS:,} tokens each, from the pages above {', '.join(map(str, TRAINED))}. Held-out pages are English and "
        "kept. The crawl has whole pages in three languages; mixed ones, where the threshold decides, are rare in it."
    ),
    run=run,
    judge=rule,
    figure=figure,
    shared=FOLDER,
)
