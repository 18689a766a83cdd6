"""What makes vectors of images and sounds: small convolutional stems, whose windows overlap, so that it does not
matter where a letter or a syllable begins (unlike the patches of Dosovitskiy et al. 2021, which cut it).
"""

from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from crawltalk.core.errors import BadInput
from crawltalk.multimodal.sounds import CLIP, FLOOR, HOP, MELS, WINDOW, mel_filters

PATCH = 16
"""Columns whose contrast is normalised together."""
STRIDE = 4
"""Columns of an image that become one position."""


@dataclass(frozen=True, kw_only=True)
class ImageInput:
    """What an image encoder reads."""

    height: int = 32
    width: int = 160
    contrast: Literal["image", "patch"] = "image"
    """What its brightness is measured against: the mean of the whole image, or mean and deviation of each patch. The
    latter makes text of any contrast equal, also of one that nobody sees.
    """
    channels: int = 24
    """Of the first convolution; the next two have two and four times as many."""

    def __post_init__(self) -> None:
        if self.height % 8 or self.width % PATCH or self.height < 8 or self.width < PATCH:
            raise BadInput(
                f"an image of {self.width} x {self.height} cannot be read: the width is a multiple of {PATCH}, the "
                "height one of 8"
            )

    @property
    def positions(self) -> int:
        return self.width // STRIDE


@dataclass(frozen=True, kw_only=True)
class AudioInput:
    """What an audio encoder hears."""

    loudness: Literal["clip", "absolute"] = "clip"
    """Whether a clip is brought to one loudness first, so that quiet speech equals loud speech."""
    floor: float = FLOOR
    """Power below which all is silence. The lower it is, the more the listener hears that nobody else does."""

    def __post_init__(self) -> None:
        if not 0 < self.floor < 1:
            raise BadInput(
                f"the floor of {self.floor:g} is no power between silence and full scale: 1e-6 is -60 dB"
            )

    @property
    def positions(self) -> int:
        return CLIP // HOP // 4


class ImageEncoder(nn.Module):
    """One vector for each `STRIDE` columns of an image."""

    def __init__(self, config: ImageInput, width: int) -> None:
        super().__init__()
        self.config, channels = config, config.channels
        self.first = nn.Conv2d(3, channels, 3, 2, 1)
        self.second = nn.Conv2d(channels, 2 * channels, 3, 2, 1)
        self.third = nn.Conv2d(2 * channels, 4 * channels, 3, (2, 1), 1)
        self.project = nn.Conv1d(4 * channels * config.height // 8, width, 3, 1, 1)
        self.norm = nn.LayerNorm(width)

    def forward(self, pixels: Tensor) -> Tensor:
        """[B, height, width, 3] in 0..1 to [B, positions, D]."""
        x = self.normalized(pixels.to(self.project.weight.dtype)).permute(0, 3, 1, 2)
        for layer in (self.first, self.second, self.third):
            x = F.relu(layer(x))
        return self.norm(self.project(x.flatten(1, 2)).mT)

    def normalized(self, pixels: Tensor) -> Tensor:
        """The same shape; see `ImageInput.contrast`."""
        if self.config.contrast == "image":
            return 3 * (pixels - pixels.mean((1, 2, 3), keepdim=True))
        patches = pixels.unflatten(2, (-1, PATCH))
        centred = patches - patches.mean((1, 3, 4), keepdim=True)
        deviation = centred.square().mean((1, 3, 4), keepdim=True).sqrt()
        return (centred / (deviation + 1e-3)).flatten(2, 3)


class AudioEncoder(nn.Module):
    """One vector for each four frames of a clip."""

    window: Tensor
    filters: Tensor

    def __init__(self, config: AudioInput, width: int, channels: int = 48) -> None:
        super().__init__()
        self.config = config
        self.first = nn.Conv1d(MELS, channels, 5, 2, 2)
        self.project = nn.Conv1d(channels, width, 5, 2, 2)
        self.norm = nn.LayerNorm(width)
        self.register_buffer("window", torch.hann_window(WINDOW), persistent=False)
        self.register_buffer("filters", torch.from_numpy(mel_filters()), persistent=False)

    def forward(self, samples: Tensor) -> Tensor:
        """[B, CLIP] in -1..1 to [B, positions, D]."""
        frames = self.log_mel(samples).to(self.project.weight.dtype)
        return self.norm(self.project(F.relu(self.first(frames))).mT)

    def log_mel(self, samples: Tensor) -> Tensor:
        """Logarithms of the power in each mel band, scaled to about -1..1, [B, MELS, CLIP / HOP] fp32."""
        samples, window = samples.float(), self.window.float()
        if self.config.loudness == "clip":
            samples = 0.1 * samples / (samples.square().mean(1, keepdim=True).sqrt() + 1e-5)
        padded = F.pad(samples, (0, WINDOW - HOP))
        spectrum = torch.fft.rfft(padded.unfold(1, WINDOW, HOP) * window)
        power = (spectrum.real.square() + spectrum.imag.square()) / window.sum() ** 2
        return ((power @ self.filters.float() + self.config.floor).log10().mT + 4) / 2


def encoder_of(config: ImageInput | AudioInput, width: int) -> ImageEncoder | AudioEncoder:
    """An encoder for a decoder of this width."""
    return ImageEncoder(config, width) if isinstance(config, ImageInput) else AudioEncoder(config, width)
