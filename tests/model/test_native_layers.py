"""Native code of layers, with its gradients, against torch in float32; texts that share a beginning."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from crawltalk.model import functions
from crawltalk.model.functions import Gated, LinearLoss, Normalize
from crawltalk.model.native import NativeGated, NativeNormalize, PackedAttention, computes
from crawltalk.model.shape import Shape
from crawltalk.model.transformer import Positions, Transformer, rope_tables
from support.models import GPT2, QWEN, SPEEDRUN, random_model

NATIVE = pytest.mark.skipif(
    not computes(torch.zeros(1, dtype=torch.bfloat16), 16), reason="no compiler, or no products of bfloat16"
)
NATIVE_FLOAT = pytest.mark.skipif(
    not computes(torch.zeros(1), 8), reason="no compiler, or no processor with AVX2"
)
SIZES = {"vocab_size": 97, "layers": 2, "width": 64, "mlp": 96, "context": 120}
GROUPED = Shape(**SIZES, heads=4, kv_heads=2, head_dim=32)
STUDENT = Shape(**SIZES, heads=4, kv_heads=4, head_dim=16)
LLAMA = Shape(**SIZES, family="llama", heads=3, kv_heads=1, head_dim=64)
SHARED = [(37, None), (61, 0), (20, 0), (1, 0), (8, None), (1, None), (19, 5), (90, 5)]
"""Texts of a row: their lengths, and which one each continues."""


def numbers_of(texts):
    """Documents and parents of a row, [1, T] each."""
    documents = [number for number, (length, _) in enumerate(texts) for _ in range(length)]
    parents = [-1 if parent is None else parent for length, parent in texts for _ in range(length)]
    return torch.tensor([documents]), torch.tensor([parents])


def learned(model, tokens, texts, d_states):
    """The states, and the gradient of each weight."""
    documents, parents = (None, None) if texts is None else numbers_of(texts)
    states = model.states(tokens, documents_BT=documents, parents_BT=parents)
    weights = [weight for name, weight in model.named_parameters() if name != "head.weight"]
    grads = torch.autograd.grad((states.float() * d_states).sum(), weights)
    return [states.detach().float(), *(grad.float() for grad in grads)]


def distance(found, expected):
    return float((found - expected).norm() / expected.norm().clamp(min=1e-6))


@pytest.mark.parametrize("long", [0, 2048], ids=["fused kernel", "blocks"])
@pytest.mark.parametrize("shape", [QWEN, GPT2, SPEEDRUN], ids=lambda shape: shape.family)
@torch.no_grad()
def test_a_text_that_continues_another_is_read_as_if_both_stood_alone(shape, long, monkeypatch):
    monkeypatch.setattr(functions, "LONG", long)
    model, texts = random_model(shape), [(9, None), (30, 0), (4, None), (41, 0), (50, 0), (20, 2)]
    tokens = torch.randint(0, 97, (1, sum(length for length, _ in texts)))
    documents, parents = numbers_of(texts)
    packed = model.states(tokens, documents_BT=documents, parents_BT=parents)
    for number, parent in ((1, 0), (4, 0), (5, 2)):
        own = documents[0] == number
        alone = model.states(tokens[:, own | (documents[0] == parent)])
        torch.testing.assert_close(packed[0, own], alone[0, -int(own.sum()) :], rtol=1e-4, atol=1e-4)


@NATIVE
@pytest.mark.parametrize("texts", [SHARED, [(length, None) for length, _ in SHARED], None])
@pytest.mark.parametrize("shape", [GROUPED, STUDENT, LLAMA], ids=["grouped", "student", "llama"])
def test_layers_in_native_code_are_those_of_torch_as_far_as_bfloat16_goes(shape, texts, monkeypatch):
    torch.manual_seed(0)
    exact, coarse = random_model(shape), Transformer(shape)
    coarse.load_state_dict(exact.state_dict())
    coarse = coarse.bfloat16()
    exact.load_state_dict({name: weight.float() for name, weight in coarse.state_dict().items()})
    tokens = torch.randint(0, 97, (1, sum(length for length, _ in texts or [(120, None)])))
    d_states = torch.randn(*tokens.shape, shape.width)
    expected, ours = (learned(model, tokens, texts, d_states) for model in (exact, coarse))
    for name in ("functions.computes", "transformer.attends"):
        monkeypatch.setattr(f"crawltalk.model.{name}", lambda *_: False)
    plain = learned(coarse, tokens, texts, d_states)
    errors, usual = (
        [distance(*pair) for pair in zip(all_of, expected, strict=True)] for all_of in (ours, plain)
    )
    assert max(errors) < 0.1
    assert sum(errors) <= 1.1 * sum(usual)


@NATIVE
@given(st.lists(st.integers(1, 70), min_size=1, max_size=6), st.integers(0, 2**32))
@settings(max_examples=15, deadline=None)
def test_what_native_code_computes_for_a_text_does_not_depend_on_its_row_to_the_last_bit(lengths, seed):
    texts, generator = [(5, None), *((length, 0) for length in lengths)], torch.Generator().manual_seed(seed)
    documents, parents = numbers_of(texts)
    tables, weight = rope_tables(GROUPED), torch.rand(32, generator=generator)
    qkv = torch.randn((1, documents.shape[1], 8, 32), generator=generator).bfloat16()

    def attended(qkv, *numbers):
        places = Positions(*tables, qkv.shape[1], None, *numbers).texts(1)
        return PackedAttention.apply(qkv, weight, weight, 4, 1e-6, places)[0]

    whole, last = attended(qkv, documents, parents), documents[0] == len(lengths)
    alone = attended(qkv[:, last | (documents[0] == 0)], *numbers_of([(5, None), (lengths[-1], 0)]))
    assert torch.equal(whole[last], alone[5:])


@NATIVE
@pytest.mark.parametrize(
    "losses", [None, lambda log_p, part: (log_p.exp() * torch.arange(2500.0)[part]).square()]
)
def test_a_loss_and_its_gradients_in_native_code_are_those_of_torch(losses):
    torch.manual_seed(0)
    states, head = torch.randn(2500, 32).bfloat16(), (torch.randn(64, 32) / 8).bfloat16()
    targets, found = torch.randint(0, 64, (2500,)), []
    for dtype in (torch.bfloat16, torch.float32):
        given = [one.to(dtype).requires_grad_() for one in (states, head)]
        total, log_p = LinearLoss.apply(*given, targets, None, losses)
        found.append([total.detach(), log_p, *(grad.float() for grad in torch.autograd.grad(total, given))])
    plain = (states.float() @ head.float().T).log_softmax(-1).gather(1, targets[:, None])[:, 0]
    expected = -plain.sum() if losses is None else losses(plain, slice(0, 2500)).sum()
    torch.testing.assert_close(found[1][:2], [expected, plain], rtol=1e-4, atol=1e-4)
    assert all(distance(ours, exact) < 0.02 for ours, exact in zip(*found, strict=True))


@NATIVE
@pytest.mark.parametrize("rows", [1, 33])
def test_the_norm_and_the_gate_in_native_code_are_those_of_torch(rows):
    torch.manual_seed(0)
    x = (4 * torch.randn(rows, 96)).bfloat16()
    d_y = torch.randn(rows, 96).bfloat16()
    for ours, plain, width in ((lambda x: NativeNormalize.apply(x, 1e-6), lambda x: Normalize.apply(x, 1e-6), 96),
                               (NativeGated.apply, Gated.apply, 48)):  # fmt: skip
        found, exact = x.clone().requires_grad_(), x.float().requires_grad_()
        y, expected = ours(found), plain(exact)
        torch.testing.assert_close(y.float(), expected, rtol=2**-7, atol=1e-6)
        grads = (
            torch.autograd.grad(y, found, d_y[:, :width]),
            torch.autograd.grad(expected, exact, d_y[:, :width].float()),
        )
        torch.testing.assert_close(grads[0][0].float(), grads[1][0], rtol=2e-2, atol=2e-2)


@NATIVE
def test_what_is_not_a_number_is_none_behind_native_code_either():
    model = random_model(GROUPED).bfloat16()
    with torch.no_grad():
        model.blocks[0].attention.k_norm[3] = torch.nan
        assert model.states(torch.zeros((1, 20), dtype=torch.int64)).isnan().all()
        gates = torch.tensor([torch.nan, 100.0, -100.0]).repeat_interleave(16).bfloat16()
        y = NativeGated.apply(torch.cat((gates, torch.ones_like(gates)))[None]).float()
    assert y[0, :16].isnan().all()
    assert y[0, 16:].tolist() == pytest.approx([100.0] * 16 + [0.0] * 16)


@NATIVE_FLOAT
@pytest.mark.parametrize("texts", [SHARED, [(length, None) for length, _ in SHARED], None])
@pytest.mark.parametrize("shape", [STUDENT, GROUPED, LLAMA], ids=lambda shape: str(shape.head_dim))
def test_layers_in_native_code_are_those_of_torch_to_the_rounding_of_float32(shape, texts, monkeypatch):
    torch.manual_seed(0)
    model = random_model(shape)
    tokens = torch.randint(0, 97, (1, sum(length for length, _ in texts or [(120, None)])))
    d_states = torch.randn(*tokens.shape, shape.width)
    ours = learned(model, tokens, texts, d_states)
    for name in ("functions.computes", "transformer.attends"):
        monkeypatch.setattr(f"crawltalk.model.{name}", lambda *_: False)
    plain = learned(model, tokens, texts, d_states)
    assert max(distance(*pair) for pair in zip(ours, plain, strict=True)) < 1e-5


@NATIVE_FLOAT
def test_a_loss_in_native_code_is_that_of_torch_to_the_rounding_of_float32(monkeypatch):
    torch.manual_seed(0)
    given = [torch.randn(300, 32, requires_grad=True), torch.randn(64, 32, requires_grad=True)]
    targets, found = torch.randint(0, 64, (300,)), []
    for native in (True, False):
        if not native:
            monkeypatch.setattr("crawltalk.model.functions.computes", lambda *_: False)
        total, log_p = LinearLoss.apply(*given, targets, None)
        found.append([total.detach(), log_p, *torch.autograd.grad(total, given)])
    assert all(distance(*pair) < 1e-5 for pair in zip(*found, strict=True))
