"""Reward models: the scores of `transformers`, and folders that it loads."""

import dataclasses
import json

import pytest
import torch

from crawltalk.core.errors import BadInput
from crawltalk.model.hf import load_model, load_reward_model, save_model
from crawltalk.model.reward import reward_model_of
from support.models import GPT2, LLAMA, QWEN, SPEEDRUN, random_model

PAD = 96
CONVERSATIONS = [[5, 9, 70, 2], [8], [PAD, 3, 4, 5, 6, 7, 11], [1, 2]]


def reward_model(shape):
    model = reward_model_of(random_model(shape))
    with torch.no_grad():
        model.score.weight.copy_(torch.randn(1, shape.width))
    return model


@pytest.mark.parametrize("shape", [QWEN, LLAMA, GPT2], ids=["qwen3", "llama", "gpt2"])
@pytest.mark.parametrize("side", ["right", "left"])
def test_transformers_loads_a_reward_model_and_gives_the_same_scores(shape, side, tmp_path):
    transformers = pytest.importorskip("transformers")
    model = reward_model(shape)
    save_model(model, tmp_path, eos=0, pad=PAD)
    theirs = transformers.AutoModelForSequenceClassification.from_pretrained(tmp_path).eval()
    assert theirs.config.num_labels == 1
    longest = max(map(len, CONVERSATIONS))
    rows, mask = [], []
    for ids in CONVERSATIONS:
        filler = [PAD] * (longest - len(ids))
        rows.append(ids + filler if side == "right" else filler + ids)
        seen, unseen = [1] * len(ids), [0] * len(filler)
        mask.append(seen + unseen if side == "right" else unseen + seen)
    places = torch.tensor(mask).cumsum(1).sub(1).clamp(min=0)
    with torch.no_grad():
        scores = theirs(torch.tensor(rows), attention_mask=torch.tensor(mask), position_ids=places).logits[
            :, 0
        ]
    torch.testing.assert_close(model.scores_of(CONVERSATIONS), scores, rtol=0, atol=2e-5)


@pytest.mark.parametrize("shape", [QWEN, LLAMA, GPT2, SPEEDRUN], ids=["qwen3", "llama", "gpt2", "speedrun"])
def test_a_saved_reward_model_scores_as_before(shape, tmp_path):
    model = reward_model(shape)
    save_model(model, tmp_path, eos=0, pad=PAD)
    torch.testing.assert_close(
        load_reward_model(tmp_path).scores_of(CONVERSATIONS), model.scores_of(CONVERSATIONS), rtol=0, atol=0
    )


def test_a_score_does_not_depend_on_what_is_scored_with_it(monkeypatch):
    model = reward_model(QWEN)
    together = model.scores_of(CONVERSATIONS)
    monkeypatch.setattr("crawltalk.model.reward.SCORED_TOKENS", 1)
    torch.testing.assert_close(together, model.scores_of(CONVERSATIONS), rtol=0, atol=1e-5)


def test_it_begins_with_the_weights_of_the_language_model():
    language_model = random_model(LLAMA)
    model = reward_model_of(language_model)
    assert model.blocks[0].mlp.down.weight is language_model.blocks[0].mlp.down.weight
    tokens = torch.tensor(CONVERSATIONS[:1])
    torch.testing.assert_close(model.states(tokens), language_model.states(tokens))


def test_what_it_cannot_score_is_refused():
    model = reward_model_of(random_model(dataclasses.replace(QWEN, context=4)))
    with pytest.raises(BadInput, match="scores 1 to 4 tokens, not 0 to 5"):
        model.scores_of([[], [1] * 5])


def test_a_language_model_is_no_reward_model_and_a_reward_model_no_language_model(tmp_path):
    save_model(random_model(QWEN), tmp_path / "language", eos=0)
    save_model(reward_model(QWEN), tmp_path / "reward", eos=0, pad=PAD)
    with pytest.raises(BadInput, match="is no reward model"):
        load_reward_model(tmp_path / "language")
    with pytest.raises(BadInput, match="models that give the next token"):
        load_model(tmp_path / "reward")
    config = json.loads((tmp_path / "reward" / "config.json").read_text())
    (tmp_path / "reward" / "config.json").write_text(
        json.dumps(config | {"id2label": {"0": "bad", "1": "good"}})
    )
    with pytest.raises(BadInput, match="2 labels"):
        load_reward_model(tmp_path / "reward")
