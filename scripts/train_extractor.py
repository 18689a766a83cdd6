"""Train the block classifier of `crawltalk.data.extract.main_text` and write its weights.

    pip install trafilatura
    python scripts/train_extractor.py --page-types WCXB --passages TRAFILATURA --crawl runs/small/crawl \\
        --documentation DEBIAN [--articles ARTICLES] [--leave-out SET]

The sets are described in `crawltalk.data.extract.gold`: WCXB's `dev` pages (CC BY 4.0) teach what content is
on pages of seven types; passages that people marked on three of four of trafilatura's pages (Apache-2.0)
teach it in other languages, and trafilatura labels what nobody marked there; the embedded crawl's true main
text is known; and pages of Debian's documentation, in many languages, of which the generator's template tells
the text from its surroundings (DEBIAN: a folder with the packages of `DOCUMENTATION`, each unpacked by
`dpkg-deb -x` into a folder of its name; all have free licences). Parts of pages teach what short and bare
pages look like.

`--leave-out` trains without a whole set, prints the scores on it and writes nothing: that is how the features
and `BETA_SQUARED` were chosen. `names` says how much a word in a class name speaks for content, in nats: over
the pages that have it, the share of the text below it that is content against the page's. Printed are F1 on
the pages that did not teach.
"""

import argparse
import json
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import numpy as np
import torch
from resiliparse.parse.html import HTMLTree
from torch.nn import functional

from crawltalk.core.jsonl import read_jsonl
from crawltalk.data.extract import gold
from crawltalk.data.extract.blocks import features
from crawltalk.data.extract.main_text import FARTHEST, WEIGHTS, BlockClassifier, main_text, plain
from crawltalk.data.extract.scan import END, LINKED, START, WITHIN, WORDS_END, Scan, scan, word_hash
from crawltalk.data.read.charset import to_utf8
from crawltalk.data.read.warc import read_pages

HIDDEN, STEPS, BATCH, RATE = 32, 2500, 4096, 3e-3
TEACHERS = 4
"""Networks whose mean the one that is kept learns: from one start to the next, F1 differs by 0.004."""
FALSE = 1.25
"""Weight of text that is not content: too much is worse than too little."""
SAMPLE = 900
"""Pages of the embedded crawl: they are all alike."""
NAMES, LEAST_PAGES, PRIOR = 3000, 8, 4.0
"""Most words in class names; on how many pages each has to occur; pages' worth of belief that a word says
nothing.
"""
DOCUMENT_WEIGHT, LONGEST_DOCUMENT = 80.0, 1_500_000
"""What a page of documentation weighs at most, about as much as other pages do, and its most bytes."""
SHORT = 0.5
"""Of so many pages, parts teach as pages of their own."""
WORD = re.compile(r"[A-Z]*[a-z]+|[A-Z]+")
ATTRIBUTE = re.compile(r"""\b(?:class|id|role)\s*=\s*("[^"]*"|'[^']*'|[^\s>]+)""", re.I)


class Template(NamedTuple):
    """Documentation pages of one generator."""

    family: str
    """Templates of one family are left out together."""
    pages: int
    files: str
    """Where they lie in the folder of packages."""
    content: str = "body"
    """A selector of the element with the text."""
    surroundings: str = ""
    """A selector of what is in it and not of the text."""


_DOCBOOK, _SPHINX, _TEXINFO = ".navheader, .navfooter", ".headerlink, .contents.topic", ".header"
DOCUMENTATION = (
    Template("docbook", 16, "postgresql-doc-15/**/*.html", "body", _DOCBOOK),
    Template("docbook", 16, "gimp-help-ja/**/*.html", "body", _DOCBOOK),
    Template("docbook", 8, "gimp-help-ko/**/*.html", "body", _DOCBOOK),
    Template("docbook", 12, "debian-reference-ja/**/*.html", "body", _DOCBOOK),
    Template("docbook", 8, "debian-reference-zh-cn/**/*.html", "body", _DOCBOOK),
    Template("docbook", 8, "maint-guide-ja/**/*.html", "body", _DOCBOOK),
    Template("docbook", 8, "debian-faq-zh-cn/**/*.html", "body", _DOCBOOK),
    Template("docbook", 8, "aptitude-doc-ja/**/*.html", "body", _DOCBOOK),
    Template("docbook", 24, "installation-guide-amd64/**/*.html", "body", _DOCBOOK),
    Template("docbook", 24, "debian-handbook/**/*.html", "body", ".docnav, #banner, #title"),
    Template("docbook", 12, "libgtk-3-doc/**/*.html", "body", "table.navigation, .footer"),
    Template("docbook", 12, "libboost1.81-doc/**/html/boost/**/*.html", ".refentry, .section"),
    Template(
        "docbook",
        24,
        "cppreference-doc-en-html/**/*.html",
        "#content",
        "#siteSub, #contentSub, .printfooter, #catlinks, .editsection, .t-navbar",
    ),
    Template("docbook", 8, "maxima-doc/**/*.html", "body", _TEXINFO),
    Template("docbook", 12, "octave-doc/**/*.html", "body", _TEXINFO),
    Template("docbook", 4, "r-doc-html/**/*.html", "body", ".header, .Contents_element"),
    Template(
        "docbook", 12, "rust-doc/**/html/std/**/*.html", "#main-content", ".out-of-band, .srclink, .src"
    ),
    Template("sphinx", 24, "python3.11-doc/**/*.html", "div.body", _SPHINX),
    Template("sphinx", 12, "python-django-doc/**/*.html", "#docs-content, .yui-b .yui-g, div.body", _SPHINX),
    Template("sphinx", 16, "linux-doc-6.1/**/*.html", "[itemprop=articleBody], div.body", _SPHINX),
    Template("sphinx", 8, "varnish-doc/**/*.html", "div.body", _SPHINX),
    Template("sphinx", 9, "developers-reference-ja/**/*.html", "div.body", _SPHINX),
    Template("sphinx", 8, "python-sqlalchemy-doc/**/*.html", "#docs-body", ".headerlink, .topic"),
    Template("sphinx", 10, "git-doc/**/*.html", "body", "#footer"),
    Template("sphinx", 6, "kicad-doc-ja/**/*.html", "#content"),
    Template("sphinx", 6, "kicad-doc-zh/**/*.html", "#content"),
    Template("sphinx", 12, "libeigen3-doc/**/*.html", "#doc-content", ".memtemplate, .summary"),
    Template("sphinx", 12, "erlang-doc/**/*.html", "#content .innertube", ".footer"),
    Template(
        "sphinx", 8, "exim4-doc-html/**/*.html", "#content", ".previous_page, .next_page, .contents_page"
    ),
    Template("sphinx", 8, "nodejs-doc/**/*.html", "#apicontent", ".mark, .api_metadata"),
    Template(
        "sphinx", 10, "racket-doc/**/*.html", ".maincolumn .main", ".versionbox, .navsettop, .navsetbottom"
    ),
    Template(
        "sphinx",
        8,
        "twisted-doc/**/*.html",
        "#main",
        "#current-docs-container, #search-results-container, #showPrivate, address, footer",
    ),
    Template("sphinx", 16, "sqlite3-doc/**/*.html", "body", ".nosearch, .rightsidebar, .fancy_toc"),
    Template("sphinx", 16, "libreoffice-help-ja/**/*.html", "#DisplayArea"),
    Template("sphinx", 8, "libreoffice-help-zh-cn/**/*.html", "#DisplayArea"),
    Template(
        "sphinx",
        32,
        "apache2-doc/**/*.html",
        "#page-content",
        ".toplang, .bottomlang, #quickview, .lang-toggle, .top, .out-of-band, .up, #comments_section",
    ),
    Template("sphinx", 8, "mkdocs-doc/**/*.html", ".col-md-9", ".headerlink"),
)
"""Pages of two families: DocBook's and other structured formats', and Sphinx' and the rest."""


class Example(msgspec.Struct):
    """A page with its labels, a row a block."""

    name: str
    page: Scan
    html: str
    target: np.ndarray
    weight: np.ndarray
    generic: bool = True
    """Whether its class names are those of the web at large."""
    checked: bool = False
    """Whether it is looked through for missing labels."""


def squeeze(text: str) -> str:
    """Letters and digits only, lower case."""
    return "".join(filter(str.isalnum, text.lower()))


def label(source: gold.Gold, truth: str) -> Example | None:
    """A page whose blocks are content if they are lines of `truth`, or long and within it, or short and among
    content.
    """
    html = to_utf8(source.html)
    page = scan(html)
    count = len(page.blocks)
    if not count:
        return None
    pieces = [plain(page.text, block) for block in page.blocks]
    squeezed = list(map(squeeze, pieces))
    lines, whole = {squeeze(line) for line in truth.split("\n")}, squeeze(truth)
    known = [
        1 if piece in lines else (piece in whole) * (1 if len(piece.encode()) >= 25 else -1)
        for piece in squeezed
    ]
    target = np.maximum(0, known).astype(np.float32)
    weight = np.array([min(len(piece.encode()), 400) ** 0.5 / 10 for piece in pieces], np.float32)
    for index in range(count):
        if not squeezed[index]:
            target[index], weight[index] = 0, 0
        elif known[index] < 0:  # "Share" is in many a main text
            near = [*range(max(0, index - 6), index)][-3:] + [*range(index + 1, min(count, index + 7))][:3]
            sure = [target[other] for other in near if squeezed[other] and known[other] >= 0]
            target[index] = bool(sure) and np.mean(sure) > 0.5
            weight[index] *= 0.3
        if any(passage in pieces[index] for passage in source.keep):
            target[index], weight[index] = 1, 3 * weight[index]
        if any(
            passage in pieces[index] and len(pieces[index]) < 8 * len(passage) + 80 for passage in source.drop
        ):
            target[index], weight[index] = 0, 3 * weight[index]
    return Example(source.name, page, html.decode(), target, weight + 0.001)


def labelled(sources: Iterable[tuple[gold.Gold, str]], **facts: bool) -> list[Example]:
    """Examples of all pages that have text."""
    examples = [example for source, truth in sources if (example := label(source, truth))]
    for example in examples:
        for name, value in facts.items():
            setattr(example, name, value)
    return examples


def sample_pages(folder: Path) -> list[tuple[gold.Gold, str]]:
    """Pages of the embedded crawl."""
    truth = {row["record_id"]: row["main_text"] for row in read_jsonl(folder / "truth.jsonl", dict[str, Any])}
    pages = [page for path in sorted(folder.glob("*.warc.gz")) for page in read_pages(path, 1_000_000, print)]
    known = [page for page in pages if truth.get(page.id) and not page.fault]
    return [
        (gold.Gold(page.id, page.body), truth[page.id]) for page in known[:: max(1, len(known) // SAMPLE)]
    ]


def documentation(folder: Path, family: str) -> list[gold.Gold]:
    """Pages of documentation. Tables of contents are taken out: opinions differ whether they are text."""
    found = []
    for template in (template for template in DOCUMENTATION if template.family == family):
        paths = [path for path in folder.glob(template.files) if path.is_file() and not path.is_symlink()]
        paths.sort(key=lambda path: sha256(str(path.relative_to(folder)).encode()).digest())
        pages: list[gold.Gold] = []
        for path in paths:
            if len(pages) == template.pages:
                break
            if path.stat().st_size <= LONGEST_DOCUMENT and (page := _document(path, template)):
                pages.append(page)
        found += pages
    return found


def _document(path: Path, template: Template) -> gold.Gold | None:
    """A page of documentation, unless it has hardly any text but links."""
    tree = HTMLTree.parse(to_utf8(path.read_bytes()).decode())
    if not tree.body:
        return None
    _remove(tree, "div.toc, nav.toc, #toc")
    html = str(tree.document).encode()
    if template.surroundings:
        _remove(tree, template.surroundings)
    content = tree.body if template.content == "body" else tree.body.query_selector(template.content)
    page = scan(content.html.encode() if content else b"")
    size, linked = (page.blocks[:, END] - page.blocks[:, START]).sum(), page.blocks[:, LINKED].sum()
    if size < 150 or linked > size / 2:
        return None
    return gold.Gold(str(path), html, "\n".join(plain(page.text, block) for block in page.blocks))


def _remove(tree: HTMLTree, selector: str) -> None:
    while element := tree.body.query_selector(selector):
        element.decompose()


def short_pages(examples: Iterable[Example]) -> list[Example]:
    """Parts of pages as pages of their own: a few blocks of content, with all, some or none of what is around
    them, and for half of them without class names.
    """
    draw = np.random.default_rng(0)
    parts = []
    for example in examples:
        content = np.flatnonzero(example.target > 0.5)
        if not len(content) or draw.random() > SHORT:
            continue
        first = 0 if draw.random() < 0.7 else draw.integers(len(content))
        kept = (example.target <= 0.5) & (draw.random(len(example.target)) < draw.choice((0, 0.2, 1)))
        kept[content[first : first + draw.integers(2, 13)]] = True
        words = example.page.words if draw.random() < 0.5 else np.zeros_like(example.page.words)
        page = example.page._replace(blocks=example.page.blocks[kept], words=words)
        parts.append(
            Example(example.name, page, "", example.target[kept], example.weight[kept], generic=False)
        )
    return parts


def name_scores(examples: Sequence[Example]) -> dict[str, float]:
    """What the words in class names speak for."""
    content, pages, expected = Counter[int](), Counter[int](), Counter[int]()
    spelled: set[str] = set()
    for example in examples:
        spelled |= {word.lower() for word in set(WORD.findall(" ".join(ATTRIBUTE.findall(example.html))))}
        elements = example.page.elements
        held = np.zeros((len(elements), 2))
        within = example.page.blocks[:, WITHIN]
        np.add.at(held, within, np.stack([example.weight * example.target, example.weight], 1))
        for element in range(len(elements) - 1, 0, -1):
            held[elements[element, 0]] += held[element]
        usual = min(0.95, max(0.05, held[0, 0] / held[0, 1]))
        below, numbers = np.unique(example.page.words, return_inverse=True)
        held = np.repeat(held[1:], np.diff(elements[:, WORDS_END]), axis=0)
        right, all_ = (np.bincount(numbers, column, len(below)) for column in held.T)
        seen = all_ > 0
        for word, share in zip(below[seen].tolist(), (right[seen] / all_[seen]).tolist(), strict=True):
            content[word] += share
            pages[word] += 1
            expected[word] += usual
    by_hash = {word_hash(word.encode()): word for word in spelled}
    scores = {}
    for word, count in pages.items():
        if count >= LEAST_PAGES and word in by_hash:
            usual = expected[word] / count
            odds = (content[word] + PRIOR * usual) / (count - content[word] + PRIOR * (1 - usual))
            scores[word] = np.log(odds * (1 - usual) / usual)
    best = sorted(scores, key=lambda word: -abs(scores[word]) * pages[word] ** 0.5)[:NAMES]
    return {
        by_hash[word]: round(float(scores[word]), 3) for word in sorted(best, key=lambda word: by_hash[word])
    }


def train(examples: Sequence[Example], teachers: int = TEACHERS) -> dict[str, Any]:
    """The content of `extraction.json`. The network learns, by 0.7, the outputs of its teachers, and by 0.3 the labels
    (Hinton 2015).
    """
    names = name_scores([example for example in examples if example.generic])
    hashes = sorted((word_hash(word.encode()), score) for word, score in names.items())
    table = (
        np.array([hash_ for hash_, _ in hashes], np.uint64),
        np.array([score for _, score in hashes], np.float32),
    )
    rows = torch.from_numpy(np.concatenate([features(example.page, table) for example in examples]))
    target = torch.from_numpy(np.concatenate([example.target for example in examples]))
    weight = torch.from_numpy(np.concatenate([example.weight for example in examples]))
    weight = torch.where(target > 0.5, weight, FALSE * weight)
    mean, scale = rows.mean(0), rows.std(0) + 1e-3
    rows = ((rows - mean) / scale).clamp(-FARTHEST, FARTHEST)
    if teachers:
        networks = [fit(rows, target, weight, seed) for seed in range(teachers)]
        with torch.no_grad():
            taught = torch.stack([network(rows)[:, 0] for network in networks]).mean(0).sigmoid()
        target = 0.7 * taught + 0.3 * target
    hidden, _, output = fit(rows, target, weight, teachers)
    weights_by_name = {"mean": mean, "scale": scale, "hidden": hidden.weight.T, "hidden_bias": hidden.bias}
    weights_by_name |= {"output": output.weight[0], "output_bias": output.bias}
    return {"names": names} | {
        name: np.round(value.detach().double().numpy(), 4).tolist() for name, value in weights_by_name.items()
    }


def fit(rows: torch.Tensor, target: torch.Tensor, weight: torch.Tensor, seed: int) -> torch.nn.Sequential:
    """A network: log-odds of content from the features."""
    torch.manual_seed(seed)
    network = torch.nn.Sequential(
        torch.nn.Linear(rows.shape[1], HIDDEN), torch.nn.ReLU(), torch.nn.Linear(HIDDEN, 1)
    )
    optimizer = torch.optim.AdamW(network.parameters(), weight_decay=0.1)
    for step in range(STEPS):
        for group in optimizer.param_groups:
            group["lr"] = RATE * (1 - step / STEPS)
        chosen = torch.randint(len(rows), (BATCH,))
        losses = functional.binary_cross_entropy_with_logits(
            network(rows[chosen])[:, 0], target[chosen], reduction="none"
        )
        loss = (losses * weight[chosen]).sum() / weight[chosen].sum()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return network


def without_gaps(examples: Sequence[Example]) -> list[Example]:
    """The examples, less the pages whose truth seems to lack much: the other half of the examples is sure of
    more text.
    """
    half = [sha256(f"gaps {example.name}".encode()).digest()[0] % 2 for example in examples]
    kept = []
    for part in (0, 1):
        taught = [example for example, other in zip(examples, half, strict=True) if other != part]
        classifier = BlockClassifier.of(train(taught, teachers=0))
        for example in [example for example, own in zip(examples, half, strict=True) if own == part]:
            blocks = example.page.blocks
            size = (blocks[:, END] - blocks[:, START]) * (example.weight > 0.01)
            sure = classifier.probabilities(example.page) > 0.8
            missing = (size * sure * (example.target == 0)).sum()
            if not example.checked or missing <= 0.35 * max(1, (size * example.target).sum()):
                kept.append(example)
    return kept


SETS = ("page-types", "passages", "docbook", "sphinx")


def examples_of(flags: argparse.Namespace) -> dict[str, list[Example]]:
    """Those of each set that is not left out, and of the embedded crawl."""
    from trafilatura import extract

    found = {"crawl": labelled(sample_pages(flags.crawl), generic=False)}
    for name in SETS:
        if name == flags.leave_out:
            continue
        if name == "page-types":
            pages = gold.page_types(flags.page_types, "dev")
            found[name] = labelled(((page, page.text) for page in pages), checked=True)
        elif name == "passages":
            taught = [page for page in gold.passages(flags.passages) if not page.held_out]
            found[name] = labelled(
                (page, extract(page.html, include_comments=False) or "") for page in taught
            )
        else:
            found[name] = labelled(
                ((page, page.text) for page in documentation(flags.documentation, name)), generic=False
            )
            for example in found[name]:
                example.weight *= min(1, DOCUMENT_WEIGHT / example.weight.sum())
    return found


def main() -> None:
    """Train, write the weights, and print the F1 on each gold set."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    for name in ("page-types", "passages", "crawl", "documentation"):
        parser.add_argument(f"--{name}", type=Path, required=True)
    parser.add_argument("--articles", type=Path)
    parser.add_argument("--leave-out", choices=SETS)
    flags = parser.parse_args()
    sets = examples_of(flags)
    print("; ".join(f"{len(examples)} pages of {name}" for name, examples in sets.items()))
    web = without_gaps([example for name in ("page-types", "passages") for example in sets.pop(name, [])])
    print(f"{len(web)} pages of the web without gaps")
    examples = [*web, *short_pages(web), *(example for others in sets.values() for example in others)]
    table = train(examples)
    if not flags.leave_out:
        text = json.dumps(table, separators=(",", ":"), ensure_ascii=False)
        WEIGHTS.write_text(text + "\n", encoding="utf-8")
        print(f"{WEIGHTS}: {WEIGHTS.stat().st_size:,} bytes, {len(table['names'])} words")
    classifier = BlockClassifier.of(table)

    def extracted(html: bytes) -> str | None:
        page = scan(to_utf8(html))
        return main_text(page, classifier.probabilities(page)) if len(page.blocks) else None

    folders = (flags.passages, flags.page_types, *([flags.articles] if flags.articles else []))
    tested = [known for folder in folders for known in gold.gold_sets(folder)]
    if flags.leave_out in ("docbook", "sphinx"):
        pages = documentation(flags.documentation, flags.leave_out)
        tested.append(gold.GoldSet(flags.leave_out, pages, gold.word_f1))
    for known in tested:
        print(f"{known.name}: F1 {known.score(extracted):.4f} on {len(known.pages)} pages that did not teach")


if __name__ == "__main__":
    main()
