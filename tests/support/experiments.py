"""A small experiment of the lab: does a model learn more in more steps?"""

from collections.abc import Sequence
from functools import partial

import torch

from crawltalk.core.charts import panels, svg
from crawltalk.core.errors import BadInput
from crawltalk.lab.experiment import Experiment, Figures, Judgement, Trial
from crawltalk.model.shape import Shape
from crawltalk.model.transformer import Transformer
from crawltalk.recipe import Optim
from crawltalk.train.batches import Batch
from crawltalk.train.loop import TrainingOptions, fit
from crawltalk.train.objectives.cross_entropy import cross_entropy

SHAPE = Shape(vocab_size=16, layers=1, width=16, heads=1, kv_heads=1, head_dim=16, mlp=32, context=16)
STEPS = (2, 30)


def _same(batch: Batch, step: int) -> Batch:
    return batch


def run(trial: Trial) -> Figures:
    """The loss on counting upwards after few and after many steps."""
    losses = []
    for steps in STEPS:
        model = Transformer(SHAPE)
        model.initialize(trial.seed)
        row = torch.arange(trial.seed, trial.seed + 17) % 16
        batch = Batch(row[None, :-1], row[None, 1:])
        options = TrainingOptions(
            steps=steps,
            optim=Optim(muon_lr=0.02, adamw_lr=0.01),
            machine=trial.machine,
            progress=trial.progress,
            out=trial.out / str(steps),
            save_every=10,
        )
        losses.append(fit(model, partial(_same, batch), cross_entropy, options)["loss"])
        if (trial.out / "interrupt").exists():
            raise KeyboardInterrupt
        if (trial.out / "fail").exists():
            raise BadInput("a file is in the way")
    return {"losses": losses}


def judge(figures: Sequence[Figures]) -> Judgement:
    drops = [row["losses"][0] - row["losses"][1] for row in figures]
    return Judgement(
        verdict="confirmed" if min(drops) > 0.1 else "not at this scale",
        effect={"drop": sum(drops) / len(drops)},
        summary=f"The loss falls by {min(drops):.2f} at least.",
    )


def figure(figures: Sequence[Figures]) -> str:
    chart, (axes,) = panels([("steps", "loss")])
    for row in figures:
        axes.plot(STEPS, row["losses"])
    return svg(chart)


EXPERIMENT = Experiment(
    name="more_steps",
    claim="A model learns more in more steps.",
    source="everybody",
    prediction="The loss falls by more than 0.1.",
    method="A model of one layer counts.",
    run=run,
    judge=judge,
    figure=figure,
    seeds=2,
)
