"""Codecs measured on images: encode to the bytes of a file, decode those bytes, compare."""

import functools
import logging
import math
import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from difflate import metrics
from difflate.codecs.base import Codec
from difflate.data.images import list_images
from difflate.errors import ConfigError, DifflateError
from difflate.evaluate.options import load_with_options
from difflate.extras import require
from difflate.limits import DEFAULT_LIMITS, Limits
from difflate.media.picture import Picture, open_image

if TYPE_CHECKING:  # torch is not imported for codecs that do without
    from difflate.metrics.perceptual import Lpips

logger = logging.getLogger(__name__)

MAX_SETTINGS_PER_RANGE = 101
_RANGE_TOLERANCE = 1e-9


@dataclass(frozen=True)
class CodecSetting:
    """A codec at one quality."""

    codec: str
    """The name that `difflate.load` knows."""
    quality: float | None = None
    """None: the codec has one quality only, or its default is meant (`parse_codecs` puts that in its place)."""

    def __str__(self) -> str:
        return self.codec if self.quality is None else f"{self.codec}:{self.quality:.10g}"


@dataclass(frozen=True)
class Record:
    """What one codec setting made of one image. All measurements are None where ``error`` is set."""

    image: str
    """File name."""
    codec: str
    quality: float | None
    setting: str
    """``codec:quality``, as it is written on the command line."""
    width: int | None = None
    """In pixels."""
    height: int | None = None
    """In pixels."""
    bytes: int | None = None
    """Size of the complete file."""
    bpp: float | None = None
    """Bits per pixel: 8 * bytes / (width * height)."""
    psnr: float | None = None
    """dB; inf (in JSON: null without an error) if the decoded image is identical."""
    ssim: float | None = None
    """None if the image is too small for it; so are the next three."""
    ms_ssim: float | None = None
    ssimulacra2: float | None = None
    lpips: float | None = None
    """None if it was not asked for, too."""
    lpips_net: str | None = None
    """Backbone of ``lpips``: ``alex`` or ``vgg``, whose values do not compare."""
    encode_s: float | None = None
    """Wall time in seconds, reading the image not counted."""
    decode_s: float | None = None
    """Wall time in seconds."""
    error: str | None = None
    """One sentence, if the image could not be measured."""
    exit_code: int = 0
    """0, or the exit code of ``error``."""

    def to_json(self) -> dict[str, Any]:
        """The record as a dictionary of what JSON has: infinity becomes None."""
        return {key: None if value == math.inf else value for key, value in asdict(self).items()}


def evaluate(
    images: Iterable[str | Path],
    codecs: str | Sequence[str] | Sequence[CodecSetting],
    *,
    load: Callable[[str], Codec] | None = None,
    lpips: "Lpips | None" = None,
    limits: Limits = DEFAULT_LIMITS,
    progress: Callable[[Record], None] | None = None,
) -> list[Record]:
    """One record per image and codec setting, images in the outer order; ``progress`` is called with each.

    ``lpips``: what `difflate.metrics.perceptual.load_lpips` gave, to measure LPIPS as well.
    Codecs get the pixels alone: alpha, EXIF, ICC and XMP are dropped before encoding, so that all files hold the same
    and the metrics see all they hold. Each codec encodes and decodes once outside of the timing before its first
    image. An image or codec that fails gives a record with its error and the run goes on.
    Raises ConfigError for two images of one name (records are told apart by it) and for missing packages, and what
    `parse_codecs` raises.
    """
    # at the start: a missing package is one error, not one for each image
    for package in ("scipy.ndimage", "ssimulacra2"):
        require(package, "eval")
    plain = functools.cache(load or _load)
    load = functools.cache(lambda name: load_with_options(name, plain))
    paths = [Path(path) for path in images]
    repeated = [name for name, count in Counter(path.name for path in paths).items() if count > 1]
    if repeated:
        raise ConfigError(f"more than one image is named {repeated[0]}; evaluate their folders one at a time")
    settings = _settings(codecs, load)
    loaded = {name: load(name) for name in dict.fromkeys(setting.codec for setting in settings)}
    warm: set[str] = set()
    records: list[Record] = []
    for path in paths:
        # a second name for the outcome of reading, so that a file that cannot be read costs one record per setting
        source = _read(path)
        for setting in settings:
            record = Record(path.name, setting.codec, setting.quality, str(setting))
            codec = loaded[setting.codec]
            try:
                if isinstance(source, Exception):
                    raise source
                if setting.codec not in warm:
                    codec.decode(codec.encode(source, quality=setting.quality, limits=limits), limits=limits)
                    warm.add(setting.codec)
                record = _measure(record, codec, source, lpips, limits)
            except DifflateError as error:
                record = replace(record, error=str(error).removeprefix(f"{path}: "), exit_code=error.exit_code)
            except Exception as error:
                # a defect, or a library's own error: it must not cost the hours already measured
                logger.debug("%s on %s", setting, path, exc_info=True)
                record = replace(record, error=f"{type(error).__name__}: {error}", exit_code=DifflateError.exit_code)
            records.append(record)
            if progress:
                progress(record)
    return records


def parse_codecs(text: str, load: Callable[[str], Codec] | None = None) -> list[CodecSetting]:
    """The settings in ``text``: ``jpeg:50,webp:10..90..20,vq-8-8-8``, in order and each once.

    ``name`` is the codec at its default quality, ``name:quality`` at that quality, and ``name:low..high..step`` at
    low, low + step … up to high; options of decoding stand behind the name: ``cdc-small+steps=1+gamma=0:50``.
    Raises ConfigError for an unknown codec, a quality that is not a number or outside of the codec's range, and a
    quality for a codec that has only one; ModelError for a model that is damaged.
    """
    plain = load or _load
    settings: dict[CodecSetting, None] = {}
    for item in (part.strip() for part in text.split(",")):
        if not item:
            continue
        name, colon, wanted = item.partition(":")
        codec = load_with_options(name, plain)
        for quality in _qualities(item, wanted) if colon else [None]:
            settings[CodecSetting(name, _check_quality(codec, item, quality))] = None
    if not settings:
        raise ConfigError(f"codecs (='{text}') names no codec; give a list such as jpeg:50,opq-32-8-8")
    return list(settings)


def find_images(paths: Iterable[str | Path], max_images: int | None = None) -> list[Path]:
    """The image files among ``paths``, at most ``max_images``: files as given, of folders their images sorted by name.

    Raises ConfigError if a path does not exist, a folder has no image, or max_images is below 1.
    """
    if max_images is not None and max_images < 1:
        raise ConfigError(f"max_images (={max_images}) must be at least 1")
    paths = list(paths)
    if not paths:
        raise ConfigError("there is no image in an empty list of paths")
    return list(dict.fromkeys(list_images(map(Path, paths), recursive=False)))[:max_images]


def worst_exit_code(records: Iterable[Record]) -> int:
    """The highest exit code among ``records``, 0 if nothing failed."""
    return max((record.exit_code for record in records), default=0)


def _load(name: str) -> Codec:
    from difflate.codecs import loading

    return loading.load(name)


def _settings(codecs: str | Sequence[str] | Sequence[CodecSetting], load: Callable[[str], Codec]) -> list[CodecSetting]:
    if isinstance(codecs, str):
        return parse_codecs(codecs, load)
    # through text, so that settings made in Python are checked as those of the command line are
    return parse_codecs(",".join(map(str, codecs)), load)


def _qualities(item: str, text: str) -> list[float | None]:
    """The numbers that ``50`` or ``10..90..20`` stands for."""
    try:
        numbers = [float(part) for part in text.split("..")]
    except ValueError:
        numbers = []
    if len(numbers) == 1 and math.isfinite(numbers[0]):
        return [numbers[0]]
    if len(numbers) == 3 and all(map(math.isfinite, numbers)):
        low, high, step = numbers
        if low <= high and step > 0 and (high - low) / step < MAX_SETTINGS_PER_RANGE:
            count = math.floor((high - low) / step + _RANGE_TOLERANCE) + 1
            return [round(low + i * step, 9) for i in range(count)]
    raise ConfigError(f"codec setting '{item}' needs a number or low..high..step after the colon")


def _check_quality(codec: Codec, item: str, quality: float | None) -> float | None:
    if codec.quality_range is None:
        if quality is None:
            return None
        raise ConfigError(f"codec setting '{item}' has a quality but {codec.name} has one only; write {codec.name}")
    low, high, default = codec.quality_range
    if quality is None:
        return float(default)
    if not low <= quality <= high:
        raise ConfigError(f"codec setting '{item}' has quality {quality:g}, {codec.name} takes {low:g} to {high:g}")
    return quality


def _read(path: Path) -> Picture | Exception:
    try:
        return Picture(open_image(path).pixels)
    except Exception as error:
        return error


def _measure(record: Record, codec: Codec, picture: Picture, lpips: "Lpips | None", limits: Limits) -> Record:
    start_s = time.perf_counter()
    data = codec.encode(picture, quality=record.quality, limits=limits)
    encoded_s = time.perf_counter()
    restored = codec.decode(data, limits=limits)
    decoded_s = time.perf_counter()
    return replace(
        record,
        width=picture.width,
        height=picture.height,
        bytes=len(data),
        bpp=metrics.bits_per_pixel(len(data), picture.width, picture.height),
        psnr=metrics.psnr(picture, restored),
        ssim=metrics.ssim(picture, restored),
        ms_ssim=metrics.ms_ssim(picture, restored),
        ssimulacra2=metrics.ssimulacra2(picture, restored),
        lpips=_lpips(picture, restored, lpips),
        lpips_net=lpips.net if lpips else None,
        encode_s=encoded_s - start_s,
        decode_s=decoded_s - encoded_s,
    )


def _lpips(picture: Picture, restored: Picture, network: "Lpips | None") -> float | None:
    if network is None:
        return None
    from difflate.metrics import perceptual

    return perceptual.lpips(picture, restored, network)
