"""How far a set of restored clips is from the set of their originals, in the features of a network.

A Fréchet distance of VGG16's features of frames, another of those of the differences between frames, and the Fréchet
video distance (FVD, Unterthiner et al. 2018, arXiv 1812.01717) where a user has the weights of its network. Only the
last one is comparable with printed ones, at equal clips. Frames are looked at as they come.
"""

from pathlib import Path
from typing import Protocol

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from difflate.errors import ConfigError
from difflate.media.picture import Picture
from difflate.metrics.features import features_of, vgg16
from difflate.metrics.frechet import frechet_distance
from difflate.metrics.i3d import SIDE_PX, load_i3d

SHORT_SIDE_PX = 128
"""What VGG16 sees frames at."""
WINDOW_FRAMES = 16
"""Of what I3D sees at once, one after the other; a rest at the end of a clip is left out."""


class Looking(Protocol):
    """Collects the features of a set of clips."""

    def add(self, pixels: np.ndarray) -> None:
        """The next frame, (1 or 3, H, W) uint8."""
        ...

    def end(self) -> None:
        """The clip is over."""
        ...

    def features(self) -> Tensor:
        """(N, D) float32. Raises ConfigError if there are none."""
        ...


class ClipNetworks:
    """The networks, loaded once. Raises ConfigError where weights are missing."""

    def __init__(self, i3d: str | Path | None = None, every: int = 1):
        """``every``: VGG16 looks at each n-th frame of a clip. ``i3d``: the file of I3D's weights; None: no FVD."""
        if every < 1:
            raise ConfigError(f"every (={every}) must be at least 1")
        self.every = every
        self.vgg = vgg16()
        self.i3d = None if i3d is None else load_i3d(i3d)

    def lookers(self) -> dict[str, Looking]:
        """For one set of clips, by the names that tables and JSON have."""
        found: dict[str, Looking] = {
            "frechet-vgg16-frames": _Frames(self.vgg, self.every, motion=False),
            "frechet-vgg16-motion": _Frames(self.vgg, self.every, motion=True),
        }
        return found if self.i3d is None else {**found, "fvd": _Windows(self.i3d)}


def clip_distances(restored: dict[str, Looking], originals: dict[str, Looking]) -> dict[str, float]:
    """The Fréchet distance of each kind of features. Raises ConfigError for fewer than 2 of them."""
    return {name: frechet_distance(restored[name].features(), originals[name].features()) for name in originals}


class _Frames:
    """VGG16's features of each n-th frame, or of its difference from the one before it, halved, on grey."""

    def __init__(self, network: nn.Module, every: int, motion: bool):
        self._network, self._every, self._motion = network, every, motion
        self._before: Tensor | None = None
        self._number = 0
        self._found: list[Tensor] = []

    def add(self, pixels: np.ndarray) -> None:
        # the middle of each n frames, so that the first one, which has no difference, is seldom meant
        looked_at = self._number % self._every == self._every // 2
        if looked_at and not self._motion:
            self._look(_scaled(pixels, SHORT_SIDE_PX / min(pixels.shape[1:])))
        if self._motion:
            frame = _scaled(pixels, SHORT_SIDE_PX / min(pixels.shape[1:])).float()
            if looked_at and self._before is not None:
                self._look(((frame - self._before) / 2 + 127.5).round().to(torch.uint8))
            self._before = frame
        self._number += 1

    def end(self) -> None:
        self._before, self._number = None, 0

    def features(self) -> Tensor:
        if not self._found:
            raise ConfigError("the clips have too few frames for a Fréchet distance; give longer ones")
        return torch.cat(self._found)

    def _look(self, image: Tensor) -> None:
        self._found.append(features_of(image, self._network))


class _Windows:
    """I3D's logits of 16 frames at a time, squeezed to 224x224 px, as FVD is defined."""

    def __init__(self, network: nn.Module):
        self._network = network
        self._window: list[Tensor] = []
        self._found: list[Tensor] = []

    def add(self, pixels: np.ndarray) -> None:
        image = torch.tensor(pixels).expand(3, -1, -1)[None].float()
        self._window.append(F.interpolate(image, (SIDE_PX, SIDE_PX), mode="bilinear", align_corners=False)[0])
        if len(self._window) == WINDOW_FRAMES:
            with torch.inference_mode():
                self._found.append(self._network(torch.stack(self._window, 1)[None] / 127.5 - 1))
            self._window.clear()

    def end(self) -> None:
        self._window.clear()

    def features(self) -> Tensor:
        if not self._found:
            raise ConfigError(f"FVD needs clips of {WINDOW_FRAMES} frames or more; give longer ones")
        return torch.cat(self._found)


class Collecting:
    """A `difflate.metrics.clips.Running` that shows the restored frames of one clip to ``lookers``; it has no value."""

    def __init__(self, lookers: dict[str, Looking]):
        self._lookers = lookers

    def add(self, reference: Picture, restored: Picture) -> None:
        """See `difflate.metrics.clips.Running`."""
        show(restored.pixels, self._lookers)

    def value(self) -> None:
        """None: the distance is of the whole set."""
        for looker in self._lookers.values():
            looker.end()


def show(pixels: np.ndarray, lookers: dict[str, Looking]) -> None:
    """A frame to all of ``lookers``."""
    for looker in lookers.values():
        looker.add(pixels)


def _scaled(pixels: np.ndarray, factor: float) -> Tensor:
    """(1, 3, h, w) uint8, scaled with a filter as wide as the pixels that become one."""
    image = torch.tensor(pixels).expand(3, -1, -1)[None].float()
    size = [max(1, round(side * factor)) for side in pixels.shape[1:]]
    return F.interpolate(image, size, mode="bilinear", antialias=True).round().clamp(0, 255).to(torch.uint8)
