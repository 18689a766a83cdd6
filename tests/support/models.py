"""Small random models of every family."""

import dataclasses

import torch

from crawltalk.model.shape import Shape
from crawltalk.model.transformer import Transformer

QWEN = Shape(vocab_size=97, layers=2, width=32, heads=4, kv_heads=2, head_dim=16, mlp=48, context=64)

LLAMA = dataclasses.replace(
    QWEN, family="llama", tie_embeddings=False, head_dim=8, rope_theta=500_000.0, norm_eps=1e-5
)

GPT2 = dataclasses.replace(QWEN, family="gpt2", kv_heads=4, head_dim=8, mlp=80, norm_eps=1e-5)

SPEEDRUN = dataclasses.replace(QWEN, family="speedrun", layers=3, tie_embeddings=False)


def random_model(shape: Shape, seed: int = 0) -> Transformer:
    torch.manual_seed(seed)
    model = Transformer(shape).eval()
    with torch.no_grad():
        for weight in model.parameters():
            weight.copy_(torch.randn_like(weight) * 0.2 + (weight.ndim == 1))
    return model
