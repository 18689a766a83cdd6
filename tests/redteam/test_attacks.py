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
from crawltalk.redteam.attacks.suffixes import FORMS, Swapped, Together
from crawltalk.redteam.attacks.templates import in_the_wild, read_templates
from crawltalk.redteam.defenses import COPIES, SMOOTH, SWAPPED, WINDOW, perplexity_filter, surprise, swapped
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


def surprises(box: WhiteBox, tokens: torch.Tensor) -> torch.Tensor:
    """At each token from the second on, [B, T - 1]."""
    logs = box.model(tokens).log_softmax(-1)
    return -logs[:, :-1].gather(2, tokens[:, 1:, None]).squeeze(2)


@pytest.mark.parametrize("ceiling", [None, 3.0])
def test_losses_from_shared_keys_are_those_of_whole_sequences(box: WhiteBox, ceiling: float | None) -> None:
    place = Place(box._replace(ceiling=ceiling), GOALS[0].prompt)
    loss = place.loss(GOALS[0].opening)
    current, others = suffixes_near(place, 90)
    found, hits = loss.of(others, current)
    each = surprises(box, loss.whole(others))
    expected = each[:, -len(loss.wanted) :].mean(1)
    if ceiling is not None:
        most = each[:, : -len(loss.wanted)].unfold(1, WINDOW, 1).mean(2).amax(1)
        sent = GOALS[0].prompt.asking(place.text(current.tolist()))
        assert surprise(box, sent) == pytest.approx(most[-1].item(), abs=1e-4)  # what the filter itself sees
        expected += (most - ceiling).clamp(min=0)
    assert torch.allclose(found, expected, atol=1e-4)
    assert not hits.any()


@pytest.mark.parametrize("ceiling", [None, 3.0])
def test_the_gradient_is_the_change_of_the_loss(box: WhiteBox, ceiling: float | None) -> None:
    place = Place(box._replace(ceiling=ceiling), GOALS[0].prompt)
    loss = place.loss(GOALS[0].opening)
    current, _ = suffixes_near(place, 1)
    slope = loss.gradient(current)
    table, step = box.model.embedding.weight, 1e-3  # a longer one changes which words surprise most
    row, token = 5, 70

    def moved(amount: float) -> float:
        """The loss where a position is a token and a little of another one."""
        with torch.no_grad():
            tokens, start = loss.whole(current[None]), len(loss.before)
            embeddings = table[tokens].clone()
            embeddings[0, start + row] += amount * table[token]
            logs = box.model.logits(box.model.states(tokens, embeddings_BTD=embeddings)[0]).log_softmax(-1)
            each = -logs[:-1].gather(1, tokens[0, 1:, None]).squeeze(1)
            each[start + row - 1] -= amount * logs[start + row - 1, token]
            value = each[-len(loss.wanted) :].mean()
            if ceiling is not None:
                value += each[: -len(loss.wanted)].unfold(0, WINDOW, 1).mean(1).max() - ceiling
            return float(value)

    assert float(slope[row, token]) == pytest.approx((moved(step) - moved(-step)) / (2 * step), abs=5e-3)


def test_a_search_is_that_of_a_plain_loop(box: WhiteBox) -> None:
    place, allowed = Place(box, GOALS[0].prompt), printable_tokens(box.engine.tokenizer)
    loss, start = place.loss(GOALS[0].opening), place.start(random.Random(0))
    found = list(search(loss, start, allowed, place.keeps, random.Random(1), steps=4, candidates=48, top=16))
    generator = torch.Generator().manual_seed(random.Random(1).getrandbits(60))
    tokens, current = torch.tensor(allowed), torch.tensor(start)
    for step in found:
        one_hot = (
            torch.nn.functional.one_hot(current, len(box.model.embedding.weight)).float().requires_grad_()
        )
        whole = loss.whole(current[None])
        embeddings = box.model.embedding.weight.detach()[whole[0]]
        first = len(loss.before)
        parts = (embeddings[:first], one_hot @ box.model.embedding.weight, embeddings[first + len(current) :])
        states = box.model.states(whole, embeddings_BTD=torch.cat(parts)[None])[0]
        logits = box.model.logits(states[-len(loss.wanted) - 1 : -1])
        value = torch.nn.functional.cross_entropy(logits, torch.tensor(loss.wanted))
        slope = torch.autograd.grad(value, one_hot)[0]
        best = tokens[(-slope[:, tokens]).topk(16, dim=1).indices]
        where = torch.randint(len(current), (48,), generator=generator)
        which = torch.randint(16, (48,), generator=generator)
        drawn = current.repeat(48, 1)
        drawn[torch.arange(48), where] = best[where, which]
        drawn = torch.tensor([row for row in drawn.unique(dim=0).tolist() if place.keeps(row)])
        losses = surprises(box, loss.whole(drawn))[:, -len(loss.wanted) :].mean(1)
        current = drawn[losses.argmin()]
        assert (step.ids, step.loss) == (current.tolist(), pytest.approx(losses.min().item(), rel=1e-4))


def test_a_swapped_copy_is_read_with_other_tokens_and_has_no_slope_there(box: WhiteBox) -> None:
    rng = random.Random(0)
    smoothed = SMOOTH.apply(EngineTarget("m", box.engine, box.model, 8)).white_box
    assert smoothed is not None and smoothed.swapped == SWAPPED
    sought = Swapped(smoothed, GOALS[0].prompt, GOALS[0].opening, rng)
    current, others = suffixes_near(Place(box, GOALS[0].prompt), 20)
    slope = sought.gradient(current)
    losses, hits = sought.of(others, current)
    requests = {tuple(copy.before) for copy in sought.copies}
    assert len(requests) == len(sought.copies) == COPIES
    for copy in sought.copies:
        assert copy.others is not None
        assert not copy.gradient(current)[copy.others >= 0].any()
    expected = torch.stack([copy.of(others, current)[0] for copy in sought.copies]).mean(0)
    assert torch.allclose(losses, expected) and slope.any() and not hits.any()


def test_a_form_keeps_its_words_before_a_suffix(box: WhiteBox, monkeypatch: pytest.MonkeyPatch) -> None:
    target = EngineTarget("m", box.engine, box.model, 8)
    monkeypatch.setattr("crawltalk.redteam.attacks.suffixes.FORM_STEPS", 2)
    for form in FORMS:
        first = next(iter(ATTACKS[form].run(GOALS[0], target, random.Random(0))))
        prompt = next(iter(ATTACKS[f"{form}+gcg"].run(GOALS[0], target, random.Random(0))))
        assert prompt.request.startswith(first.request) and prompt.request != first.request
        assert [one.role for one in prompt.messages] == [one.role for one in first.messages]
        assert prompt.steps == 2 // len(list(ATTACKS[form].run(GOALS[0], target, random.Random(0)))[:2])


def test_a_search_lowers_the_loss_and_its_suffixes_survive_as_text(box: WhiteBox) -> None:
    place, rng = Place(box, GOALS[0].prompt), random.Random(0)
    loss = place.loss(GOALS[0].opening)
    start = place.start(rng)
    first = float(loss.of(torch.tensor([start]), torch.tensor(start))[0])
    allowed = printable_tokens(place.tokenizer)
    steps = list(search(loss, start, allowed, place.keeps, rng, steps=6, candidates=32, top=16))
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
            assert name in (*ENCODINGS, "language", "nested") or goal.prompt.request in said, name


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


def test_templates_are_read_and_what_has_no_place_for_the_request_is_set_aside(tmp_path: Path) -> None:
    texts = {
        "wild.txt": b"Be free.\n{request}\n---\n\nSay it: [INSERT PROMPT HERE]\n---\nnothing\n---\n\xff{request}\n",
        "wild.csv": b'id,text\n0,"Be free.\n{request}"\n1,Say it: {{prompt}}\n2,nothing\n3,\n4,"\xff{request}"\n5\n',
        "wild.jsonl": b'{"template": "Be free.\\n{request}"}\n{"template": "Say it: {prompt}"}\n{"template": 3}\n{oh',
    }
    for name, text in texts.items():
        (tmp_path / name).write_bytes(text)
        templates, aside = read_templates(tmp_path / name)
        assert templates == ["Be free.\n{request}", "Say it: {request}"]
        assert len(aside) == {"wild.txt": 2, "wild.csv": 4, "wild.jsonl": 2}[name], aside
    (tmp_path / "wild.txt").write_text("a\x1b]0;title\x07\n---\n{request}\n---\n{request}")
    templates, aside = read_templates(tmp_path / "wild.txt")
    assert templates == ["{request}"] and "\x1b" not in aside[0] and aside[1].endswith("there already")
    (tmp_path / "wild.txt").write_text("nothing")
    with pytest.raises(BadInput, match="no template with"):
        read_templates(tmp_path / "wild.txt")


def test_templates_of_ones_own_meet_the_goals_in_an_order_of_each(box: WhiteBox) -> None:
    wild = in_the_wild([f"{number}: {{request}}" for number in range(9)])
    target = EngineTarget("m", box.engine)
    orders = [
        [prompt.request for prompt in wild.run(goal, target, random.Random(goal.id))] for goal in GOALS[:3]
    ]
    for goal, order in zip(GOALS, orders, strict=False):
        assert sorted(order) == [f"{number}: {goal.prompt.request}" for number in range(9)]
    assert len({tuple(request[0] for request in order) for order in orders}) == 3
    long = in_the_wild(["door " * 400 + "{request}", "{request} Please."])
    known = EngineTarget("m", box.engine, box.model)
    assert [one.request[-7:] for one in long.run(GOALS[0], known, random.Random(0))] == ["Please."]


def test_the_loss_adds_up_over_models(box: WhiteBox) -> None:
    place = Place(box, GOALS[0].prompt)
    loss: Loss = place.loss(GOALS[0].opening)
    rng = random.Random(0)
    start, allowed = place.start(rng), printable_tokens(place.tokenizer)
    one, two = (
        next(
            search(
                Together([loss] * count),
                start,
                allowed,
                place.keeps,
                random.Random(0),
                candidates=16,
                steps=1,
            )
        )
        for count in (1, 2)
    )
    assert (one.ids, pytest.approx(2 * one.loss, rel=1e-4)) == (two.ids, two.loss)
