"""The tokenizer stage: learns byte-level BPE from the documents of the run."""

from itertools import islice

import regex

from crawltalk.core import recipe
from crawltalk.core.documents import read_documents
from crawltalk.core.errors import BadInput
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
    wanted = regex.compile(config.include)
    texts = [document.text for document in read_documents(job.inputs["data"]) if wanted.search(document.url)]
    if not texts:
        raise BadInput(f"no document's URL matches tokenizer.include = {config.include!r}; give another --tokenizer.include")
    held_out = texts[::HELD_OUT]
    training = [text for index, text in enumerate(texts) if index % HELD_OUT] or texts
    size = sum(len(text.encode()) for text in training)
    stride = max(1, -(-size // config.train_bytes))
    training = list(islice(training, 0, None, stride))
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
