"""What the chapters read from the stages' folders."""

import json
from pathlib import Path
from typing import Any

from crawltalk import recipe
from crawltalk.run.manifest import Manifest, read_manifest
from crawltalk.run.stage import Job

ReportJob = Job[recipe.Report]


def manifest_of(folder: Path) -> Manifest:
    """The manifest of a finished stage."""
    manifest = read_manifest(folder)
    assert manifest is not None, folder  # inputs are finished stages
    return manifest


def rows_of(path: Path) -> list[dict[str, Any]]:
    """The objects of a JSONL file; none if it is not there."""
    return (
        [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()] if path.exists() else []
    )


def run_of(job: ReportJob) -> str:
    """The run, as commands name it; earlier stages may be borrowed from another."""
    return str(job.inputs["evals"].parent)
