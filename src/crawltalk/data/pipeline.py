"""The steps that a page goes through up to deduplication, in FineWeb's order (Penedo et al. 2024, section 3).

`fineweb` is the list. The result for a page is a document with its MinHash signature, or a removed page with
the step and the reason.
"""

import contextlib
from collections.abc import Callable, Mapping
from functools import partial
from hashlib import blake2b
from typing import Any, NamedTuple

import msgspec
import numpy as np
import pyarrow as pa

from crawltalk.core.errors import BadRecipe, UserError
from crawltalk.core.objects import load_object
from crawltalk.core.printable import printable
from crawltalk.core.types import Document
from crawltalk.data.code_lines import in_lines
from crawltalk.data.dedup import band_hashes
from crawltalk.data.extract.headline import with_headline
from crawltalk.data.extract.main_text import extract, extract_utf8, visible_text
from crawltalk.data.filters.boilerplate import Boilerplate, Lines, survey_lines
from crawltalk.data.filters.language import identify, likely
from crawltalk.data.filters.pii import replace_pii
from crawltalk.data.filters.quality import Filter, code, filters, gopher_repetition
from crawltalk.data.filters.urls import blocked_url, host_of
from crawltalk.data.parts import FileTask, Part, Signed, SurveyPart
from crawltalk.data.read.charset import damage, to_utf8
from crawltalk.data.read.inputs import dump_name
from crawltalk.data.read.warc import Page, too_deep
from crawltalk.data.record.funnel import STEPS, Clock, Removed
from crawltalk.recipe import Data, Quality

BOILERPLATE = ("lines.npy", "hosts.npy")
"""What a survey of all files found, beside their parts."""


class Drop(NamedTuple):
    """A step returns this to drop the page."""

    reason: str
    """Short and countable."""
    detail: str = ""
    """Details of this page."""


class Step(NamedTuple):
    """One step of the pipeline."""

    name: str
    function: Callable[[Any], Any]
    """Takes what the step before returned (a `Page`; after extraction a `Document`; after the signature a
    `Signed`), and returns the input of the next step, or `Drop`.
    """
    html_only: bool = False
    """Whether pages whose text is known already (WET, JSONL, Parquet) skip this step."""


def fineweb(task: FileTask, boilerplate: Boilerplate | None = None) -> list[Step]:
    """The steps for one input file; of a survey, those up to the lines of its pages. Raises BadRecipe or MissingInput
    for a wrong name in the recipe.
    """
    config = task.config
    extractor = load_extractor(config.extractor)
    blocklist = np.load(task.folder / "blocklist.npy", mmap_mode="r")
    origin = {"dump": dump_name(task.name), "file_path": task.name}
    steps = [
        Step("broken", partial(decode_page, extractor is not extract)),
        Step("url", partial(check_url, blocklist)),
        Step("early_language", partial(check_early_language, config), html_only=True),
        Step("extraction", partial(extract_text, extractor, origin, config.headlines)),
        Step("site_lines", partial(remove_boilerplate, boilerplate)),
        Step("language", partial(check_language, config)),
        Step("quality", partial(check_quality, load_filters(config), config.headlines)),
        Step("signature", partial(sign, config, load_rank(config))),
        Step("pii", remove_pii),
    ]
    skipped = {name for name in ("early_language", "site_lines") if not getattr(config, name)}
    if task.survey:
        places = [step.name for step in steps]
        steps[places.index("site_lines") :] = [Step("lines", hash_lines)]
    return [step for step in steps if step.name not in skipped]


class Pipeline:
    """Takes pages through the steps."""

    def __init__(self, task: FileTask) -> None:
        self.boilerplate = None
        if task.config.site_lines and not task.survey:
            lines, hosts = (task.folder / name for name in BOILERPLATE)
            self.boilerplate = Boilerplate.load(lines, hosts, task.config.site_lines)
        self.steps = fineweb(task, self.boilerplate)
        self.origin = {"dump": dump_name(task.name), "file_path": task.name}
        warm_up(load_extractor(task.config.extractor))

    def run(self, page: Page, part: Part | SurveyPart, clock: Clock) -> None:
        """Add a page to the part: to its documents, or to its removed pages with step and reason."""
        size = len(page.body) or len((page.text or "").encode("utf-8", "replace"))
        part.stats.count_page(host_of(page.url), size)
        item: Any = page
        extracted: Document | None = None
        for step in self.steps:
            if step.html_only and page.text is not None:
                continue
            try:
                result = step.function(item)
            except UserError:
                raise
            except Exception as error:  # the extractor or a filter failed on this page alone
                result = Drop(f"failed: {type(error).__name__}", str(error)[:200])
            clock.lap(step.name)
            if isinstance(result, Drop):
                reason, detail = map(printable, result)
                row = {"step": step.name, "reason": reason, "detail": detail, **self.origin}
                text = in_lines(extracted.text) if extracted else None
                part.remove(Removed(id=page.id, url=page.url, text=text, **row))
                break
            item = result
            if isinstance(item, Document):
                extracted, size = extracted or item, len(item.text)
            if step.name in STEPS:
                part.stats.keep(step.name, size)
        else:
            part.add(item)
        if self.boilerplate is not None:
            part.stats.count_boilerplate(self.boilerplate.take_counted())
        if extracted is not None and extracted.language:
            part.stats.count_language(extracted.language)


def decode_page(builds_trees: bool, page: Page) -> Page | Drop:
    """The page with its body in UTF-8; drops broken pages, and, if the extractor builds trees, monstrous ones."""
    if page.fault:
        return Drop(page.fault)
    if page.text is not None:
        return page
    html = to_utf8(page.body, page.charset)
    if builds_trees and too_deep(html):
        return Drop("elements nested too deeply")
    return page if html is page.body else msgspec.structs.replace(page, body=html)


def check_url(blocklist: np.ndarray, page: Page) -> Page | Drop:
    """`blocklist`: sorted hashes (`filters.urls`)."""
    blocked = blocked_url(page.url, blocklist, page.id)
    return Drop(*blocked.split(" ", 1)) if blocked else page


def check_early_language(config: Data, page: Page) -> Page | Drop:
    """Check the language of all visible text, to save the extraction of pages in other languages."""
    probabilities = likely(visible_text(page.body))
    best = max((probabilities.get(language, 0) for language in config.languages), default=0)
    return page if best > config.early_language else Drop(next(iter(probabilities), "und"))


def extract_text(
    extractor: Callable[[bytes], str | None], origin: Mapping[str, str], headlines: bool, page: Page
) -> Document | Drop:
    """A page's main text, under its headline if asked for, as a document of this origin (`dump`, `file_path`)."""
    if page.text is None:
        # the built-in extractor need not check again that this is UTF-8
        text = extract_utf8(page.body) if extractor is extract else extractor(page.body)
        if text:
            _check_text(text)
            text = with_headline(text, page.body) if headlines else text
    else:
        text = page.text
    if not text or not text.strip():
        return Drop("no main text")
    if fault := damage(text):
        return Drop(fault)
    return Document(
        id=page.id,
        url=page.url,
        text=text,
        date=page.date,
        language="",
        language_score=0.0,
        token_count=0,
        **origin,
    )


def _check_text(text: object) -> None:
    """Raise TypeError or UnicodeEncodeError if what a function of the user's returned cannot be written."""
    if not isinstance(text, str):
        raise TypeError(f"the text is {type(text).__name__}, not str")
    text.encode()  # a lone surrogate is no character


def check_language(config: Data, document: Document) -> Document | Drop:
    """Set the document's language. Drop it if the language is not one of the recipe's, or too uncertain."""
    document.language, score = identify(in_lines(document.text))
    document.language_score = round(score, 4)
    if document.language not in config.languages:
        return Drop(document.language, f"{score:.2f}")
    if score <= config.language_threshold:
        return Drop(f"{document.language} unsure", f"{score:.2f}")
    return document


def check_quality(filters: Mapping[str, Filter], headlines: bool, document: Document) -> Document | Drop:
    """Apply the filters in order. The part of a filter's answer before ": " is counted as its reason. With
    `headlines`, filters of lines leave the first line as it is.
    """
    first = document.text.partition("\n")[0]
    for name, check in filters.items():
        result = check(document)
        if isinstance(result, Document):
            document = result
            _check_text(document.text)
        elif result:
            if not isinstance(result, str):
                raise TypeError(f"{name} returned {result!r}: a filter returns a reason, a Document or None")
            reason, _, detail = result.partition(": ")
            return Drop(f"{name}: {reason}", detail)
    if headlines and document.text.partition("\n")[0] != first:
        document = msgspec.structs.replace(document, text=f"{first}\n{document.text}")
    return document


def sign(config: Data, rank: Callable[[Document], float], document: Document) -> Signed:
    """The document with everything that deduplication needs.

    A hash of the URL is an additional band: two pages with the same URL are one page that was fetched twice.
    """
    origin = {"dump": document.dump, "file_path": document.file_path}
    bands = band_hashes(document.text, config.ngram, config.bands, config.rows)
    return Signed(
        document=document,
        bands=np.append(bands, _hash(document.url or f"{origin} {document.id} {document.text}")),
        rank=rank(document),
        tie=int(_hash(f"{document.url}\0{document.id}")),
        extracted=len(document.text),
    )


def remove_pii(signed: Signed) -> Signed:
    """Replace personal data. It is done last, as in FineWeb, so that it does not change the signature."""
    document = signed.document
    document.text, signed.replaced = replace_pii(document.text)
    document.token_count = (len(document.text.encode("utf-8", "ignore")) + 3) // 4
    return signed


def remove_boilerplate(boilerplate: Boilerplate | None, document: Document) -> Document | Drop:
    """The document without the lines that many pages of its host have."""
    assert boilerplate is not None, "no survey"
    text = boilerplate.remove(host_of(document.url), document.text)
    return (
        msgspec.structs.replace(document, text=text)
        if text
        else Drop("nothing but lines that its site repeats")
    )


def hash_lines(document: Document) -> Lines:
    """The hashes of a page's lines, for the survey."""
    return survey_lines(host_of(document.url), document.text)


def _hash(text: str) -> np.uint64:
    return np.uint64(int.from_bytes(blake2b(text.encode("utf-8", "replace"), digest_size=8).digest(), "big"))


Extractor = Callable[[bytes], str | None]
EXTRACTORS = {
    "crawltalk": "crawltalk.data.extract.main_text:extract",
    "resiliparse": "crawltalk.data.extract.by_resiliparse:extract",
    "trafilatura": "crawltalk.data.extract.by_trafilatura:extract",
}
"""Main-text extractors by name."""


def load_extractor(name: str) -> Extractor:
    """A built-in extractor, or the user's `"my_package.module:name"`. Raises BadRecipe if there is none.

    Extractors get pages in UTF-8.
    """
    try:
        return load_object(EXTRACTORS.get(name, name))
    except (ImportError, AttributeError, ValueError) as error:
        known = ", ".join(EXTRACTORS)
        raise BadRecipe(
            f"data.extractor = {name!r} is neither {known} nor a module:name that loads ({error})"
        ) from None


def has_own_code(config: Data) -> bool:
    """Whether the recipe names functions of the user's."""
    return config.extractor not in EXTRACTORS or bool(config.filters)


def load_filters(config: Data) -> dict[str, Filter]:
    """All filters on documents by name, in order: FineWeb's, then those that the recipe adds. Raises
    BadRecipe.
    """
    chosen = filters(config.quality) | {"code": code}
    for name in config.filters:
        try:
            chosen[name] = load_object(name)
        except (ImportError, AttributeError, ValueError) as error:
            raise BadRecipe(f"data.filters: {name!r} is not a module:name that loads ({error})") from None
    if config.classifier is not None:
        from crawltalk.data.filters import classifier

        chosen["classifier"] = classifier.filter_by(config.classifier, config.classifier_threshold)
    if config.benchmarks:
        from crawltalk.data.filters import decontamination

        hashes = decontamination.read_benchmarks(config.benchmarks, config.benchmark_ngram)
        chosen["decontamination"] = decontamination.filter_by(hashes, config.benchmark_ngram)
    return chosen


def load_rank(config: Data) -> Callable[[Document], float]:
    """The rank of a document: the one with the highest rank in its cluster is kept. Raises BadRecipe."""
    if config.keep == "longest":
        return lambda document: len(document.text)
    if config.keep == "newest":
        return lambda document: float("".join(filter(str.isdigit, document.date))[:14].ljust(14, "0"))
    if config.keep == "classifier" and config.classifier is not None:
        from crawltalk.data.filters.classifier import Classifier

        model = Classifier.load(config.classifier)
        return lambda document: model.score(document.text)
    raise BadRecipe(
        f"data.keep = {config.keep!r} is neither longest, newest nor classifier (with data.classifier)"
    )


def warm_up(extractor: Extractor = extract) -> None:
    """Load models and compiled code, so that this does not count as time of the first page."""
    with contextlib.suppress(Exception):  # one that wants more of a page says so of each page that lacks it
        extractor(b"<p>A page.</p>")
    identify("A page.")
    band_hashes("A page.")
    texts = dict.fromkeys(("id", "dump", "url", "date", "file_path", "language"), "")
    document = Document(text="A page.", **texts, language_score=1.0, token_count=0)
    gopher_repetition(Quality())(document)
    pa.array([""])  # the first one loads pandas, 0.3 s, if that is installed
