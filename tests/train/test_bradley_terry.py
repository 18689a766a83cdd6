"""Reward modelling: its loss, gradients and figures against TRL's."""

import warnings

import pytest
import torch

from crawltalk.model.hf import save_model
from crawltalk.model.reward import reward_model_of
from crawltalk.train.objectives.bradley_terry import bradley_terry, comparisons_of, pair_scores
from support.models import LLAMA, QWEN, random_model
from support.trainings import fresh, rows_of, train

CENTERING, PAD = 0.05, 96


def ids_of(length, seed):
    return torch.randint(1, PAD, (length,), generator=torch.Generator().manual_seed(seed)).tolist()


CHOSEN, REJECTED = [ids_of(9, 0), ids_of(20, 1), ids_of(5, 2)], [ids_of(14, 3), ids_of(6, 4), ids_of(30, 5)]


PAIRS = list(zip(CHOSEN, REJECTED, strict=True))


def reward_model(shape):
    model = reward_model_of(random_model(shape))
    with torch.no_grad():
        model.score.weight.copy_(torch.randn(1, shape.width) / 4)
    return model


@pytest.mark.parametrize("row", [64, 256])
def test_the_scores_of_a_pair_are_those_of_its_conversations_whatever_shares_the_row(row):
    model, question = reward_model(QWEN), ids_of(7, 6)
    pairs = [*PAIRS, *((question + up, question + down) for up, down in PAIRS), (question, question)]
    together = pair_scores(model, comparisons_of(pairs, row)).tolist()
    apart = [model.scores_of(pair).tolist() for pair in pairs]
    for found, expected in zip(sorted(together), sorted(apart), strict=True):
        assert found == pytest.approx(expected, rel=1e-4, abs=1e-4)


@pytest.mark.slow
def test_loss_gradients_and_figures_of_pairs_are_those_of_trl(tmp_path):
    trl, transformers = pytest.importorskip("trl"), pytest.importorskip("transformers")
    from datasets import Dataset
    from tokenizers import Tokenizer, models

    ours = reward_model(LLAMA)
    total, count, figures = bradley_terry(CENTERING)(ours, comparisons_of(PAIRS, LLAMA.context))
    (total / count).backward()
    save_model(ours, tmp_path / "model", eos=0, pad=PAD)
    words = Tokenizer(models.WordLevel({f"w{index}": index for index in range(97)}, unk_token="w0"))
    rows = [{"chosen_ids": c, "rejected_ids": r} for c, r in zip(CHOSEN, REJECTED, strict=True)]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        theirs = transformers.AutoModelForSequenceClassification.from_pretrained(tmp_path / "model")
        trainer = trl.RewardTrainer(
            model=theirs,
            args=trl.RewardConfig(
                str(tmp_path / "out"),
                center_rewards_coefficient=CENTERING,
                use_cpu=True,
                bf16=False,
                report_to=[],
                per_device_train_batch_size=3,
                gradient_checkpointing=False,
                disable_dropout=True,
            ),
            processing_class=transformers.PreTrainedTokenizerFast(
                tokenizer_object=words, eos_token="w0", pad_token=f"w{PAD}"
            ),
            train_dataset=Dataset.from_list([{"chosen": "w2", "rejected": "w3"}]),
        )
        theirs.train()
        loss = trainer.compute_loss(theirs, trainer.data_collator(rows))
    loss.backward()
    torch.testing.assert_close(total / count, loss, rtol=0, atol=1e-5)
    grads = dict(theirs.named_parameters())
    down = grads["model.layers.0.mlp.down_proj.weight"].grad
    torch.testing.assert_close(ours.blocks[0].mlp.down.weight.grad, down, rtol=0, atol=1e-5)
    torch.testing.assert_close(ours.score.weight.grad, grads["score.weight"].grad, rtol=0, atol=1e-5)
    for name, figure in figures.items():
        assert float(figure) / count == pytest.approx(trainer._metrics["train"][name][-1], abs=1e-5), name


def test_a_model_learns_which_conversations_are_preferred(tmp_path):
    def pairs(step):
        starts = torch.randint(0, 61, (8,), generator=torch.Generator().manual_seed(step)).tolist()
        up, down = ([[(start + sign * k) % 61 for k in range(9)] for start in starts] for sign in (1, -1))
        return comparisons_of(list(zip(up, down, strict=True)), 64)

    train(reward_model_of(fresh()), tmp_path, steps=25, source=pairs, objective=bradley_terry())
    rows = rows_of(tmp_path)
    assert rows[-1]["accuracy"] == 1.0
    assert rows[-1]["margin"] > 1
