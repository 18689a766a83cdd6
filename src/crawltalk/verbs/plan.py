"""The verb that prices what is not built yet: a bigger crawl, or a larger model on named hardware."""

import json as jsonlib
import math
from pathlib import Path
from typing import Any

from crawltalk.core.errors import UserError
from crawltalk.recipe import cost
from crawltalk.recipe.layers import load_recipe
from crawltalk.run.console import console, print_table, size
from crawltalk.verbs.corpus import Json, price_crawl


def plan(
    source: str = "runs/small",
    *,
    pages: float = 2.7e9,
    cores: int = 1000,
    hardware: str = "h100",
    gpus: int = 8,
    utilization: float = 0.5,
    dollars: float | None = None,
    json: Json = False,
) -> None:
    """What training a preset's model would cost; of a run, what refining a bigger crawl would cost.

    Parameters
    ----------
    source
        A preset or a recipe.toml: its model. A run with a finished data stage: its crawl, from the cost per page
        measured there.
    pages
        Pages of the crawl: a monthly snapshot of Common Crawl has about 2.7 billion.
    cores
        Cores that work on the crawl at once.
    hardware
        The GPU: a100, h100 or h200.
    gpus
        GPUs that train at once.
    utilization
        Share of the GPU's peak that training reaches; llm.c reached about a half.
    dollars
        Price of an hour of one GPU (if absent, that of llm.c's node) or of one core (0.04).
    """
    if Path(source).is_dir():
        price_crawl(Path(source), pages, cores, 0.04 if dollars is None else dollars, json=json)
        return
    if hardware not in cost.HARDWARE:
        raise UserError(f"no hardware is called {hardware!r}; there are: {', '.join(cost.HARDWARE)}")
    if gpus < 1 or not 0 < utilization <= 1:
        raise UserError("--gpus is at least 1, and --utilization a share of the peak, above 0 and at most 1")
    row = price_model(source, cost.HARDWARE[hardware], gpus, utilization, dollars)
    if json:
        print(jsonlib.dumps(row))
        return
    lines = [
        ("parameters", f"{row['parameters']:,}"),
        ("tokens", f"{row['tokens']:,}"),
        ("FLOP to train", f"{row['flop']:.3g}"),
        *((f"memory: {name}", size(count)) for name, count in row["memory"].items()),
        ("memory to train", size(sum(row["memory"].values()))),
        (f"{hardware.upper()} to hold it", f"{row['gpus_to_hold']:,}"),
        (f"hours on {gpus:,} {hardware.upper()}", f"{row['hours']:,.1f}"),
        (f"dollars at {row['dollars_an_hour']:g} a GPU hour", f"{row['dollars']:,.0f}"),
    ]
    print_table((row["name"], ""), lines)
    console.print(
        f"{row['flop']:.3g} FLOP = tokens x (6 x parameters + attention), "
        f"at {utilization:g} of {row['peak']:.3g} FLOP/s each."
        " Memory: fp32 weights, gradients and Adam's state, bf16 activations of one sequence.",
        markup=False,
        soft_wrap=True,
    )


def price_model(
    source: str, hardware: cost.Hardware, gpus: int, utilization: float, dollars: float | None
) -> dict[str, Any]:
    """Size, FLOP, memory, time and price of the training, by name."""
    recipe = load_recipe(source)
    model, vocabulary, tokens = (
        recipe.pretrain.model,
        recipe.tokenizer.vocab_size,
        recipe.pretrain.tokens or 0,
    )
    if model.depth is None or vocabulary is None:
        raise UserError(
            f"the size of {recipe.name}'s model follows from your pages; price another preset: crawltalk presets"
        )
    memory = cost.training_bytes(model, vocabulary, recipe.pretrain.batch_tokens)
    flop = cost.training_flops(model, vocabulary, tokens)
    hours = flop / (gpus * hardware.flops * utilization) / 3600
    rate = hardware.dollars if dollars is None else dollars
    return {
        "name": recipe.name,
        "parameters": cost.parameters(model, vocabulary),
        "tokens": tokens,
        "flop": flop,
        "peak": hardware.flops,
        "memory": memory,
        "gpus_to_hold": math.ceil(sum(memory.values()) / hardware.memory),
        "hours": round(hours, 2),
        "gpu_hours": round(hours * gpus, 1),
        "dollars_an_hour": rate,
        "dollars": round(hours * gpus * rate, 2),
    }
