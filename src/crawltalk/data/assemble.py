"""All parts -> the corpus. Near-duplicates are dropped, then, if the recipe says so, repeated lines and substrings.
Writes documents, dropped pages, clusters and signatures, and returns the record (`funnel.json`).

What grows with the corpus stays on disk: texts are read part by part, ranks and clusters are memory-mapped.
"""

import shutil
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from itertools import accumulate
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from crawltalk.core.documents import COLUMNS, TableFiles
from crawltalk.core.errors import BadInput
from crawltalk.core.jsonl import read_jsonl
from crawltalk.core.types import Document
from crawltalk.data.dedup import Map, deduplicate, jaccard
from crawltalk.data.filters.urls import host_of
from crawltalk.data.parts import FACTS, FileTask, Names, names_of
from crawltalk.data.read.inputs import UNREADABLE
from crawltalk.data.record.funnel import REMOVED_COLUMNS, STEPS, Clock, Removed, Stats, summary
from crawltalk.data.record.truth import Scores, Truth
from crawltalk.recipe import Data
from crawltalk.run.stage import Job, Metrics

CLUSTER_COLUMNS = {"cluster": "int64", "id": "string", "url": "string", "characters": "int64", "kept": "bool"}
"""Rows of clusters-*.parquet: every document that has near-duplicates; `cluster` is the number of the one
that stays.
"""


PAIRS = 500
"""Duplicates whose exact similarity is computed for the record."""


class Corpus:
    """All documents of the parts, numbered one after the other, behind those of earlier crawls."""

    def __init__(self, tasks: Sequence[FileTask], earlier: Sequence[Path], folder: Path) -> None:
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        self.folder = folder
        self.parts = [(task, number) for task in tasks for number in range(_parts(task))]
        counts = [len(np.load(task.part(number, "facts.npy"))) for task, number in self.parts]
        before = [np.load(run / "signatures.npy", mmap_mode="r").shape[1] for run in earlier]
        self.earlier = sum(before)
        """Documents of earlier crawls: they come first, and always stay."""
        self.starts = list(accumulate(counts, initial=self.earlier))
        names = [
            names_of(sorted(run.glob("documents-*.parquet")), folder / f"names-{n}.bin")
            for n, run in enumerate(earlier)
        ]
        self.names = Names([*names, *(task.part(number, "names.bin") for task, number in self.parts)])
        files = [
            *(run / "signatures.npy" for run in earlier),
            *(task.part(number, "bands.npy") for task, number in self.parts),
        ]
        self.signatures = [file for file, count in zip(files, [*before, *counts], strict=True) if count]
        self.facts = np.zeros(0, FACTS)
        if self.starts[-1]:
            self.facts = np.lib.format.open_memmap(folder / "facts.npy", "w+", FACTS, (self.starts[-1],))
            self.facts["rank"][: self.earlier] = np.inf
            self.facts["tie"][: self.earlier] = np.arange(self.earlier)
            for (task, number), start, count in zip(self.parts, self.starts, counts, strict=False):
                self.facts[start : start + count] = np.load(task.part(number, "facts.npy"))

    def cluster(self, map_: Map) -> None:
        """Find the survivor of each document's cluster, and the clusters' sizes."""
        self.survivor, self.sizes = deduplicate(self.signatures, self.facts, self.folder, map_)

    def tables(self) -> Iterator[tuple[int, pa.Table, pa.Table]]:
        """For each part: number of its first document, its documents, its removed pages."""
        for (task, number), start in zip(self.parts, self.starts, strict=False):
            documents = _read(task.part(number, "documents.parquet"))
            yield start, documents, _read(task.part(number, "removed.parquet"))


def _read(path: Path, columns: Sequence[str] | None = None) -> pa.Table:
    """A whole file; `read_table` of pyarrow loads what it has for datasets of many files, 0.2 s."""
    with pq.ParquetFile(path) as file:
        return file.read(columns)


def _select(table: pa.Table, chosen: np.ndarray) -> pa.Table:
    """The rows where `chosen` is true; the method of tables loads all of pyarrow.compute, 0.1 s."""
    ends = np.flatnonzero(np.diff(chosen, prepend=False, append=False)).reshape(-1, 2).tolist()
    pieces = [table.slice(start, end - start) for start, end in ends]
    return pa.concat_tables([table.slice(0, 0), *pieces]).combine_chunks()


def _parts(task: FileTask) -> int:
    done = task.done()
    assert done is not None, task.source
    return done.parts


def assemble(
    tasks: Sequence[FileTask], job: Job[Data], map_: Map
) -> tuple[dict[str, Any], dict[str, list[float]]]:
    """Write all files except the record. Returns the record, and the pages and CPU seconds of each step."""
    stats, warnings = Stats(), []
    about_crawl = job.inputs["crawl"] / "warnings.json"
    if about_crawl.exists():
        warnings += msgspec.json.decode(about_crawl.read_bytes(), type=list[str])
    told = len(warnings)
    for task in tasks:
        done = task.done()
        assert done is not None, task.source
        warnings += done.warnings
        for part in range(done.parts):
            stats.add(msgspec.json.decode(task.part(part, "stats.json").read_bytes(), type=Stats))
    warnings = list(dict.fromkeys(warnings))  # one about the columns of texts comes from many files
    for warning in warnings[told:]:
        job.progress.warn(warning)
    if not stats.pages:
        names = ", ".join(f"{task.name} ({task.size:,} bytes)" for task in tasks[:3]) or "no file at all"
        raise BadInput(
            f"the crawl has no web page: {names}; give other files with --crawl.source 'FOLDER/*.warc.gz'"
        )

    if warnings[told:] and stats.reasons.get("broken", {}).get(UNREADABLE) == stats.pages:
        raise BadInput(
            f"no file of the crawl can be read: {warnings[0]}"
            + f"; and {len(warnings) - 1} more" * (len(warnings) > 1)
        )

    clock = Clock(stats.costs)
    corpus = Corpus(tasks, [Path(run) / "data" for run in job.config.earlier], tasks[0].folder / "corpus")
    corpus.cluster(map_)
    clock.lap("cluster")
    rewrite = _rewriter(corpus, job.config)
    truth = job.inputs["crawl"] / "truth.jsonl"
    scores = Scores(read_jsonl(truth, Truth), job.config.ngram) if truth.exists() else None
    outcome = _write(corpus, job.out, stats, rewrite, scores)
    clock.lap("write")

    record = summary(stats, warnings, outcome.hosts, outcome.lengths, outcome.cluster_sizes)
    record["pii"] = {"replaced": outcome.replaced}
    if job.config.site_lines:
        record["boilerplate"] = _boilerplate(stats)
    record["duplicates"]["similarities"] = _similarities(corpus, outcome.pairs, job.config.ngram)
    documents = outcome.lengths.total()
    metrics: Metrics = {
        "pages": stats.pages,
        "documents": documents,
        "characters": stats.left.get("pii", [0, 0])[1],
    }
    metrics |= {f"removed_{row['step']}": 0 for row in record["steps"] if row["step"] in STEPS}
    metrics |= {f"removed_{step}": sum(reasons.values()) for step, reasons in stats.reasons.items()}
    metrics["warnings"] = len(warnings)
    if scores:
        report = scores.report()
        record["truth"] = report
        for step, row in report["steps"].items():
            metrics |= {f"precision_{step}": row["precision"], f"recall_{step}": row["recall"]}
        metrics |= {"pii_left": report["pii_left"], "extract_f1": report["extract_f1"]}
    return {"metrics": metrics} | record, stats.costs


def _boilerplate(stats: Stats) -> dict[str, float]:
    """Share of the characters of all pages in lines that their sites repeat, before and after these were dropped."""
    characters, repeated, left, still = stats.boilerplate
    return {
        "share_before": round(repeated / max(1, characters), 4),
        "share_after": round(still / max(1, left), 4),
        "characters": characters - left,
    }


class Outcome(msgspec.Struct):
    """What was counted while the corpus was written."""

    hosts: Counter[str]
    lengths: Counter[int]
    cluster_sizes: Counter[int]
    replaced: int = 0
    pairs: list[tuple[str, int]] = []
    """Texts of the first dropped duplicates, and the numbers of their twins."""


Rewrite = Callable[[int, Document], Document]


def _write(
    corpus: Corpus, out: Path, stats: Stats, rewrite: Rewrite | None, scores: Scores | None
) -> Outcome:
    outcome = Outcome(Counter(), Counter(), Counter())
    outcome.cluster_sizes.update(corpus.sizes[corpus.sizes > 1].tolist())
    kept_numbers: list[np.ndarray] = []
    with (
        TableFiles(out, "documents", COLUMNS) as documents,
        TableFiles(out, "removed", REMOVED_COLUMNS) as removed,
        TableFiles(out, "clusters", CLUSTER_COLUMNS) as clusters,
    ):
        for start, table, gone in corpus.tables():
            numbers = np.arange(start, start + table.num_rows)
            survivors = np.asarray(corpus.survivor[start : start + table.num_rows])
            stays = survivors == numbers
            kept, drops = _select(table, stays), []
            for row, twin in zip(_select(table, ~stays).to_pylist(), survivors[~stays], strict=True):
                drops.append(_duplicate(row, corpus.names[int(twin)], int(twin) < corpus.earlier))
                if len(outcome.pairs) < PAIRS and twin >= corpus.earlier:
                    outcome.pairs.append((row["text"], int(twin)))
                if scores:
                    scores.removed(drops[-1], corpus.names[int(twin)][0])
            for size in corpus.facts["extracted"][numbers[stays]].tolist():
                stats.keep("duplicate", size)
            if rewrite is not None:
                kept, emptied, stays_still = _rewritten(kept, numbers[stays], rewrite)
                drops += emptied
                stays[stays] = stays_still
            for page in drops:
                stats.drop(page)
            clusters.write(_cluster_rows(corpus, numbers, survivors, stays))
            if scores:
                for row in gone.to_pylist():
                    scores.removed(Removed(**row))
                for row in kept.to_pylist():
                    scores.kept(Document(**row))
            removed.write(gone)
            removed.write(
                pa.Table.from_pylist([msgspec.structs.asdict(page) for page in drops], removed.schema)
            )
            documents.write(kept)
            kept_numbers.append(numbers[stays])
            lengths = [len(text) for text in kept["text"].to_pylist()]
            for length in lengths:
                stats.keep("pii", length)
            outcome.lengths.update(lengths)
            outcome.hosts.update(host_of(url) for url in kept["url"].to_pylist())
            outcome.replaced += int(corpus.facts["replaced"][numbers[stays]].sum())
    _write_signatures(corpus, out / "signatures.npy", np.concatenate([np.zeros(0, np.int64), *kept_numbers]))
    return outcome


def _similarities(corpus: Corpus, pairs: list[tuple[str, int]], ngram: int) -> dict[str, int]:
    """Exact similarity of dropped duplicates to the documents that are kept, in steps of 0.05 -> how many."""
    texts: dict[int, str] = {}
    wanted = {twin for _, twin in pairs}
    for (task, number), start in zip(corpus.parts, corpus.starts, strict=False):
        here = [
            twin for twin in wanted if start <= twin < start + len(np.load(task.part(number, "facts.npy")))
        ]
        if here:
            column = _read(task.part(number, "documents.parquet"), ["text"])["text"]
            texts |= {twin: column[twin - start].as_py() for twin in here}
    steps = Counter(int(20 * jaccard(text, texts[twin], ngram)) for text, twin in pairs)
    return {f"{step / 20:.2f}": count for step, count in sorted(steps.items())}


def _duplicate(row: dict[str, Any], twin: tuple[str, str], earlier: bool) -> Removed:
    return Removed(
        id=row["id"],
        url=row["url"],
        dump=row["dump"],
        file_path=row["file_path"],
        step="duplicate",
        reason=("same URL as" if row["url"] and row["url"] == twin[1] else "near-duplicate of")
        + (" a document of an earlier crawl" if earlier else " another document"),
        detail=twin[1],
        text=row["text"],
    )


def _cluster_rows(corpus: Corpus, numbers: np.ndarray, survivors: np.ndarray, stays: np.ndarray) -> pa.Table:
    here = np.flatnonzero(np.asarray(corpus.sizes)[survivors] > 1)
    names = [corpus.names[int(number)] for number in numbers[here]]
    columns = {
        "cluster": survivors[here],
        "id": [name[0] for name in names],
        "url": [name[1] for name in names],
        "characters": corpus.facts["characters"][numbers[here]],
        "kept": stays[here],
    }
    return pa.table(
        columns, pa.schema([(name, pa.type_for_alias(kind)) for name, kind in CLUSTER_COLUMNS.items()])
    )


def _write_signatures(corpus: Corpus, path: Path, numbers: np.ndarray) -> None:
    """Write the bands of the kept documents, (bands + 1, documents), for a later crawl to compare with."""
    bands = len(np.load(corpus.signatures[0], mmap_mode="r")) if corpus.signatures else 0
    with open(path, "wb") as file:
        header = {"descr": "<u8", "fortran_order": False, "shape": (bands, len(numbers))}
        np.lib.format.write_array_header_1_0(file, header)
        for band in range(bands):
            start = 0
            for signatures in corpus.signatures:
                row = np.load(signatures, mmap_mode="r")[band]
                low, high = np.searchsorted(numbers, [start, start + len(row)])
                file.write(row[numbers[low:high] - start].tobytes())
                start += len(row)


def _rewriter(corpus: Corpus, config: Data) -> Rewrite | None:
    """A function that removes repeated text from a document, or None if the recipe has none removed."""
    steps: list[Rewrite] = []
    if config.substrings:
        spans = _repeated(corpus, config.substrings, steps[:])

        def without_substrings(number: int, document: Document) -> Document:
            data, position, pieces = document.text.encode("utf-8", "replace"), 0, []
            for start, end in spans.get(number, []):
                pieces.append(data[position:start])
                position = end
            return msgspec.structs.replace(
                document, text=b"".join([*pieces, data[position:]]).decode("utf-8", "replace").strip()
            )

        steps.append(without_substrings)
    if not steps:
        return None

    def rewrite(number: int, document: Document) -> Document:
        for step in steps:
            document = step(number, document)
        document.token_count = (len(document.text.encode("utf-8", "ignore")) + 3) // 4
        return document

    return rewrite


def _repeated(corpus: Corpus, length: int, before: Sequence[Rewrite]) -> dict[int, list[tuple[int, int]]]:
    """For each document the spans of bytes that occur in an earlier document, or earlier in the same one."""
    from crawltalk.retrieval.suffixes import repeated_spans

    numbers, texts = [], []
    for start, table, _ in corpus.tables():
        for offset, row in enumerate(table.to_pylist()):
            if corpus.survivor[start + offset] == start + offset:
                document = Document(**row)
                for step in before:
                    document = step(start + offset, document)
                numbers.append(start + offset)
                texts.append(document.text.encode("utf-8", "replace"))
    return {
        number: spans for number, spans in zip(numbers, repeated_spans(texts, length), strict=True) if spans
    }


def _rewritten(
    table: pa.Table, numbers: np.ndarray, rewrite: Rewrite
) -> tuple[pa.Table, list[Removed], np.ndarray]:
    """The table with rewritten texts, the documents that became empty, and which rows are left."""
    kept, emptied = [], []
    still = np.ones(len(numbers), bool)
    for index, row in enumerate(table.to_pylist()):
        document = rewrite(int(numbers[index]), Document(**row))
        if document.text.strip():
            kept.append(msgspec.structs.asdict(document))
            continue
        still[index] = False
        page = _duplicate(row, ("", ""), False)
        page.reason = "nothing but repeated text"
        emptied.append(page)
    return pa.Table.from_pylist(kept, table.schema), emptied, still
