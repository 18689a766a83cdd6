"""Sizes that follow from the corpus and the machine: vocabulary, model, number of training tokens.

The measure is the preset `small`: 4.5 million parameters learn a hundred pages by heart in four minutes on two cores,
with 0.45 training tokens a parameter and 93 readings of each page. Here pages are fewer, longer and read less often.
"""

import dataclasses
import math
from collections.abc import Iterator

from crawltalk.recipe import cost
from crawltalk.recipe.machine import Machine, derive_machine
from crawltalk.recipe.model import derive_model
from crawltalk.recipe.optim import derive_optim
from crawltalk.recipe.pretrain import Pretrain

SECONDS = 300
"""What pretraining is to take of a journey of about ten minutes."""
CORE_FLOPS, GPU_FLOPS = 6e10, 1e14
"""Sustained training FLOP/s of one CPU core, between those with bf16 units (1.1e11, `small`) and those without, and
of a GPU.
"""
MOST_CORES = 16
"""Small matrices keep no more cores busy."""
TOKENS_PER_PARAMETER = 0.4
PASSES = 16
"""Over the training shards, at most: from about this number on, repeated text teaches nothing new (Muennighoff et
al. 2023).
"""
STEPS, SMALLEST_BATCH = 200, 1024
"""Optimizer steps at least, and tokens in each: a corpus of a few pages is passed over as often as that takes."""
DEPTHS = range(2, 13)
BYTES_PER_TOKEN_OF_VOCABULARY = 512
"""Text for each token of the vocabulary, so that nearly all tokens occur often enough to be learned."""
VOCABULARIES = (512, 1024, 2048, 4096)


def training_flop(machine: Machine) -> float:
    """What pretraining may cost on this machine, in floating-point operations."""
    machine = derive_machine(machine)
    speed = GPU_FLOPS if machine.device == "cuda" else CORE_FLOPS * min(machine.workers or 1, MOST_CORES)
    return SECONDS * speed


def train_bytes(flop: float) -> int:
    """Text that is worth choosing for so much training: half of the tokens that the model will see at least, at four
    bytes each. The other half is for pages that are repeated.
    """
    tokens = math.sqrt(TOKENS_PER_PARAMETER * flop / 6.5)  # 6 FLOP a parameter and token, and attention
    return round(tokens / 2 * 4)


def vocabulary_for(bytes_: int) -> int:
    """The size of a vocabulary for so much text: a power of two."""
    return max(
        (size for size in VOCABULARIES if size * BYTES_PER_TOKEN_OF_VOCABULARY <= bytes_),
        default=VOCABULARIES[0],
    )


def fit_to_corpus(pretrain: Pretrain, vocab_size: int, corpus_tokens: int) -> Pretrain:
    """The section with every value filled in, for shards of so many tokens. A section whose values do not follow
    from the corpus comes back as it is.
    """
    values = (pretrain.model.depth, pretrain.model.mlp, pretrain.tokens, pretrain.optim.muon_lr)
    if pretrain.flop is None or None not in values:
        return pretrain
    fitting = _candidates(pretrain, vocab_size, corpus_tokens)
    chosen = next(fitting)
    for candidate in fitting:
        parameters = cost.parameters(candidate.model, vocab_size)
        if (candidate.tokens or 0) < TOKENS_PER_PARAMETER * parameters:
            break
        chosen = candidate
    return chosen


def _candidates(pretrain: Pretrain, vocab_size: int, corpus_tokens: int) -> Iterator[Pretrain]:
    """The section for each depth that may be chosen, the smallest first."""
    depth, wanted = pretrain.model.depth, max(PASSES * corpus_tokens, STEPS * SMALLEST_BATCH)
    for layers in DEPTHS if depth is None else (depth,):
        model = derive_model(dataclasses.replace(pretrain.model, depth=layers))
        assert model.width is not None
        assert pretrain.flop is not None
        affordable = int(pretrain.flop / cost.training_flops(model, vocab_size, 1))
        tokens = pretrain.tokens or min(affordable, wanted)
        yield dataclasses.replace(
            pretrain,
            model=model,
            optim=derive_optim(pretrain.optim, model.width, 0.02),
            tokens=tokens,
            batch_tokens=min(pretrain.batch_tokens, max(SMALLEST_BATCH, tokens // STEPS)),
        )
