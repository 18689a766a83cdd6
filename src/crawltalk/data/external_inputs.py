"""What decides the documents besides the recipe: the user's lists, models and earlier runs. Imports quickly,
since `status` calls it.
"""

from pathlib import Path
from typing import Any

from crawltalk.core.files import stamp
from crawltalk.recipe import Data
from crawltalk.run.manifest import read_manifest


def external_inputs(config: Data) -> dict[str, Any]:
    """Path, size and modification time (ns) of each file that the recipe names, and the fingerprints of the
    earlier runs.
    """
    result: dict[str, Any] = {}
    named = [path for path in (config.blocklist, config.classifier, *config.benchmarks) if path is not None]
    if files := [stamp(file) for path in named for file in _files(Path(path))]:
        result["files"] = files
    if config.earlier:
        manifests = [read_manifest(Path(run) / "data") for run in config.earlier]
        result["earlier_runs"] = [manifest and manifest.fingerprint for manifest in manifests]
    return result


def _files(path: Path) -> list[Path]:
    return sorted(file for file in path.rglob("*") if file.is_file()) if path.is_dir() else [path]
