"""The tokenizer stage: learns byte-level BPE from the documents of the run."""

from collections.abc import Sequence

from crawltalk.core import recipe
from crawltalk.core.documents import read_documents
from crawltalk.core.errors import BadInput
from crawltalk.core.patterns import compile_pattern
from crawltalk.core.stage import Job, Metrics
from crawltalk.tokenizer.tokenizer import GPT4_PATTERN, SPECIALS, Tokenizer
from crawltalk.tokenizer.train import count_chunks, learn_merges

HELD_OUT = 20
"""Every 20th document is not learned from: it measures the compression."""


def tokenizer(job: Job[recipe.Tokenizer]) -> Metrics:
    """Learn the merges; writes tokenizer.json, tokenizer_config.json and merges.txt."""
    config = job.config
    merges = config.vocab_size - 256 - len(SPECIALS)
    if merges < 0:
        raise BadInput(
            f"tokenizer.vocab_size is {config.vocab_size}; 256 bytes and the control tokens need {256 + len(SPECIALS)}"
        )
    wanted = compile_pattern("tokenizer.include", config.include)
    texts = [document.text for document in read_documents(job.inputs["data"]) if wanted.search(document.url)]
    if not texts:
        raise BadInput(f"no document's URL matches tokenizer.include = {config.include!r}; give another --tokenizer.include")
    held_out = texts[::HELD_OUT]
    training = [text for index, text in enumerate(texts) if index % HELD_OUT] or texts
    training = spread(training, config.train_bytes)
    if not training:
        raise BadInput(f"no document fits tokenizer.train_bytes = {config.train_bytes}; give more --tokenizer.train_bytes")
    learned = learn_merges(count_chunks(training, GPT4_PATTERN), merges, job.progress)
    if len(learned) < merges:
        job.progress.warn(
            f"the text has only {len(learned)} merges that occur twice, not {merges}: the vocabulary is smaller"
        )
    result = Tokenizer.trained(learned)
    result.save(job.out)
    encoded = sum(len(ids) for ids in result.encode_batch(held_out))
    return {
        "vocab_size": result.vocab_size,
        "merges": len(learned),
        "train_bytes": sum(len(text.encode()) for text in training),
        "bytes_per_token": round(sum(len(text.encode()) for text in held_out) / max(encoded, 1), 3),
    }


def spread(texts: Sequence[str], limit: int) -> list[str]:
    """Texts of at most `limit` UTF-8 bytes in all, evenly spread over `texts`."""
    sizes = [len(text.encode()) for text in texts]
    share = min(1.0, limit / max(1, sum(sizes)))
    chosen: list[str] = []
    seen = taken = 0
    for text, size in zip(texts, sizes, strict=True):
        seen += size
        if taken + size <= seen * share:
            chosen.append(text)
            taken += size
    return chosen
