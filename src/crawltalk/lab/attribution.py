"""What a document is worth to what a model says: how well is it foretold, if the truth is to train again without it?"""

import random
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import mean

import numpy as np
import torch
import torch.nn.functional as F

from crawltalk.attribution.gradients import Example, padded
from crawltalk.attribution.influence import influence
from crawltalk.attribution.retrieved import scores_by_ngrams, scores_by_spans, scores_by_words
from crawltalk.core.charts import GREY, panels, svg
from crawltalk.core.jsonl import write_jsonl
from crawltalk.core.shards import ShardIndex, write_index, write_split
from crawltalk.core.types import Document, Placement
from crawltalk.crawl.sample import read_articles
from crawltalk.lab.experiment import Experiment, Figures, Judgement, Trial
from crawltalk.model.hf import load_model, save_model
from crawltalk.model.shape import Shape
from crawltalk.model.transformer import Transformer
from crawltalk.recipe import Index, Machine, Optim
from crawltalk.retrieval.passages import Passages, build_index
from crawltalk.retrieval.stage import index
from crawltalk.retrieval.trace import MIN_TOKENS, TraceIndex
from crawltalk.run.stage import Job
from crawltalk.tokenizer import Tokenizer
from crawltalk.tokenizer.bpe import learn_merges, merges_for
from crawltalk.tokenizer.count import count_chunks
from crawltalk.train.batches import IGNORE_INDEX, Batch
from crawltalk.train.loop import TrainingOptions, fit
from crawltalk.train.objectives.cross_entropy import cross_entropy

TOPIC = "Physical sciences"
PAGES, ASKED = 240, 20
"""Pages to train on; texts of each kind whose loss is measured."""
KINDS = ("recited", "restated", "unseen")
VOCABULARY, LENGTH = 768, 64
"""Tokens of the tokenizer, and of a page."""
PASSES, ROWS = 5, 16
"""Over the pages, and pages in a step."""
STEPS = PASSES * PAGES // ROWS
WHOLE = "whole"
"""The training whose model is explained."""
LEFT_OUT, SUBSETS = 0.5, 40
"""Share of the pages that a training again leaves out, and how many such trainings there are for each order."""
CHECKPOINTS = 2
DAMPING = 0.01
"""Of the division by mean squares."""
SHORT = 3
"""Tokens of a span, beside the trace's own least number."""
OPTIM = Optim(muon_lr=0.02, adamw_lr=0.01, warmup=0.05, cooldown=0.5, spike=0.0)
OURS, OTHERS = "Fisher, checkpoints", ("BM25", "spans of 3", "dot")
ENOUGH, CHANCE = 0.5, 0.1


@dataclass(frozen=True)
class Corpus:
    """What is learned, and what is asked of it."""

    tokenizer: Tokenizer
    texts: Sequence[str]
    pages: Sequence[Example]
    queries: Sequence[Example]
    """`ASKED` of each kind, in this order: the second half of a page; the description of a page, which does not stand
    in it, behind its title; a page that is not learned.
    """
    own: Sequence[int | None]
    """The page that a query is from, by its number."""


def corpus_of(seed: int) -> Corpus:
    """Pages of the embedded crawl, drawn by the seed."""
    articles = [article for article in read_articles("en") if article["topic"] == TOPIC]
    drawn = random.Random(f"attribution {seed}").sample(articles, PAGES + ASKED)
    texts = [f"{one['title']}\n{' '.join(one['extract'].split())}" for one in drawn]
    chunks = count_chunks([text[: 8 * LENGTH] for text in texts[:PAGES]])
    tokenizer = Tokenizer.trained(learn_merges(chunks, merges_for(VOCABULARY)))
    rows = [[tokenizer.eot, *tokenizer.encode(text)][: LENGTH + 1] for text in texts]

    def learned(ids: list[int], start: int) -> Example:
        return ids, [position >= start for position in range(len(ids))]

    recited = [learned(row, len(row) // 2) for row in rows[:ASKED]]
    restated = []
    for one in drawn[ASKED : 2 * ASKED]:
        title = [tokenizer.eot, *tokenizer.encode(f"{one['title']}\n")]
        restated.append(learned([*title, *tokenizer.encode(one["description"])][: LENGTH + 1], len(title)))
    unseen = [learned(row, 1) for row in rows[PAGES:]]
    return Corpus(
        tokenizer,
        [tokenizer.decode(row[1:]) for row in rows[:PAGES]],
        [learned(row, 1) for row in rows[:PAGES]],
        [*recited, *restated, *unseen],
        [*range(2 * ASKED), *[None] * ASKED],
    )


def run(trial: Trial) -> Figures:
    """Train on all pages, and several times without half of them; how well do scores from the first foretell these?"""
    corpus = corpus_of(trial.seed)
    model = _train(trial, corpus, WHOLE, range(PAGES), 0, save_every=STEPS // CHECKPOINTS)
    saved = sorted((trial.out / WHOLE / "checkpoints").iterdir())
    scores = _scores(trial, corpus, [load_model(folder) for folder in saved])
    rng = np.random.default_rng([trial.seed, 1])
    kept = [np.sort(rng.permutation(PAGES)[: round(PAGES * (1 - LEFT_OUT))]).tolist() for _ in range(SUBSETS)]
    losses = np.array(
        [
            [
                _losses(_train(trial, corpus, f"kept-{number:02d}-{order}", pages, order), corpus.queries)
                for order in range(2)
            ]
            for number, pages in enumerate(kept)
        ]
    ).transpose(1, 0, 2)  # [order, subset, query]
    before = _losses(model, corpus.queries)
    return {
        "loss": {kind: float(before[part].mean()) for kind, part in _parts().items()},
        "loss_without": {kind: float(losses[0][:, part].mean()) for kind, part in _parts().items()},
        "ceiling": _by_kind([spearman(*losses[:, :, query]) for query in range(losses.shape[2])]),
        "methods": {
            name: {
                "trainings": passes / PASSES,
                "rho": _by_kind(foretold(table, kept, losses[0])),
                "rho_other_order": _by_kind(foretold(table, kept, losses[1])),
            }
            for name, (table, passes) in scores.items()
        },
    }


def spearman(first: np.ndarray, second: np.ndarray) -> float:
    """Spearman's rho of two rows of numbers: the correlation of their ranks, where equal ones share the mean rank. 0 if
    all of one are equal.
    """

    def ranks(values: np.ndarray) -> np.ndarray:
        _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
        return (np.cumsum(counts) - (counts - 1) / 2)[inverse]

    one, two = (ranks(np.asarray(values)) for values in (first, second))
    if one.std() == 0 or two.std() == 0:
        return 0.0
    return float(np.corrcoef(one, two)[0, 1])


def foretold(scores: np.ndarray, kept: Sequence[Sequence[int]], losses: np.ndarray) -> list[float]:
    """The linear datamodelling score of each query (Park et al. 2023, section 2): over the trainings, Spearman's rho
    between the sum of the scores of the pages that were kept, and minus the loss. `scores`: [queries, pages];
    `losses`: [trainings, queries].
    """
    sums = np.stack([scores[:, pages].sum(1) for pages in kept])
    return [spearman(sums[:, query], -losses[:, query]) for query in range(len(scores))]


def _parts() -> dict[str, slice]:
    return {kind: slice(number * ASKED, (number + 1) * ASKED) for number, kind in enumerate(KINDS)}


def _by_kind(values: Sequence[float]) -> dict[str, float]:
    """Means over the queries of each kind, and over all."""
    means = {kind: round(float(np.mean(values[part])), 3) for kind, part in _parts().items()}
    return means | {"all": round(float(np.mean(values)), 3)}


def _train(
    trial: Trial,
    corpus: Corpus,
    name: str,
    pages: Iterable[int],
    order: int,
    save_every: int = 0,
) -> Transformer:
    """A model that has learned some pages, in the same steps and the same order as if it had learned all. `order`
    decides that, and the weights that it begins with. `save_every`: steps between two checkpoints that are kept.
    """
    shape = Shape(
        vocab_size=corpus.tokenizer.vocab_size, layers=2, width=64, heads=4, kv_heads=4, head_dim=16, mlp=192,
        context=LENGTH, tie_embeddings=True,
    )  # fmt: skip
    model = Transformer(shape)
    model.initialize(2 * trial.seed + order)
    tokens, targets = padded(corpus.pages, LENGTH)
    kept = set(pages)

    def batch(step: int) -> Batch:
        number, place = divmod(step, PAGES // ROWS)
        drawn = random.Random(f"{trial.seed} {order} {number}").sample(range(PAGES), PAGES)
        rows = drawn[place * ROWS : (place + 1) * ROWS]
        learned = [row for row in rows if row in kept]
        if not learned:
            return Batch(tokens[rows[:1]], torch.full_like(targets[rows[:1]], IGNORE_INDEX))
        return Batch(tokens[learned], targets[learned])

    def save(done: int, model: Transformer) -> None:
        save_model(
            model, trial.out / name / "checkpoints" / f"step-{done:06d}", eos=corpus.tokenizer.eot, bos=None
        )

    options = TrainingOptions(
        steps=STEPS,
        optim=OPTIM,
        machine=Machine(workers=trial.machine.workers, device="cpu", dtype="float32"),
        progress=trial.progress,
        out=trial.out / name,
        save_every=STEPS,
        save_keep=1,
        save_model_every=save_every,
    )
    fit(model, batch, cross_entropy, options, save_model=save)
    return model


def _losses(model: Transformer, queries: Sequence[Example]) -> np.ndarray:
    """The mean loss of a learned token of each query, in nats."""
    tokens, targets = padded(queries, LENGTH)
    with torch.no_grad():
        losses = F.cross_entropy(model(tokens).mT, targets, ignore_index=IGNORE_INDEX, reduction="none")
    return (losses.sum(1) / (targets != IGNORE_INDEX).sum(1)).double().numpy()


def _scores(
    trial: Trial, corpus: Corpus, checkpoints: Sequence[Transformer]
) -> dict[str, tuple[np.ndarray, int]]:
    """What each method says that each page is worth to each query, [queries, pages], and its forward and backward
    passes over the pages.
    """
    queries, pages = corpus.queries, corpus.pages
    rng = np.random.default_rng([trial.seed, 2])
    own = np.zeros((len(queries), len(pages)))
    for query, page in enumerate(corpus.own):
        if page is not None:
            own[query, page] = 1.0
    found: dict[str, tuple[np.ndarray, int]] = {
        "random": (rng.random(own.shape), 0),
        "length": (np.tile([len(text) for text in corpus.texts], (len(queries), 1)), 0),
        "own page": (own, 0),
        "BM25": (_words(trial, corpus), 0),
    }
    index = _trace_index(trial, corpus)
    for tokens in (MIN_TOKENS, SHORT):
        spans = [_as_row(scores_by_spans(index, ids[1:], min_tokens=tokens)) for ids, _ in queries]
        found[f"spans of {tokens}"] = np.array(spans), 0
    found["pairs of tokens"] = np.array([_as_row(scores_by_ngrams(index, ids[1:])) for ids, _ in queries]), 0
    last = checkpoints[-1]
    for name, method in (("dot", "dot"), ("cosine", "cosine"), ("layer cosine", "layer_cosine")):
        found[name] = influence(last, queries, pages, method=method, blocks=True).numpy(), 1
    found["dot, embedding"] = influence(last, queries, pages, method="dot").numpy(), 1
    found["Fisher, all"] = influence(last, queries, pages, blocks=True, damping=DAMPING).numpy(), 2
    each = [influence(model, queries, pages, damping=DAMPING).numpy() for model in checkpoints]
    found["Fisher"] = each[-1], 2
    found["Fisher, checkpoints"] = np.sum(each, axis=0), 2 * len(checkpoints)
    each = [influence(model, queries, pages, method="dot", blocks=True).numpy() for model in checkpoints]
    found["dot, checkpoints"] = np.sum(each, axis=0), len(checkpoints)
    return found


def _as_row(scores: Mapping[str, float]) -> list[float]:
    """Of each page, whose id is its number."""
    return [scores.get(str(page), 0.0) for page in range(PAGES)]


def _words(trial: Trial, corpus: Corpus) -> np.ndarray:
    """BM25 of each page for each query, as the passage search of a run has it."""
    path = trial.out / "passages.sqlite"
    documents = (
        Document(
            text=text, id=str(number), dump="", url="", date="", file_path="", language="en",
            language_score=1.0, token_count=LENGTH,
        )
        for number, text in enumerate(corpus.texts)
    )  # fmt: skip
    build_index(path, documents, "")
    passages = Passages(path)
    texts = [corpus.tokenizer.decode(ids[1:]) for ids, _ in corpus.queries]
    return np.array([_as_row(scores_by_words(passages, text, passages.count)) for text in texts])


def _trace_index(trial: Trial, corpus: Corpus) -> TraceIndex:
    """The suffix array of the pages, as a run has it."""
    tokens, out = trial.out / "tokens", trial.out / "index"
    for folder in (tokens, out):
        folder.mkdir(exist_ok=True)
    tokenizer = corpus.tokenizer
    rows = ((str(page), np.array(ids[1:]), len(ids)) for page, (ids, _) in enumerate(corpus.pages))
    train = write_split(tokens, "train", rows, tokenizer.eot, "uint16")
    empty = write_split(tokens, "val", [], tokenizer.eot, "uint16")
    size = tokenizer.vocab_size
    write_index(
        tokens, ShardIndex(dtype="uint16", vocab_size=size, eot=tokenizer.eot, train=train, val=empty)
    )
    write_jsonl(
        tokens / "documents.jsonl",
        [
            Placement(id=str(page), url="", title="", description="", topic=TOPIC, role="train", repeats=1)
            for page in range(PAGES)
        ],
    )
    index(Job(Index(), {"tokens": tokens}, out, trial.seed, trial.machine, trial.progress))
    return TraceIndex(out, tokens, tokenizer)


def judge(figures: Sequence[Figures]) -> Judgement:
    """See `prediction`."""
    rho = {name: [one["methods"][name]["rho"]["all"] for one in figures] for name in figures[0]["methods"]}
    cost = {name: one["trainings"] for name, one in figures[0]["methods"].items()}
    ceiling = mean(one["ceiling"]["all"] for one in figures)
    enough = min(rho[OURS]) >= ENOUGH and max(map(abs, rho["random"])) < CHANCE
    better = all(one > other for name in OTHERS for one, other in zip(rho[OURS], rho[name], strict=True))
    best = max((name for name in rho if cost[name] <= 1), key=lambda name: mean(rho[name]))
    return Judgement(
        verdict="confirmed" if enough and better else "partly" if enough else "not at this scale",
        effect={name: round(mean(values), 3) for name, values in rho.items()}
        | {"same training in another order": round(ceiling, 3)},
        summary=(
            f"Gradients at {CHECKPOINTS} checkpoints, divided by their mean squares, foretell what a training without "
            f"the pages does with a rho of {min(rho[OURS]):.2f} at least, at {cost[OURS]:g} of its cost. Means over "
            f"the seeds: {', '.join(f'{name} {mean(rho[name]):.2f}' for name in (OURS, *OTHERS))}; the same training "
            f"in another order {ceiling:.2f}. Best of what costs one training at most: {best}."
        ),
    )


def figure(figures: Sequence[Figures]) -> str:
    """Rho of each method, by kind of text, a point a seed; the line is what another training foretells."""
    chart, axes = panels([(f"rho, {kind}", "") for kind in KINDS])
    names = list(figures[0]["methods"])
    for one, kind in zip(axes, KINDS, strict=True):
        for row in figures:
            one.plot(
                [row["methods"][name]["rho"][kind] for name in names], range(len(names)),
                linestyle="none", marker="o", markersize=3, color="C0",
            )  # fmt: skip
            one.axvline(row["ceiling"][kind], color=GREY, linestyle="--", linewidth=0.8)
        one.set_yticks(range(len(names)), names if one is axes[0] else [""] * len(names))
        one.invert_yaxis()
        one.set_xlim(-0.15, 1.0)
    return svg(chart)


EXPERIMENT = Experiment(
    name="attribution",
    claim="Gradients foretell what leaving pages out of a training would change, without training again.",
    source=(
        "Pruthi et al. 2020 (TracIn); Yeh et al. 2022 (embeddings); Park et al. 2023 (TRAK), section 2: the linear "
        "datamodelling score; Akyürek et al. 2022: BM25 is better than TracIn"
    ),
    prediction=(
        f"`{OURS}` (the inner product of gradients of the embedding, which is the head, too, divided by their mean "
        f"squares over the pages, summed over {CHECKPOINTS} checkpoints) costs less than one training and has in each "
        f"seed a rho of {ENOUGH} at least, the mean over all texts, and a larger one than each of {', '.join(OTHERS)}; "
        f"random scores stay within {CHANCE} of 0. Partly: all this, but one of the others is as good in some seed."
    ),
    method=(
        f"A model of 0.16 million parameters learns {PAGES} pages of the embedded crawl, {LENGTH} tokens each, in "
        f"{PASSES} passes; then again, in the same order, without a random half of them, {SUBSETS} times, and all this "
        f"once more in another order and from other weights. What is foretold is the loss of {ASKED} second halves of "
        f"pages, of {ASKED} descriptions of pages, which do not stand in them, and of {ASKED} pages that are not "
        "learned. Each method gives each page a score for each text; the sum over the pages that were kept is compared "
        "with minus the loss, by Spearman's rho over the trainings. Controls: random scores, the length of the page, "
        "the page that the text is from alone, and how well a training foretells the same one in another order. The "
        f"cost is in passes over the pages, forward and backward, of which a training has {PASSES}."
    ),
    run=run,
    judge=judge,
    figure=figure,
)
