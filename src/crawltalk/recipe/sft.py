"""Supervised fine-tuning: `[sft]`."""

import dataclasses
from dataclasses import dataclass, field

from crawltalk.recipe.lora import Lora, lora_optim
from crawltalk.recipe.optim import Optim, derive_optim

TASKS = {"refusal": 400, "identity": 300, "arithmetic": 3000, "spelling": 1000}
"""Defaults of `sft.tasks`. A recipe may change some of them and keep the others."""
MUON_LR = 0.005
"""Muon's peak learning rate at a width of 256."""
LORA_LR = 0.001
"""AdamW's peak learning rate for adapters."""


@dataclass(frozen=True, kw_only=True)
class SftFile:
    """A file of conversations among those to learn from."""

    path: str
    """JSONL, JSON or Parquet, compressed or not."""
    form: str | None = None
    """messages, sharegpt, oasst, completion or instruction (Alpaca, Dolly); recognised by the fields if absent."""
    epochs: float = 1.0
    """How often its conversations occur in one pass over the mixture; 0.5 is a random half of them."""
    weight: float | None = None
    """Its share of the tokens that the mixture teaches, instead of `epochs`. Where all files have weights and there
    are no tasks, only their proportions count, and none is repeated.
    """
    exclude: str | None = None
    """Conversations that are left out: a text file of their ids, one a line, as `crawltalk audit` writes it."""


@dataclass(frozen=True, kw_only=True)
class Sft:
    """Supervised fine-tuning on conversations made from the documents and on files of conversations; the loss counts
    assistant tokens only.
    """

    base: str = ""
    """A model to start from instead of the run's own: an imported one, such as smollm2, another run, or a folder in
    Hugging Face's layout; with its tokenizer and chat format. With `base` and `data` nothing of the run is read, so
    there are no tasks. With `base` alone it learns what it was asked (`factuality.samples`) and to read the run's pages
    (`synthesize.questions`), if the recipe has one of these, instead of the tasks.
    """
    optim: Optim = field(default_factory=Optim)
    lora: Lora = field(default_factory=Lora)
    epochs: float = 3.0
    """Passes over the conversations."""
    batch_tokens: int = 4096
    """Positions in one optimizer step; conversations share rows."""
    tasks: dict[str, int] = field(default_factory=lambda: dict(TASKS))
    """Conversations of each task, by its name in `crawltalk.tasks`. `refusal` is a number of titles that were
    never trained on and that the assistant learns to decline, at least half of the held-out ones unless it is 0;
    `flagship` is a number of pages, all if absent.
    """
    data: dict[str, SftFile] = field(default_factory=dict)
    """Files of conversations by names of yours, added to those of the tasks."""
    validation: float = 0.02
    """Share of the rows of each file that is not learned, but measured."""
    max_refused: float = 0.5
    """Largest share of a file's rows that may be refused; the reasons are in refused.jsonl."""
    eval_every: int | None = None
    """Steps between two evaluations: the loss on each file's validation rows, and sample conversations. If absent: a
    tenth of the steps, or, without files, all.
    """
    prompts: tuple[str, ...] = ("Who are you?", "What can you do?", "What is the capital of France?")
    """What the sample conversations ask, beside questions of the validation rows."""
    name: str = "Crawly"
    """The name that the assistant gives itself."""
    save_every: int = 50
    """Steps between two checkpoints to resume from."""
    resume_from: str = ""
    """A checkpoint to resume from, as `pretrain.resume_from`."""


def derive_sft(sft: Sft, width: int | None) -> Sft:
    """The recipe's tasks over the usual ones, in one order whatever the order in the files; and the learning
    rates, if the width of the model is known.
    """
    tasks = TASKS | dict(sorted(sft.tasks.items()))
    optim = sft_optim(sft, width) if width and not sft.base else sft.optim
    return dataclasses.replace(sft, tasks=tasks, optim=optim)


def sft_optim(sft: Sft, width: int) -> Optim:
    """The section's learning rates for a model of this width."""
    return derive_optim(lora_optim(sft.optim, sft.lora, LORA_LR), width, MUON_LR)
