"""Ways to answer a battery: what a model is shown, what is cut, and what counts as its answer."""

import json

from hypothesis import given, settings
from hypothesis import strategies as st

from crawltalk.engine import Engine
from crawltalk.evals.abilities import ask_battery, computation
from crawltalk.evals.batteries import BATTERIES
from crawltalk.evals.batteries.battery import ANSWER
from crawltalk.evals.batteries.ways import Interview
from crawltalk.recipe import Model
from crawltalk.recipe.cost import inference_flops, training_flops
from support.engines import SHAPE, TOKENIZER
from support.models import random_model

WIDE = Engine(random_model(type(SHAPE)(**{**vars(SHAPE), "context": 1024})), TOKENIZER)
NARROW = Engine(random_model(type(SHAPE)(**{**vars(SHAPE), "context": 64})), TOKENIZER)
BATTERY = BATTERIES["decimals"]


def test_every_problem_is_asked_in_every_way_and_thinking_is_cut_at_its_budget():
    results = ask_battery(WIDE, "decimals", 2, chat=True, budgets=(0, 4, 9))
    ways = [(result.group["way"], result.group.get("budget")) for result in results]
    assert set(ways) == {("direct", None), ("tools", None), *(("steps", budget) for budget in "049")}
    assert all(ways.count(way) == 4 for way in set(ways))
    for result in results:
        if result.group["way"] == "steps":
            assert result.tokens <= int(result.group["budget"])
            assert ANSWER in result.reply
        assert set(result.scores) == {"correct", "both_orders"}


def test_the_question_comes_last_behind_examples_of_its_kind_from_the_training():
    interview = Interview(WIDE, BATTERY, chat=True)
    [worked, *_] = BATTERY.problems(0, "test", 1)
    text = TOKENIZER.decode(interview._prompt(worked, "steps") or [])
    examples = interview.examples[worked.problem.task]
    assert len(examples) == 2
    assert all(f"{one.steps}\n{ANSWER} {one.problem.answer}" in text for one in examples)
    assert text.rindex(worked.problem.prompt) > text.rindex(examples[-1].problem.prompt)


def test_a_model_that_does_not_chat_gets_one_text_and_no_functions():
    interview = Interview(WIDE, BATTERY, chat=False)
    problems = list(BATTERY.problems(0, "test", 1))
    text = TOKENIZER.decode(interview._prompt(problems[0], "direct") or [])
    assert text.count("Question: ") == 3
    assert interview.ask(problems, "tools", ()) == []


def test_what_does_not_fit_into_the_context_has_no_result():
    problems = list(BATTERIES["word_problems"].problems(0, "test", 1))
    assert Interview(NARROW, BATTERIES["word_problems"], chat=True).ask(problems, "tools", ()) == []


@given(st.lists(st.sampled_from([ANSWER, " 4", "th", " e", ":", "Answ"]), max_size=6))
@settings(deadline=None)
def test_thinking_ends_before_the_word_that_opens_the_answer(pieces: list[str]):
    interview = Interview(WIDE, BATTERY, chat=True)
    text = "".join(pieces)
    kept = TOKENIZER.decode(interview._without_answer(TOKENIZER.encode(text)))
    assert ANSWER not in kept
    assert text.partition(ANSWER)[0].startswith(kept)


def test_the_first_reply_calls_and_the_result_of_the_call_is_read():
    interview = Interview(WIDE, BATTERY, chat=True)
    [worked, *_] = BATTERY.problems(0, "test", 1)
    schema = interview._reply_with_calls(worked, must_call=True).schema
    assert "calculator" in (schema or "")
    assert interview._reply_with_calls(worked, must_call=False).schema is None
    call = worked.calls[0]
    example = interview._example(worked, "tools")
    assert json.loads(example[1].tool_calls[0].function.arguments) == call.arguments
    assert example[2].content == call.result


def test_a_token_costs_a_third_of_what_it_costs_in_training():
    model = Model(depth=2, context=100)
    size, flops, per_position = computation(WIDE.shape)
    assert size == sum(weight.numel() for weight in random_model(SHAPE).parameters())
    assert 2 * size * 0.9 < flops <= 2 * size
    assert per_position == 4 * SHAPE.layers * SHAPE.heads * SHAPE.head_dim
    assert inference_flops(model, 50, position=50) == training_flops(model, 50, 1) / 3
