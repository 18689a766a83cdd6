"""The peer of the whole data stage: datatrove's FineWeb recipe on its local executor, as its
examples/fineweb.py has it.

    python -m crawltalk.bench.datatrove WARCS OUT TASKS

What differs from the example: the language model is the compressed lid.176 (the full one would be
downloaded), and the list of public suffixes is the one that tldextract brings along. Run in a process of its
own, by `crawltalk bench data`.
"""

import json
import logging
import sys
import time
from pathlib import Path
from typing import Any

from datatrove.data import Document
from datatrove.executor import LocalPipelineExecutor
from datatrove.pipeline.dedup import (
    MinhashDedupBuckets,
    MinhashDedupCluster,
    MinhashDedupFilter,
    MinhashDedupSignature,
)
from datatrove.pipeline.dedup.minhash import MinhashConfig
from datatrove.pipeline.extractors import Trafilatura
from datatrove.pipeline.filters import (
    C4QualityFilter,
    FineWebQualityFilter,
    GopherQualityFilter,
    GopherRepetitionFilter,
    URLFilter,
)
from datatrove.pipeline.filters.base_filter import BaseFilter
from datatrove.pipeline.formatters import PIIFormatter
from datatrove.pipeline.readers import JsonlReader, WarcReader
from datatrove.pipeline.writers import JsonlWriter, ParquetWriter
from datatrove.utils.hashing import HashConfig
from tldextract import TLDExtract

from crawltalk.data.filters import language


class English(BaseFilter):
    """datatrove's LanguageFilter with a model that is on disk: the whole text, more than 0.65 English."""

    name = "English"

    def filter(self, doc: Document) -> bool:
        """Whether the document stays."""
        code, score = language.identify(doc.text)
        doc.metadata |= {"language": code, "language_score": score}
        return code == "en" and score > 0.65


def main(warcs: str | Path, out: str | Path, tasks: int) -> None:
    """Run all steps; prints one JSON line with the wall-clock seconds of each."""
    out = Path(out)
    logging.disable(logging.WARNING)
    urls = URLFilter()
    urls.tldextractor = TLDExtract(suffix_list_urls=())
    config = MinhashConfig(
        hash_config=HashConfig(hash_fc="sha1", precision=64), num_buckets=14, hashes_per_bucket=8, n_grams=5
    )
    kept, signatures, buckets, removed = (
        str(out / name) for name in ("kept", "signatures", "buckets", "removed")
    )
    steps: dict[str, tuple[int, list[Any]]] = {
        "filters": (
            tasks,
            [
                WarcReader(str(warcs), glob_pattern="*.warc.gz", default_metadata={"dump": "bench"}),
                urls,
                Trafilatura(favour_precision=True),
                English(),
                GopherRepetitionFilter(),
                GopherQualityFilter(),
                C4QualityFilter(filter_no_terminal_punct=False),
                FineWebQualityFilter(),
                JsonlWriter(kept),
            ],
        ),
        "signatures": (tasks, [JsonlReader(kept), MinhashDedupSignature(signatures, config)]),
        "buckets": (config.num_buckets, [MinhashDedupBuckets(signatures, buckets, config=config)]),
        "cluster": (1, [MinhashDedupCluster(buckets, removed, config)]),
        "deduplicate": (
            tasks,
            [
                JsonlReader(kept),
                MinhashDedupFilter(removed),
                PIIFormatter(),
                ParquetWriter(str(out / "documents")),
            ],
        ),
    }
    seconds = {}
    for name, (count, pipeline) in steps.items():
        began = time.perf_counter()
        LocalPipelineExecutor(
            pipeline, tasks=count, workers=tasks, logging_dir=str(out / "logs" / name)
        ).run()
        seconds[name] = round(time.perf_counter() - began, 2)
    print(json.dumps(seconds))


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]))
