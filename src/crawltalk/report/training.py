"""The chapter on pretraining: how the loss fell, and what small models had predicted."""

import math

from crawltalk.report.chapter import Chapter
from crawltalk.report.html import lines_figure, percent, table, text
from crawltalk.report.inputs import ReportJob, json_of, manifest_of, rows_of, run_of
from crawltalk.report.words import words


def pretraining(job: ReportJob) -> Chapter:
    """The loss on the training tokens and on documents that are not trained on."""
    metrics, run = manifest_of(job.model("base")).metrics, run_of(job)
    rows = rows_of(job.model("base") / "log.jsonl")
    losses = [row for row in rows if "loss" in row]
    evaluations = [row for row in rows if "val_bpb" in row]
    first, last = losses[0]["loss"], losses[-1]["loss"]
    held_out = lines_figure(
        [("validation", [row["step"] for row in evaluations], [row["val_bpb"] for row in evaluations])],
        "step",
        "bits per byte",
        "Bits per byte of documents that are not trained on.",
    )
    figures = table(("", "value"), [(words(name), value) for name, value in metrics.items()])
    return Chapter(
        f"The base model guessed the next token {text(metrics['tokens'])} times. At the start it gave the right one a "
        f"probability of {percent_of(first)}, at the end one of {percent_of(last)} (geometric means over the texts "
        "that it trains on).",
        figure=lines_figure(
            [("training loss", [row["step"] for row in losses], [row["loss"] for row in losses])],
            "step of the training",
            "nats per token",
            "The loss: how surprised the model is by the token that comes.",
        ),
        details=[
            ("Documents that are not trained on", held_out),
            ("The training in figures", figures),
            ("What small models predicted", _scaling(job)),
        ],
        commands=[f"crawltalk pretrain {run}"],
    )


def percent_of(loss: float) -> str:
    """The probability that goes with a loss in nats."""
    share = math.exp(-loss)
    return percent(share) if share >= 0.01 else f"1 in {1 / share:,.0f}"


def _scaling(job: ReportJob) -> str:
    """Validation loss against compute, if small models were trained for it."""
    if "sweep" not in job.inputs:
        return ""
    result = json_of(job.inputs["sweep"] / "scaling.json")
    rows = result["models"]
    measured = manifest_of(job.model("base")).metrics["val_bpb"]
    curve = lines_figure(
        [
            ("small models", [row["flop"] for row in rows], [row["bits_per_byte"] for row in rows]),
            (
                "predicted",
                [rows[-1]["flop"], result["flop"]],
                [rows[-1]["bits_per_byte"], result["predicted"]],
            ),
        ],
        "operations of the training (FLOP)",
        "bits per byte",
        f"Small models on the same tokens; this run's own: {result['predicted']} predicted, {measured} measured.",
        log_x=True,
    )
    return curve + table(tuple(map(words, rows[0])), [tuple(row.values()) for row in rows])
