"""Attacks on images and sounds, and their defences: what each changes, and what it leaves."""

import random

import numpy as np
import pytest
import torch
from PIL import Image

from crawltalk.multimodal.attacks import (
    CARRIER,
    EDGE_OF_16,
    MICROPHONE,
    bound_of,
    faint_text,
    labelled,
    microphone,
    patched,
    quieter,
    steered,
    transparent_text,
    ultrasonic,
    universal_patch,
)
from crawltalk.multimodal.defenses import (
    disagreements,
    faint_structure,
    fewer_bits,
    grey_levels,
    jpeg,
    too_quiet,
)
from crawltalk.multimodal.images import read_image
from crawltalk.multimodal.model import reading
from crawltalk.multimodal.reader import Example, Reader
from crawltalk.multimodal.sounds import CLIP, resample
from crawltalk.multimodal.speech import Voice, formants
from crawltalk.train.batches import Batch
from support.media import png, random_reader

WORD = formants("stop", Voice("1.0", 1.0, 0.5))


@pytest.fixture(scope="module")
def reader() -> Reader:
    return random_reader()


def pictures(count: int) -> list[Example]:
    rng = np.random.default_rng(0)
    return [Example(rng.random((16, 32, 3), np.float32), "Read.", "A") for _ in range(count)]


def test_faint_text_differs_by_as_many_grey_levels_as_it_says():
    levels = np.unique(np.round(255 * faint_text(random.Random(0), "HELLO", 2 / 255)))
    assert levels.min() == 253
    assert levels.max() == 255


def test_transparent_text_is_white_to_a_viewer_and_text_to_who_drops_a_channel():
    pixels = transparent_text(random.Random(0), "HELLO")
    image = Image.fromarray(pixels)
    assert (read_image(png(image)) == 255).all()
    assert np.asarray(image.convert("RGB")).min() < 10


def test_sixteen_grey_levels_wipe_out_faint_text_unless_it_is_made_for_them():
    rng = random.Random(0)
    assert np.ptp(grey_levels(faint_text(rng, "HELLO", 5 / 255))) == 0
    assert np.ptp(grey_levels(faint_text(rng, "HELLO", 2 / 255, EDGE_OF_16))) == pytest.approx(1 / 15)


def test_structure_is_found_in_faint_text_and_not_in_noise_or_an_even_ground():
    rng, noise = random.Random(0), np.random.default_rng(0)
    assert min(faint_structure(faint_text(rng, "HELLO", level / 255)) for level in (1, 2, 5)) > 0.3
    assert faint_structure(np.full((32, 160, 3), 0.7, np.float32)) == 0
    assert faint_structure((0.7 + 0.02 * noise.standard_normal((32, 160, 3))).astype(np.float32)) < 0.3


def test_a_picture_goes_through_jpeg_as_through_a_file():
    pixels = np.linspace(0, 1, 32 * 160 * 3, dtype=np.float32).reshape(32, 160, 3)
    passed = jpeg(pixels)
    assert passed.shape == pixels.shape
    assert 0 < np.abs(passed - pixels).max() < 0.2


def loss(reader: Reader, name: str, example: Example, wanted: str) -> float:
    ids, targets = reader.row(name, Example(example.content, example.question, wanted), random.Random(0))
    extras = {name: torch.from_numpy(example.content)[None]}
    batch = Batch(torch.tensor([ids]), torch.tensor([targets]), extras=extras)
    return float(reading(reader.model, batch)[0].detach())


@pytest.mark.parametrize("bound", [1 / 255, 8 / 255])
def test_steered_pictures_stay_within_the_bound_have_eight_bits_and_lead_towards_the_reply(reader, bound):
    before = pictures(2)
    for old, new in zip(before, steered(reader, "image", before, "NO", bound, steps=5), strict=True):
        assert np.abs(new.content - old.content).max() <= bound + 0.5 / 255 + 1e-6
        assert new.content * 255 == pytest.approx(np.round(new.content * 255), abs=1e-3)
        assert loss(reader, "image", new, "NO") < loss(reader, "image", old, "NO")


def test_steered_sounds_are_as_far_below_the_sound_as_they_say(reader):
    clip = np.pad(WORD, (0, CLIP - len(WORD))).astype(np.float32)
    bounds = bound_of([clip], 20)
    [new] = steered(reader, "audio", [Example(clip, "Which word?", "stop")], "go", bounds, steps=5)
    change = new.content - clip
    assert 20 * np.log10(np.std(clip) / np.std(change)) >= 19.9
    old = Example(clip, "Which word?", "stop")
    assert loss(reader, "audio", new, "go") < loss(reader, "audio", old, "go")


def test_a_patch_leads_pictures_that_it_was_not_made_on_towards_the_reply(reader):
    made_on, other = pictures(4)[:3], pictures(4)[3]
    patch = universal_patch(reader, made_on, "NO", size=(16, 16), steps=15, rows=3)
    shown = patched(other, patch)
    assert (shown.content[:, 16:] == other.content[:, 16:]).all()
    assert loss(reader, "image", shown, "NO") < loss(reader, "image", other, "NO")
    assert disagreements(reader, [shown]) in ([True], [False])


def test_a_label_is_written_on_a_picture():
    plain = np.ones((32, 160, 3), np.float32)
    assert labelled(random.Random(0), plain, "BLUE").min() < 0.5
    assert (plain == 1).all()


def test_nothing_of_an_ultrasonic_command_can_be_heard_in_the_air_and_a_bent_microphone_brings_it_down():
    air = ultrasonic(WORD)
    power = np.abs(np.fft.rfft(air)) ** 2
    frequencies = np.fft.rfftfreq(len(air), 1 / MICROPHONE)
    assert power[frequencies < 20_000].sum() < 1e-6 * power.sum()
    assert frequencies[power.argmax()] == pytest.approx(CARRIER, abs=5)
    perfect, bent = microphone(air, square=0.0), microphone(air, square=0.1)
    assert np.abs(perfect).max() < 1e-3
    said = resample(resample(WORD, 8000, MICROPHONE), MICROPHONE)
    start = (CLIP - len(WORD)) // 2
    assert np.corrcoef(bent[start : start + len(WORD)], said)[0, 1] > 0.8


def test_eight_bits_silence_what_is_far_too_quiet_and_a_gate_flags_it():
    quiet = quieter(WORD, 50)
    assert quiet.any()
    assert not fewer_bits(quiet).any()
    assert too_quiet(quiet)
    assert not too_quiet(WORD)
    assert np.abs(fewer_bits(WORD) - WORD).max() <= 1 / 256
