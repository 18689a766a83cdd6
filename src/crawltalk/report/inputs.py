"""What the chapters read from the stages' folders."""

import json
from pathlib import Path
from typing import Any

from crawltalk import recipe
from crawltalk.core.errors import BadInput
from crawltalk.run.manifest import Manifest, read_manifest
from crawltalk.run.stage import Job

ReportJob = Job[recipe.Report]


def manifest_of(folder: Path) -> Manifest:
    """The manifest of a finished stage."""
    manifest = read_manifest(folder)
    assert manifest is not None, folder  # inputs are finished stages
    return manifest


def json_of(path: Path) -> Any:
    """What a JSON file of a stage holds. Raises BadInput if it is damaged."""
    return _decoded(path, path.read_bytes())


def rows_of(path: Path) -> list[dict[str, Any]]:
    """The objects of a JSONL file; none if it is not there. Raises BadInput if it is damaged."""
    return [_decoded(path, line) for line in path.read_bytes().splitlines()] if path.exists() else []


def _decoded(path: Path, data: bytes) -> Any:
    try:
        return json.loads(data)
    except ValueError as error:
        stage, run = path.parent.name, path.parent.parent
        raise BadInput(
            f"{path} is damaged ({error}); remove {path.parent} and build it again: crawltalk {stage} {run}"
        ) from None


def run_of(job: ReportJob) -> str:
    """The run, as commands name it; earlier stages may be borrowed from another."""
    return str(job.inputs["evals"].parent)
