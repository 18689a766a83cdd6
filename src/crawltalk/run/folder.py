"""A run is a directory of stages, and a manifest is written last.

    runs/small/recipe.toml                 resolved: every value spelled out
    runs/small/STAGE/...  manifest.json    a finished stage
    runs/small/.work/STAGE/                an unfinished stage: kept after a crash, identified by its fingerprint

A stage is fresh if its manifest has the fingerprint that follows from the recipe. The fingerprint
covers the stage's name and version, its section of the recipe, the seed, external inputs (such as the user's
crawl files) and the fingerprints of its inputs. So a change upstream makes everything downstream stale, and
`differences` names the field that changed.
"""

import contextlib
import hashlib
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import msgspec

from crawltalk.core.errors import BadInput, BadRecipe, MissingInput, UserError
from crawltalk.core.files import write_atomically
from crawltalk.recipe import Recipe
from crawltalk.recipe.differences import differences, flatten
from crawltalk.recipe.layers import load_recipe
from crawltalk.recipe.toml import to_toml
from crawltalk.run.manifest import Manifest, changed_files, installed_versions, read_manifest
from crawltalk.run.stage import RESCUED, STATE, Stage

WORK = ".work"


State = Literal["fresh", "borrowed", "stale", "partial", "absent"]


@dataclass(frozen=True)
class StageState:
    """The state of a stage, and why it would be built."""

    stage: Stage
    state: State
    fingerprint: str
    """The fingerprint that the stage has if it is built from the recipe."""
    config: dict[str, Any]
    manifest: Manifest | None
    reasons: tuple[str, ...] = ()
    """For a stale stage: which fields, inputs or files changed."""


def find_run(name: str | Path) -> "RunFolder":
    """The run that a person means: a folder, or `small` for `runs/small`. It need not exist."""
    run = RunFolder(name)
    named = RunFolder(Path("runs") / name)
    return named if len(Path(name).parts) == 1 and named.exists() and not run.exists() else run


class RunFolder:
    """A run on disk."""

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)

    def exists(self) -> bool:
        """Whether there is a run here."""
        return (self.path / "recipe.toml").exists()

    def recipe(self, overlays: Sequence[str | Path] = (), flags: Mapping[str, str] | None = None) -> Recipe:
        """The resolved recipe of the run, with further layers. Raises MissingInput if there is no run here, and
        BadRecipe if it has what a recipe of this version does not have.
        """
        self._check_exists()
        path = self.path / "recipe.toml"
        try:
            own = load_recipe(path)
        except BadRecipe as error:
            maker, today = self._made_by(), installed_versions(["crawltalk"]).get("crawltalk")
            if maker in (None, today):
                raise
            raise BadRecipe(
                f"{self.path} was made by crawltalk {maker}, and this is {today}, which cannot read its recipe "
                f"({error}); its models work by their folders, such as --model {self.path / 'sft'}; build it again in "
                f"another folder, from a preset or your recipe: crawltalk run small --out {self.path}-new"
            ) from None
        return load_recipe(path, overlays, flags) if overlays or flags else own

    def _made_by(self) -> str | None:
        """The version of crawltalk that finished its first stage."""
        for path in sorted(self.path.glob("*/manifest.json")):
            manifest = read_manifest(path.parent)
            return manifest.versions.get("crawltalk") if manifest else None
        return None

    def _check_exists(self) -> None:
        if not self.exists():
            raise MissingInput(
                f"{self.path} is not a run; make one with: crawltalk run small --out {self.path}"
            )

    def write_recipe(self, recipe: Recipe) -> None:
        """Write the resolved recipe into the run's folder, which is made if it does not exist."""
        self.path.mkdir(parents=True, exist_ok=True)
        write_atomically(self.path / "recipe.toml", to_toml(recipe).encode())

    def work(self, stage: str) -> Path:
        """The work folder of a stage."""
        return self.path / WORK / stage

    def borrowed(self) -> dict[str, str]:
        """Stage -> the other run whose finished stage this run uses."""
        path = self.path / "borrowed.json"
        return msgspec.json.decode(path.read_bytes(), type=dict[str, str]) if path.exists() else {}

    def folder(self, stage: str) -> Path:
        """The folder of the finished stage: here, or in the run that it was borrowed from."""
        own = self.path / stage
        lender = self.borrowed().get(stage)
        return Path(lender) / stage if lender and not (own / "manifest.json").exists() else own

    def manifest(self, stage: str) -> Manifest | None:
        """The manifest of a finished stage, None if it never finished."""
        return read_manifest(self.folder(stage))

    def finished(self, stage: str, verb: str | None = None) -> Path:
        """The folder of a finished stage. Raises MissingInput, with the command that makes it, if there is none."""
        self._check_exists()
        if self.manifest(stage) is None:
            raise MissingInput(
                f"{self.path} has no {stage}; make it with: crawltalk {verb or stage} {self.path}"
            )
        return self.folder(stage)

    def beside(self, stage: Stage) -> dict[str, str]:
        """Of the folders that the stage reads beside its inputs those that are there, and a hash of what counts."""
        found = {}
        for name in stage.beside:
            files = sorted((self.path / name).glob(f"**/{name}.json"))
            text = b"".join(
                str(file.relative_to(self.path)).encode() + b"\0" + file.read_bytes() for file in files
            )
            if files:
                found[name] = hashlib.sha256(text).hexdigest()[:16]
        return found

    def states(self, stages: Sequence[Stage], recipe: Recipe) -> dict[str, StageState]:
        """The state of each stage if the run is to follow `recipe`."""
        states: dict[str, StageState] = {}
        for stage in stages:
            inputs = {name: states[name].fingerprint for name in stage.inputs} | self.beside(stage)
            config = stage_config(stage, recipe)
            states[stage.name] = self._state(stage, stage.key(recipe), config, inputs)
        return states

    def _state(self, stage: Stage, key: str, config: dict[str, Any], inputs: dict[str, str]) -> StageState:
        expected = fingerprint(stage, config, inputs)
        manifest = self.manifest(stage.name)
        if manifest is None:
            partial = (self.work(stage.name) / "fingerprint").exists()
            return StageState(stage, "partial" if partial else "absent", expected, config, None)
        reasons = [f"{key}.{change}" for change in differences(manifest.config, config)]
        if manifest.version != stage.version:
            reasons.append(f"{stage.name}: version {manifest.version} -> {stage.version} of the code")
        for name, made in inputs.items():
            if name not in manifest.inputs:
                reasons.append(f"input {name} is new")
            elif manifest.inputs[name] != made:
                reasons.append(f"input {name} changed")
        reasons += [f"input {name} is gone" for name in manifest.inputs if name not in inputs]
        reasons += changed_files(self.folder(stage.name), manifest)
        if reasons or manifest.fingerprint != expected:
            return StageState(stage, "stale", expected, config, manifest, tuple(reasons))
        own = (self.path / stage.name / "manifest.json").exists()
        return StageState(stage, "fresh" if own else "borrowed", expected, config, manifest)

    def borrow(self, lender: "RunFolder", stages: Sequence[Stage], recipe: Recipe) -> list[str]:
        """Use the other run's finished stages where they are exactly what `recipe` makes. Returns their names."""
        mine, theirs = self.states(stages, recipe), lender.states(stages, recipe)
        names = [
            stage.name
            for stage in stages
            if theirs[stage.name].state in ("fresh", "borrowed")
            and mine[stage.name].state not in ("fresh", "borrowed")
        ]
        for name in names:
            if mine[name].state == "stale" and (self.path / name).exists():
                raise BadInput(
                    f"{self.path}/{name} was made from another recipe; borrow into a new run with --out"
                )
        table = self.borrowed() | {name: str(lender.folder(name).parent.resolve()) for name in names}
        self.path.mkdir(parents=True, exist_ok=True)
        write_atomically(self.path / "borrowed.json", msgspec.json.format(msgspec.json.encode(table)))
        return names

    def open_work(self, state: StageState) -> Path:
        """The work folder for a stage: with the partial work of the same job, or empty."""
        work = self.work(state.stage.name)
        mark = work / "fingerprint"
        if work.exists() and not (mark.exists() and mark.read_text() == state.fingerprint):
            shutil.rmtree(work)
        work.mkdir(parents=True, exist_ok=True)
        write_atomically(mark, state.fingerprint.encode())
        return work

    def rescue(self, state: StageState) -> Path | None:
        """Move what a failed stage left in RESCUED into the run's folder of that name. Returns the newest path."""
        kept = None
        for path in sorted((self.work(state.stage.name) / RESCUED).glob("*")):
            kept = self.path / RESCUED / f"{state.stage.name}-{state.fingerprint[:8]}-{path.name}"
            kept.parent.mkdir(exist_ok=True)
            path.replace(kept)
        return kept

    def close_work(self, state: StageState, manifest: Manifest) -> None:
        """Write the manifest, then rename the work folder to the stage's folder. After a crash between the two,
        `recover` does the rest.
        """
        name = state.stage.name
        work = self.work(name)
        write_atomically(work / "manifest.json", msgspec.json.format(msgspec.json.encode(manifest)))
        self._move_into_place(name)

    def _move_into_place(self, name: str) -> None:
        work, final, old = self.work(name), self.path / name, self.path / WORK / f"{name}.old"
        (work / "fingerprint").unlink(missing_ok=True)
        shutil.rmtree(work / STATE, ignore_errors=True)
        if old.exists():
            shutil.rmtree(old)
        if final.exists():
            final.rename(old)
        work.rename(final)
        if old.exists():
            shutil.rmtree(old)

    def recover(self) -> None:
        """Finish what a crash interrupted: a complete work folder becomes the stage's folder, and an old folder
        without a successor is restored.
        """
        work = self.path / WORK
        for path in sorted(work.iterdir()) if work.exists() else []:
            name = path.name.removesuffix(".old")
            if path.name.endswith(".old"):
                if (self.path / name).exists() or (work / name / "manifest.json").exists():
                    shutil.rmtree(path)
                else:
                    path.rename(self.path / name)
            elif (path / "manifest.json").exists():
                self._move_into_place(name)

    @contextlib.contextmanager
    def lock(self) -> Iterator[None]:
        """Lock the run: two commands that write into it at the same time would destroy each other's work."""
        import fcntl  # not on Windows, where the user must not start two commands at once

        self.path.mkdir(parents=True, exist_ok=True)
        with open(self.path / ".lock", "w") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise UserError(
                    f"another crawltalk is at work in {self.path}; wait for it, or choose --out"
                ) from None
            yield


def stage_config(stage: Stage, recipe: Recipe) -> dict[str, Any]:
    """Everything that decides what a stage makes except its inputs, as a flat dict."""
    section = stage.config(recipe)
    external = stage.load_external_inputs()(section) if stage.external_inputs else {}
    return msgspec.to_builtins(flatten(section) | {"seed": recipe.seed} | external)


def fingerprint(stage: Stage, config: Mapping[str, Any], inputs: Mapping[str, str]) -> str:
    """Sixteen hexadecimal digits: a hash of everything that decides what the stage makes."""
    text = msgspec.json.encode([stage.name, stage.version, config, inputs], order="sorted")
    return hashlib.sha256(text).hexdigest()[:16]
