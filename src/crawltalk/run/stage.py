"""A stage: a function from directories to a directory.

The function gets a `Job` and returns its metrics (a flat dict of numbers and short strings). It writes its
artifacts into `job.out`, and nowhere else. `job.out` is a work folder that survives a crash: when the same
job starts again, it finds its partial work there and continues from it. The result must equal that of an
uninterrupted run byte for byte (except for logs of time and speed). Files that only help to continue go into
`job.out / STATE`. When the function returns, `run.execute` writes the manifest, removes STATE and renames the
folder. What a failed stage leaves in `job.out / RESCUED` is moved to the folder of that name in the run.
"""

import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Generic, Literal, TextIO, TypeVar

from crawltalk.core.errors import MissingInput
from crawltalk.core.objects import load_object
from crawltalk.recipe import Machine, Recipe

STATE, RESCUED = "state", "rescued"
ModelKind = Literal["base", "assistant", "reward"]
"""What a model is for: to continue documents, to answer, to score answers."""
Config = TypeVar("Config")
Metrics = dict[str, float | int | str]


class Progress:
    """What a stage reports while it works: JSON lines on `stream`, shown by the console of the parent process."""

    def __init__(self, stream: TextIO | None = None, stage: str = "", every: float = 0.2) -> None:
        self.stream = stream
        self.stage = stage
        self.every = every
        self._last = -1e9

    def update(self, done: float, total: float | None, unit: str, **figures: float | str) -> None:
        """Report `done` of `total` units, with further figures such as the loss; at most one event every
        `every` seconds.
        """
        now = time.monotonic()
        if self.stream is None or (now - self._last < self.every and done != total):
            return
        self._last = now
        self.send("progress", done=done, total=total, unit=unit, **figures)

    def note(self, text: str) -> None:
        """Report one line that a person should see, such as a sample of the model."""
        self.send("note", text=text)

    def warn(self, text: str) -> None:
        """Report that something was left out or is wrong, although the stage continues."""
        self.send("warning", text=text)

    def send(self, event: str, **fields: Any) -> None:
        """Write one event."""
        if self.stream is not None:
            row = {"event": event, "stage": self.stage, **fields}
            self.stream.write(json.dumps(row, ensure_ascii=False) + "\n")
            self.stream.flush()


@dataclass(frozen=True)
class Job(Generic[Config]):
    """Everything that a stage gets."""

    config: Config
    """Its own section of the recipe."""
    inputs: Mapping[str, Path]
    """Upstream stage -> its folder."""
    out: Path
    """The work folder to write into; may hold partial work of the same job."""
    seed: int
    machine: Machine
    """Resolved: workers and device are set. dtype may be None; then the stage probes which one is faster."""
    progress: Progress
    models: Mapping[str, ModelKind] = field(default_factory=dict)
    """The inputs that are models, in the order in which they are built."""
    beside: Mapping[str, Path] = field(default_factory=dict)
    """Of the folders that `Stage.beside` names those that the run has."""

    def model(self, *kinds: ModelKind) -> Path:
        """The folder of the last input that is a model of one of these kinds. Raises MissingInput."""
        for name, kind in reversed(list(self.models.items())):
            if kind in kinds:
                return self.inputs[name]
        raise MissingInput(
            f"the stage {self.progress.stage} needs a model of the kind {' or '.join(kinds)}, and its inputs are "
            f"{', '.join(self.inputs)}; name another stage as its `model`"
        )


@dataclass(frozen=True)
class Stage:
    """One stage of a journey (`crawltalk.pipeline`)."""

    name: str
    """Its folder in the run."""
    inputs: tuple[str, ...]
    """Stages whose folders it reads."""
    function: str
    """`module:function`, imported only when the stage runs."""
    about: str
    section: str = ""
    """Its section of the recipe, if that has another name than the stage."""
    makes: ModelKind | None = None
    """The kind of model that it makes, if it makes one."""
    optional: str = ""
    """A field of its section, or several joined by |: if these are empty, or map to 0s, this stage is left out."""
    replaced: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """A field of its section, or several joined by +, -> the inputs that it does not read if these have values."""
    beside: tuple[str, ...] = ()
    """Folders of the run that are no stages, which it reads if they are there; what counts is each file below with the
    folder's name, such as benchmarks/sft/benchmarks.json.
    """
    version: int = 1
    """Increased when the code changes what the stage writes, so that older results become stale."""
    ranks: bool = False
    """Whether it trains on all ranks that torchrun started; other stages run on rank 0 alone."""
    external_inputs: str | None = None
    """`module:function` that maps the section to what decides the result outside the recipe, such as the dates
    of files that it names.
    """

    @property
    def kind(self) -> str:
        """The section of the recipe whose fields it takes."""
        return self.section or self.name

    def config(self, recipe: Recipe) -> Any:
        """Its section of the recipe. A stage in `recipe.stages` has a section of its own."""
        further = recipe.stages.get(self.name)
        return further.config if further else getattr(recipe, self.kind)

    def wanted(self, recipe: Recipe) -> bool:
        """Whether this recipe asks for it: one of its fields has a value, or one of its values is not 0."""
        section = self.config(recipe)
        values = [getattr(section, name) for name in self.optional.split("|") if name]
        return not values or any(
            any(value.values()) if isinstance(value, Mapping) else bool(value) for value in values
        )

    def needed(self, recipe: Recipe) -> list[str]:
        """The inputs that it reads with this recipe."""
        section = self.config(recipe)
        given = [key for key in self.replaced if all(getattr(section, field) for field in key.split("+"))]
        spared = {name for key in given for name in self.replaced[key]}
        return [name for name in self.inputs if name not in spared]

    def key(self, recipe: Recipe) -> str:
        """The dotted key of that section: `sft`, or `stages.polish.config`."""
        return f"stages.{self.name}.config" if self.name in recipe.stages else self.kind

    def load_external_inputs(self) -> Callable[[Any], dict[str, Any]]:
        """Import that function."""
        return load_object(self.external_inputs or "")
