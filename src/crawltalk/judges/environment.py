"""The environments that judges live in: virtual ones of their own, made when a person asks for it."""

import shutil
import subprocess
import sys
import venv
from pathlib import Path
from typing import NamedTuple

from crawltalk.core.errors import MissingInput, UserError
from crawltalk.core.printable import printable

FOLDER = Path("judges") / "environments"
"""Where they are, unless a person names another."""


class Judge(NamedTuple):
    """A program, as pip knows it."""

    distribution: str
    version: str
    """That its reports are read as those of."""
    extras: str
    needs: str
    """What it takes to install it."""
    imports: tuple[str, ...] = ()
    """Distributions that it needs and does not ask for."""

    @property
    def wanted(self) -> list[str]:
        """As pip is told."""
        return [f"{self.distribution}{self.extras}=={self.version}", *self.imports]


JUDGES = {
    "garak": Judge("garak", "0.17.1", "", "1.3 GB, and torch"),
    "agentdojo": Judge("agentdojo", "0.1.35", "", "0.3 GB"),
    "lm-eval": Judge("lm_eval", "0.4.13", "[api]", "0.5 GB", ("transformers",)),  # whose tokenizers it uses
}


class Environment(NamedTuple):
    """A judge that is installed."""

    python: Path
    version: str


def find(name: str, folder: Path | None) -> Environment:
    """The environment of a judge. Raises MissingInput with the command that makes it."""
    place = folder or FOLDER / name
    python, judge = _python(place), JUDGES[name]
    if python is None:
        raise MissingInput(
            f"{name} is not in {place}; make it with --make ({judge.needs}, from pip's index), or name the folder of "
            "a virtual environment that has it with --venv"
        )
    asked = f"import importlib.metadata as m; print(m.version({judge.distribution!r}))"
    found = subprocess.run([python, "-I", "-c", asked], capture_output=True, text=True, check=False)
    if found.returncode:
        wanted = " ".join(f"'{one}'" for one in judge.wanted)
        raise MissingInput(f"{place} has no {name}; install it with: {python} -m pip install {wanted}")
    return Environment(python.absolute(), found.stdout.strip())


def make(name: str, folder: Path | None) -> None:
    """Make the environment of a judge with uv, or with venv and pip, from pip's index. Raises UserError."""
    place, judge = folder or FOLDER / name, JUDGES[name]
    uv = shutil.which("uv")
    if _python(place) is None:
        venv.create(place, with_pip=uv is None)
    python = _python(place)
    if python is None:
        raise UserError(f"{place} became no virtual environment; name another folder with --venv")
    installer = [uv, "pip", "install", "--python", python] if uv else [python, "-m", "pip", "install"]
    done = subprocess.run([*installer, *judge.wanted], capture_output=True, text=True, check=False)
    if done.returncode:
        said = printable((done.stderr or done.stdout).strip().rpartition("\n")[2], 300)
        raise UserError(
            f"{judge.wanted[0]} could not be installed into {place}: {said}; give the same command again"
        )


def _python(folder: Path) -> Path | None:
    path = folder / ("Scripts/python.exe" if sys.platform == "win32" else "bin/python")
    return path if path.exists() else None
