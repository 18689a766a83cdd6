"""The size of the vocabulary against the loss, at equal compute."""

import dataclasses
import json
from collections.abc import Sequence

from crawltalk import recipe
from crawltalk.core.charts import panels, svg
from crawltalk.lab.corpora import Corpora
from crawltalk.lab.experiment import Experiment, Figures, Judgement, Trial, verdict_of
from crawltalk.lab.journeys import FOLDER, journey
from crawltalk.pretraining.tokenizer import tokenizer
from crawltalk.recipe.cost import training_flops
from crawltalk.recipe.layers import load_recipe
from crawltalk.run.stage import Job

SIZES = (300, 512, 1024, 2048, 4096, 8192)
TOKENS, AT = 300_000, 1024
"""Of a model with a vocabulary of this size; those of the others follow from equal compute."""
DEPTH = 2
LEAST_BETTER = 0.03


def run(trial: Trial) -> Figures:
    """Bits per byte of held-out pages, by the size of the vocabulary."""
    made = journey(trial, until="tokenizer")
    corpora = Corpora(made)
    model = load_recipe("nano", flags={"pretrain.model.depth": str(DEPTH)}).pretrain.model
    compute = training_flops(model, AT, TOKENS)
    figures: Figures = {}
    for size in SIZES:
        folder = trial.out / f"tokenizer-{size}"
        if not (folder / "tokenizer.json").exists():
            folder.mkdir(exist_ok=True)
            config = dataclasses.replace(made.recipe().tokenizer, vocab_size=size)
            inputs = {"data": made.folder("data")}
            job: Job[recipe.Tokenizer] = Job(
                config, inputs, folder, trial.seed, trial.machine, trial.progress
            )
            tokenizer(job)
        tokens = round(compute / training_flops(model, size, 1))
        loss = corpora.loss(trial, f"vocabulary-{size}", corpora.kept, tokens, folder, DEPTH)
        figures[str(size)] = {"tokens": tokens, "bits_per_byte": loss}
    return json.loads(json.dumps(figures))


def rule(figures: Sequence[Figures]) -> Judgement:
    """Neither the smallest nor the largest vocabulary is best."""
    losses = {size: [row[str(size)]["bits_per_byte"] for row in figures] for size in SIZES}
    means = {size: sum(values) / len(values) for size, values in losses.items()}
    best = min(means, key=lambda size: means[size])
    gain = [smallest / values - 1 for smallest, values in zip(losses[SIZES[0]], losses[best], strict=True)]
    clear = [value >= LEAST_BETTER for value in gain]
    inside = best not in (SIZES[0], SIZES[-1])
    return Judgement(
        verdict=verdict_of(clear, inside),
        effect={"best size": float(best), "bits per byte that it saves": sum(gain) / len(gain)},
        summary=(
            f"At equal compute a vocabulary of {best:,} is best; the smallest of {SIZES[0]} needs "
            f"{sum(gain) / len(gain):.0%} more bits per byte, the largest of {SIZES[-1]:,} "
            f"{means[SIZES[-1]] / means[best] - 1:.0%} more. A larger one shortens texts, and costs parameters and "
            "rare tokens."
        ),
    )


def figure(figures: Sequence[Figures]) -> str:
    """Bits per byte against the size, a line for each seed."""
    chart, (axes,) = panels([("tokens in the vocabulary", "bits per byte of held-out pages")])
    for row in figures:
        axes.plot(SIZES, [row[str(size)]["bits_per_byte"] for size in SIZES], "o-", color="C0", markersize=4)
    axes.set_xscale("log")
    return svg(chart)


EXPERIMENT = Experiment(
    name="vocabulary",
    claim="The size of the vocabulary is a choice with an optimum: more tokens make shorter texts, at a price.",
    source="Karpathy, Deep Dive into LLMs (2025), on GPT-4's 100,277 tokens; Tao et al. 2024, scaling with vocabulary",
    prediction=(
        f"At equal compute the best of {len(SIZES)} sizes is neither the smallest nor the largest, and in each seed it "
        f"saves {LEAST_BETTER:.0%} at least of the bits per byte of the smallest. Partly, if some seed shows "
        "the saving."
    ),
    method=(
        f"Byte-level BPE of {SIZES[0]} to {SIZES[-1]:,} tokens, learned from the kept pages of the embedded crawl, and "
        f"models with {DEPTH} layers of the same width; each training has the FLOP of {TOKENS:,} tokens at {AT:,}."
    ),
    run=run,
    judge=rule,
    figure=figure,
    shared=FOLDER,
)
