"""A small random model and its tokenizer."""

from crawltalk.model.shape import Shape
from crawltalk.tokenizer import Tokenizer
from support.models import random_model

TOKENIZER = Tokenizer.trained([(116, 104), (256, 101)])

SHAPE = Shape(
    vocab_size=TOKENIZER.size, layers=2, width=32, heads=2, kv_heads=1, head_dim=16, mlp=48, context=48
)

MODEL = random_model(SHAPE)

NEVER = frozenset[int]()
