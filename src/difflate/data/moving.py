"""Clips of made motion: photographs that pan, zoom, turn, shake, hide one another and change, by a generator alone.

Real clips to train on are few. These have more kinds of motion than a few of those, and their motion is known to be
smooth. Every layer of a clip is a picture with a pose, a similarity with some shear, that changes over time; pictures
are scaled beforehand so that a frame samples them at about their own resolution.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.random import Generator
from PIL import Image, ImageDraw, ImageFilter

from difflate.data.crops import scaled

Maker = Callable[[Generator, Iterator[np.ndarray], np.ndarray, int], np.ndarray]
"""(rng, pictures of (3, H, W) uint8, (T, K) times, size) -> (T, size, size, 3) uint8.

The times are in frames from the clip's middle; a frame is the mean of its K moments."""

_X, _Y, _ZOOM, _ANGLE, _SHEAR = range(5)
_MARGIN_PX = 3
"""What bicubic sampling sees around a point, and one more."""
_FASTEST = 1 / 6
"""Of the size, in a frame."""
_FARTHEST = 2
"""Of the size, in a clip: pictures are not endless."""
_SMALLEST = 0.35
"""Scale that pictures are shown at, at the least."""
_MOMENTS = 4
"""Of a frame with motion blur."""
_BLURRED = 0.15
"""Share of clips with motion blur."""


@dataclass(frozen=True)
class Path:
    """How a layer's pose changes: x and y in px, logarithm of its zoom, angle and shear, in this order.

    At t frames from the clip's middle it is start + linear · t + square · t² + Σ shake · sin(rate · t + phase).
    """

    start: np.ndarray
    """(5,)"""
    linear: np.ndarray
    """(5,)"""
    square: np.ndarray
    """(5,)"""
    shake: np.ndarray
    """(K, 5)"""
    rate: np.ndarray
    """(K,) in radians a frame."""
    phase: np.ndarray
    """(K, 5)"""

    def poses(self, times: np.ndarray) -> np.ndarray:
        """(N, 5) at ``times: (N,)``."""
        waves = np.sin(self.rate[:, None] * times[:, None, None] + self.phase)
        t = times[:, None]
        return self.start + self.linear * t + self.square * t**2 + (self.shake * waves).sum(1)


def path(**parts: dict[int, float]) -> Path:
    """A path without shake, of the ``start``, ``linear`` and ``square`` of some coordinates; 0 of all others."""
    rows = {name: np.zeros(5) for name in ("start", "linear", "square")}
    for name, values in parts.items():
        for place, value in values.items():
            rows[name][place] = value
    return Path(**rows, shake=np.zeros((0, 5)), rate=np.zeros(0), phase=np.zeros((0, 5)))


@dataclass(frozen=True)
class Layer:
    """A picture and where it is shown."""

    image: Image.Image
    """In mode RGB, or RGBA with its mask."""
    maps: np.ndarray
    """(N, 2, 3): from pixels of the frame to those of the image, at each moment."""


def covering(rng: Generator, picture: np.ndarray, poses: np.ndarray, size: int) -> Layer:
    """``picture: (3, H, W)`` uint8 under ``poses: (N, 5)``, so scaled and placed that none of its borders is seen.

    The picture keeps its size, or is made smaller, half of the time each; it is enlarged only if it must be.
    """
    poses = poses.copy()
    poses[:, _ZOOM] -= poses[:, _ZOOM].min()  # it is made smaller before, and sampled at its own resolution or above
    maps = _inverse(poses, size)
    corners = np.array([[x, y, 1.0] for x in (0, size) for y in (0, size)])
    seen = corners @ maps.swapaxes(1, 2)
    low = np.floor(seen.min((0, 1))).astype(int) - _MARGIN_PX
    wide, tall = np.ceil(seen.max((0, 1))).astype(int) + _MARGIN_PX - low
    maps[:, :, 2] -= low
    return Layer(Image.fromarray(_part(rng, picture, int(tall), int(wide))), maps)


def object_of(rng: Generator, picture: np.ndarray, poses: np.ndarray, size: int) -> Layer:
    """A part of ``picture: (3, H, W)`` uint8, cut out along an ellipse, a polygon or a bulgy line, under ``poses``."""
    poses = poses.copy()
    poses[:, _ZOOM] -= poses[:, _ZOOM].min()
    side = max(4, round(size * rng.uniform(0.2, 0.75)))
    image = Image.fromarray(_part(rng, picture, side, side))
    image.putalpha(_outlined(rng, side))
    maps = _inverse(poses, size)
    maps[:, :, 2] += side / 2
    return Layer(image, maps)


def shown(layers: Sequence[Layer], times: np.ndarray, size: int) -> np.ndarray:
    """(T, size, size, 3) uint8: ``layers``, the first of which has no mask, each over those before."""
    frames, moments = times.shape
    clip = np.empty((frames, size, size, 3), np.uint8)
    for frame in range(frames):
        views = [_view(layers, frame * moments + moment, size) for moment in range(moments)]
        clip[frame] = views[0] if moments == 1 else (np.sum(views, 0, np.uint16) + moments // 2) // moments
    return clip


def pan(rng: Generator, pictures: Iterator[np.ndarray], times: np.ndarray, size: int) -> np.ndarray:
    """Across a picture, evenly or not; a fifth move by whole pixels, as pages that are scrolled."""
    moving = _slide(rng, times, size)
    if rng.random() < 0.2:
        moving = path(linear={_X: round(moving.linear[_X]), _Y: round(moving.linear[_Y])})
    return _single(rng, pictures, moving, times, size)


def zoom(rng: Generator, pictures: Iterator[np.ndarray], times: np.ndarray, size: int) -> np.ndarray:
    """Into a picture or out of it, with some slide."""
    moving = _slide(rng, times, size, 0.2)
    moving.linear[_ZOOM] = _signed(rng) * min(0.06, 0.7 / len(times)) * rng.uniform(0.05, 1)
    return _single(rng, pictures, moving, times, size)


def turn(rng: Generator, pictures: Iterator[np.ndarray], times: np.ndarray, size: int) -> np.ndarray:
    """About a point near the middle."""
    moving = _slide(rng, times, size, 0.1)
    moving.start[_ANGLE] = rng.uniform(-np.pi, np.pi) if rng.random() < 0.3 else 0
    moving.linear[_ANGLE] = _signed(rng) * 0.12 * rng.random() ** 2
    return _single(rng, pictures, moving, times, size)


def held_by_hand(rng: Generator, pictures: Iterator[np.ndarray], times: np.ndarray, size: int) -> np.ndarray:
    """A slow drift of all of the pose, with shake."""
    return _single(rng, pictures, _shaken(rng, _drift(rng, times, size), size), times, size)


def layers(rng: Generator, pictures: Iterator[np.ndarray], times: np.ndarray, size: int) -> np.ndarray:
    """One or two pictures with soft holes over another one; the nearer, the faster, as a camera that moves sees it."""
    moving = _slide(rng, times, size, 0.5)
    if rng.random() < 0.5:
        moving = _shaken(rng, moving, size)
    flat, depth = times.ravel(), 1.0
    parts = [covering(rng, next(pictures), moving.poses(flat), size)]
    for _ in range(1 + (rng.random() < 0.3)):
        depth *= rng.uniform(1.3, 3)
        poses = moving.poses(flat)
        poses[:, :_ZOOM] *= depth
        layer = covering(rng, next(pictures), poses, size)
        layer.image.putalpha(_holes(rng, *layer.image.size))
        parts.append(layer)
    return shown(parts, times, size)


def objects(rng: Generator, pictures: Iterator[np.ndarray], times: np.ndarray, size: int) -> np.ndarray:
    """One to three cut-outs that slide and turn over a picture, which is still or moves itself."""
    flat = times.ravel()
    behind = path() if rng.random() < 0.5 else _drift(rng, times, size)
    parts = [covering(rng, next(pictures), behind.poses(flat), size)]
    for _ in range(int(rng.integers(1, 4))):
        moving = _slide(rng, times, size)
        moving.start[:_ZOOM] = rng.uniform(-0.4, 0.4, 2) * size
        if rng.random() < 0.6:
            moving.linear[_ANGLE] = _signed(rng) * 0.25 * rng.random() ** 2
        if rng.random() < 0.3:
            moving.linear[_ZOOM] = rng.uniform(-0.04, 0.04)
        parts.append(object_of(rng, next(pictures), moving.poses(flat), size))
    return shown(parts, times, size)


def still(rng: Generator, pictures: Iterator[np.ndarray], times: np.ndarray, size: int) -> np.ndarray:
    """A picture that does not move; half of the time with noise that differs from frame to frame."""
    clip = _single(rng, pictures, path(), times[:, :1], size)
    return noisy(rng, clip) if rng.random() < 0.5 else clip


def cut(rng: Generator, pictures: Iterator[np.ndarray], times: np.ndarray, size: int) -> np.ndarray:
    """One clip, and after a random frame another."""
    count = len(times)
    first = int(rng.integers(1, count)) if count > 1 else 0
    parts = [KINDS[_scene(rng)][1](rng, pictures, part, size) for part in (times[:first], times[first:]) if len(part)]
    return np.concatenate(parts)


def cross_fade(rng: Generator, pictures: Iterator[np.ndarray], times: np.ndarray, size: int) -> np.ndarray:
    """From one clip to another, over some or all of the frames."""
    before, after = (KINDS[_scene(rng)][1](rng, pictures, times, size).astype(np.float32) for _ in range(2))
    share = _ramp(rng, len(times))[:, None, None, None]
    return _to_8_bits(before + share * (after - before))


def fade(rng: Generator, pictures: Iterator[np.ndarray], times: np.ndarray, size: int) -> np.ndarray:
    """A clip that goes to black, white or grey, or comes from it."""
    clip = KINDS[_scene(rng)][1](rng, pictures, times, size)
    colour = np.float32(rng.choice([0, 0, 0, 255, rng.uniform(0, 255)]))
    share = _ramp(rng, len(times))[:, None, None, None]
    faded = _to_8_bits(clip + share * (colour - clip))
    return faded if rng.random() < 0.5 else faded[::-1]


def light(rng: Generator, pictures: Iterator[np.ndarray], times: np.ndarray, size: int) -> np.ndarray:
    """A clip whose brightness and colour change slowly, or flicker a little."""
    clip = KINDS[_scene(rng)][1](rng, pictures, times, size)
    t = times[:, :1].astype(np.float32)
    slope, wave = rng.normal(0, 0.03, 3) * [1, 0.3, 0.3], rng.normal(0, 0.05)
    change = slope[0] * t + t * (np.array([[1, 0, -1]]) * slope[1] + np.array([[1, -2, 1]]) * slope[2] / 2)
    change = change + wave * np.sin(rng.uniform(0.2, 3) * t + rng.uniform(0, 2 * np.pi))
    return _to_8_bits(clip * np.exp(change.clip(-1, 0.7)).astype(np.float32)[:, None, None, :])


SCENES: dict[str, tuple[float, Maker]] = {
    "pan": (20, pan),
    "zoom": (10, zoom),
    "turn": (5, turn),
    "held-by-hand": (16, held_by_hand),
    "layers": (14, layers),
    "objects": (18, objects),
    "still": (6, still),
}
"""Kinds of one scene: of how many parts of all each has, and what makes it."""
KINDS: dict[str, tuple[float, Maker]] = {
    **SCENES,
    "cut": (6, cut),
    "cross-fade": (2, cross_fade),
    "fade": (2, fade),
    "light": (4, light),
}
"""All kinds: of how many parts of all each has, and what makes it."""


def clip_of_any(rng: Generator, pictures: Iterator[np.ndarray], frames: int, size: int) -> np.ndarray:
    """(3, frames, size, size) uint8: a clip of a kind of `KINDS`, by their weights; as `clip_of_kind`."""
    return clip_of_kind(_any(rng, KINDS), rng, pictures, frames, size)


def clip_of_kind(kind: str, rng: Generator, pictures: Iterator[np.ndarray], frames: int, size: int) -> np.ndarray:
    """(3, frames, size, size) uint8: a clip of a kind of `KINDS`.

    ``pictures``: (3, H, W) uint8, of which as many are taken as are needed. Some clips have motion blur, some noise.
    """
    moments = _MOMENTS if rng.random() < _BLURRED else 1
    shutter = rng.uniform(0.2, 1)
    times = np.arange(frames)[:, None] - (frames - 1) / 2 + shutter * np.arange(moments) / moments
    clip = KINDS[kind][1](rng, pictures, times, size)
    if rng.random() < 0.05:
        clip = noisy(rng, clip)
    return np.ascontiguousarray(clip.transpose(3, 0, 1, 2))


def noisy(rng: Generator, clip: np.ndarray) -> np.ndarray:
    """``clip`` with the noise of a sensor, of a standard deviation from 0.5 to 6, the same in all channels or not."""
    shape = clip.shape if rng.random() < 0.5 else (*clip.shape[:3], 1)
    return _to_8_bits(clip + np.float32(rng.uniform(0.5, 6)) * rng.standard_normal(shape, np.float32))


def _single(rng: Generator, pictures: Iterator[np.ndarray], moving: Path, times: np.ndarray, size: int) -> np.ndarray:
    return shown([covering(rng, next(pictures), moving.poses(times.ravel()), size)], times, size)


def _view(layers: Sequence[Layer], moment: int, size: int) -> np.ndarray:
    view = None
    for layer in layers:
        affine = tuple(layer.maps[moment].ravel().tolist())
        image = layer.image.transform((size, size), Image.Transform.AFFINE, affine, Image.Resampling.BICUBIC)
        if view is None:
            view = image
        else:
            view.paste(image, mask=image)
    return np.asarray(view)


def _inverse(poses: np.ndarray, size: int) -> np.ndarray:
    """(N, 2, 3): from pixels of a frame to those of a layer, from its middle, for ``poses: (N, 5)``."""
    zoom, shear = np.exp(poses[:, _ZOOM]), poses[:, _SHEAR]
    cos, sin = np.cos(poses[:, _ANGLE]), np.sin(poses[:, _ANGLE])
    # the inverse of zoom · turn · shear
    turned = np.stack([np.stack([cos, sin], 1), np.stack([-sin, cos], 1)], 1) / zoom[:, None, None]
    turned[:, 0] -= shear[:, None] * turned[:, 1]
    middle = poses[:, :_ZOOM] + size // 2
    return np.concatenate([turned, -(turned @ middle[:, :, None])], 2)


def _part(rng: Generator, picture: np.ndarray, tall: int, wide: int) -> np.ndarray:
    """(tall, wide, 3) uint8: a part of ``picture: (3, H, W)``, of its size or smaller, mirrored half of the time."""
    least = max(tall / picture.shape[1], wide / picture.shape[2])
    scale = least if least > 1 or rng.random() < 0.5 else 1.0
    if scale < 1:
        scale = float(np.exp(rng.uniform(np.log(max(least, _SMALLEST)), 0)))
    height, width = (min(round(part / scale), side) for part, side in zip((tall, wide), picture.shape[1:], strict=True))
    top, left = int(rng.integers(picture.shape[1] - height + 1)), int(rng.integers(picture.shape[2] - width + 1))
    part = scaled(picture[:, top : top + height, left : left + width], tall, wide)
    return np.ascontiguousarray((part[:, :, ::-1] if rng.random() < 0.5 else part).transpose(1, 2, 0))


def _outlined(rng: Generator, side: int) -> Image.Image:
    """A mask of ``side`` px: an ellipse, a polygon or a bulgy line, some with soft edges."""
    fine, kind = 4, rng.integers(3)
    if kind == 1:
        angles = np.sort(rng.uniform(0, 2 * np.pi, int(rng.integers(4, 9))))
        radii = rng.uniform(0.6, 1, len(angles))
    else:
        angles = np.linspace(0, 2 * np.pi, 64, endpoint=False)
        waves = rng.normal(0, 0.12, 4)[:, None] * np.sin(np.outer(np.arange(2, 6), angles) + rng.uniform(0, 6, (4, 1)))
        radii = 0.75 + (waves.sum(0) if kind == 2 else 0)
    squeeze = rng.uniform(0.5, 1) if kind == 0 else 1
    soft = rng.uniform(0.02, 0.08) if rng.random() < 0.25 else 0
    most = 0.49 - 2.5 * soft  # all of the edge lies within the mask
    points = 0.5 + most * (radii * np.stack([np.cos(angles), squeeze * np.sin(angles)])).clip(-1, 1)
    mask = Image.new("L", (side * fine, side * fine))
    ImageDraw.Draw(mask).polygon([(x, y) for x, y in (points * side * fine).T.tolist()], fill=255)
    mask = mask.reduce(fine)
    return mask.filter(ImageFilter.GaussianBlur(soft * side)) if soft else mask


def _holes(rng: Generator, width: int, height: int) -> Image.Image:
    """A mask of large spots, with edges from a pixel to many wide."""
    cells = int(rng.integers(3, 7))
    spots = Image.fromarray(rng.standard_normal((cells, cells), np.float32))
    field = np.asarray(spots.resize((width, height), Image.Resampling.BICUBIC))
    gradient = float(field.std()) * cells / max(width, height)
    edge = np.exp(rng.uniform(0, np.log(12)))  # in px
    level = field - np.quantile(field[::4, ::4], rng.uniform(0.35, 0.75))
    return Image.fromarray(_to_8_bits(255 * (level / (2 * gradient * edge) + 0.5)))


def _slide(rng: Generator, times: np.ndarray, size: int, share: float = 1.0) -> Path:
    """Into any direction, more often upright or level, slowly for the most part; half of them get faster or slower."""
    fastest = size * share * min(_FASTEST, _FARTHEST / len(times))
    speed = fastest * rng.random() ** 3
    angle = rng.uniform(0, 2 * np.pi)
    if rng.random() < 0.5:
        angle = np.pi / 2 * np.floor(angle / (np.pi / 2))
    moving = path(linear={_X: speed * np.cos(angle), _Y: speed * np.sin(angle)})
    if rng.random() < 0.5:
        moving.square[:_ZOOM] = moving.linear[:_ZOOM] * rng.uniform(-0.5, 0.5, 2) / max(len(times) / 2, 1)
    return moving


def _drift(rng: Generator, times: np.ndarray, size: int) -> Path:
    """A slow change of all of the pose."""
    moving = _slide(rng, times, size, 0.3)
    most = np.array([0, 0, 0.01, 0.01, 0.005]) * min(1, 24 / len(times))
    moving.linear[:] += most * rng.normal(0, 0.5, 5).clip(-1, 1)
    return moving


def _shaken(rng: Generator, moving: Path, size: int) -> Path:
    """``moving`` with the shake of a hand: waves of 4 to 50 frames."""
    waves = 4
    most = np.array([size / 60, size / 60, 0.004, 0.008, 0.004]) * rng.random() ** 1.5
    rate = 2 * np.pi / np.exp(rng.uniform(np.log(4), np.log(50), waves))
    # slow waves are the larger ones
    shake = most * rng.normal(0, 0.5, (waves, 5)) / rate[:, None].clip(0.3)
    return Path(moving.start, moving.linear, moving.square, shake, rate, rng.uniform(0, 2 * np.pi, (waves, 5)))


def _ramp(rng: Generator, count: int) -> np.ndarray:
    """(count,) float32 from 0 to 1, between two random times, which need not lie within the clip."""
    begin = rng.uniform(-0.5, 0.6)
    end = rng.uniform(max(begin + 0.3, 0.5), 1.5)
    return ((np.arange(count) / count - begin) / (end - begin)).clip(0, 1).astype(np.float32)


def _signed(rng: Generator) -> int:
    return 1 if rng.random() < 0.5 else -1


def _scene(rng: Generator) -> str:
    return _any(rng, SCENES)


def _any(rng: Generator, kinds: dict[str, tuple[float, Maker]]) -> str:
    """One of ``kinds``, by their weights."""
    ends = np.cumsum([weight for weight, _ in kinds.values()])
    return list(kinds)[int(np.searchsorted(ends, rng.random() * ends[-1], side="right"))]


def _to_8_bits(x: np.ndarray) -> np.ndarray:
    return (x + 0.5).clip(0, 255).astype(np.uint8)
