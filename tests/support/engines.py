"""A small random model, its tokenizer, and every backend that this machine has."""

import shutil
from collections.abc import Callable
from functools import partial

from crawltalk.engine.backends import Backend
from crawltalk.engine.backends.cpu import CpuBackend
from crawltalk.engine.backends.torch import TorchBackend
from crawltalk.model.shape import Shape
from crawltalk.model.transformer import Transformer
from crawltalk.run.native import COMPILERS
from crawltalk.tokenizer import Tokenizer
from support.models import random_model

TOKENIZER = Tokenizer.trained([(116, 104), (256, 101)])

SHAPE = Shape(
    vocab_size=TOKENIZER.vocab_size, layers=2, width=32, heads=2, kv_heads=1, head_dim=16, mlp=48, context=48
)

MODEL = random_model(SHAPE)

NEVER = frozenset[int]()

BACKENDS: dict[str, Callable[[Transformer], Backend]] = {"torch": TorchBackend}
if any(map(shutil.which, COMPILERS)):
    BACKENDS |= {
        precision: partial(CpuBackend, precision=precision, threads=2)
        for precision in ("float32", "bfloat16", "int8")
    }
