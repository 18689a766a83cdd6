"""The whole journey: time, CPU and memory of each stage."""

import os
import tempfile
from pathlib import Path
from typing import Any

from crawltalk.bench.data import figure
from crawltalk.pipeline import stages
from crawltalk.recipe.layers import load_recipe
from crawltalk.run.execute import build
from crawltalk.run.folder import RunFolder


def journey(preset: str, runs: int) -> list[dict[str, Any]]:
    """The whole journey in a fresh folder, `runs` times. No peer does the whole, so `peer` and `ratio` are
    null.
    """
    recipe = load_recipe(preset)
    built = stages(recipe)
    seen: dict[tuple[str, str], list[float]] = {}
    for _ in range(runs):
        with tempfile.TemporaryDirectory(prefix="crawltalk-bench-") as folder:
            run = RunFolder(Path(folder) / preset)
            build(run, built, [stage.name for stage in built], recipe, lambda event: None)
            totals = {"s": 0.0, "CPU s": 0.0, "MB": 0.0}
            for stage in built:
                manifest = run.manifest(stage.name)
                assert manifest is not None
                megabytes = manifest.peak_memory_bytes / 1e6
                for unit, value in (
                    ("s", manifest.seconds),
                    ("CPU s", manifest.cpu_seconds),
                    ("MB", megabytes),
                ):
                    seen.setdefault((stage.name, unit), []).append(value)
                    totals[unit] = max(totals[unit], value) if unit == "MB" else totals[unit] + value
            for unit, value in totals.items():
                seen.setdefault(("all", unit), []).append(value)
    cores = os.cpu_count()
    return [
        figure(f"journey.{preset}.{stage}", unit, values, None, None, cores)
        for (stage, unit), values in seen.items()
    ]
