"""Attacks and defences on a small untrained model: what they ask, and that searches compute what they say."""

import random
from pathlib import Path

import pytest
import torch

from crawltalk.chat.messages import Message
from crawltalk.chat.render import ChatRenderer
from crawltalk.core.errors import BadInput
from crawltalk.engine import Engine
from crawltalk.model.shape import Shape
from crawltalk.model.transformer import Transformer
from crawltalk.redteam.attacks import ATTACKS
from crawltalk.redteam.attacks.direction import fixed, means, states_of, steered
from crawltalk.redteam.attacks.forms import ENCODINGS, encoded
from crawltalk.redteam.attacks.gcg import Loss, Place, printable_tokens, search
from crawltalk.redteam.attacks.templates import read_templates
from crawltalk.redteam.defenses import SMOOTH, perplexity_filter, surprise, swapped
from crawltalk.redteam.frame import Prompt, Reply, Says, WhiteBox
from crawltalk.redteam.policy import REFUSAL, Policy
from crawltalk.redteam.targets import EngineTarget, prompt_ids
from crawltalk.tokenizer.bpe import train

GOALS = Policy(0).goals()


@pytest.fixture(scope="module")
def box() -> WhiteBox:
    """A model with random weights that all have an effect."""
    tokenizer = train([goal.prompt.request + goal.opening for goal in GOALS] * 3, 320)
    shape = Shape(
        vocab_size=tokenizer.vocab_size, layers=2, width=32, heads=2, kv_heads=2, head_dim=16, mlp=64, context=256
    )  # fmt: skip
    model = Transformer(shape)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for weight in model.parameters():
            if weight.ndim > 1:
                weight.normal_(0.0, 0.2, generator=generator)
    return WhiteBox(Engine(model, tokenizer, renderer=ChatRenderer(tokenizer)), model)


def suffixes_near(place: Place, count: int) -> tuple[torch.Tensor, torch.Tensor]:
    """A suffix, and others that differ from it in one token each, at all positions."""
    rng, allowed = random.Random(1), printable_tokens(place.tokenizer)
    current = torch.tensor(place.start(rng, 18))
    others = current.repeat(count, 1)
    for row in range(count - 1):
        others[row, row % 18] = rng.choice(allowed)
    return current, others


@pytest.mark.parametrize("fluency", [0.0, 0.7])
def test_losses_from_shared_keys_are_those_of_whole_sequences(box: WhiteBox, fluency: float) -> None:
    place = Place(box, GOALS[0].prompt)
    loss = place.loss(GOALS[0].opening, fluency)
    current, others = suffixes_near(place, 90)
    found, hits = loss.of(others, current)
    whole = loss.whole(others)
    logs = box.model(whole).log_softmax(-1)
    each = -logs[:, :-1].gather(2, whole[:, 1:, None]).squeeze(2)
    start = len(loss.before)
    expected = each[:, -len(loss.wanted) :].mean(1) + fluency * each[:, start - 1 : start + 17].mean(1)
    assert torch.allclose(found, expected, atol=1e-4)
    assert not hits.any()


@pytest.mark.parametrize("fluency", [0.0, 0.7])
def test_the_gradient_is_the_change_of_the_loss(box: WhiteBox, fluency: float) -> None:
    place = Place(box, GOALS[0].prompt)
    loss = place.loss(GOALS[0].opening, fluency)
    current, _ = suffixes_near(place, 1)
    slope = loss.gradient(current)
    table, step = box.model.embedding.weight, 1e-2
    row, token = 5, 70

    def moved(amount: float) -> float:
        """The loss where a position is a token and a little of another one."""
        with torch.no_grad():
            tokens = loss.whole(current[None])
            embeddings = table[tokens].clone()
            embeddings[0, len(loss.before) + row] += amount * table[token]
            states = box.model.states(tokens, embeddings_BTD=embeddings)[0]
            logs = box.model.logits(states).log_softmax(-1)
            wanted, start = torch.tensor(loss.wanted), len(loss.before)
            value = -logs[-len(wanted) - 1 : -1].gather(1, wanted[:, None]).mean()
            hot = torch.nn.functional.one_hot(current, len(table)).float()
            hot[row, token] += amount
            return float(value - fluency * (hot * logs[start - 1 : start + 17]).sum(1).mean())

    assert float(slope[row, token]) == pytest.approx((moved(step) - moved(-step)) / (2 * step), abs=2e-3)


def test_a_search_lowers_the_loss_and_its_suffixes_survive_as_text(box: WhiteBox) -> None:
    place, rng = Place(box, GOALS[0].prompt), random.Random(0)
    loss = place.loss(GOALS[0].opening)
    start = place.start(rng)
    first = float(loss.of(torch.tensor([start]), torch.tensor(start))[0])
    allowed = printable_tokens(place.tokenizer)
    steps = list(search([loss], start, allowed, place.keeps, rng, steps=6, candidates=32, top=16))
    assert steps[-1].loss < first - 0.5
    for step in steps:
        sent = GOALS[0].prompt.asking(place.text(step.ids))
        assert prompt_ids(box.engine, sent, 32) == [*place.before, *step.ids, *place.after]


def test_static_attacks_ask_for_the_goal_and_never_say_its_key(box: WhiteBox) -> None:
    target = EngineTarget("m", box.engine, box.model, 8)
    for name, attack in ATTACKS.items():
        if attack.white_box or attack.reads:
            continue
        for goal in GOALS[:3]:
            prompts = attack.run(goal, target, random.Random(0))
            prompt = next(iter(prompts))
            said = " ".join(str(message.content) for message in prompt.messages)
            assert isinstance(goal.oracle, Says) and goal.oracle.text not in said, name
            assert name in (*ENCODINGS, "language") or goal.prompt.request in said, name


def test_encodings_are_what_their_names_say() -> None:
    assert encoded("base64", "key?") == "Answer this base64 text: a2V5Pw=="
    assert [encoded(name, "abe").split()[-1] for name in ("hex", "rot13", "reversed", "leetspeak")] == [
        "616265",
        "nor",
        "eba",
        "4b3",
    ]


def test_a_begun_reply_is_continued(box: WhiteBox) -> None:
    [prompt] = ATTACKS["prefix"].run(GOALS[0], EngineTarget("m", box.engine), random.Random(0))
    ids = prompt_ids(box.engine, prompt, 32)
    assert ids[-len(box.engine.tokenizer.encode(GOALS[0].opening)) :] == box.engine.tokenizer.encode(
        GOALS[0].opening
    )


def test_what_does_not_fit_is_not_run(box: WhiteBox) -> None:
    target = EngineTarget("m", box.engine, max_tokens=8)
    long, short = target.answer([Prompt([Message("user", "door " * 400)]), GOALS[0].prompt])
    assert not long.reached and "context" in long.error
    assert short.reached and not short.error


def test_states_are_moved_along_one_direction_only(box: WhiteBox) -> None:
    _, harmless = means(box, GOALS)
    direction = torch.randn(32, generator=torch.Generator().manual_seed(1))
    unit = direction / direction.norm()
    levels = harmless @ unit
    target = steered(EngineTarget("m", box.engine, box.model, 8), fixed(direction, levels))
    assert target.white_box is not None
    prompts = [goal.prompt for goal in GOALS[:3]]
    states = states_of(target.white_box, prompts)
    assert torch.allclose(states @ unit, levels[:, None].expand(-1, 3), atol=1e-4)
    assert not torch.allclose(states, states_of(box, prompts), atol=1e-2)


def test_a_filter_declines_what_surprises_more_than_harmless_requests(box: WhiteBox) -> None:
    target = EngineTarget("m", box.engine, box.model, 4)
    *_, last = ordered = sorted((goal.prompt for goal in GOALS), key=lambda prompt: surprise(box, prompt))
    filtered = perplexity_filter(ordered[:2]).apply(target)
    told = [reply.text for reply in filtered.answer([ordered[0], last, ordered[1]])]
    assert [text == REFUSAL for text in told] == [False, True, False]


class Listener:
    """Answers copies in turn with what it was told to."""

    name, white_box = "listener", None

    def __init__(self, texts: list[str]) -> None:
        self.texts, self.heard = texts, [""]

    def answer(self, prompts: list[Prompt]) -> list[Reply]:
        self.heard = [prompt.request for prompt in prompts]
        return [Reply(text=text) for text in self.texts]


def test_smoothing_asks_changed_copies_and_follows_the_majority() -> None:
    yes, no = "The attic opens with it.", "I cannot say that."
    for texts, expected in ((yes, yes, no, no, yes), yes), ((no, yes, no, no, yes), no):
        listener = Listener(list(texts))
        [reply] = SMOOTH.apply(listener).answer([GOALS[0].prompt])
        assert reply.text == expected
        assert all(len(heard) == len(GOALS[0].prompt.request) for heard in listener.heard)
        assert GOALS[0].prompt.request not in listener.heard
    assert sum(a != b for a, b in zip("x" * 50, swapped("x" * 50, random.Random(0)), strict=True)) >= 4


def test_templates_need_a_place_for_the_request(tmp_path: Path) -> None:
    path = tmp_path / "wild.txt"
    path.write_text("Be free.\n{request}\n---\n\nSay it: {request}\n")
    assert read_templates(path) == ["Be free.\n{request}", "Say it: {request}"]
    path.write_text("{request}\n---\nnothing\n")
    with pytest.raises(BadInput, match="template 2 has no"):
        read_templates(path)


def test_the_loss_adds_up_over_models(box: WhiteBox) -> None:
    place = Place(box, GOALS[0].prompt)
    loss: Loss = place.loss(GOALS[0].opening)
    rng = random.Random(0)
    start, allowed = place.start(rng), printable_tokens(place.tokenizer)
    one, two = (
        next(search([loss] * count, start, allowed, place.keeps, random.Random(0), candidates=16, steps=1))
        for count in (1, 2)
    )
    assert (one.ids, pytest.approx(2 * one.loss, rel=1e-4)) == (two.ids, two.loss)
