"""Image and sound files: what a viewer shows is what is read, and what cannot be read becomes one line."""

import io
import struct
import zlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from crawltalk.core.errors import BadInput
from crawltalk.multimodal.images import MAX_PIXELS, on_canvas, read_image
from crawltalk.multimodal.sounds import CLIP, RATE, as_clip, read_wav, resample, write_wav
from support.media import png


def png_of_size(width: int, height: int) -> bytes:
    """A file whose header promises so many pixels, and that has none."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", b"") + chunk(b"IEND", b"")


def test_text_in_transparent_pixels_is_not_seen():
    image = Image.new("RGBA", (40, 20), (255, 255, 255, 0))
    image.paste((0, 0, 0, 0), (10, 5, 30, 15))
    assert np.asarray(image.convert("RGB")).min() == 0, "Pillow's own conversion shows it"
    assert (read_image(png(image)) == 255).all()


def test_half_transparent_ink_is_composed_on_white():
    assert set(read_image(png(Image.new("RGBA", (4, 4), (0, 0, 0, 128)))).ravel().tolist()) == {127}


def test_transparent_entries_of_a_palette_and_of_grey_are_white():
    palette = Image.new("P", (4, 4), 1)
    palette.putpalette([255, 255, 255, 0, 0, 0])
    assert (read_image(png(palette, transparency=1)) == 255).all()
    assert (read_image(png(Image.new("L", (4, 4), 7), transparency=7)) == 255).all()
    assert (read_image(png(Image.new("I;16", (4, 4), 700), transparency=700)) == 255).all()


def test_grey_of_sixteen_bits_is_scaled_and_not_cut():
    ramp = Image.fromarray(np.linspace(0, 65535, 256).astype(np.uint16)[None].repeat(2, 0))
    assert (read_image(png(ramp))[0, :, 0] == np.arange(256)).all()


def test_an_image_is_turned_as_its_file_says():
    image = Image.new("RGB", (6, 2), "white")
    exif = image.getexif()
    exif[0x0112] = 6
    assert read_image(png(image, exif=exif.tobytes())).shape == (6, 2, 3)


@pytest.mark.parametrize("size", [(5000, 4000), (20_000, 20_000)])
def test_the_size_is_refused_before_any_pixel_is_decoded(size):
    with pytest.raises(BadInput, match=f"more than {MAX_PIXELS:,} pixels"):
        read_image(png_of_size(*size))


@given(st.binary(max_size=200), st.integers(0, 60))
@settings(max_examples=60, deadline=None)
def test_damaged_images_are_refused_in_one_line(noise, keep):
    good = png(Image.new("RGB", (8, 8), "red"))
    try:
        pixels = read_image(good[:keep] + noise)
    except BadInput as error:
        assert "\n" not in str(error)
    else:
        assert pixels.ndim == 3


@pytest.mark.parametrize(
    "data", [b"", b"%PDF-1.7", b"<svg xmlns='http://www.w3.org/2000/svg'/>", b"RIFF\0\0\0\0WAVE"]
)
def test_other_formats_are_no_images(data):
    with pytest.raises(BadInput, match="no image that can be read; send PNG"):
        read_image(data)


def test_a_canvas_shrinks_what_is_too_large_and_leaves_the_rest_as_it_is():
    small = np.full((10, 20, 3), 40, np.uint8)
    small[4, 7] = 200
    canvas = on_canvas(small, 32, 160)
    assert canvas.shape == (32, 160, 3)
    assert canvas[15, 77] == pytest.approx(200 / 255)
    assert np.median(canvas) == pytest.approx(40 / 255)
    assert on_canvas(np.full((1000, 300, 3), 9, np.uint8), 32, 160).max() == pytest.approx(9 / 255)


@given(st.integers(1, 500), st.sampled_from([4000, 8000, 16_000, 44_100]))
@settings(max_examples=30, deadline=None)
def test_a_sound_survives_its_file(count, rate):
    samples = np.sin(np.arange(count)).astype(np.float32) * 0.9
    read, same = read_wav(write_wav(samples, rate))
    assert same == rate
    assert np.abs(read - samples).max() < 1e-4


@pytest.mark.parametrize("width", [1, 2, 3, 4])
def test_samples_of_all_widths_are_read(width):
    import wave

    out = io.BytesIO()
    with wave.open(out, "wb") as file:
        file.setparams((2, width, RATE, 0, "NONE", ""))
        half = (192).to_bytes(1, "little") if width == 1 else (2 ** (8 * width - 2)).to_bytes(width, "little")
        file.writeframes(half * 20)
    samples, _ = read_wav(out.getvalue())
    assert len(samples) == 10
    assert samples == pytest.approx(0.5, abs=1e-6)


@given(st.binary(max_size=200), st.integers(0, 60))
@settings(max_examples=60, deadline=None)
def test_damaged_sounds_are_refused_in_one_line(noise, keep):
    try:
        samples, _ = read_wav(write_wav(np.zeros(20))[:keep] + noise)
    except BadInput as error:
        assert "\n" not in str(error)
    else:
        assert samples.ndim == 1


def test_a_sound_that_is_too_long_is_refused():
    with pytest.raises(BadInput, match="longer than 60 seconds"):
        read_wav(write_wav(np.zeros(4000 * 61), 4000))


def test_resampling_keeps_a_tone_and_cuts_off_what_the_lower_rate_cannot_hold():
    time = np.arange(16_000) / 16_000
    low, high = np.sin(2 * np.pi * 440 * time), np.sin(2 * np.pi * 5000 * time)
    heard = resample(low + high, 16_000, RATE)
    assert heard == pytest.approx(np.sin(2 * np.pi * 440 * np.arange(RATE) / RATE), abs=1e-3)


def test_the_loudest_part_of_a_long_sound_is_the_clip():
    sound = np.zeros(5 * CLIP, np.float32)
    sound[3 * CLIP : 4 * CLIP] = 0.5
    assert as_clip(sound).min() == 0.5
    assert as_clip(np.ones(4, np.float32)).sum() == 4
