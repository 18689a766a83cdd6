"""The dataset card: a README.md with the metadata that the Hugging Face Hub reads, so that the folder can be
published as it is.
"""

from typing import Any

from crawltalk.recipe import Data

_SIZES = (1_000, 10_000, 100_000, 1_000_000, 10_000_000, 100_000_000, 1_000_000_000)
_NAMES = ("n<1K", "1K<n<10K", "10K<n<100K", "100K<n<1M", "1M<n<10M", "10M<n<100M", "100M<n<1B", "n>1B")


def dataset_card(record: dict[str, Any], config: Data) -> str:
    """The card of a data folder, from its record (funnel.json) and its section of the recipe."""
    documents = record["metrics"]["documents"]
    languages = "\n".join(f"- {language}" for language in config.languages)
    steps = "\n".join(f"| {row['step']} | {row['pages']:,} | {_amount(row)} |" for row in record["steps"])
    reasons = "\n".join(
        f"| {row['step']} | {row['reason'].replace('|', '/')} | {row['pages']:,} |"
        for row in sorted(record["removed"], key=lambda row: -row["pages"])[:15]
    )
    hosts = ", ".join(
        f"{host or 'none'} ({count:,})" for host, count in list(record["hosts"]["documents"].items())[:10]
    )
    size = _NAMES[sum(documents >= limit for limit in _SIZES)]
    return f"""---
language:
{languages}
task_categories:
- text-generation
size_categories:
- {size}
configs:
- config_name: default
  data_files: documents-*.parquet
- config_name: removed
  data_files: removed-*.parquet
- config_name: clusters
  data_files: clusters-*.parquet
---

# {documents:,} documents from a web crawl

Made by crawltalk from {record["metrics"]["pages"]:,} pages with FineWeb's recipe (Penedo et al. 2024): URL filter, main text,
language, quality, near-duplicates (MinHash, {config.ngram}-grams, {config.bands} bands x {config.rows} rows), personal data.

| after | pages | |
|---|---|---|
{steps}

## Columns

`text`, `id` (WARC-Record-ID), `dump`, `url`, `date`, `file_path`, `language`, `language_score`, `token_count` (estimated: bytes / 4),
as in FineWeb. `removed` holds every page that was dropped, with its step and reason; `clusters` every document that has
near-duplicates; `signatures.npy` the MinHash bands, for comparing later crawls.

## Why pages went

| step | reason | pages |
|---|---|---|
{reasons}

## Known limits

- {record["pii"]["replaced"]:,} e-mail and public IP addresses were replaced; names and other personal data were not looked for.
- The text belongs to its authors; the sites' terms apply. Most documents come from: {hosts or "none"}.
- Whatever the web says is in here: errors, bias, offence. No page was read by a person.
"""


def _amount(row: dict[str, Any]) -> str:
    return f"{row['bytes']:,} bytes" if "bytes" in row else f"{row['characters']:,} characters"
