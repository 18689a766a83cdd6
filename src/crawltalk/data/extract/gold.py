"""Pages whose main text people wrote down or marked: three public sets, and how each of them is scored.

- passages: trafilatura's evaluation data (github.com/adbar/trafilatura, `evaldata.json` and HTML files):
passages to keep and to drop on each page; F1 over all passages. One page of four is held out of training. -
articles: article-extraction-benchmark (github.com/scrapinghub): `ground-truth.json` and `html/*.html.gz`;
means over the pages of precision and recall of 4-grams of words, and their F1. No page of it is trained on. -
page types: WCXB (Foley 2026, arXiv:2605.21097): `test/ground-truth/*.json` and `test/html/*.html.gz`; mean
over the pages of the F1 of words. Trained on: `dev`, never `test`.
"""

import gzip
import json
import re
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from hashlib import sha256
from pathlib import Path
from statistics import mean

import msgspec


class Gold(msgspec.Struct, frozen=True):
    """A page and what an extractor should find on it."""

    name: str
    html: bytes
    text: str = ""
    """The whole main text; empty if only passages are known."""
    keep: Sequence[str] = ()
    drop: Sequence[str] = ()

    @property
    def held_out(self) -> bool:
        """Whether a page with marked passages is never trained on."""
        return sha256(self.name.encode()).digest()[0] % 4 == 0


def passages(folder: Path) -> list[Gold]:
    """Pages with marked passages."""
    files = {path.name: path for path in folder.rglob("*.html")}
    entries = json.loads((folder / "evaldata.json").read_text(encoding="utf-8")).values()
    return [
        Gold(entry["file"], files[entry["file"]].read_bytes(), keep=entry["with"], drop=entry["without"])
        for entry in entries
    ]


def articles(folder: Path) -> list[Gold]:
    """Pages with one article each."""
    truth = json.loads((folder / "ground-truth.json").read_text(encoding="utf-8"))
    return [
        Gold(name, gzip.decompress((folder / "html" / f"{name}.html.gz").read_bytes()), entry["articleBody"])
        for name, entry in truth.items()
    ]


def page_types(folder: Path, split: str = "test") -> list[Gold]:
    """Pages of seven types; those without any main text are left out."""
    found = []
    for path in sorted((folder / split / "ground-truth").glob("*.json")):
        truth = json.loads(path.read_text(encoding="utf-8"))["ground_truth"].get("main_content")
        if truth:
            html = gzip.decompress((folder / split / "html" / f"{path.stem}.html.gz").read_bytes())
            found.append(Gold(path.stem, html, truth))
    return found


def passage_f1(pages: Iterable[Gold], texts: Iterable[str]) -> float:
    """F1 over all passages: extracted passages that should be kept are right, those to be dropped are wrong."""
    kept = lost = wrong = 0
    for page, text in zip(pages, texts, strict=True):
        hits = sum(passage in text for passage in page.keep)
        kept, lost = kept + hits, lost + len(page.keep) - hits
        wrong += sum(passage in text for passage in page.drop)
    return 2 * kept / max(1, 2 * kept + lost + wrong)


def _overlap(truth: Counter[str], found: Counter[str]) -> tuple[float, float]:
    """Precision and recall of the extracted n-grams."""
    both = (truth & found).total()
    return both / max(1, found.total()), both / max(1, truth.total())


def _f1(precision: float, recall: float) -> float:
    return 2 * precision * recall / (precision + recall) if precision + recall else 0.0


def _ngrams(text: str, n: int) -> Counter[str]:
    words = re.findall(r"\w+", text)
    return Counter(
        " ".join(words[position : position + n]) for position in range(max(1, len(words) - n + 1)) if words
    )


def article_f1(pages: Iterable[Gold], texts: Iterable[str]) -> float:
    """F1 of the means of precision (over the pages with any extracted text) and recall of 4-grams."""
    pairs = [
        (text, _overlap(_ngrams(page.text, 4), _ngrams(text, 4)))
        for page, text in zip(pages, texts, strict=True)
    ]
    return _f1(mean(pair[0] for text, pair in pairs if text), mean(pair[1] for _, pair in pairs))


def word_f1(pages: Iterable[Gold], texts: Iterable[str]) -> float:
    """Mean over the pages of the F1 of words."""
    pairs = zip(pages, texts, strict=True)
    return mean(
        _f1(*_overlap(_ngrams(page.text.lower(), 1), _ngrams(text.lower(), 1))) for page, text in pairs
    )


class GoldSet(msgspec.Struct, frozen=True):
    """Pages and how they are scored."""

    name: str
    pages: Sequence[Gold]
    f1: Callable[[Iterable[Gold], Iterable[str]], float]

    def score(self, extractor: Callable[[bytes], str | None]) -> float:
        """F1 of an extractor."""
        return self.f1(self.pages, [extractor(page.html) or "" for page in self.pages])


def gold_sets(folder: Path) -> list[GoldSet]:
    """The sets anywhere below a folder; only pages that crawltalk's extractor was not trained on."""
    found = []
    for path in sorted(folder.rglob("evaldata.json")):
        found.append(
            GoldSet("passages", [page for page in passages(path.parent) if page.held_out], passage_f1)
        )
    for path in sorted(folder.rglob("ground-truth.json")):
        found.append(GoldSet("articles", articles(path.parent), article_f1))
    for path in sorted(folder.rglob("test/ground-truth")):
        found.append(GoldSet("page types", page_types(path.parent.parent), word_f1))
    return found
