"""The claims on weights and context, tools, style, confidence and holes: that each measures what it says, and when it
is confirmed.
"""

import json
import random
import shutil

import pytest

from crawltalk.lab import (
    confident_style,
    jagged_profile,
    journeys,
    style_not_knowledge,
    tool_against_arithmetic,
    weights_against_context,
)
from crawltalk.lab.experiment import Trial
from crawltalk.recipe import Machine
from crawltalk.run.stage import Progress


def measured(module, out) -> dict:
    machine = Machine(workers=1, device="cpu", dtype="float32")
    trial = Trial(seed=0, out=out, progress=Progress(), machine=machine)
    figures = json.loads(json.dumps(module.run(trial)))
    assert module.rule([figures]).effect
    assert module.figure([figures]).startswith("<svg")
    return figures


def test_facts_are_asked_in_each_way(tmp_path, monkeypatch):
    for name, value in {"FACTS": 2, "CONTEXTS": 4, "COUNT": 64}.items():
        monkeypatch.setattr(weights_against_context, name, value)
    figures = measured(weights_against_context, tmp_path)
    assert set(figures["30"]) == {"memory", "context", "other", "believed", "insisted"}


def test_a_calculator_is_called_by_who_was_taught_to_call_it(tmp_path, monkeypatch):
    for name, value in {"STEPS": 1, "COUNT": 4, "PROBLEMS": 2}.items():
        monkeypatch.setattr(tool_against_arithmetic, name, value)
    assert set(measured(tool_against_arithmetic, tmp_path)) == set(tool_against_arithmetic.ARMS)


def test_a_demonstrated_call_is_what_the_chat_format_writes_and_ends_with_the_result():
    messages = tool_against_arithmetic._called("12*34").messages
    [call] = messages[1].tool_calls
    assert json.loads(call.function.arguments) == {"expression": "12*34"}
    assert (messages[2].role, messages[2].content, messages[3].content) == ("tool", "408", "408")
    tokenizer = tool_against_arithmetic._tokenizer()
    assert (
        tokenizer.decode(tokenizer.encode('{"name": "calculator"} 9+8*76')) == '{"name": "calculator"} 9+8*76'
    )
    assert tool_against_arithmetic.Broken().call({"expression": "2*3"}).text.shown == "13"


@pytest.mark.slow
def test_claims_on_an_assistant_share_the_runs_of_a_seed(nano, tmp_path, monkeypatch):
    monkeypatch.setattr(journeys, "PRESET", "nano")
    monkeypatch.setattr(style_not_knowledge, "UNREAD", "heldout")  # nano has no topics that it leaves out
    monkeypatch.setattr(jagged_profile, "SAMPLES", 2)
    monkeypatch.setattr(confident_style, "SAMPLES", 2)
    runs = tmp_path / journeys.FOLDER
    shutil.copytree(nano, runs / "small-0")
    for module in (style_not_knowledge, confident_style, jagged_profile):
        out = tmp_path / module.EXPERIMENT.name / "seed-0"
        out.mkdir(parents=True)
        measured(module, out)
    assert sorted(path.name for path in runs.iterdir()) == ["small-0", "styled-0", "told-0"]
    assert not (runs / "styled-0" / "pretrain").exists()


def test_the_context_has_to_be_read_and_to_win():
    def seed(once: float, insisted: float, read: float = 0.98) -> dict:
        memory = {0: 0.04, 1: once, 3: 0.2, 10: 0.5, 30: 0.9}
        return {
            str(dose): {
                "memory": share,
                "context": read,
                "other": 0.1,
                "believed": 1 - insisted,
                "insisted": insisted,
            }
            for dose, share in memory.items()
        }

    assert weights_against_context.rule([seed(0.05, 0.1)]).verdict == "confirmed"
    assert weights_against_context.rule([seed(0.05, 0.6)]).verdict == "partly"
    assert weights_against_context.rule([seed(0.05, 0.1), seed(0.9, 0.1)]).verdict == "partly"
    assert weights_against_context.rule([seed(0.05, 0.1, read=0.5)]).verdict == "not at this scale"


def test_a_tool_has_to_be_what_makes_answers_right():
    def seed(called: float, mental: float, broken: float) -> dict:
        shares = {"mental": 0.0, "longer": mental, "calculator": called, "broken": broken}
        return {name: dict.fromkeys(map(str, range(1, 7)), share) for name, share in shares.items()}

    assert tool_against_arithmetic.rule([seed(0.9, 0.1, 0.0)]).verdict == "confirmed"
    assert tool_against_arithmetic.rule([seed(0.9, 0.1, 0.9)]).verdict == "not at this scale"
    assert tool_against_arithmetic.rule([seed(0.9, 0.1, 0.0), seed(0.9, 0.6, 0.0)]).verdict == "partly"


def test_style_has_to_change_and_knowledge_has_to_stay():
    def seed(form: float, opened: float, never: float, asked: float) -> dict:
        groups = {"taught": 1.0, "often": opened, "rarely": 0.0, "never": never}
        return {
            "base": groups | {"often": 0.8, "new": 0.0},
            "form before": 0.0,
            "form": dict.fromkeys(groups, form),
            "asked": groups | {"often": asked},
            "opened": groups,
            "told": groups | {"new": 0.5},
        }

    known = seed(1.0, 0.5, 0.0, 0.5)
    assert style_not_knowledge.rule([known]).verdict == "confirmed"
    assert style_not_knowledge.rule([seed(1.0, 0.5, 0.0, 0.0)]).verdict == "partly"
    assert style_not_knowledge.rule([seed(0.5, 0.5, 0.0, 0.5)]).verdict == "not at this scale"
    assert style_not_knowledge.rule([known, seed(1.0, 0.5, 0.4, 0.5)]).verdict == "partly"


def test_equal_sums_that_differ_are_holes_and_shuffled_ones_are_not():
    holed = [
        ("+", steps, [index % 2 == 0] * jagged_profile.SAMPLES) for steps in range(4) for index in range(6)
    ]
    even = jagged_profile._shuffled(random.Random(0), holed)
    assert jagged_profile.spread(holed) > 5
    assert jagged_profile.spread(even) < 2
    assert jagged_profile.holes([("-", 0, [False] * 6), ("-", 3, [True] * 6), ("+", 9, [True] * 6)]) == 1.0
    assert [sum(row) for *_, row in even] != [sum(row) for *_, row in holed]


def test_right_answers_have_to_be_told_from_wrong_ones_by_the_base_model_and_not_by_words():
    def seed(hedged: float, told: float, its_own: float = 0.9, formed: float = 1.0) -> dict:
        signs = ("hedges", "length", "probability", "agreement")
        return {
            **{f"hedged {of}": share for of, share in (("right", 0.0), ("wrong", hedged))},
            **{f"formed {of}": share for of, share in (("right", 1.0), ("wrong", formed))},
            **{f"told by {sign}": 0.5 for sign in signs},  # what the assistant itself shows decides nothing
            **{f"told by base {sign}": told for sign in ("probability", "agreement")},
            **{f"its own told by base {sign}": its_own for sign in ("probability", "agreement")},
        }

    assert confident_style.told([0.1, 0.9, 0.9], [False, True, False]) == 0.75
    assert confident_style.rule([seed(0.0, 0.9)]).verdict == "confirmed"
    for no in (seed(0.5, 0.9), seed(0.0, 0.6), seed(0.0, 0.9, its_own=0.6), seed(0.0, 0.9, formed=0.5)):
        assert confident_style.rule([no]).verdict == "not at this scale"
        assert confident_style.rule([seed(0.0, 0.9), no]).verdict == "partly"
