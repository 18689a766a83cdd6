"""The experiments on readers of images and sounds: that each measures what it says, and when it is confirmed."""

import json

import pytest

from crawltalk.lab import hears_commands, hidden_inputs, reads_images
from crawltalk.lab import readers as shared
from crawltalk.lab.experiment import Trial
from crawltalk.multimodal import load_engine, reader
from crawltalk.multimodal.speech import formants
from crawltalk.recipe import Machine
from crawltalk.run.stage import Progress


@pytest.fixture
def small(monkeypatch):
    """Trainings of one step, and few measurements."""
    for module in (reads_images, hears_commands, hidden_inputs):
        monkeypatch.setattr(module, "COUNT", 2)
    monkeypatch.setattr(reads_images, "FEW", 1)
    monkeypatch.setattr(hidden_inputs, "COMMANDS", ("stop", "go"))
    monkeypatch.setattr(hidden_inputs, "STEPS", 1)
    monkeypatch.setattr(hidden_inputs, "PATCH_STEPS", 1)
    for name, few in (("STEERED", 2), ("LEVELS", (5, 1)), ("BOUNDS", (8,)), ("NOISE_DECIBELS", (36,))):
        monkeypatch.setattr(hidden_inputs, name, few)
    monkeypatch.setattr(shared, "IMAGE_STEPS", 1)
    monkeypatch.setattr(shared, "LETTER_STEPS", 1)
    monkeypatch.setattr(shared, "WITHOUT_PLACES", 1)
    monkeypatch.setattr(shared, "NORMALISING_STEPS", (1, 1))
    monkeypatch.setattr(shared, "PICTURES", 2)
    monkeypatch.setattr(shared, "AUDIO_STEPS", 1)
    monkeypatch.setattr(reader, "EXAMPLES", 2)
    for module in (shared, hears_commands, hidden_inputs):
        monkeypatch.setattr(module, "best_speaker", lambda: formants)
        monkeypatch.setattr(module, "voices", lambda speaker, held_out=False: VOICES[held_out])


VOICES = {held_out: shared.voices(formants, held_out)[:2] for held_out in (False, True)}


@pytest.mark.parametrize("module", [reads_images, hears_commands, hidden_inputs])
def test_a_seed_is_measured_judged_and_drawn_and_leaves_its_readers(module, small, tmp_path):
    machine = Machine(workers=1, device="cpu", dtype="float32")
    out = tmp_path / module.EXPERIMENT.name / "seed-0"
    trial = Trial(seed=0, out=out, progress=Progress(), machine=machine)
    figures = json.loads(json.dumps(module.run(trial)))
    assert module.judge([figures]).verdict == "not at this scale"
    assert module.figure([figures]).startswith("<svg")
    folders = sorted((tmp_path / "readers" / "seed-0").iterdir())
    assert folders
    assert load_engine(folders[0] / "model").media is not None


def test_reading_is_confirmed_only_if_learning_places_is_what_helps():
    def seed(read: float, control: float, blind: float = 0.0) -> dict:
        return {
            "by_length": {"8": read, "10": read},
            "without_places": {"8": control},
            "other_pictures": blind,
            "by_held_out_font": {},
            "scenes": {"How many?": 1.0},
        }

    verdicts = {
        "confirmed": [seed(0.95, 0.4), seed(0.99, 0.1)],
        "partly": [seed(0.99, 0.1), seed(0.99, 0.6)],
        "not at this scale": [seed(0.99, 0.1), seed(0.94, 0.1)],
    }
    for verdict, figures in verdicts.items():
        assert reads_images.judge(figures).verdict == verdict
    assert reads_images.judge([seed(0.99, 0.1, blind=0.5)]).verdict == "not at this scale"
