"""Replies with calls of tools, by a small model that has learned a few conversations by heart."""

import copy
import json

import pytest
import torch

from crawltalk.chat.messages import FunctionCall, Message, ToolCall
from crawltalk.chat.render import ChatRenderer
from crawltalk.core.errors import BadRecipe
from crawltalk.core.jsonl import read_jsonl
from crawltalk.core.types import Problem
from crawltalk.engine import Engine, Sampling
from crawltalk.model.hf import save_model
from crawltalk.model.shape import Shape
from crawltalk.model.transformer import Transformer
from crawltalk.posttraining.grpo import called_tools, grpo
from crawltalk.posttraining.reinforce import Group, Replies, reinforce
from crawltalk.posttraining.rollouts import EngineRollouts
from crawltalk.posttraining.tool_rollouts import ToolRollouts
from crawltalk.recipe import Grpo, Machine, Optim, Reinforce
from crawltalk.rewards.verdict import correct, wrong
from crawltalk.run.stage import Job, Progress
from crawltalk.tokenizer import Tokenizer
from crawltalk.tools.loop import Limits
from crawltalk.tools.tool import Tool, ToolResult, texts
from crawltalk.train.batches import IGNORE_INDEX, packed_rows
from crawltalk.train.objectives.policy_gradient import policy_gradient
from support.models import random_model
from support.reinforcements import options
from support.trainings import train

TOKENIZER = Tokenizer.trained([(116, 104), (256, 101)])  # "th", "the"
RENDERER = ChatRenderer(TOKENIZER)
SHAPE = Shape(
    vocab_size=TOKENIZER.vocab_size, layers=2, width=48, heads=3, kv_heads=1, head_dim=16, mlp=96, context=384
)
GREEDY = Sampling(temperature=0.0, max_tokens=150, logprobs=0)


class Look(Tool):
    """Says where a thing is."""

    name = "f"
    description = ""
    parameters = texts("x")

    def call(self, arguments):
        return ToolResult.of("the 42nd", self.name)


def conversation(question, *, says):
    call = ToolCall(FunctionCall("f", json.dumps({"x": "the"})))
    return [
        Message("user", question),
        Message("assistant", "hm", tool_calls=[call]),
        Message("tool", "the 42nd"),
        Message("assistant", says),
    ]


def spelled_out(token):
    """The same text, every byte a token of its own."""
    return list(TOKENIZER.word(token)) if 256 <= token < 258 else [token]


TELLS, HIDES = conversation("tell", says="the 42nd"), conversation("hide", says="no")
LOOKS, GUESSES = conversation("ask", says="the 42nd"), [Message("user", "ask"), Message("assistant", "no")]


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """Knows `TELLS` as the tokenizer spells it, and `HIDES` in bytes; asked, it calls or guesses."""
    examples = []
    for messages in (TELLS, HIDES, LOOKS, GUESSES):
        ids, learned = RENDERER.render(messages, tools=[Look().definition])
        if messages is HIDES:
            runs = [
                (run, kept)
                for one, kept in zip(ids, learned, strict=True)
                for run in (spelled_out(one) if kept else [one])
            ]
            ids, learned = [one for one, _ in runs], [kept for _, kept in runs]
        examples.append((ids, learned))
    model = Transformer(SHAPE)
    model.initialize(0)
    batches, _ = packed_rows(examples, SHAPE.context, 4 * SHAPE.context, 0)
    train(
        model,
        tmp_path_factory.mktemp("by_heart"),
        steps=80,
        source=batches,
        optim=Optim(muon_lr=0.02, adamw_lr=0.01),
        save_every=1000,
    )
    return model


def rollouts(model, limits=None, max_tokens=150):
    engine = Engine(model, TOKENIZER)
    return ToolRollouts(
        engine, lambda problem: [Message("user", problem.prompt)], [Look()], max_tokens, limits
    )


def asked(*prompts):
    return [Problem(prompt=prompt, answer="42", task="lookup") for prompt in prompts]


def answer(model, prompt, limits=None):
    return rollouts(model, limits).sample(asked(prompt), [0], 1, GREEDY)[0][0]


def says_42(problems, replies):
    return [correct() if "42" in reply else wrong() for reply in replies]


def test_a_reply_with_a_call_is_the_rendering_of_the_whole_conversation(model):
    found = answer(model, "tell")
    rendered = RENDERER.render(TELLS, tools=[Look().definition])
    assert found.prompt + found.reply == rendered.ids
    assert found.learned == rendered.loss_mask[len(found.prompt) :]
    assert (found.text, found.finished, found.calls) == ("hm\nthe 42nd", True, 1)


def test_what_was_sampled_stands_where_the_tokenizer_would_spell_otherwise(model):
    found = answer(model, "hide")
    assert found.text == "hm\nno"
    assert found.prompt + found.reply != RENDERER.render(HIDES, tools=[Look().definition]).ids
    assert TOKENIZER.decode(found.reply) == TOKENIZER.decode(
        RENDERER.render(HIDES, tools=[Look().definition]).ids[len(found.prompt) :]
    )
    written = [one for one, kept in zip(found.reply, found.learned, strict=True) if kept]
    read = [one for one, kept in zip(found.reply, found.learned, strict=True) if not kept]
    assert not {256, 257} & {*written}
    assert {256, 257} & {*read}  # the result, as the tokenizer spells it


def test_a_tool_that_says_the_answer_earns_nothing(model):
    told, hidden = answer(model, "tell"), answer(model, "hide")
    assert "42" in TOKENIZER.decode(hidden.reply)
    assert [one.reward for one in says_42([], [told.text, hidden.text])] == [1.0, 0.0]


def test_each_token_has_the_log_probability_that_the_policy_gives_it(model):
    engine = Engine(model, TOKENIZER)
    for [one] in rollouts(model)(asked("tell", "hide", "other"), [0, 1, 2], 1, 5):
        found = engine.logprobs([(one.prompt, one.reply)])[0]
        for value, own, kept in zip(found, one.log_probs, one.learned, strict=True):
            assert own == pytest.approx(value, abs=1e-4) if kept else own == 0.0


def test_a_reply_depends_on_its_numbers_alone(model):
    problems = asked("tell", "hide", "tell")
    together = rollouts(model)(problems, [0, 1, 2], 3, 5)
    for number, problem in enumerate(problems):
        assert rollouts(model)([problem], [number], 3, 5)[0] == together[number]


def test_without_a_call_replies_are_those_of_a_policy_without_tools():
    engine = Engine(random_model(SHAPE), TOKENIZER)
    with_tools = rollouts(random_model(SHAPE), max_tokens=12)
    plain = EngineRollouts(engine, prompt_with_tools, 12)
    one, other = (each(asked("a", "b"), [0, 1], 4, 3) for each in (with_tools, plain))
    assert [[(it.reply, it.log_probs) for it in group] for group in one] == [
        [(it.reply, it.log_probs) for it in group] for group in other
    ]


def prompt_with_tools(problem):
    return RENDERER.encode_chat(
        [Message("user", problem.prompt)], tools=[Look().definition], add_generation_prompt=True
    )


def test_a_reply_ends_where_its_tokens_or_the_context_end(model):
    whole = answer(model, "tell")
    first_turn = whole.learned.index(False)
    for tokens in (10, first_turn):
        few = Sampling(temperature=0.0, max_tokens=tokens)
        cut = rollouts(model).sample(asked("tell"), [0], 1, few)[0][0]
        assert (cut.reply, cut.finished, cut.calls) == (whole.reply[:tokens], False, 0)
    long = "tell" + "." * (SHAPE.context - len(whole.prompt) - first_turn - 2)
    crowded = rollouts(model).sample(asked(long), [0], 1, GREEDY)[0][0]
    assert not crowded.finished
    assert len(crowded.prompt) + len(crowded.reply) <= SHAPE.context + 1


def test_after_its_rounds_a_reply_is_an_answer_whatever_it_calls(model):
    none = answer(model, "tell", limits=Limits(rounds=0))
    assert (none.calls, none.finished) == (0, True)
    assert none.text.startswith("hm\n<tool_call>")


def test_a_training_learns_what_the_policy_wrote_and_only_reads_results(model, tmp_path):
    config = Reinforce(groups=2, samples=4, max_tokens=150, advantage="reinforce")
    replies = Replies(model, rollouts(model), lambda *_: asked("tell", "hide"), says_42, config, tmp_path, 7)
    batch = replies(0)
    kept = batch.targets != IGNORE_INDEX
    assert int(kept.sum()) == sum(sum(group.lengths) for group in replies.history)
    assert batch.figures["calls"] > 0.5
    end = TOKENIZER.special_tokens["</tool_response>"]
    assert end in batch.tokens
    assert end not in batch.targets[kept]
    with torch.no_grad():
        _, count, figures = policy_gradient()(model, batch)
    assert float(figures["sampler_difference"]) / count < 1e-4


def test_a_policy_learns_to_call_where_that_is_paid(model, tmp_path):
    policy = copy.deepcopy(model)
    config = Reinforce(steps=6, groups=2, samples=6, max_tokens=150, loss="sequence")
    reinforce(
        policy, rollouts(model), lambda *_: asked("ask", "ask"), says_42, config, options(tmp_path, 6), 7
    )
    calls = [json.loads(line)["calls"] for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert 0.2 < calls[0] < 0.8
    assert calls[-1] > 0.9


def test_the_stage_reinforces_an_assistant_that_has_tools(model, tmp_path):
    (tmp_path / "sft").mkdir()
    (tmp_path / "grpo").mkdir()
    RENDERER.save(tmp_path / "sft")
    save_model(model, tmp_path / "sft", eos=TOKENIZER.special_tokens["<|im_end|>"])
    config = Grpo(
        steps=1,
        groups=2,
        samples=2,
        max_tokens=8,
        problems=2,
        tools=("calculator",),
        tasks={"arithmetic": 1.0},
    )
    inputs, machine = {"sft": tmp_path / "sft"}, Machine(workers=1, device="cpu", dtype="float32")
    metrics = grpo(Job(config, inputs, tmp_path / "grpo", 0, machine, Progress(), {"sft": "assistant"}))
    assert "accuracy.arithmetic" in metrics
    group = next(read_jsonl(tmp_path / "grpo" / "rollouts.jsonl", Group))
    assert max(group.lengths) <= 8
    sample = json.loads((tmp_path / "grpo" / "samples.jsonl").read_text().splitlines()[0])
    assert sample["step"] == 0


def test_tools_that_read_documents_or_pages_are_told_which():
    assert [tool.name for tool in called_tools(Grpo(tools=("calculator",)), 256)] == ["calculator"]
    allowed = Grpo(tools=("fetch",), allow=("https://docs.python.org/3/",))
    assert [tool.notice for tool in called_tools(allowed, 256)] == [
        "fetch gets pages below https://docs.python.org/3/"
    ]
    for name, way_out in (("search", "documents runs/small"), ("fetch", "allow https://")):
        with pytest.raises(BadRecipe, match=f"{name} needs to know what it may read: --grpo.{way_out}"):
            called_tools(Grpo(tools=(name,)), 256)
