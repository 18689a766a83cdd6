"""The index stage: suffix arrays over the training shards, with which any text can be traced back to its pages
(`retrieval.trace`).
"""

from pathlib import Path

from crawltalk import recipe
from crawltalk.core.files import write_array
from crawltalk.core.shards import TokenShards
from crawltalk.retrieval.suffixes import suffix_array
from crawltalk.run.stage import Job, Metrics


def index(job: Job[recipe.Index]) -> Metrics:
    """Write an array for each file of the shards: train-00000.npy, 4 bytes per token. Needs about 24 bytes of
    memory per token of one file.
    """
    shards = TokenShards(job.inputs["tokens"], "train")
    done = 0
    for file, tokens in zip(shards.split.files, shards.parts, strict=True):
        path = job.out / Path(file.name).with_suffix(".npy")
        if not path.exists():  # an earlier attempt may have made it
            write_array(path, suffix_array(tokens))
        done += len(tokens)
        job.progress.update(done, len(shards), "tokens")
    return {"tokens": len(shards), "files": len(shards.split.files)}
