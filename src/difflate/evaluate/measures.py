"""What an evaluation measures: one row each, from which records, means, tables, BD-rates and plots follow.

A new metric is one row here and one function of two pictures, or one class that sees the frames of two clips. Imports
nothing heavy: a row names its function.
"""

import functools
import importlib
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from difflate.errors import ConfigError
from difflate.extras import require

if TYPE_CHECKING:
    from difflate.media.picture import Picture
    from difflate.metrics.clips import Running

    Comparison = Callable[[Picture, Picture], float | None]
    """Original and restored picture, of one shape -> the value; None: the picture is too small for the measure."""

Kind = Literal["images", "clips"]
"""What a run is of."""


@dataclass(frozen=True)
class Measure:
    """One number about what a codec made of an image or a clip."""

    key: str
    """Its name in records, means and results.json, and of the option that asks for it if it is `optional`."""
    title: str
    unit: str
    places: int
    """Decimals in tables."""
    definition: str
    """One line for the report."""
    function: str = ""
    """``module:name`` of the `Comparison`, imported when used; of an `optional` measure of what makes the `Comparison`,
    from the net's name if it has `nets`. Of a measure of clips alone what makes a `difflate.metrics.clips.Running`.
    Empty: the run knows the value itself (rates and times)."""
    requires: str = ""
    """A module of the extra ``eval`` that the function imports, so that it is missed before the first image."""
    optional: bool = False
    """Measured only if asked for: its function needs weights, or takes long."""
    nets: tuple[str, ...] = ()
    """Networks of which one is asked for; values of two do not compare."""
    curve: bool = False
    """Whether it rises (or falls, if lower is better) with the rate: it is drawn against it and has a BD-rate."""
    lower_is_better: bool = False
    in_db: bool = False
    """Whether the BD-rate is of -10 * log10(1 - value), under the key ``…_db``."""
    infinite: bool = False
    """Whether it is infinite for identical pictures, which is null in results.json."""
    of: Kind | None = None
    """What alone has it; None: images, and clips as the mean over their frames."""

    @property
    def bd_key(self) -> str:
        """Its name among the BD-rates of results.json."""
        return f"{self.key}_db" if self.in_db else self.key

    @property
    def net_key(self) -> str:
        """Where records and means name the net."""
        return f"{self.key}_net"

    def quality(self, value: float) -> float:
        """What rises with the rate, for a mean ``value``."""
        if self.in_db:
            return math.inf if value >= 1 else -10 * math.log10(1 - value)
        return -value if self.lower_is_better else value


MEASURES: tuple[Measure, ...] = (
    Measure("bpp", "bpp", "", 3, "8 * bytes / (width * height), and the number of frames of a clip"),
    Measure("kbit_s", "kbit/s", "", 0, "8 * bytes / 1000 for each second that the clip is shown", of="clips"),
    Measure("ratio", "ratio", "", 0, "bytes of all frames as raw 8-bit RGB for each byte of the file", of="clips"),
    Measure(
        "psnr", "PSNR", "dB", 2,
        "dB, peak 255, mean squared error over the R, G and B samples; null without an error: identical",
        "difflate.metrics.distortion:psnr", curve=True, infinite=True,
    ),
    Measure(
        "ssim", "SSIM", "", 4,
        "Gaussian window 11x11, sigma 1.5, mean over R, G and B; null: a side below 11 px",
        "difflate.metrics.distortion:ssim", requires="scipy.ndimage", curve=True, in_db=True,
    ),
    Measure(
        "ms_ssim", "MS-SSIM", "", 4,
        "as ssim, on five scales; null: a side below 176 px",
        "difflate.metrics.distortion:ms_ssim", requires="scipy.ndimage", curve=True, in_db=True,
    ),
    Measure(
        "ssimulacra2", "SSIMULACRA2", "", 2,
        "100: identical, about 90: visually lossless, 70: high, 50: medium; null: a side below 8 px",
        "difflate.metrics.distortion:ssimulacra2", requires="ssimulacra2", curve=True, of="images",
    ),
    Measure(
        "lpips", "LPIPS", "", 4,
        "version 0.1 with the backbone lpips_net in the image's own size, 0: identical, lower is better; "
        "null: not asked for, or a side below 31 px (alex) or 16 px (vgg)",
        "difflate.metrics.perceptual:lpips_with", optional=True, nets=("alex", "vgg"), curve=True, lower_is_better=True,
    ),
    Measure(
        "dists", "DISTS", "", 4,
        "on VGG16, in the image's own size, 0: identical, 1 at most, lower is better; "
        "null: not asked for, or a side below 17 px",
        "difflate.metrics.dists:dists_with", optional=True, curve=True, lower_is_better=True,
    ),
    Measure(
        "flicker", "temporal PSNR", "dB", 2,
        "dB, peak 255, mean squared error of the differences between each frame and the one before, over all of the "
        "clip; null: one frame, or without such an error",
        "difflate.metrics.clips:Flicker", curve=True, infinite=True, of="clips",
    ),
    Measure(
        "vmaf", "VMAF", "", 2,
        "libvmaf's default model, mean over the frames, 100: the best; null: not asked for, or a side below 32 px",
        "difflate.metrics.vmaf:vmaf", optional=True, curve=True, of="clips",
    ),
    Measure(
        "encode_s", "encode", "s", 3,
        "wall seconds for one image, or for a clip, reading its frames included; each codec ran once before the timing",
    ),
    Measure("decode_s", "decode", "s", 3, "as encode_s"),
)  # fmt: skip
"""All measures, in the order of the columns."""


def measures_for(kind: Kind) -> list[Measure]:
    """Those that images have, or clips, in the order of the columns."""
    return [measure for measure in MEASURES if measure.of in (None, kind)]


def comparisons(also: Mapping[str, str | None]) -> "dict[str, Comparison]":
    """Key to function of what is measured on two pictures: all that is not optional, and the measures of ``also``.

    ``also``: keys of optional measures, with the net of those that have one. Raises ConfigError for other keys and
    nets, and for packages or weights that are missing.
    """
    return {measure.key: function for measure, function in _functions("images", also)}


def running(also: Mapping[str, str | None]) -> "dict[str, Callable[[], Running]]":
    """Key to what makes the measure of one clip; otherwise as `comparisons`."""
    from difflate.metrics.clips import FrameMean

    return {
        measure.key: function if measure.of == "clips" else functools.partial(FrameMean, function)
        for measure, function in _functions("clips", also)
    }


def _functions(kind: Kind, also: Mapping[str, str | None]) -> list[tuple[Measure, Any]]:
    options = [measure.key for measure in measures_for(kind) if measure.optional]
    for key in also:
        if key not in options:
            raise ConfigError(f"also (={key}) must be one of {', '.join(options)} for {kind}")
    functions = []
    for measure in measures_for(kind):
        if not measure.function or (measure.optional and measure.key not in also):
            continue
        if measure.requires:
            require(measure.requires, "eval")
        module, _, name = measure.function.partition(":")
        function = getattr(importlib.import_module(module), name)
        if measure.optional:
            net = also[measure.key]
            if net not in (measure.nets or (None,)):
                raise ConfigError(f"{measure.key} (={net}) must be one of {', '.join(measure.nets) or 'None'}")
            function = function(net) if measure.nets else function()
        functions.append((measure, function))
    return functions
