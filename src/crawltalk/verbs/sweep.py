"""The verb that predicts a larger model's loss from small models that are trained on the same tokens."""

import json as jsonlib
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from crawltalk.run.console import console, print_table
from crawltalk.run.folder import RunFolder, find_run
from crawltalk.verbs.build import Set, build_stages


def sweep(
    path: Path = Path("runs/small"),
    *,
    depths: Annotated[tuple[int, ...], Parameter(negative=())] = (),
    json: Annotated[bool, Parameter(negative=(), help="Print one JSON object instead.")] = False,
    set: Set = (),
) -> None:
    """Train small models on a run's tokens, fit the validation loss against compute, and predict that of the
    run's own model.

    The sweep becomes a stage of the run, whose report shows it when it is built again.

    Parameters
    ----------
    path
        The folder of a run.
    depths
        Depths of the small models. If absent: those of the recipe, else from 1 to one less than the run's own. All have
        as many tokens per parameter as the run's own model.
    """
    path = find_run(path).path
    recipe = RunFolder(path).recipe()
    chosen = depths or recipe.sweep.depths or range(1, max(2, recipe.pretrain.model.depth or 4))
    settings = (f"sweep.depths={','.join(map(str, chosen))}", *set)
    run = build_stages(("sweep",), str(path), settings=settings, quiet=json)
    if run is None:
        return
    result = jsonlib.loads((run.folder("sweep") / "scaling.json").read_bytes())
    pretrain = run.manifest("pretrain")
    result["measured"] = pretrain.metrics["val_bpb"] if pretrain else None
    if json:
        print(jsonlib.dumps(result))
        return
    rows = result["models"]
    print_table(tuple(rows[0]), [[f"{value:,}" for value in row.values()] for row in rows])
    console.print(
        f"bits per byte ~ FLOP^{result['exponent']:.3f}; at the run's own {result['flop']:.2e} FLOP: "
        f"{result['predicted']} predicted, {result['measured']} measured.\nnext: crawltalk report {path}",
        markup=False,
        soft_wrap=True,
    )
