"""Crops of photographs, among them pictures that are no photographs, and some without colour."""

import torch

from difflate.data import made
from difflate.data.crops import Crops, Sample, Samples
from difflate.errors import ConfigError
from difflate.seeds import Stream, numpy_generator


class Mixed(Samples):
    """``photographs``, of which a share of ``made`` is replaced by made pictures, and a share of ``grey`` is grey.

    Which ones follows from the seed and their number. A picture without colour has the mean of its three channels in
    all of them. Raises ConfigError for a share that is not from 0 to 1.
    """

    def __init__(self, photographs: Crops, *, made: float, grey: float):
        check_share(made, "made")
        check_share(grey, "grey")
        self.photographs, self.made, self.grey = photographs, made, grey

    def __len__(self) -> int:
        return len(self.photographs)

    def identity(self) -> str:
        """That of the photographs, and the shares."""
        return f"{self.photographs.identity()}, {self.made:g} made, {self.grey:g} grey"

    def read(self, number: int) -> Sample:
        """Sample ``number``. Raises ImageError if it is a photograph and no photograph can be read."""
        seed, size = self.photographs.seed, self.photographs.size
        is_made, is_grey = drawn_shares(seed, number, self.made, self.grey)
        if is_made:
            sample = Sample(torch.from_numpy(made.picture(seed, number, size, size)), number)
        else:
            sample = self.photographs.read(number)
        return sample._replace(pixels=without_colour(sample.pixels)) if is_grey else sample


def drawn_shares(seed: int, number: int, made: float, grey: float) -> tuple[bool, bool]:
    """Whether sample ``number`` is made, and whether it is grey, of so many that are."""
    is_made, is_grey = numpy_generator(seed, Stream.MADE_SHARE, number).random(2) < (made, grey)
    return bool(is_made), bool(is_grey)


def without_colour(pixels: torch.Tensor) -> torch.Tensor:
    """(3, …) uint8: the mean of the channels of ``pixels``, of the same shape and type, in all of them."""
    mean = pixels.to(torch.int16).sum(0, keepdim=True).add(1).div(3, rounding_mode="floor")
    return mean.to(torch.uint8).expand_as(pixels).contiguous()


def check_share(share: float, key: str) -> None:
    """Raises ConfigError for a share that is not from 0 to 1."""
    if not 0 <= share <= 1:
        raise ConfigError(f"{key} (={share}) must be from 0 to 1")
