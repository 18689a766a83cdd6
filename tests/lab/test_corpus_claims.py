"""The claims on corpora, vocabularies and the prediction of loss: that each measures what it says, and its verdict."""

import json
import random
import shutil
from collections import Counter

import pytest

from crawltalk.lab import (
    deduplication,
    filtering,
    journeys,
    language_threshold,
    predictable_loss,
    vocabulary,
)
from crawltalk.lab.corpora import Corpora
from crawltalk.lab.experiment import Trial
from crawltalk.recipe import Machine
from crawltalk.run.folder import RunFolder
from crawltalk.run.stage import Progress


@pytest.fixture
def lab(nano, tmp_path, monkeypatch):
    """A folder of results with a finished run of seed 0, and trainings of a few steps."""
    monkeypatch.setattr(journeys, "PRESET", "nano")
    for module in (filtering, language_threshold, deduplication, vocabulary):
        monkeypatch.setattr(module, "TOKENS", 6000)
    monkeypatch.setattr(vocabulary, "SIZES", (300, 512))
    shutil.copytree(nano, tmp_path / journeys.FOLDER / "small-0")
    return tmp_path


def trial_in(lab, name: str) -> Trial:
    out = lab / name / "seed-0"
    out.mkdir(parents=True)
    return Trial(
        seed=0, out=out, progress=Progress(), machine=Machine(workers=1, device="cpu", dtype="float32")
    )


@pytest.mark.slow
@pytest.mark.parametrize("module", [filtering, language_threshold, deduplication, vocabulary])
def test_a_seed_is_measured_judged_and_drawn(module, lab):
    trial = trial_in(lab, module.EXPERIMENT.name)
    figures = json.loads(json.dumps(module.run(trial)))
    assert module.run(trial) == figures  # what is measured is kept
    assert module.rule([figures]).effect
    assert module.figure([figures]).startswith("<svg")


def test_held_out_pages_have_no_duplicate_and_are_in_no_corpus(nano):
    corpora = Corpora(RunFolder(nano))
    texts = {page.text for page in corpora.held_out}
    assert corpora.held_out and not texts & set(corpora.kept)
    assert {"language", "quality", "duplicate"} <= set(corpora.dropped)
    assert not texts & {text for dropped in corpora.dropped.values() for text in dropped}


def test_filtering_is_confirmed_if_raw_pages_cost_loss_in_each_seed():
    def seed(raw: float) -> dict:
        return {"filtered": 2.0, "language": 2.1, "quality": 2.0, "raw": raw}

    assert filtering.rule([seed(2.2), seed(2.3)]).verdict == "confirmed"
    assert filtering.rule([seed(2.2), seed(2.0)]).verdict == "partly"
    assert filtering.rule([seed(1.9)]).verdict == "not at this scale"


def test_a_threshold_has_to_matter_and_its_place_may_not():
    def seed(none: float, low: float) -> dict:
        losses = dict(zip(language_threshold.TRAINED, (none, low, 2.0, 2.0), strict=True))
        return {
            f"{threshold:g}": {"precision": 1.0, "recall": 1.0, "bits per byte": losses.get(threshold)}
            for threshold in language_threshold.THRESHOLDS
        }

    assert language_threshold.rule([seed(2.2, 2.01)]).verdict == "confirmed"
    assert language_threshold.rule([seed(2.2, 2.2)]).verdict == "not at this scale"
    assert language_threshold.rule([seed(2.2, 2.01), seed(2.0, 2.0)]).verdict == "partly"


def test_deduplication_needs_that_copies_cost_loss_by_their_share():
    def seed(crawl: float, half: float, most: float) -> dict:
        losses = {"once": (0.0, 2.0), "crawl": (0.1, crawl), "half": (0.5, half), "most": (0.86, most)}
        return {name: {"share": share, "bits_per_byte": loss} for name, (share, loss) in losses.items()}

    assert deduplication.rule([seed(2.0, 2.1, 2.4)]).verdict == "confirmed"
    assert deduplication.rule([seed(2.05, 2.1, 2.4)]).verdict == "partly"
    assert deduplication.rule([seed(2.0, 2.1, 2.4), seed(2.0, 2.01, 2.4)]).verdict == "partly"
    assert deduplication.rule([seed(2.0, 2.1, 2.05)]).verdict == "not at this scale"


@pytest.mark.parametrize("share", [0.0, 0.09, 0.5, 0.86])
def test_a_share_of_the_tokens_are_copies_and_few_pages_have_most_of_them(share):
    pages = ["a" * random.Random(number).randint(50, 500) for number in range(2000)]
    drawn = deduplication.with_copies(pages, share, 200_000, len, seed=0)
    tokens = sum(len(pages[number]) for number in drawn)
    once = sum(len(pages[number]) for number in set(drawn))
    assert 200_000 <= tokens < 200_500 and abs(1 - once / tokens - share) < 0.01
    assert sorted(set(drawn)) == list(range(len(set(drawn))))  # less copies, more of the same pages
    if share == 0.5:
        counts = sorted(Counter(drawn).values())
        assert counts[len(counts) // 2] == 1 and counts[-1] > 20


def test_the_best_vocabulary_has_to_lie_inside():
    def seed(losses: list[float]) -> dict:
        sizes = vocabulary.SIZES
        return {
            str(size): {"tokens": 9, "bits_per_byte": loss} for size, loss in zip(sizes, losses, strict=True)
        }

    assert vocabulary.rule([seed([2.5, 2.3, 2.1, 2.0, 2.1, 2.2])]).verdict == "confirmed"
    assert vocabulary.rule([seed([2.5, 2.4, 2.3, 2.2, 2.1, 2.0])]).verdict == "partly"
    assert vocabulary.rule([seed([2.0, 2.1, 2.2, 2.3, 2.4, 2.5])]).verdict == "not at this scale"


def test_a_prediction_is_right_within_five_percent():
    def seed(predicted: float) -> dict:
        models = [{"flop": 1e9 * 4**depth, "bits_per_byte": 3.0 - depth / 4} for depth in range(3)]
        return {"models": models, "exponent": -0.1, "flop": 1e11, "predicted": predicted, "measured": 2.0}

    assert predictable_loss.rule([seed(2.05), seed(1.95)]).verdict == "confirmed"
    assert predictable_loss.rule([seed(2.05), seed(2.2)]).verdict == "partly"
    assert predictable_loss.figure([seed(2.0)]).startswith("<svg")
