"""The claims on thinking, labelers, computation and sampling: that each measures what it says, and its verdict."""

import json

import pytest

from crawltalk.lab import fixed_compute, labelers, same_prompt, tokens_not_letters, tokens_to_think
from crawltalk.lab.experiment import Trial
from crawltalk.recipe import Machine
from crawltalk.run.stage import Progress


@pytest.mark.parametrize("module", [tokens_to_think, labelers, fixed_compute])
def test_a_seed_is_measured_judged_and_drawn(module, tmp_path, monkeypatch):
    small = {
        "PRETRAINING": 1,
        "FINE_TUNING": 1,
        "PROBLEMS": 4,
        "LENGTHS": (1, 6),
        "SHARES": (0.0, 1.0),
        "ROUNDS": 2,
    }
    for name, value in small.items():
        monkeypatch.setattr(module, name, value, raising=False)
    machine = Machine(workers=1, device="cpu", dtype="float32")
    figures = json.loads(
        json.dumps(module.run(Trial(seed=0, out=tmp_path, progress=Progress(), machine=machine)))
    )
    assert module.rule([figures]).effect
    assert module.figure([figures]).startswith("<svg")


def test_thinking_has_to_be_written_down_and_dots_do_not_count():
    def seed(direct: float, filler: float) -> dict:
        arms = {"worked": 1.0, "direct": direct, "longer": 0.3, "filler": filler}
        return {
            name: {str(steps): share for steps in tokens_to_think.LENGTHS} for name, share in arms.items()
        }

    assert tokens_to_think.rule([seed(0.2, 0.2)]).verdict == "confirmed"
    assert tokens_to_think.rule([seed(0.2, 0.9)]).verdict == "not at this scale"
    assert tokens_to_think.rule([seed(0.2, 0.2), seed(0.9, 0.2)]).verdict == "partly"


def test_styles_come_in_the_shares_of_the_demonstrations_and_stay_as_right():
    def seed(bend: float, last: float = 0.9) -> dict:
        return {
            f"{share:g}": {"worked": min(1.0, share + bend), "accuracy": last if share == 1.0 else 0.9}
            for share in labelers.SHARES
        }

    assert labelers.rule([seed(0.05)]).verdict == "confirmed"
    assert labelers.rule([seed(0.3)]).verdict == "not at this scale"
    assert labelers.rule([seed(0.05), seed(0.05, 0.5)]).verdict == "partly"


def test_hard_tokens_have_to_be_hard_and_may_not_take_longer():
    def seed(ratio: float, hard: float = 2.0) -> dict:
        return {"ratio": ratio, "surprise": {"easy": 0.1, "hard": hard}, "flops": 1000.0}

    assert fixed_compute.rule([seed(1.05)]).verdict == "confirmed"
    assert fixed_compute.rule([seed(1.5)]).verdict == "not at this scale"
    assert fixed_compute.rule([seed(1.0, 0.1)]).verdict == "not at this scale"


def test_samples_differ_as_much_as_chance_says_and_greedy_texts_do_not():
    def seed(distance: float, greedy: int = 1) -> dict:
        return {"distance": distance, "chance": 0.1, "different": 0.9, "greedy": greedy}

    assert same_prompt.rule([seed(0.11)]).verdict == "confirmed"
    assert same_prompt.rule([seed(0.3)]).verdict == "not at this scale"
    assert same_prompt.rule([seed(0.1, 2)]).verdict == "not at this scale"


def test_words_that_were_spelled_are_known_and_others_are_not():
    def seed(new: float) -> dict:
        return {"spelling": 0.4, "spelling_new": new, "recitation": 0.98}

    assert tokens_not_letters.rule([seed(0.0)]).verdict == "confirmed"
    assert tokens_not_letters.rule([seed(0.2)]).verdict == "not at this scale"
