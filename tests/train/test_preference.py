"""Direct preference optimization: its loss, gradients and figures against TRL's."""

import warnings

import pytest
import torch
from torch.nn import functional as F

from crawltalk.model.functions import LinearLogProbs
from crawltalk.model.hf import save_model
from crawltalk.train.objectives.preference import pair_log_probs, pairs_of, preference
from support.models import LLAMA, SPEEDRUN, random_model
from support.trainings import fresh, rows_of, train

BETA = 0.3


def reply(length, seed, prompt=3):
    """Ids of which those behind the prompt are learned."""
    ids = torch.randint(1, 97, (length,), generator=torch.Generator().manual_seed(seed)).tolist()
    return [*range(1, prompt + 1), *ids[prompt:]], [False] * prompt + [True] * (length - prompt)


CHOSEN, REJECTED = [reply(9, 0), reply(20, 1), reply(5, 2)], [reply(14, 3), reply(6, 4), reply(30, 5)]


def reference_batch(model):
    batch = pairs_of(CHOSEN, REJECTED, torch.zeros(3, 2))
    with torch.no_grad():
        batch.extras["reference"] = pair_log_probs(model, batch)
    return batch


@pytest.mark.parametrize("cap", [None, 4.0])
def test_log_probabilities_and_their_gradients_are_those_of_plain_operations(cap, monkeypatch):
    monkeypatch.setattr("crawltalk.model.functions.LOG_PROB_CHUNK", 24)
    monkeypatch.setattr("crawltalk.model.functions.SOFTMAX_VALUES", 97 * 16)
    torch.manual_seed(0)
    states, weight = torch.randn(50, 8, requires_grad=True), torch.randn(97, 8, requires_grad=True)
    targets, weights_N = torch.randint(0, 97, (50,)), torch.randn(50)
    ours = LinearLogProbs.apply(states, weight, targets, cap)
    logits = states @ weight.T if cap is None else cap * torch.tanh(states @ weight.T / cap)
    plain = torch.log_softmax(logits, -1).gather(1, targets[:, None])[:, 0]
    torch.testing.assert_close(ours, plain)
    for one, other in zip(
        torch.autograd.grad(ours @ weights_N, (states, weight)),
        torch.autograd.grad(plain @ weights_N, (states, weight)),
        strict=True,
    ):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)


def test_a_frozen_head_has_no_gradient():
    states, weight = torch.randn(5, 8, requires_grad=True), torch.randn(9, 8)
    LinearLogProbs.apply(states, weight, torch.zeros(5, dtype=torch.int64), None).sum().backward()
    assert weight.grad is None
    assert states.grad is not None


def test_a_reply_s_log_probability_is_that_of_its_own_tokens_whatever_shares_its_batch():
    model = random_model(SPEEDRUN)
    together = pair_log_probs(model, pairs_of(CHOSEN, REJECTED, torch.zeros(3, 2)))
    for row, (ids, mask) in enumerate(CHOSEN):
        every = torch.log_softmax(model(torch.tensor([ids[:-1]])).float(), -1)[0]
        own = sum(every[place, ids[place + 1]] for place in range(len(ids) - 1) if mask[place + 1])
        torch.testing.assert_close(together[row, 0], own, rtol=1e-4, atol=1e-4)


def test_with_smoothed_labels_a_share_of_each_pair_counts_the_other_way_round():
    model = random_model(LLAMA)
    plain, swapped = (
        preference(BETA)(model, pairs_of(*replies, torch.zeros(3, 2)))[0]
        for replies in ((CHOSEN, REJECTED), (REJECTED, CHOSEN))
    )
    smoothed = preference(BETA, 0.1)(model, pairs_of(CHOSEN, REJECTED, torch.zeros(3, 2)))[0]
    torch.testing.assert_close(smoothed, 0.9 * plain + 0.1 * swapped)


@pytest.mark.slow
def test_loss_gradients_and_figures_of_a_batch_are_those_of_trl(tmp_path):
    trl, transformers = pytest.importorskip("trl"), pytest.importorskip("transformers")
    from datasets import Dataset
    from tokenizers import Tokenizer, models

    ours, start = random_model(LLAMA, seed=1), random_model(LLAMA, seed=2)
    with torch.no_grad():  # near to where it began, as in a training
        for weight, first in zip(ours.parameters(), start.parameters(), strict=True):
            weight.copy_(first + 0.01 * torch.randn_like(weight))
    batch = reference_batch(start)
    total, count, figures = preference(BETA)(ours, batch)
    (total / count).backward()

    words = Tokenizer(models.WordLevel({f"w{index}": index for index in range(97)}, unk_token="w0"))
    rows = [
        {"prompt_ids": c[:3], "chosen_ids": c[3:], "rejected_ids": r[3:]}
        for (c, _), (r, _) in zip(CHOSEN, REJECTED, strict=True)
    ]
    for name, model in (("ours", ours), ("start", start)):
        save_model(model, tmp_path / name, eos=0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        theirs, reference = (
            transformers.AutoModelForCausalLM.from_pretrained(tmp_path / name) for name in ("ours", "start")
        )
        trainer = trl.DPOTrainer(
            model=theirs,
            ref_model=reference,
            args=trl.DPOConfig(
                str(tmp_path / "out"),
                beta=BETA,
                use_cpu=True,
                bf16=False,
                report_to=[],
                per_device_train_batch_size=3,
                gradient_checkpointing=False,
                disable_dropout=True,
            ),
            processing_class=transformers.PreTrainedTokenizerFast(
                tokenizer_object=words, eos_token="w0", pad_token="w0"
            ),
            train_dataset=Dataset.from_list([{"prompt": "w1", "chosen": "w2", "rejected": "w3"}]),
        )
        theirs.train()
        loss = trainer.compute_loss(theirs, trainer.data_collator(rows))
    loss.backward()
    torch.testing.assert_close(total / count, loss, rtol=0, atol=1e-5)
    grads = dict(theirs.named_parameters())
    torch.testing.assert_close(
        ours.blocks[0].mlp.down.weight.grad,
        grads["model.layers.0.mlp.down_proj.weight"].grad,
        rtol=0,
        atol=1e-5,
    )
    torch.testing.assert_close(ours.head.weight.grad, grads["lm_head.weight"].grad, rtol=0, atol=1e-5)
    for name, figure in figures.items():
        assert float(figure) / count == pytest.approx(trainer._metrics["train"][name][-1], abs=1e-5), name


def test_a_model_learns_which_reply_is_chosen(tmp_path):
    model, start = fresh(), fresh()

    def pair(step):
        generator = torch.Generator().manual_seed(step)
        starts = torch.randint(0, 61, (8,), generator=generator).tolist()
        up, down = ([[(start + sign * k) % 61 for k in range(9)] for start in starts] for sign in (1, -1))
        masks = [False] + [True] * 8
        return pairs_of([(ids, masks) for ids in up], [(ids, masks) for ids in down], torch.zeros(8, 2))

    def with_reference(step):
        batch = pair(step)
        with torch.no_grad():
            batch.extras["reference"] = pair_log_probs(start, batch)
        return batch

    train(model, tmp_path, steps=20, source=with_reference, objective=preference(BETA))
    rows = rows_of(tmp_path)
    assert rows[0]["loss"] == pytest.approx(float(-F.logsigmoid(torch.zeros(()))), abs=1e-4)
    assert rows[-1]["rewards/accuracies"] == 1.0
    assert rows[-1]["rewards/margins"] == pytest.approx(
        rows[-1]["rewards/chosen"] - rows[-1]["rewards/rejected"], abs=1e-4
    )
