"""Make a mixed corpus of real pages as WARC files, from Debian's HTML documentation and from folders of
pages.

    python scripts/make_corpus.py OUT --debs PACKAGE... [--pages FOLDER...] [--limit N] [--total N] [--each N]

PACKAGE is a .deb file or the name of a Debian package with HTML documentation (python3.11-doc,
postgresql-doc-15, debian-handbook, cppreference-doc-en-html ...); one that is given by name is downloaded
with apt-get. FOLDER is searched for *.html. At most `--limit` pages of each source are taken, at most
`--total` of all, by chance but always the same; they are dealt out round-robin over files of about `--each`
pages. A page's URL is https://PACKAGE.docs.example/path or https://FOLDER.pages.example/path.
"""

import argparse
import random
import re
import subprocess
import sys
import tempfile
import uuid
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import quote

import msgspec

from crawltalk.core.errors import BadInput, MissingInput, UserError
from crawltalk.crawl.records import gzip_record

NAME = re.compile(r"[a-z0-9][a-z0-9+.-]+")
"""A Debian package (Debian Policy 5.6.1)."""
DATE = "2024-05-01T00:00:00Z"


class Page(msgspec.Struct, frozen=True):
    """A file and the URL that it gets."""

    path: Path
    url: str


def pages_in(folder: Path, host: str) -> list[Page]:
    """All HTML files below a folder, in the order of their names; links are left out."""
    paths = sorted(path for path in folder.rglob("*") if path.suffix.lower() in {".html", ".htm", ".xhtml"})
    files = [path for path in paths if path.is_file() and not path.is_symlink() and path.stat().st_size]
    if not files:
        raise MissingInput(f"{host} holds no HTML pages")
    return [Page(path, f"https://{host}/{quote(path.relative_to(folder).as_posix())}") for path in files]


def unpack(package: str, folder: Path) -> list[Page]:
    """The pages of a .deb file, or of a package that is downloaded into `folder` first."""
    deb = Path(package)
    if not package.endswith(".deb"):
        if not NAME.fullmatch(package):
            raise BadInput(f"{package} is neither a .deb file nor the name of a package")
        download = folder / f"{package}.download"
        download.mkdir()
        _call(["apt-get", "--quiet", "download", package], download)
        deb = next(download.glob("*.deb"))
    elif not deb.is_file():
        raise MissingInput(f"{package} is not there")
    name = deb.name.partition("_")[0].removesuffix(".deb")
    _call(["dpkg-deb", "-x", str(deb.absolute()), str(folder / name)], folder)
    return pages_in(folder / name, f"{name}.docs.example")


def _call(words: list[str], folder: Path) -> None:
    try:
        done = subprocess.run(words, cwd=folder, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        raise UserError(f"{words[0]} is not there; it comes with Debian and Ubuntu") from None
    if done.returncode:
        lines = done.stderr.strip().splitlines() or [f"exit code {done.returncode}"]
        raise UserError(f"{' '.join(words)}: {lines[-1]}")


def write(pages: Sequence[Page], path: Path) -> None:
    """One WARC file, each page a gzip member of its own; the file appears when it is complete."""
    part = path.with_name(f"{path.name}.part")
    with open(part, "wb") as file:
        for page in pages:
            body = page.path.read_bytes()
            # No charset: as with most servers, the page has to say it.
            http = (
                f"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: {len(body)}\r\n\r\n".encode()
            )
            head = {
                "WARC-Type": "response",
                "WARC-Record-ID": f"<urn:uuid:{uuid.uuid5(uuid.NAMESPACE_URL, page.url)}>",
                "WARC-Target-URI": page.url,
                "WARC-Date": DATE,
                "WARC-Identified-Payload-Type": "text/html",
                "Content-Type": "application/http; msgtype=response",
                "Content-Length": str(len(http) + len(body)),
            }
            file.write(gzip_record(head, http + body))
    part.replace(path)


def make(
    out: Path, debs: Sequence[str], folders: Sequence[Path], limit: int | None, total: int | None, each: int
) -> None:
    """Collect, choose, shuffle, deal out and write; prints how many pages each source gave."""
    if not debs and not folders:
        raise UserError("nothing to make a corpus of: give --debs PACKAGE or --pages FOLDER")
    if any(out.glob("*.warc.gz")):
        raise UserError(f"{out} holds WARC files already; give another folder")
    with tempfile.TemporaryDirectory(prefix="crawltalk-corpus-") as name:
        sources = {deb: unpack(deb, Path(name)) for deb in debs}
        for folder in folders:
            if not folder.is_dir():
                raise MissingInput(f"{folder} is not a folder")
            host = re.sub(r"[^a-z0-9]+", "-", folder.resolve().name.lower()).strip("-") or "local"
            sources[str(folder)] = pages_in(folder, f"{host}.pages.example")
        rng = random.Random(0)
        chosen: list[Page] = []
        for source, pages in sources.items():
            some = pages if limit is None or len(pages) <= limit else rng.sample(pages, limit)
            print(f"{len(some):6,} of {len(pages):6,} pages  {Path(source).name}")
            chosen += some
        rng.shuffle(chosen)
        chosen = chosen[:total]
        count = max(1, round(len(chosen) / each))
        out.mkdir(parents=True, exist_ok=True)
        for number in range(count):
            write(chosen[number::count], out / f"corpus-{number:03}.warc.gz")
        print(f"{len(chosen):6,} pages in {count} WARC files in {out}")


def main(words: Sequence[str] | None = None) -> int:
    """The command line; returns the exit code."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("out", type=Path, metavar="OUT", help="folder for the WARC files")
    parser.add_argument(
        "--debs", nargs="+", default=[], metavar="PACKAGE", help=".deb files or names of Debian packages"
    )
    parser.add_argument(
        "--pages", nargs="+", default=[], type=Path, metavar="FOLDER", help="folders of HTML files"
    )
    parser.add_argument("--limit", type=_positive, metavar="N", help="most pages of one source")
    parser.add_argument("--total", type=_positive, metavar="N", help="most pages in all")
    parser.add_argument(
        "--each", type=_positive, default=1000, metavar="N", help="pages of a WARC file (1000)"
    )
    flags = parser.parse_args(words)
    try:
        make(flags.out, flags.debs, flags.pages, flags.limit, flags.total, flags.each)
    except (UserError, OSError) as error:
        print(f"make_corpus: {error}", file=sys.stderr)
        return 2
    return 0


def _positive(word: str) -> int:
    if not word.isdecimal() or not int(word):
        raise argparse.ArgumentTypeError(f"{word} is not a whole number above 0")
    return int(word)


if __name__ == "__main__":
    sys.exit(main())
