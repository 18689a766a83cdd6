"""Every knob there is: one frozen dataclass per stage, each value with its meaning and unit.

A stage receives its own section only. A field that is `None` is derived when the recipe is resolved
(`recipe.layers`) and spelled out in `runs/NAME/recipe.toml`. `machine` says where and how to compute; it
never enters a fingerprint.
"""

from dataclasses import dataclass, field
from typing import Literal


@dataclass(frozen=True, kw_only=True)
class Machine:
    """Where and how to compute. Changes nothing in what is computed, so no stage goes stale by it."""

    workers: int | None = None
    """Processes and threads; all usable cores if absent."""
    device: str | None = None
    """cpu or cuda; cuda if absent and there is one."""
    dtype: str | None = None
    """Compute type of matrix products: float32 or bfloat16; the faster one, by a start-up probe, if absent.
    """
    engine: str = "local"
    """What the data stage runs on: local (processes of this machine) or ray (a Ray cluster; pip install ray).
    """
    ray_address: str | None = None
    """Address of the Ray cluster; a cluster of this machine alone if absent. Its machines must share the
    run's folder.
    """
    compile: bool | None = None
    """Train through torch.compile; if absent: on a GPU, in trainings long enough to earn the compilation
    back.
    """
    shard: bool = False
    """Ranks under torchrun share weights, gradients and optimizer state (FSDP2) instead of keeping a copy
    each.
    """
    recompute: bool = False
    """Compute a layer's activations again on the way back instead of keeping them: less memory, a third more
    work.
    """
    tensorboard: str | None = None
    """A folder for event files of TensorBoard, one subfolder for each training (pip install
    'crawltalk[tensorboard]').
    """
    dollars_an_hour: float | None = None
    """What this machine costs, for the accounts."""
    force: bool = False
    """Start even if the machine is estimated to be too small or too slow."""


@dataclass(frozen=True, kw_only=True)
class Crawl:
    """Where the raw pages come from."""

    source: str = "sample"
    """`sample`: the embedded crawl with known ground truth; otherwise a path, glob or URL (https, s3, ...) of
    WARC, WET, JSONL or Parquet files, of a list of such (`*.paths`, `*.paths.gz`, as Common Crawl has them),
    or a folder of HTML and text files.
    """
    files: int | None = None
    """At most this many files of the source."""
    articles: int | None = None
    """Of the sample: at most this many articles per language (all 10,033 / 9,955 / 6,239 if absent)."""
    topics: tuple[str, ...] = ()
    """Of the sample: only these topics of English articles, such as "Physical sciences" (all if empty)."""
    languages: tuple[str, ...] = ("en", "fr", "es")
    """Of the sample: languages to render."""


@dataclass(frozen=True, kw_only=True)
class Quality:
    """Quality thresholds that depend on the kind of page; FineWeb's by default (section 3.6). The others are
    in `data.quality`.
    """

    min_words: int = 50
    """Fewest words in a document (Gopher, Rae et al. 2021, A1.1)."""
    max_words: int = 100_000
    letter_share: float = 0.8
    """Least share of words that hold a letter, marks counted as words (Gopher)."""
    repetition: float = 1.0
    """Factor on the limits for repeated n-grams (Gopher): short pages repeat their subject more often."""
    terminal_lines: float = 0.12
    """Least share of lines that end in a mark that ends sentences (FineWeb)."""
    min_sentences: int = 5
    """Fewest sentences in a document (C4, Raffel et al. 2020, 2.2)."""
    min_words_per_line: int = 3
    """Lines with fewer are dropped (C4). 0 keeps titles of one word."""


@dataclass(frozen=True, kw_only=True)
class Data:
    """From WARC to clean documents, in FineWeb's order (Penedo et al. 2024, section 3)."""

    blocklist: str | None = None
    """Blocked domains and URLs besides the small built-in list: a file with one a line, or a folder in UT1's
    form.
    """
    early_language: float = 0.0
    """Pages whose visible text has a lower probability of the languages to keep are not extracted at all; 0:
    no early check. Pays with a slow extractor only; 0.2 loses 1 % of what the later check keeps where pages
    mix languages (EXPERIMENTS.md).
    """
    extractor: str = "crawltalk"
    """Main-text extractor: crawltalk, resiliparse, trafilatura (if installed), or "my_package.module:name".
    """
    languages: tuple[str, ...] = ("en",)
    """ISO 639-1 codes to keep."""
    language_threshold: float = 0.65
    """Least probability of the language (FineWeb 3.2)."""
    quality: Quality = field(default_factory=Quality)
    filters: tuple[str, ...] = ()
    """Further filters of your own: "my_package.module:name", (Document) -> the reason to drop it or None."""
    classifier: str | None = None
    """A quality classifier of your own, made by `crawltalk classifier`: documents below the threshold are
    dropped.
    """
    classifier_threshold: float = 0.5
    benchmarks: tuple[str, ...] = ()
    """Files of evaluation sets (JSONL, JSON, Parquet, text): documents that hold an n-gram of theirs are
    dropped.
    """
    benchmark_ngram: int = 13
    """Words of such an n-gram (Brown et al. 2020, appendix C)."""
    max_page_bytes: int = 10_000_000
    """Pages with a longer body are set aside unparsed."""
    page_seconds: float = 30.0
    """CPU seconds after which a page is given up: a guard against hangs, no filter."""
    ngram: int = 5
    """Words in a MinHash shingle (FineWeb 3.4)."""
    bands: int = 14
    rows: int = 8
    """14 bands of 8 rows: a pair with similarity s is found with probability 1 - (1 - s^8)^14."""
    keep: str = "longest"
    """Which document of a cluster of near-duplicates stays: longest, newest, or classifier (the highest
    score).
    """
    earlier: tuple[str, ...] = ()
    """Earlier runs: documents that are near-duplicates of theirs are dropped."""
    site_lines: int = 0
    """Lines that occur in so many documents of one host are dropped as boilerplate; 0: none (CCNet, Wenzek et
    al. 2020).
    """
    substrings: int = 0
    """Later occurrences of any text of so many bytes are cut out (Lee et al. 2022); 0: none. Needs memory of
    10 x the corpus.
    """


@dataclass(frozen=True, kw_only=True)
class Tokenizer:
    """Byte-level BPE (Sennrich et al. 2016; byte level: Radford et al. 2019)."""

    vocab_size: int = 4096
    """Tokens in all: 256 bytes, merges, special tokens."""
    train_bytes: int = 50_000_000
    """Text to learn merges from, at most."""
    pattern: str = "gpt4"
    """How text is cut before merging: gpt2, gpt4, gpt4-digits (each digit by itself), or a regular
    expression.
    """
    min_frequency: int = 2
    """How often a pair must occur to be merged."""
    max_chunks: int = 20_000_000
    """Different words that each thread holds, at some 40 bytes each, before it gives up rare ones."""
    include: str = ""
    """Regular expression on the URL of the documents to learn from. Empty: all."""


@dataclass(frozen=True, kw_only=True)
class Tokens:
    """The mixture: which documents are trained on, how often, and which are kept out."""

    include: str = ""
    """Regular expression on the URL; documents that do not match are `outside`. Empty: all match."""
    heldout: float = 0.1
    """Share of the included documents kept out of training as "after the cutoff"."""
    validation: float = 0.02
    """Share of the included documents kept for bits per byte."""
    flagships: int = 0
    """Number of documents to oversample, as the talk says Wikipedia is."""
    flagship_titles: tuple[str, ...] = ()
    """Titles that are flagships in any case."""
    flagship_pattern: str = ""
    """Regular expression on title and description that further flagships match first; the rest are drawn by
    hash.
    """
    oversample: int = 40
    """Times a flagship occurs in one pass over the training shards."""
    graded: tuple[int, ...] = ()
    """Times that further documents occur in one pass, to see how recall grows with them; `graded_pages` for
    each.
    """
    graded_pages: int = 12
    """Documents for each of `graded`."""


@dataclass(frozen=True, kw_only=True)
class Index:
    """Suffix arrays over the training shards, to trace a text back to its pages. Nothing to choose."""


Family = Literal["qwen3", "llama", "gpt2", "speedrun"]
"""llama: RMSNorm, rotary positions, SwiGLU, no biases. qwen3: the same, and queries and keys are normalised.
gpt2: LayerNorm, learned positions, GELU, biases. speedrun: qwen3 with value embeddings, squared ReLU, skips
from the first layer and capped logits: lower losses in the same time, but no other library runs it.
"""


@dataclass(frozen=True, kw_only=True)
class Model:
    """The shape of the Transformer. `depth` derives the rest."""

    family: Family = "qwen3"
    depth: int = 4
    """Layers: the one dial."""
    width: int | None = None
    """Hidden size; 64 x depth if absent."""
    heads: int | None = None
    """Query heads; width / head_dim if absent."""
    kv_heads: int | None = None
    """Key/value heads; as many as query heads if absent."""
    head_dim: int = 64
    mlp: int | None = None
    """Inner size of the MLP; 3 x width (gpt2, speedrun: 4 x width) if absent."""
    context: int = 256
    """Longest sequence, in tokens."""
    rope_theta: float = 10_000.0
    tie_embeddings: bool | None = None
    """One matrix for embedding and head; if absent: yes, but for speedrun."""


@dataclass(frozen=True, kw_only=True)
class Optim:
    """Muon for the matrices of the blocks, AdamW for the rest."""

    lr: float | None = None
    """Muon's peak learning rate; 0.02 (fine-tuning: 0.005) x sqrt(256 / width) if absent."""
    adam_lr: float | None = None
    """AdamW's peak learning rate; 0.003 x sqrt(256 / width) if absent."""
    weight_decay: float = 0.0
    momentum: float = 0.95
    beta1: float = 0.9
    beta2: float = 0.95
    warmup: float = 0.02
    """Share of the steps over which the rate rises from 0."""
    cooldown: float = 0.5
    """Share of the steps, at the end, over which it falls linearly to 0."""
    clip: float = 1.0
    """Largest norm of the gradient."""
    spike: float = 1.0
    """Nats: the run stops when five losses in a row are so much above the mean of the twenty before them. 0:
    it never does.
    """


@dataclass(frozen=True, kw_only=True)
class Pretrain:
    """Next-token prediction on the token shards."""

    model: Model = field(default_factory=Model)
    optim: Optim = field(default_factory=Optim)
    tokens: int | None = None
    """Tokens to train on; 20 per parameter (Hoffmann et al. 2022) if absent."""
    batch_tokens: int = 8192
    """Tokens in one optimizer step, over all ranks."""
    eval_every: int = 100
    """Steps between two looks at the validation loss and a sample."""
    save_every: int = 50
    """Steps between two checkpoints to resume from."""
    save_keep: int = 2
    """So many of them, the newest ones, are kept while the training runs."""
    keep_every: int = 0
    """Steps between two models that stay, in pretrain/checkpoints/; 0: none."""
    start: str = ""
    """A checkpoint to go on from, with its optimizer's state and step: one that a training that diverged has
    left behind.
    """
    document_mask: bool = False
    """Attention does not look behind the beginning of a document."""
    prompts: tuple[str, ...] = ()
    """Beginnings that the model continues while it trains."""


@dataclass(frozen=True, kw_only=True)
class Sft:
    """Supervised fine-tuning on conversations made from the documents; the loss counts assistant tokens only."""

    optim: Optim = field(default_factory=Optim)
    epochs: float = 3.0
    """Passes over the conversations."""
    batch_tokens: int = 4096
    """Positions in one optimizer step, padding included."""
    arithmetic: int = 3000
    """Arithmetic conversations."""
    spelling: int = 1000
    """Spelling conversations."""
    identity: int = 300
    """Conversations about who the assistant is."""
    refusals: int = 400
    """Titles never trained on that the assistant learns to decline politely."""
    name: str = "Crawly"
    """How the assistant calls itself."""
    save_every: int = 50
    start: str = ""
    """As `pretrain.start`."""


@dataclass(frozen=True, kw_only=True)
class Evals:
    """What the models can do, measured."""

    problems: int = 100
    """Problems per generated task (arithmetic, spelling), at most."""
    max_tokens: int = 64
    """Longest reply, in tokens."""


@dataclass(frozen=True, kw_only=True)
class Report:
    """One self-contained HTML file."""

    conversations: int = 24
    """Sample conversations to show."""
    vocabularies: tuple[str, ...] = ()
    """Tokenizers to compare with on the page of tokens: .tiktoken files, tokenizer.json files or folders."""


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """The whole journey."""

    name: str = "custom"
    about: str = ""
    seed: int = 0
    machine: Machine = field(default_factory=Machine)
    crawl: Crawl = field(default_factory=Crawl)
    data: Data = field(default_factory=Data)
    tokenizer: Tokenizer = field(default_factory=Tokenizer)
    tokens: Tokens = field(default_factory=Tokens)
    index: Index = field(default_factory=Index)
    pretrain: Pretrain = field(default_factory=Pretrain)
    sft: Sft = field(default_factory=Sft)
    evals: Evals = field(default_factory=Evals)
    report: Report = field(default_factory=Report)
