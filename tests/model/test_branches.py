"""Rows that continue one text have the states of whole sequences, in native code and by the model itself."""

import dataclasses

import pytest
import torch

from crawltalk.model import branches
from crawltalk.model.branches import Branches, computes
from crawltalk.model.shape import Shape
from support.models import GPT2, LLAMA, QWEN, SPEEDRUN, random_model

WIDE = {"width": 64, "heads": 4, "mlp": 96, "head_dim": 16}
NATIVE = {
    "qwen3": dataclasses.replace(QWEN, **WIDE, kv_heads=2),
    "llama": dataclasses.replace(LLAMA, **{**WIDE, "head_dim": 32}, kv_heads=4),
}
PLAIN = {"qwen3": QWEN, "llama": LLAMA, "gpt2": GPT2, "speedrun": SPEEDRUN}


def agrees(shape: Shape) -> bool:
    """Whether the states are those of whole sequences, wherever rows begin, however many are asked for."""
    model = random_model(shape)
    generator = torch.Generator().manual_seed(1)
    text, rows = torch.randint(0, shape.vocab_size, (41,), generator=generator), 9
    shared = Branches(model, text)
    with torch.no_grad():
        for start, length, last in ((0, 11, 3), (16, 13, 13), (29, 12, 5), (40, 1, 1)):
            ends = torch.randint(0, shape.vocab_size, (rows, length), generator=generator)
            whole = model.states(torch.cat((text[:start].expand(rows, -1), ends), 1))
            if not torch.allclose(shared.states(ends, start, last), whole[:, -last:], atol=1e-4):
                return False
    return True


@pytest.mark.parametrize("family", NATIVE)
@pytest.mark.parametrize("threads", [1, 3])
def test_native_code_computes_what_the_model_does(family: str, threads: int) -> None:
    if not computes(random_model(NATIVE[family])):
        pytest.skip("no C++ compiler")
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        assert agrees(NATIVE[family])
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize("family", PLAIN)
def test_without_native_code_the_model_computes(family: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(branches, "_code", lambda: None)
    assert not computes(random_model(PLAIN[family])) and agrees(PLAIN[family])
