"""The stage of the reward model: what it learns, what it is worth, and what it refuses."""

import dataclasses
import json
import math
import random

import msgspec
import pytest
import torch

from crawltalk.chat.messages import Message, Preference
from crawltalk.chat.render import ChatRenderer, Rendered
from crawltalk.core.errors import BadInput
from crawltalk.core.jsonl import write_jsonl
from crawltalk.model.hf import load_reward_model, save_model
from crawltalk.model.reward import reward_model_of
from crawltalk.posttraining.pairs import Pair
from crawltalk.posttraining.reward import hold_out, label_noise, measure, reward
from crawltalk.recipe import Lora, Machine, Optim, Reward
from crawltalk.run.stage import STATE, Job, Progress
from crawltalk.train.optimizers import AdamW
from support.engines import TOKENIZER
from support.models import QWEN, random_model

MACHINE = Machine(workers=1, device="cpu", dtype="float32")


@pytest.fixture
def base(tmp_path):
    folder = tmp_path / "base"
    shape = dataclasses.replace(QWEN, vocab_size=TOKENIZER.vocab_size, context=128)
    save_model(random_model(shape), folder, eos=0)
    ChatRenderer(TOKENIZER).save(folder)
    return folder


def preference(question, chosen, rejected):
    messages = ([Message("user", question)], [Message("assistant", chosen)], [Message("assistant", rejected)])
    return Preference(messages=messages[0], chosen=messages[1], rejected=messages[2], source="test")


@pytest.fixture
def preferences(tmp_path):
    path, words = tmp_path / "pairs.jsonl", ["late", "early", "cold", "warm", "dark", "far", "near", "old"]
    rows = [preference(f"Is {one} {other}?", "Yes!", "Hm, no.") for one in words for other in words]
    write_jsonl(
        path,
        [
            *rows,
            {"prompt": "Same?", "chosen": "Yes.", "rejected": "Yes."},
            preference("Long?", "x" * 200, "y"),
        ],
    )
    return path


def job(base, preferences, out, **settings):
    optim = Optim(muon_lr=0.005, adamw_lr=0.003)
    config = Reward(
        base=str(base), data=(str(preferences),), batch_pairs=8, **{"optim": optim, "epochs": 2.0} | settings
    )
    out.mkdir(exist_ok=True)
    return Job(config=config, inputs={}, out=out, seed=0, machine=MACHINE, progress=Progress())


@pytest.mark.parametrize("lora", [Lora(), Lora(rank=4, dropout=0.1, lr=0.01)], ids=["whole", "adapters"])
def test_an_assistant_becomes_a_model_that_ranks_replies_it_has_not_seen(lora, base, preferences, tmp_path):
    out = tmp_path / "out"
    metrics = reward(job(base, preferences, out, lora=lora))
    figures = json.loads((out / "reward.json").read_text())
    assert metrics["accuracy"] == figures["accuracy"] == 1.0
    assert figures["pairs"] == metrics["held_out_pairs"] == 6 and metrics["pairs"] == 58
    assert sum(one["pairs"] for one in figures["reliability"]) == 6
    assert figures["nonsense"]["text"] and 0 <= figures["nonsense"]["share_of_chosen_below"] <= 1
    assert [json.loads(line)["reason"] for line in (out / "refused.jsonl").read_text().splitlines()]
    held_out = [json.loads(line) for line in (out / "held_out.jsonl").read_text().splitlines()]
    model, chat = load_reward_model(out), ChatRenderer.load(out)
    for row in held_out:
        better, worse = (chat.encode_chat(row["messages"] + row[side]) for side in ("chosen", "rejected"))
        assert model.scores_of([better]) > model.scores_of([worse])


def test_transformers_gives_a_conversation_in_its_own_template_our_score(base, preferences, tmp_path):
    transformers = pytest.importorskip("transformers")
    reward(job(base, preferences, tmp_path / "out"))
    theirs = transformers.AutoModelForSequenceClassification.from_pretrained(tmp_path / "out").eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained(tmp_path / "out")
    messages = [{"role": "user", "content": "Is late early?"}, {"role": "assistant", "content": "Yes!"}]
    ids = tokenizer.apply_chat_template(messages, return_dict=False)
    padded = torch.tensor([[*ids, *[theirs.config.pad_token_id] * 3]])
    with torch.no_grad():
        score = theirs(padded).logits[0, 0]
    [ours] = load_reward_model(tmp_path / "out").scores_of([ids])
    torch.testing.assert_close(ours, score, rtol=0, atol=2e-5)


def test_a_training_that_was_killed_ends_with_the_same_files(base, preferences, tmp_path, monkeypatch):
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    reward(job(base, preferences, whole, save_every=4))
    step = AdamW.step
    calls = iter(range(9))

    def dying(self, *arguments, **settings):
        if next(calls) == 8:
            raise KeyboardInterrupt
        return step(self, *arguments, **settings)

    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(AdamW, "step", dying)
        reward(job(base, preferences, cut, save_every=4))
    assert list((cut / STATE).glob("*"))
    reward(job(base, preferences, cut, save_every=4))
    for name in ("model.safetensors", "reward.json", "held_out.jsonl"):
        assert (cut / name).read_bytes() == (whole / name).read_bytes()


def test_prompts_that_are_measured_were_never_learned():
    rows = [preference(f"Question {number % 40}?", f"a{number}", "b") for number in range(200)]
    out = hold_out(rows, 0.25, seed=1)
    sides = [
        {row.messages[0].content for row, held in zip(rows, out, strict=True) if held is side}
        for side in (True, False)
    ]
    assert len(sides[0]) == 10 and not sides[0] & sides[1]
    one_prompt = [preference("Joke?", f"a{number}", f"b{number}") for number in range(40)]
    assert sum(hold_out(one_prompt, 0.25, seed=1)) == 10, "pairs, where there is one prompt only"
    with pytest.raises(BadInput, match="too few"):
        hold_out(one_prompt[:1], 0.5, seed=1)


@pytest.mark.parametrize("noise", [0.0, 0.1, 0.3])
def test_the_noise_of_labels_is_found_where_pairs_were_judged_twice(noise):
    rng, rows = random.Random(0), []
    for number in range(1000):
        for _ in range(2):
            sides = ("good", "bad") if rng.random() >= noise else ("bad", "good")
            rows.append(preference(f"Question {number}?", *sides))
    assert label_noise(rows) == pytest.approx(noise, abs=0.05)


def test_without_repeated_pairs_nothing_is_known_of_the_noise():
    assert label_noise([preference(f"Question {number}?", "a", "b") for number in range(100)]) is None


def pairs_scored(margins):
    """Pairs and a model that scores a token by its number: the margins come out as given."""
    model = reward_model_of(random_model(dataclasses.replace(QWEN, vocab_size=2 * len(margins))))
    scores = torch.tensor([value for margin in margins for value in (margin, 0.0)])
    model.scores_of = lambda conversations: scores[[ids[0] for ids in conversations]]
    pairs = [Pair(*(Rendered([2 * row + side], [True]) for side in (0, 1))) for row in range(len(margins))]
    return model, pairs


def test_calibration_compares_how_sure_the_model_is_with_how_often_it_is_right():
    log_odds = math.log(4)  # 80 % sure
    figures = measure(*pairs_scored([log_odds] * 8 + [-log_odds] * 2), noise=0.2)
    assert figures.accuracy == pytest.approx(0.8) and figures.ceiling == pytest.approx(0.8)
    assert figures.ece == pytest.approx(0.0, abs=1e-6)
    assert figures.log_loss == pytest.approx(-0.8 * math.log(0.8) - 0.2 * math.log(0.2))
    assert [msgspec.structs.astuple(one) for one in figures.reliability] == [pytest.approx((10, 0.8, 0.8))]
    assert figures.complaint is None
    overconfident = measure(*pairs_scored([log_odds] * 5 + [-log_odds] * 5))
    assert overconfident.ece == pytest.approx(0.3)


@pytest.mark.parametrize(
    ("margins", "complaint"),
    [([9.0] * 30 + [-9.0] * 10, "saturated: it is sure"), ([1e-5] * 40, "the same score")],
    ids=["saturated", "constant"],
)
def test_a_reward_model_that_tells_nothing_is_named(margins, complaint):
    assert complaint in measure(*pairs_scored(margins)).complaint


def test_scores_that_are_no_numbers_are_refused():
    with pytest.raises(BadInput, match="no numbers"):
        measure(*pairs_scored([math.nan] * 40))


def test_a_well_separated_task_is_not_called_saturated():
    assert measure(*pairs_scored([9.0] * 40)).complaint is None
