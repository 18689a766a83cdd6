"""Small crawls with pages of every kind, and the data stage on them."""

import gzip
import json
import random
import string
from pathlib import Path

from crawltalk.core.documents import read_table
from crawltalk.core.types import Document
from crawltalk.data.stage import data
from crawltalk.pipeline import STAGES
from crawltalk.recipe import Data, Machine
from crawltalk.recipe.layers import load_recipe
from crawltalk.run.execute import build
from crawltalk.run.folder import RunFolder
from crawltalk.run.stage import Job, Progress

SAMPLES = Path(__file__).parents[3] / "shared" / "data" / "warc_samples"

LEAD = (
    "Dysprosium\n"
    "Chemical element with atomic number 66\n"
    "Dysprosium is a chemical element; it has symbol Dy and atomic number 66. It is a rare-earth "
    "element in the lanthanide"
    " series with a metallic silver luster. Dysprosium is never found in nature as a free element, though, like other"
    " lanthanides, it is found in various minerals, such as xenotime. Naturally occurring dysprosium "
    "is composed of seven"
    " isotopes, the most abundant of which is the isotope with mass number 164.\n"
    "Dysprosium was first identified in 1886 by Paul Emile Lecoq de Boisbaudran, but it was not "
    "isolated in pure form until"
    " the development of ion-exchange techniques in the 1950s."
)

"""What a normal page of the sample looks like: title, description, one or two paragraphs."""


def document(text: str, **fields) -> Document:
    values = {
        "id": "1",
        "dump": "d",
        "url": "http://a.example/",
        "date": "",
        "file_path": "f",
        "language": "en",
    }
    return Document(**(values | {"language_score": 1.0, "token_count": 0} | fields | {"text": text}))


def page_html(title: str, paragraphs: list[str], charset: str = "utf-8") -> bytes:
    body = "".join(f"<p>{text}</p>" for text in paragraphs)
    return (
        f"<!doctype html><html><head><meta charset={charset}><title>{title} | Site</title></head><body>"
        "<header><a href=/>Site</a></header><nav><ul><li><a href=/a>Topics</a><li><a href=/b>About us</a></ul></nav>"
        "<div class='cookie-banner'>We use cookies to make this site better.<button>Accept all</button></div>"
        f"<main><article><h1>{title}</h1>{body}<div class='share'><a href=/s>Share</a></div></article></main>"
        "<aside><h2>Related</h2><ul><li><a href=/c>Another article</a></ul></aside>"
        "<footer><p>All rights reserved. Terms of use.</p></footer></body></html>"
    ).encode(charset)


def sentences(seed: int, count: int = 8) -> str:
    """English-looking prose that the filters accept, different for every seed."""
    rng = random.Random(seed)
    nouns = [
        "river",
        "mountain",
        "village",
        "engine",
        "theory",
        "castle",
        "painter",
        "treaty",
        "harbour",
        "orchestra",
        "glacier",
        "railway",
        "council",
        "poem",
    ]
    verbs = [
        "crosses",
        "describes",
        "supports",
        "follows",
        "replaced",
        "inspired",
        "limits",
        "protects",
        "divides",
        "measured",
    ]
    things = [
        "old",
        "northern",
        "famous",
        "narrow",
        "royal",
        "wooden",
        "early",
        "small",
        "modern",
        "distant",
        "quiet",
        "western",
        "busy",
        "green",
        "common",
    ]
    names = ["".join(rng.choices(string.ascii_lowercase, k=6)).title() for _ in range(8)]
    shapes = [
        "The {0} {1} of {4} {2} the {3} {1}, which was built in {5} for the people of the valley.",
        "In {5}, {4} wrote that no {0} {1} {2} what they have always known as home.",
        "Many visitors come to {4} to see how its {3} {1} {2} another one near the border.",
        "After the long winter of {5} a {0} {1} was found with letters that {4} had sent.",
        "Scholars have debated since {5} whether {4} owned that {3} {1} or merely rented it.",
        "{4} and the {0} {1} appear together on coins, stamps and maps printed before {5}.",
        "Nobody in {4} could say to whom the {3} {1} belonged when the flood came in {5}.",
        "It is the only {0} {1} of its kind that {4} did not sell during the crisis of {5}.",
        "With help from {4}, engineers measured the {3} {1} and that changed everything by {5}.",
        "Songs about {4} still mention a {0} {1} that {2} travellers on their way to the coast.",
    ]
    rng.shuffle(shapes)
    return " ".join(
        shape.format(
            rng.choice(things),
            rng.choice(nouns),
            rng.choice(verbs),
            rng.choice(things),
            rng.choice(names),
            rng.randint(1000, 1999),
        )
        for shape in shapes[:count]
    )


def write_warc(
    path: Path, pages: list[tuple[str, bytes]], headers: dict[str, list[tuple[str, str]]] | None = None
) -> None:
    """A WARC file, gzipped by record; `headers` overrides the HTTP headers of single URLs; record "
    "ids follow from the place."""
    with open(path, "wb") as file:
        for number, (url, body) in enumerate(pages):
            fields = (headers or {}).get(url, [("Content-Type", "text/html; charset=utf-8")])
            http = "HTTP/1.1 200 OK\r\n" + "".join(f"{name}: {value}\r\n" for name, value in fields) + "\r\n"
            block = http.encode() + body
            head = (
                "WARC/1.0\r\nWARC-Type: response\r\nWARC-Record-ID: "
                f"<urn:uuid:{path.stem}-{number}>\r\nWARC-Target-URI: {url}\r\n"
                "WARC-Date: 2024-05-01T12:00:00Z\r\nContent-Type: application/http; msgtype=response\r\n"
                f"Content-Length: {len(block)}\r\n\r\n"
            )
            record = head.encode() + block + b"\r\n\r\n"
            file.write(gzip.compress(record, mtime=0) if path.suffix == ".gz" else record)


def crawl_folder(folder: Path, files: list[Path]) -> Path:
    folder.mkdir(exist_ok=True)
    rows = [{"path": str(path), "bytes": path.stat().st_size, "sha256": "0"} for path in files]
    (folder / "files.json").write_text(json.dumps(rows))
    return folder


def run(
    crawl: Path, out: Path, workers: int = 1, config: Data | None = None, progress: Progress | None = None
):
    out.mkdir(parents=True, exist_ok=True)
    machine = Machine(workers=workers, device="cpu", dtype="float32")
    job = Job(config or Data(), {"crawl": crawl}, out, 0, machine, progress or Progress())
    return data(job)


def removed_rows(out: Path) -> dict[str, tuple[str, str]]:
    return {
        row["url"]: (row["step"], row["reason"])
        for row in read_table(out / "removed-00000.parquet", ["url", "step", "reason"])
    }


def small_crawl(folder: Path) -> Path:
    """Three files with normal pages, a near-duplicate across files, and one page for every step to drop."""
    folder.mkdir()
    files = []
    for number in range(3):
        pages = [
            (
                f"http://a.example/{number}-{n}",
                page_html(f"Page {number} {n}", [sentences(100 * number + n), sentences(-n - 1, 2)]),
            )
            for n in range(4)
        ]
        pages.append(
            (
                f"http://mirror.example/{number}",
                page_html("Copy", [sentences(7, 20), f"Copied by host {number}."]),
            )
        )
        files.append(folder / f"crawl-{number}.warc.gz")
        if number == 0:
            pages += [
                ("http://a.example/casino/1", page_html("Page", [sentences(5)])),
                (
                    "http://a.example/thin",
                    page_html(
                        "Thin",
                        [
                            "This page is still being written by the people of the village. Please come back later."
                        ],
                    ),
                ),
                (
                    "http://a.example/fr",
                    page_html("Le fleuve", ["Le fleuve traverse la ville et le village. " * 2 + FRENCH]),
                ),
                ("http://a.example/empty", b""),
                (
                    "http://a.example/mail",
                    page_html("Mail", [sentences(9) + " Write to jane.doe@mail.example or 8.8.4.4."]),
                ),
            ]
        write_warc(files[-1], pages)
    return crawl_folder(folder / "crawl", files)


FRENCH = (
    "Dans cette région, les habitants racontent encore "
    "que la rivière protégeait autrefois le château contre les armées."
)


def same_files(left: Path, right: Path) -> bool:
    """Whether the artifacts are the same; costs.json tells times."""
    names = sorted(path.name for path in left.iterdir() if path.is_file())
    assert names == sorted(path.name for path in right.iterdir() if path.is_file())
    return all(
        (left / name).read_bytes() == (right / name).read_bytes() for name in names if name != "costs.json"
    )


def build_data(folder: Path, source: str, **flags: str) -> RunFolder:
    """A run with its crawl and data stages."""
    folder = RunFolder(folder)
    recipe = load_recipe("gpt2", (), {"crawl.source": source, "machine.workers": "1", **flags})
    build(folder, STAGES, ["crawl", "data"], recipe, lambda event: None)
    return folder
