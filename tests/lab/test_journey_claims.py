"""The claims that read whole runs: that they share these, measure what they say, and when they are confirmed."""

import json
import shutil

import pytest

from crawltalk.lab import (
    asked_by_prompt,
    hallucination,
    interrogation,
    journeys,
    recall_dose,
    same_prompt,
    search_helps,
    tokens_not_letters,
)
from crawltalk.lab.experiment import Trial
from crawltalk.recipe import Machine
from crawltalk.run.stage import Progress

MODULES = (
    recall_dose,
    hallucination,
    asked_by_prompt,
    interrogation,
    search_helps,
    same_prompt,
    tokens_not_letters,
)


@pytest.mark.slow
def test_all_read_one_run_of_a_seed_and_a_control_borrows_what_is_the_same(nano, tmp_path, monkeypatch):
    monkeypatch.setattr(journeys, "PRESET", "nano")
    runs = tmp_path / journeys.FOLDER
    shutil.copytree(nano, runs / "small-0")
    built = (runs / "small-0" / "pretrain" / "manifest.json").stat().st_mtime_ns
    for module in MODULES:
        out = tmp_path / module.EXPERIMENT.name / "seed-0"
        machine = Machine(workers=1, device="cpu")
        figures = json.loads(
            json.dumps(module.run(Trial(seed=0, out=out, progress=Progress(), machine=machine)))
        )
        assert module.rule([figures]).effect
        assert module.figure([figures]).startswith("<svg")
    assert (runs / "small-0" / "pretrain" / "manifest.json").stat().st_mtime_ns == built
    assert sorted(path.name for path in runs.iterdir()) == ["confident-0", "small-0"]
    assert not (runs / "confident-0" / "pretrain").exists() and (runs / "confident-0" / "sft").exists()


def test_recall_is_confirmed_if_repeated_pages_are_known_and_rare_ones_are_not():
    def seed(rare: float, most: float) -> dict:
        return {
            "times": [0.0, 4.0, 30.0],
            "pages": [9, 9, 9],
            "share": [0.01, rare, most],
            "longest": [1, 1, 96],
        }

    assert recall_dose.rule([seed(0.05, 0.9), seed(0.02, 1.0)]).verdict == "confirmed"
    assert recall_dose.rule([seed(0.05, 0.9), seed(0.2, 1.0)]).verdict == "partly"
    assert recall_dose.rule([seed(0.05, 0.5)]).verdict == "not at this scale"


def test_a_single_answer_that_declines_refutes_that_a_base_model_never_does():
    def seed(declined: float) -> dict:
        never = {"correct": 0.0, "declined": declined, "incorrect": 1.0 - declined}
        often = {"correct": 0.6, "declined": 0.0, "incorrect": 0.4}
        return {"groups": {"never": never, "often": often}, "confidence": {"unseen": 0.4, "known": 0.9}}

    assert hallucination.rule([seed(0.0)]).verdict == "confirmed"
    assert hallucination.rule([seed(0.0), seed(0.01)]).verdict == "partly"


def test_a_prompt_has_to_work_as_well_as_the_plain_one():
    def seed(few: float, dialogue: float) -> dict:
        return {"zero_shot": 0.4, "few_shot": few, "by_prompt": dialogue, "assistant": 1.0}

    assert asked_by_prompt.rule([seed(0.5, 0.0), seed(0.0, 0.4)]).verdict == "confirmed"
    assert asked_by_prompt.rule([seed(0.35, 0.35)]).verdict == "not at this scale"


def test_interrogation_needs_that_plain_fine_tuning_makes_things_up():
    def seed(invented: float, without: float) -> dict:
        return {
            "interrogated": {"invented": invented, "known_kept": 0.95},
            "confident": {"correct": 0.0, "declined": 1 - without, "incorrect": without},
        }

    assert interrogation.rule([seed(0.05, 1.0)]).verdict == "confirmed"
    assert interrogation.rule([seed(0.05, 0.1)]).verdict == "not at this scale"
    assert interrogation.rule([seed(0.05, 1.0), seed(0.3, 1.0)]).verdict == "partly"


def test_search_has_to_beat_a_random_sentence_and_is_confirmed_only_with_answers_in_its_own_words():
    def seed(chance: float, free: float) -> dict:
        return {"memory": 0.0, "quoted": 0.95, "free": free, "chance": chance}

    assert search_helps.rule([seed(0.8, 0.6)]).verdict == "confirmed"
    assert search_helps.rule([seed(0.8, 0.0)]).verdict == "partly"
    assert search_helps.rule([seed(0.94, 0.6)]).verdict == "not at this scale"
