"""The manifest of a finished stage: what it was made from, what it made, and what that cost."""

import hashlib
from collections.abc import Iterable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import msgspec

from crawltalk.core.errors import BadInput
from crawltalk.run.stage import STATE


class File(msgspec.Struct, frozen=True):
    name: str
    bytes: int
    sha256: str


class Manifest(msgspec.Struct, kw_only=True):
    """`manifest.json`."""

    stage: str
    version: int
    fingerprint: str
    config: dict[str, Any]
    """Its section of the recipe, flat, with the seed and the external inputs."""
    inputs: dict[str, str]
    """Upstream stage -> fingerprint."""
    files: list[File]
    metrics: dict[str, float | int | str]
    started: str
    """ISO 8601, UTC."""
    seconds: float
    """Wall clock, over all attempts except those that were killed together with the parent process."""
    cpu_seconds: float
    peak_memory_bytes: int
    """Resident set of the largest single process."""
    attempts: int
    """1 if the stage was never interrupted."""
    versions: dict[str, str]
    host: str
    """Class of the machine: cores, memory, processor."""
    joules: int | None = None
    """Energy of the processors while the stage ran, other programs included; absent where it is not measured."""
    dollars: float | None = None
    """At machine.dollars_an_hour."""


def read_manifest(folder: str | Path) -> Manifest | None:
    """The manifest of a finished stage's folder. Raises BadInput if it is damaged."""
    path = Path(folder) / "manifest.json"
    if not path.exists():
        return None
    try:
        return msgspec.json.decode(path.read_bytes(), type=Manifest)
    except msgspec.MsgspecError as error:
        raise BadInput(f"{path} is damaged ({error}); remove the folder {folder} and run again") from None


def changed_files(folder: str | Path, manifest: Manifest) -> list[str]:
    """Artifacts that are missing, or whose size is not the one that the stage wrote."""
    folder, reasons = Path(folder), []
    for file in manifest.files:
        path = folder / file.name
        size = path.stat().st_size if path.exists() else None
        if size != file.bytes:
            reasons.append(
                f"{folder.name}/{file.name}: {'gone' if size is None else f'{file.bytes} -> {size} bytes'}"
            )
    return reasons


def hash_files(folder: str | Path) -> list[File]:
    """Names, sizes and hashes of the artifacts in a folder: without the manifest, the fingerprint and STATE."""
    folder, files = Path(folder), []
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        if (
            path.is_file()
            and name not in ("manifest.json", "fingerprint")
            and not name.startswith(f"{STATE}/")
        ):
            with open(path, "rb") as file:
                files.append(File(name, path.stat().st_size, hashlib.file_digest(file, "sha256").hexdigest()))
    return files


def installed_versions(packages: Iterable[str]) -> dict[str, str]:
    """The versions of those that are installed; a minimal installation may lack a stage's library."""
    versions: dict[str, str] = {}
    for package in packages:
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            continue
    return versions
