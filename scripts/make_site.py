"""Make the documentation a site: the pages of docs/, those that stand elsewhere in the repository, and the reference of
the Python interface from its docstrings. `pip install --group docs` brings what it needs.

    python scripts/make_site.py [FOLDER]     FOLDER/site/index.html; build/ if absent
"""

import re
import shutil
import subprocess
import sys
from pathlib import Path, PurePosixPath

ROOT = Path(__file__).parents[1]
PAGES = {
    "README.md": "index.md",
    "CONTRIBUTING.md": "contributing.md",
    "EXPERIMENTS.md": "experiments.md",
    "CHANGELOG.md": "changelog.md",
    "findings/README.md": "findings.md",
}
"""Files outside docs/ -> pages."""
MODULES = (
    *("api", "run.stage", "pipeline", "models", "core.documents", "core.types", "core.errors"),
    *(
        "data.pipeline",
        "tokenizer.tokenizer",
        "retrieval.trace",
        "chat.messages",
        "chat.format",
        "tools.tool",
    ),
    *(
        "model.transformer",
        "engine.engine",
        "engine.sampling",
        "train.loop",
        "train.batches",
        "train.objectives",
    ),
    *("tasks", "rewards.verdict", "posttraining.formats", "posttraining.reinforce", "evals.batteries"),
    *("redteam.frame", "lab.experiment", "report.chapter"),
)
"""What other programs call, and what has to be written to extend a part."""
_LINK = re.compile(r"\]\(([^)\s:#]+)((?:#[^)\s]*)?)\)")


def gather(folder: Path) -> None:
    """Fill a folder with all pages."""
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(ROOT / "docs", folder)
    pages = {path.relative_to(ROOT).as_posix(): path for path in (ROOT / "docs").rglob("*.md")}
    pages |= {name: ROOT / name for name in PAGES}
    for name, path in pages.items():
        here = PurePosixPath(_page(name))
        text = _LINK.sub(
            lambda link: f"]({_link(PurePosixPath(name).parent / link[1], here)}{link[2]})",  # noqa: B023
            path.read_text(encoding="utf-8"),
        )
        (folder / here).write_text(text, encoding="utf-8")
    reference = "".join(f"\n::: crawltalk.{name}\n" for name in MODULES)
    about = "What other programs call, and what has to be written to extend a part."
    (folder / "reference.md").write_text(f"# Python\n\n{about}\n{reference}", encoding="utf-8")


def _page(name: str) -> str:
    """A file of the repository -> its page, from the first page of the site."""
    return PAGES.get(name, name.removeprefix("docs/"))


def _link(target: PurePosixPath, here: PurePosixPath) -> str:
    """A file of the repository, as `here` links to it on the site."""
    parts: list[str] = []
    for part in target.parts:
        if part == "..":
            parts.pop()
        else:
            parts.append(part)
    return "../" * (len(here.parts) - 1) + _page("/".join(parts))


def main(folder: Path) -> int:
    """Gather and build; 1 if a link leads nowhere."""
    gather(folder / "docs")
    shutil.copyfile(ROOT / "zensical.toml", folder / "zensical.toml")
    (folder / "src").unlink(missing_ok=True)
    (folder / "src").symlink_to(ROOT / "src")
    done = subprocess.run(
        [sys.executable, "-m", "zensical", "build", "--clean", "--strict"], cwd=folder, check=False
    )
    print(folder / "site" / "index.html")
    return done.returncode


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]).resolve() if len(sys.argv) > 1 else ROOT / "build"))
