"""The stage that reinforces an assistant by a reward model."""

import dataclasses
import json

import pytest

from crawltalk.chat.messages import Message, Preference
from crawltalk.chat.render import ChatRenderer
from crawltalk.core.errors import BadInput, MissingInput
from crawltalk.core.jsonl import write_jsonl
from crawltalk.engine import load_engine
from crawltalk.model.hf import save_model
from crawltalk.model.reward import reward_model_of
from crawltalk.posttraining.external_inputs import external_inputs
from crawltalk.posttraining.rlhf import read_prompts, rlhf
from crawltalk.recipe import Lora, Machine, Optim, Rlhf
from crawltalk.run.stage import Job, Progress
from crawltalk.train.optimizers import AdamW
from support.engines import TOKENIZER
from support.models import QWEN, random_model

MACHINE = Machine(workers=1, device="cpu", dtype="float32")
SHAPE = dataclasses.replace(QWEN, vocab_size=TOKENIZER.vocab_size, context=96)
QUESTIONS = [f"Is it {word}?" for word in ("late", "early", "cold", "warm", "dark", "far", "near", "old")]


def preference(*messages):
    return Preference(
        messages=list(messages),
        chosen=[Message("assistant", "Yes.")],
        rejected=[Message("assistant", "No.")],
        source="test",
    )


@pytest.fixture
def models(tmp_path):
    """(a base, a reward model), as another run might have left them."""
    reward = reward_model_of(random_model(SHAPE, seed=1))
    save_model(random_model(SHAPE), tmp_path / "base", eos=0)
    save_model(reward, tmp_path / "reward", eos=0, pad=TOKENIZER.eot)
    for name in ("base", "reward"):
        ChatRenderer(TOKENIZER).save(tmp_path / name)
    return tmp_path / "base", tmp_path / "reward"


@pytest.fixture
def prompts(tmp_path):
    path = tmp_path / "pairs.jsonl"
    asked = [preference(Message("user", question)) for question in QUESTIONS]
    longer = [Message("user", "Hi"), Message("assistant", "Yes?"), Message("user", "Bye")]
    write_jsonl(path, [*asked, preference(*longer)])
    return path


def job(models, prompts, out, **settings):
    base, reward = models
    config = Rlhf(
        **{
            "base": str(base),
            "reward": str(reward),
            "prompts": (str(prompts),),
            "steps": 6,
            "groups": 3,
            "samples": 4,
            "max_tokens": 6,
            "eval_every": 3,
            "save_every": 2,
            "held_out": 0.3,
            "optim": Optim(muon_lr=0.003, adamw_lr=0.003),
        }
        | settings
    )
    out.mkdir(exist_ok=True)
    return Job(config=config, inputs={}, out=out, seed=0, machine=MACHINE, progress=Progress())


@pytest.mark.parametrize("lora", [Lora(), Lora(rank=4, lr=0.01)], ids=["whole", "adapters"])
def test_an_assistant_is_reinforced_by_a_reward_model_and_chats_afterwards(lora, models, prompts, tmp_path):
    out = tmp_path / "out"
    metrics = rlhf(job(models, prompts, out, lora=lora))
    rows = [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]
    steps = [row for row in rows if "reward" in row]
    assert len(steps) == 6 and all("kl" in row for row in steps)
    assert metrics["reward.held_out"] == rows[-1]["reward.held_out"]
    samples = [json.loads(line) for line in (out / "samples.jsonl").read_text().splitlines()]
    rolled = [json.loads(line) for line in (out / "rollouts.jsonl").read_text().splitlines()]
    assert not {row["prompt"] for row in samples} & {row["problem"]["prompt"] for row in rolled}
    assert load_engine(out).renderer.chats


def test_a_training_that_was_killed_ends_with_the_same_model(models, prompts, tmp_path, monkeypatch):
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    rlhf(job(models, prompts, whole))
    step, calls = AdamW.step, iter(range(9))

    def dying(self, *arguments, **settings):
        if next(calls) == 5:
            raise KeyboardInterrupt
        return step(self, *arguments, **settings)

    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(AdamW, "step", dying)
        rlhf(job(models, prompts, cut))
    rlhf(job(models, prompts, cut))
    for name in ("model.safetensors", "rollouts.jsonl", "samples.jsonl"):
        assert (cut / name).read_bytes() == (whole / name).read_bytes()


def test_prompts_are_those_of_preferences_or_of_conversations_each_once(prompts, tmp_path):
    found = read_prompts([str(prompts), str(prompts)])
    assert list(found) == [*QUESTIONS, "user: Hi\n\nassistant: Yes?\n\nuser: Bye"]
    talks = tmp_path / "talks.jsonl"
    write_jsonl(
        talks, [{"messages": [{"role": "user", "content": "Why?"}, {"role": "assistant", "content": "So."}]}]
    )
    assert read_prompts([str(talks)]) == {"Why?": [Message("user", "Why?")]}


def test_what_cannot_be_reinforced_is_said_in_one_line(models, prompts, tmp_path):
    with pytest.raises(MissingInput, match=r"train one with --reward\.data FILE"):
        rlhf(job(models, prompts, tmp_path / "out", reward=""))
    with pytest.raises(MissingInput, match=r"give a file of preferences: --rlhf\.prompts FILE"):
        read_prompts([str(tmp_path / "nothing.jsonl")])
    with pytest.raises(BadInput, match="0 of these are held out"):
        rlhf(job(models, prompts, tmp_path / "out", held_out=0.01))
    plain = tmp_path / "plain.jsonl"
    write_jsonl(plain, [{"text": "nothing asked"}])
    with pytest.raises(BadInput, match="has no prompts"):
        read_prompts([str(plain)])


def test_its_fingerprint_follows_the_reward_model_and_the_prompts(models, prompts, tmp_path):
    config = job(models, prompts, tmp_path / "out").config
    before = external_inputs(config)
    (models[1] / "config.json").write_text("{}")
    between = external_inputs(config)
    prompts.write_text("")
    assert len({json.dumps(one) for one in (before, between, external_inputs(config))}) == 3
