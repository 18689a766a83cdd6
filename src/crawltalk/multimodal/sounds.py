"""Sounds as a model hears them: WAV files decoded within limits, brought to one rate, and made log-mel frames."""

import io
import wave

import numpy as np

from crawltalk.core.errors import BadInput

RATE = 8000
"""Samples a second that the model hears: speech on the telephone."""
CLIP = 10_240
"""Samples that it hears at once: 1.28 seconds."""
WINDOW, HOP, MELS = 256, 160, 32
"""Of the spectrogram: samples of a frame and between two, and its bands. A clip has 64 frames."""
FLOOR = 1e-6
"""Power below which all is silence: -60 dB under a full-scale tone."""
MAX_BYTES = 8_000_000
MAX_SECONDS = 60
RATES = range(4000, 192_001)


def read_wav(data: bytes) -> tuple[np.ndarray, int]:
    """(samples in -1..1, float32, the mean of the channels; samples a second) of a WAV file with 8, 16, 24 or 32 bits
    a sample. Raises BadInput, in one line, for anything else, and for what is too long.
    """
    if len(data) > MAX_BYTES:
        raise BadInput(f"the sound has more than {MAX_BYTES:,} bytes: send a shorter one")
    try:
        with wave.open(io.BytesIO(data)) as file:
            rate, channels, width = file.getframerate(), file.getnchannels(), file.getsampwidth()
            frames = file.readframes(min(file.getnframes(), MAX_BYTES))
    except Exception:  # wave fails in many ways on bytes of strangers
        raise BadInput("this is no sound that can be read; send a WAV file with PCM samples") from None
    if rate not in RATES or width not in (1, 2, 3, 4):
        raise BadInput(
            f"the sound has {rate:,} samples a second of {8 * width} bits; send 4,000 to 192,000 of 8 to 32 bits"
        )
    frames = frames[: len(frames) // (width * channels) * width * channels]
    if not frames:
        raise BadInput("the sound has no samples: record one")
    if len(frames) // (width * channels) > MAX_SECONDS * rate:
        raise BadInput(f"the sound is longer than {MAX_SECONDS} seconds: send a shorter one")
    if width == 1:
        samples = np.frombuffer(frames, np.uint8).astype(np.float32) / 128 - 1
    elif width == 3:
        parts = np.frombuffer(frames, np.uint8).reshape(-1, 3).astype(np.int32)
        samples = ((parts[:, 2] << 24 | parts[:, 1] << 16 | parts[:, 0] << 8) / 2**31).astype(np.float32)
    else:
        integers = np.frombuffer(frames, "<i2" if width == 2 else "<i4")
        samples = (integers / 2 ** (8 * width - 1)).astype(np.float32)
    return samples.reshape(-1, channels).mean(1), rate


def write_wav(samples: np.ndarray, rate: int = RATE) -> bytes:
    """A WAV file of 16 bits with these samples in -1..1."""
    out = io.BytesIO()
    with wave.open(out, "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(rate)
        file.writeframes((np.clip(samples, -1, 1) * 32767).round().astype("<i2").tobytes())
    return out.getvalue()


def resample(samples: np.ndarray, rate: int, to: int = RATE) -> np.ndarray:
    """The same sound with another number of samples a second, float32; what the lower rate cannot hold is cut off
    (by the Fourier transform, so as if the sound went on in a circle).
    """
    if rate == to or not len(samples):
        return samples.astype(np.float32)
    count = max(1, round(len(samples) * to / rate))
    spectrum = np.fft.rfft(samples)
    kept = np.zeros(count // 2 + 1, complex)
    both = min(len(spectrum), len(kept))
    kept[:both] = spectrum[:both]
    return (np.fft.irfft(kept, count) * (count / len(samples))).astype(np.float32)


def as_clip(samples: np.ndarray) -> np.ndarray:
    """The loudest `CLIP` samples of a sound, or all of a shorter one in the middle of silence, float32 [CLIP]."""
    if len(samples) <= CLIP:
        before = (CLIP - len(samples)) // 2
        return np.pad(samples, (before, CLIP - len(samples) - before)).astype(np.float32)
    power = np.concatenate(([0.0], np.cumsum(samples.astype(np.float64) ** 2)))
    start = int((power[CLIP:] - power[:-CLIP]).argmax())
    return samples[start : start + CLIP].astype(np.float32)


def mel_filters() -> np.ndarray:
    """Triangles over the bins of a spectrum, equally wide on the mel scale (O'Shaughnessy 1987), [bins, MELS]."""
    bins = np.fft.rfftfreq(WINDOW, 1 / RATE)
    most = 2595 * np.log10(1 + RATE / 2 / 700)
    edges = 700 * (10 ** (np.linspace(0, most, MELS + 2) / 2595) - 1)
    low, middle, high = edges[:-2], edges[1:-1], edges[2:]
    rising = (bins[:, None] - low) / (middle - low)
    falling = (high - bins[:, None]) / (high - middle)
    return np.maximum(0, np.minimum(rising, falling)).astype(np.float32)
