"""What copies in a training text cost, by their share of it."""

import random
from collections.abc import Callable, Sequence

from crawltalk.lab.corpora import Corpora
from crawltalk.lab.experiment import Experiment, Figures, Judgement, Trial, verdict_of
from crawltalk.lab.figures import line_chart
from crawltalk.lab.journeys import FOLDER, journey
from crawltalk.tokenizer import Tokenizer

TOKENS = 400_000
HALF, MOST = 0.5, 0.86
"""Shares that raw corpora have. SlimPajama lost 49.6 % of RedPajama's bytes, nearly all to MinHash (documents that are
too short are 1.86 %; Soboleva et al. 2023); TxT360 lost 86 % of the documents that filters had left of all snapshots of
Common Crawl (LLM360, 2024). FineWeb lies between: of its 15 T tokens, deduplicated in each snapshot only, 5 T remain if
equal texts are merged over all (Salesforce, fineweb_deduplicated).
"""
LEAST_COST, NOISE = 0.02, 0.01
"""Of the bits per byte: at half copies, and at most of as many as the crawl has. In a pilot (seed 100) half copies cost
4.7 %, and three other orders of the pages, each once, changed it by 0.5 % at most.
"""


def run(trial: Trial) -> Figures:
    """Bits per byte of held-out pages after trainings on equally many tokens, of which a share are copies."""
    corpora = Corpora(journey(trial, until="tokenizer"))
    tokenizer = Tokenizer.load(corpora.run.folder("tokenizer"))
    pages = random.Random(trial.seed).sample(corpora.kept, len(corpora.kept))
    duplicates = len(corpora.dropped["duplicate"])
    shares = {"once": 0.0, "crawl": duplicates / (len(pages) + duplicates), "half": HALF, "most": MOST}
    figures: Figures = {}
    for name, share in shares.items():
        drawn = with_copies(pages, share, TOKENS, lambda text: len(tokenizer.encode(text)) + 1, trial.seed)
        texts = [pages[number] for number in drawn]
        figures[name] = {
            "share": 1 - sum(len(pages[number]) for number in set(drawn)) / sum(map(len, texts)),
            "most_often": max(map(drawn.count, set(drawn))),
            "bits_per_byte": corpora.loss(trial, name, texts, TOKENS),
        }
    return figures


def with_copies(
    pages: Sequence[str], share: float, tokens: int, length: Callable[[str], int], seed: int
) -> list[int]:
    """Numbers of pages that have so many tokens together, of which a share are copies.

    Each page is the next new one or a copy of one of those before, whichever they are: what was copied often is copied
    more often. So the numbers of copies have a heavy tail (Simon 1955), as those of the web have: TxT360 found clusters
    of up to a million near-duplicates. A page is new as long as the copies have their share, so that one long page that
    is copied does not change it.
    """
    rng = random.Random(f"copies {seed}")
    lengths: dict[int, int] = {}
    drawn: list[int] = []
    total = copied = 0
    while total < tokens and len(lengths) < len(pages):
        if drawn and copied < share * total:
            number = rng.choice(drawn)
            copied += lengths[number]
        else:
            number = len(lengths)
            lengths[number] = length(pages[number])
        drawn.append(number)
        total += lengths[number]
    return drawn


def costs_of(row: Figures) -> dict[str, float]:
    """How many more bits per byte each text with copies needs than pages once."""
    once = row["once"]["bits_per_byte"]
    return {name: row[name]["bits_per_byte"] / once - 1 for name in ("crawl", "half", "most")}


def rule(figures: Sequence[Figures]) -> Judgement:
    """Half of copies cost loss, more cost more; as few as the embedded crawl has cost none that is seen."""
    costs = [costs_of(row) for row in figures]
    clear = [LEAST_COST <= cost["half"] < cost["most"] for cost in costs]
    means = {name: sum(cost[name] for cost in costs) / len(costs) for name in costs[0]}
    own = sum(row["crawl"]["share"] for row in figures) / len(figures)
    return Judgement(
        verdict=verdict_of(clear, all(cost["crawl"] < NOISE for cost in costs)),
        effect={
            "the embedded crawl's share of copies: more bits per byte": means["crawl"],
            f"{HALF:.0%} copies: more bits per byte": means["half"],
            f"{MOST:.0%} copies: more bits per byte": means["most"],
        },
        summary=(
            f"At equally many tokens, copies that are {HALF:.0%} of them cost {means['half']:+.1%} bits per byte of "
            f"held-out pages, {MOST:.0%} {means['most']:+.1%}, and the {own:.0%} of the embedded crawl "
            f"{means['crawl']:+.1%}."
        ),
    )


def figure(figures: Sequence[Figures]) -> str:
    """Bits per byte by the share of copies, a line for each seed."""
    lines = [[row[name]["bits_per_byte"] for name in row] for row in figures]
    at = [sum(row[name]["share"] for row in figures) / len(figures) for name in figures[0]]
    return line_chart({"copies": lines}, at, "share of the tokens that are copies", "bits per byte")


EXPERIMENT = Experiment(
    name="deduplication",
    claim=(
        "Deduplication matters: at equal compute a model learns more from pages once than from copies, at shares that "
        "raw crawls have."
    ),
    source="Karpathy, Deep Dive into LLMs (2025), on FineWeb; Lee et al. 2022",
    prediction=(
        f"In each seed {HALF:.0%} copies cost {LEAST_COST:.1%} at least of the bits per byte of held-out pages, and "
        f"{MOST:.0%} more than that. Those of the embedded crawl, 9 %, cost less than {NOISE:.1%}, which is noise, "
        "as in the pilot. Partly, if some seed shows the first two; else not at this scale."
    ),
    method=(
        f"Models of 0.6 M parameters, {TOKENS:,} tokens each of the embedded crawl: each page once; with as large a "
        f"share of copies as the crawl's near-duplicates have; with {HALF:.0%}, which SlimPajama removed of RedPajama; "
        f"with {MOST:.0%}, which TxT360 removed of Common Crawl. Copies are verbatim, and a page that was copied often "
        "is copied more often, so that their numbers have a heavy tail (Simon 1955). Held-out pages have no duplicate."
    ),
    run=run,
    judge=rule,
    figure=figure,
    shared=FOLDER,
)
