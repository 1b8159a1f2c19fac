"""Which pictures a report's page holds itself, of what part of each image, and how well."""

import base64
import io
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np
from PIL import Image

from difflate.evaluate.means import measures_of
from difflate.evaluate.pictures import PictureFolder, to_image
from difflate.evaluate.records import Record
from difflate.media.picture import Picture
from difflate.metrics.distortion import psnr

BUDGET_BYTES = 9_600_000
"""Of all pictures in a page; base64 makes a third more of it."""
MAX_IMAGES = 200
RATES = 4
QUALITIES = (80, 70)
"""Of AVIF with full chroma: the second where the first does not fit."""
SPEED = 9
MIN_SIDE_PX = 192
"""No crop is smaller, unless its image is."""
_BLOCK_PX = 8
_SAMPLES = 6


@dataclass
class Embedded:
    """The pictures of a page."""

    quality: int = 0
    """Of AVIF."""
    sources: dict[tuple[str, str], str] = field(default_factory=dict)
    """(image, setting) to a data: URI; the original's setting is empty."""
    crops: dict[str, tuple[int, int, int, int]] = field(default_factory=dict)
    """Of each image: left, top, width and height of the part that is shown."""
    worst_db: float | None = None
    """Of the embedded pictures the lowest PSNR against the pixels that they stand for."""


def target_rates(records: Sequence[Record]) -> list[float]:
    """A few bits per pixel, rising, at which all codecs are looked at side by side.

    They divide the rates of all lossy settings into parts of equally many.
    """
    rates: dict[str, list[float]] = {}
    for record in records:
        if record.error is None and not record.lossless and (rate := record.values.get("bpp")):
            rates.setdefault(record.setting, []).append(rate)
    means = sorted(math.fsum(values) / len(values) for values in rates.values())
    if not means:
        return []
    places = [round((i + 0.5) / RATES * (len(means) - 1)) for i in range(RATES)]
    return sorted({round(means[place], 3) for place in places} - {0.0})


def nearest(records: Iterable[Record], rate: float) -> Record | None:
    """The record whose file is nearest to that rate, by the ratio of their sizes; None without any."""
    good = [record for record in records if record.error is None and record.values.get("bpp")]
    return min(good, key=lambda record: abs(math.log((record.values["bpp"] or rate) / rate)), default=None)


def shown_images(records: Sequence[Record], limit: int = MAX_IMAGES) -> list[str]:
    """The images that a page shows one by one, in their order: all of them, or the worst of each codec in turn.

    Worst by the mean of a codec's settings, in the first measure with a curve.
    """
    images = list(dict.fromkeys(record.image for record in records))
    if len(images) <= limit:
        return images
    measure = next(measure for measure in measures_of(records) if measure.curve)
    qualities: dict[str, dict[str, list[float]]] = {}
    for record in records:
        value = record.values.get(measure.key)
        if value is not None and math.isfinite(value):
            qualities.setdefault(record.codec, {}).setdefault(record.image, []).append(measure.quality(value))
    ranked = [sorted(of, key=lambda image, of=of: math.fsum(of[image]) / len(of[image])) for of in qualities.values()]
    chosen: dict[str, None] = {}
    for place in range(max(map(len, ranked), default=0)):
        for order in ranked:
            if place < len(order) and len(chosen) < limit:
                chosen[order[place]] = None
    return [image for image in images if image in chosen]


def embed(records: Sequence[Record], images: Sequence[str], folder: PictureFolder) -> Embedded:
    """Pictures of ``images``: originals, and of each codec the lossy settings nearest to `target_rates`.

    All in the highest of `QUALITIES` at which they stay within `BUDGET_BYTES`; at the lowest only a part of each
    image, around the place where the codecs differ most from the original; and where even that is too much, fewer
    images.
    """
    rates = target_rates(records)
    wanted: dict[str, list[Record]] = {image: [] for image in images}
    for record in records:
        if record.image in wanted and not record.lossless and folder.has(record):
            wanted[record.image].append(record)
    chosen = {image: _choice(of, rates) for image, of in wanted.items()}
    chosen = {image: of for image, of in chosen.items() if of}
    pixels = {image: (of[0].width or 0) * (of[0].height or 0) * (len(of) + 1) for image, of in chosen.items()}
    if not pixels:
        return Embedded()
    sample = list(chosen)[:: math.ceil(len(chosen) / _SAMPLES)]
    for quality in QUALITIES:
        of_sample = sum(
            len(_avif(to_image(picture), quality)) for image in sample for picture in _read(chosen[image], folder)
        )
        bytes_per_pixel = of_sample / sum(pixels[image] for image in sample)
        share = BUDGET_BYTES / (bytes_per_pixel * sum(pixels.values()))
        if share >= 1:
            break
    while True:
        made = _embed(chosen, folder, quality, min(1, share))
        size = sum(map(len, made.sources.values())) * 3 / 4
        if size <= BUDGET_BYTES or (len(chosen) == 1 and share < 1e-6):
            return made
        share *= 0.95 * BUDGET_BYTES / size
        if all(_side(of[0].width or 0, share) <= MIN_SIDE_PX for of in chosen.values()):
            chosen = dict(list(chosen.items())[: math.ceil(len(chosen) * BUDGET_BYTES / size * 0.95) - 1 or 1])


def _choice(records: Sequence[Record], rates: Sequence[float]) -> list[Record]:
    by_codec: dict[str, list[Record]] = {}
    for record in records:
        by_codec.setdefault(record.codec, []).append(record)
    found = [nearest(of, rate) for of in by_codec.values() for rate in rates]
    settings = {record.setting for record in found if record is not None}
    return [record for record in records if record.setting in settings]


def _read(records: Sequence[Record], folder: PictureFolder) -> Iterable[Picture]:
    yield folder.read(folder.original(records[0]))
    for record in records:
        yield folder.read(folder.restored(record))


def _embed(chosen: dict[str, list[Record]], folder: PictureFolder, quality: int, share: float) -> Embedded:
    result = Embedded(quality)
    for image, records in chosen.items():
        original, *restored = _read(records, folder)
        crop = _crop(original, restored, share)
        result.crops[image] = crop
        left, top, width, height = crop
        for setting, picture in zip(["", *(record.setting for record in records)], [original, *restored], strict=True):
            part = to_image(picture).crop((left, top, left + width, top + height))
            data = _avif(part, quality)
            result.sources[image, setting] = "data:image/avif;base64," + base64.b64encode(data).decode()
            shown = np.asarray(Image.open(io.BytesIO(data)).convert(part.mode))
            error = psnr(_planes(np.asarray(part)), _planes(shown))
            result.worst_db = min(error, result.worst_db or math.inf)
    return result


def _planes(pixels: np.ndarray) -> Picture:
    return Picture(pixels[None] if pixels.ndim == 2 else pixels.transpose(2, 0, 1))


def _side(side: int, share: float) -> int:
    return min(side, max(MIN_SIDE_PX, round(side * math.sqrt(share))))


def _crop(original: Picture, restored: Sequence[Picture], share: float) -> tuple[int, int, int, int]:
    """Left, top, width and height of the part with that share of the pixels where the squared error is largest."""
    width, height = _side(original.width, share), _side(original.height, share)
    if (width, height) == (original.width, original.height):
        return 0, 0, width, height
    error = np.zeros((original.height, original.width), np.float64)
    for picture in restored:
        difference = original.pixels.astype(np.int32) - picture.pixels
        error += (difference * difference).mean(axis=0)
    sums = np.pad(error.cumsum(0).cumsum(1), ((1, 0), (1, 0)))
    tops = np.arange(0, original.height - height + 1, _BLOCK_PX)
    lefts = np.arange(0, original.width - width + 1, _BLOCK_PX)
    inside = (
        sums[np.ix_(tops + height, lefts + width)]
        - sums[np.ix_(tops, lefts + width)]
        - sums[np.ix_(tops + height, lefts)]
        + sums[np.ix_(tops, lefts)]
    )
    row, column = np.unravel_index(inside.argmax(), inside.shape)
    return int(lefts[column]), int(tops[row]), width, height


def _avif(image: Image.Image, quality: int) -> bytes:
    file = io.BytesIO()
    image.save(file, "AVIF", quality=quality, subsampling="4:4:4", speed=SPEED)
    return file.getvalue()
