"""Small models predict the loss of a larger one."""

import json
import math
from collections.abc import Sequence

from crawltalk.core.charts import panels, svg
from crawltalk.lab.experiment import Experiment, Figures, Judgement, Trial, verdict_of
from crawltalk.lab.journeys import FOLDER, MODEL, journey, results

DEPTHS = "1,2,3"
MOST_OFF = 0.05


def run(trial: Trial) -> Figures:
    """The small models, what they predict of the run's own, and what it reached."""
    made = journey(trial)
    swept = journey(trial, "swept", {"sweep.depths": DEPTHS}, until="sweep", lender=made)
    scaling = json.loads((swept.folder("sweep") / "scaling.json").read_text(encoding="utf-8"))
    return {**scaling, "measured": results(made, "scores.json")["bits_per_byte"]["score"]}


def rule(figures: Sequence[Figures]) -> Judgement:
    """Near the line."""
    off = [row["predicted"] / row["measured"] - 1 for row in figures]
    clear = [abs(value) <= MOST_OFF for value in off]
    exponent = sum(row["exponent"] for row in figures) / len(figures)
    times = figures[0]["flop"] / figures[0]["models"][-1]["flop"]
    return Judgement(
        verdict=verdict_of(clear),
        effect={"predicted over measured": sum(off) / len(off), "exponent": exponent},
        summary=(
            f"A line through three smaller models (loss falls as the {exponent:.2f}th power of the compute) predicts a "
            f"training with {times:.1f} times the compute of the largest of them to {max(map(abs, off)):.1%}."
        ),
    )


def figure(figures: Sequence[Figures]) -> str:
    """Loss against compute: small models, the prediction, and what was measured."""
    chart, (axes,) = panels([("operations of the training (FLOP)", "bits per byte")])
    for number, row in enumerate(figures):
        first = number == 0
        xs, ys = ([model[key] for model in row["models"]] for key in ("flop", "bits_per_byte"))
        axes.plot(
            xs, ys, "o-", color="C0", markersize=4, linewidth=1, label="small models" if first else None
        )
        level = math.log(ys[-1]) - row["exponent"] * math.log(xs[-1])
        line = [math.exp(level + row["exponent"] * math.log(x)) for x in (xs[0], row["flop"])]
        axes.plot([xs[0], row["flop"]], line, "--", color="C7", linewidth=0.8)
        axes.plot(row["flop"], row["predicted"], "x", color="C7", label="predicted" if first else None)
        axes.plot(row["flop"], row["measured"], "o", color="C1", label="measured" if first else None)
    axes.set_xscale("log")
    return svg(chart)


EXPERIMENT = Experiment(
    name="predictable_loss",
    claim="The loss falls predictably with compute: small trainings foretell a large one.",
    source="Karpathy, Deep Dive into LLMs (2025); Kaplan et al. 2020; Hoffmann et al. 2022",
    prediction=(
        f"In each seed the loss of the run's own model is within {MOST_OFF:.0%} of what a straight line through the "
        "logarithms of three smaller models says. Else: partly, or not at this scale if no seed shows it."
    ),
    method=MODEL
    + f"Models of {DEPTHS.replace(',', ', ')} layers on as many tokens a parameter; held-out documents.",
    run=run,
    judge=rule,
    figure=figure,
    shared=FOLDER,
)
