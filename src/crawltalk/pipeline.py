"""The journey: the stages in order. Each is a function from directories to a directory (`run.stage`)."""

from crawltalk.run.stage import Stage

STAGES = (
    Stage(
        "crawl",
        (),
        "crawltalk.crawl.stage:crawl",
        "raw web pages, as WARC",
        external_inputs="crawltalk.crawl.external_inputs:external_inputs",
        version=3,
    ),
    Stage(
        "data",
        ("crawl",),
        "crawltalk.data.stage:data",
        "clean, deduplicated documents, and why the others were dropped",
        version=4,
        external_inputs="crawltalk.data.external_inputs:external_inputs",
    ),
    Stage(
        "tokenizer",
        ("data",),
        "crawltalk.tokenizer.stage:tokenizer",
        "byte-level BPE learned from the documents",
    ),
    Stage(
        "tokens", ("data", "tokenizer"), "crawltalk.pretraining.tokens:tokens", "the mixture as token shards"
    ),
    Stage(
        "index",
        ("tokens",),
        "crawltalk.retrieval.stage:index",
        "where every run of tokens stands in the shards",
    ),
    Stage(
        "pretrain",
        ("tokens", "tokenizer"),
        "crawltalk.pretraining.pretrain:pretrain",
        "the base model: an internet document simulator",
        ranks=True,
    ),
    Stage(
        "sft",
        ("pretrain", "tokenizer", "tokens", "data"),
        "crawltalk.posttraining.sft:sft",
        "the assistant, from conversations",
    ),
    Stage(
        "evals",
        ("pretrain", "sft", "tokens", "index", "tokenizer", "data"),
        "crawltalk.evals.stage:evals",
        "what both models can do",
        version=3,
    ),
    Stage(
        "report",
        ("crawl", "data", "tokenizer", "tokens", "index", "pretrain", "sft", "evals"),
        "crawltalk.report.stage:report",
        "one HTML file that shows it all",
        version=3,
    ),
)

BY_NAME = {stage.name: stage for stage in STAGES}
