"""Spoken commands to learn from: by espeak-ng where it is installed, else by a small formant synthesiser of our own.

The synthesiser is a source and resonators (after Klatt 1980, with three formants and no more care than ten words
need): it makes words that differ as words do, in voices that differ as voices do. It is no natural speech.
"""

import random
import shutil
import subprocess
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from crawltalk.core.errors import BadInput
from crawltalk.multimodal.sounds import CLIP, RATE, as_clip, read_wav, resample

COMMANDS = ("yes", "no", "up", "down", "left", "right", "on", "off", "stop", "go")
"""Ten words of Speech Commands (Warden 2018)."""
_PHONES: dict[str, tuple[tuple[int, int, int], float, float, int]] = {
    "i": ((280, 2250, 2900), 1.0, 0.0, 90), "e": ((530, 1840, 2480), 1.0, 0.0, 110),
    "a": ((730, 1090, 2440), 1.0, 0.0, 120), "o": ((570, 840, 2410), 1.0, 0.0, 120),
    "u": ((300, 870, 2240), 1.0, 0.0, 90), "A": ((640, 1190, 2390), 1.0, 0.0, 100),
    "n": ((250, 1300, 2200), 0.35, 0.0, 80), "l": ((360, 1300, 2700), 0.6, 0.0, 70),
    "r": ((420, 1300, 1600), 0.6, 0.0, 70), "j": ((260, 2070, 3020), 0.6, 0.0, 60),
    "s": ((2600, 3300, 3800), 0.0, 0.5, 110), "f": ((1100, 2100, 3300), 0.0, 0.25, 100),
    "t": ((1800, 2600, 3600), 0.0, 0.7, 25), "p": ((700, 1100, 2150), 0.0, 0.6, 25),
    "d": ((300, 1700, 2600), 0.5, 0.2, 35), "g": ((250, 1900, 2300), 0.5, 0.2, 35),
    "_": ((500, 1500, 2500), 0.0, 0.0, 50),
}  # fmt: skip
"""Formants in Hz, loudness of the voice and of noise, milliseconds (vowels: Peterson and Barney 1952, of men)."""
_SPELLED = {
    "yes": "jes", "no": "nou", "up": "A_p", "down": "daun", "left": "lef_t", "right": "rai_t",
    "on": "on", "off": "of", "stop": "s_to_p", "go": "gou",
}  # fmt: skip
_VARIANTS = ("m1", "m2", "m3", "m4", "m5", "m6", "m7", "f1", "f2", "f3", "f4", "f5")
_ACCENTS = ("en-us", "en-gb")


@dataclass(frozen=True)
class Voice:
    """Somebody who speaks."""

    name: str
    """As the speaker knows it."""
    speed: float
    """1 is usual."""
    pitch: float
    """0 to 1."""


NOISE, QUIET = (-40.0, -10.0), (-80.0, -60.0)
"""Decibels of noise against the speech, at least and at most: as around a microphone, and all but none."""

Speaker = Callable[[str, Voice], np.ndarray]
"""(a word, a voice) -> samples at `RATE`, float32 in -1..1."""


def formants(word: str, voice: Voice) -> np.ndarray:
    """A command from our own synthesiser. `voice.name` is the scale of its formants: 0.85 a tall man, 1.2 a child."""
    phones = [_PHONES[phone] for phone in _SPELLED[word]]
    scale = float(voice.name)
    counts = [round(milliseconds * RATE / 1000 / voice.speed) for *_, milliseconds in phones]
    where = np.cumsum(counts) - np.array(counts) / 2
    time = np.arange(sum(counts))
    pitch = (90 + 140 * voice.pitch) * (1.1 - 0.2 * time / len(time))
    phase = np.cumsum(pitch / RATE)
    pulses = np.diff(np.floor(phase), prepend=0.0)
    noise = np.random.default_rng(len(time)).standard_normal(len(time)) * 0.1
    voiced, hissed = (np.interp(time, where, [phone[part] for phone in phones]) for part in (1, 2))
    source = pulses * voiced + noise * hissed
    sound = np.zeros(len(time))
    for number, bandwidth in enumerate((60, 90, 120)):
        frequencies = np.interp(time, where, [phone[0][number] * scale for phone in phones])
        sound += _resonate(source, np.minimum(frequencies, 0.48 * RATE), bandwidth) / (number + 1)
    return (0.5 * sound / (np.abs(sound).max() + 1e-9)).astype(np.float32)


def _resonate(source: np.ndarray, frequencies: np.ndarray, bandwidth: float) -> np.ndarray:
    """A resonator of second order whose frequency moves."""
    radius = np.exp(-np.pi * bandwidth / RATE)
    turns = 2 * radius * np.cos(2 * np.pi * frequencies / RATE)
    out, before, last = np.empty(len(source)), 0.0, 0.0
    for index, (value, turn) in enumerate(zip(source.tolist(), turns.tolist(), strict=True)):
        before, last = last, value + turn * last - radius * radius * before
        out[index] = last
    return out


def espeak(word: str, voice: Voice) -> np.ndarray:
    """A word spoken by espeak-ng. Raises BadInput if it fails."""
    program = shutil.which("espeak-ng")
    if program is None:
        raise BadInput("espeak-ng is not installed; install it, or use the synthesiser `formants`")
    speed, pitch = str(round(160 * voice.speed)), str(round(99 * voice.pitch))
    # without `--` a text that begins with a hyphen would be an option
    call = [program, "-v", voice.name, "-s", speed, "-p", pitch, "--stdout", "--", word]
    done = subprocess.run(call, capture_output=True, timeout=30, check=False)
    if done.returncode or not done.stdout:
        raise BadInput(f"espeak-ng could not speak: {done.stderr.decode(errors='replace')[:200].strip()}")
    return resample(*read_wav(_sized(done.stdout)))


def _sized(wav: bytes) -> bytes:
    """The same file with its real sizes in the header, which a stream does not know in advance."""
    size = len(wav) - 44
    return wav[:4] + (size + 36).to_bytes(4, "little") + wav[8:40] + size.to_bytes(4, "little") + wav[44:]


def best_speaker() -> Speaker:
    """espeak-ng where it is installed, else our own synthesiser."""
    return espeak if shutil.which("espeak-ng") else formants


def voices(speaker: Speaker, held_out: bool = False) -> list[Voice]:
    """The voices to learn from, or those that are never learned from: other people, at other speeds and pitches."""
    manners = ((0.9, 0.65), (1.15, 0.35)) if held_out else ((0.8, 0.5), (1.0, 0.25), (1.25, 0.75))
    if speaker is espeak:
        names = [f"{accent}+{variant}" for accent in _ACCENTS for variant in _VARIANTS]
        chosen = [name for name in names if (name[-2:] in ("m4", "m7", "f3", "f5")) == held_out]
    else:
        chosen = ["0.9", "1.03", "1.13"] if held_out else ["0.85", "0.95", "1.0", "1.08", "1.18"]
    return [Voice(name, speed, pitch) for name in chosen for speed, pitch in manners]


@lru_cache(maxsize=20_000)
def spoken(speaker: Speaker, word: str, voice: Voice) -> np.ndarray:
    """A word in a voice, without silence around it."""
    samples = speaker(word, voice)
    loud = np.flatnonzero(np.abs(samples) > 0.01 * np.abs(samples).max())
    return samples[loud[0] : loud[-1] + 1] if len(loud) else samples


def draw_command(
    rng: random.Random,
    speaker: Speaker,
    who: Sequence[Voice],
    noise: tuple[float, float] = NOISE,
    words: Sequence[str] = COMMANDS,
) -> tuple[np.ndarray, str]:
    """(a clip, the word): somewhere in it, louder or quieter, with noise so many decibels below the speech."""
    word, voice = rng.choice(words), rng.choice(who)
    said = spoken(speaker, word, voice)
    clip = as_clip(said)
    if len(said) < CLIP:
        start = rng.randint(0, CLIP - len(said))
        clip = np.pad(said, (start, CLIP - len(said) - start))
    power = float(np.sqrt((said.astype(np.float64) ** 2).mean()))
    hiss = np.random.default_rng(rng.getrandbits(32)).standard_normal(CLIP) * power
    gain = 10 ** rng.uniform(-0.8, 0.1)
    return (gain * (clip + hiss * 10 ** (rng.uniform(*noise) / 20))).astype(np.float32).clip(-1, 1), word
