"""Bounds on what a file may ask for, checked from its header alone (`None` switches one off)."""

from dataclasses import dataclass

from difflate.errors import LimitExceeded

TEXT_BYTES = 4096
"""Of a text that goes with an image, as UTF-8."""
INPUT_BYTES = 2**30
"""Of an input that is read into memory: twice the largest image that is within the limits, not compressed at all."""
_ADVICE = "; if you trust it, raise the limit from Python with limits="


@dataclass(frozen=True)
class Limits:
    """What a decoder (and an encoder) accepts. Exceeding one raises `LimitExceeded` before memory is allocated."""

    pixels: int | None = 2**26
    """Width times height, in pixels."""
    side_px: int | None = 65535
    """Width or height, in pixels."""
    sections: int | None = 64
    """Sections in a .dfl file."""
    metadata_bytes: int | None = 2**20
    """EXIF, ICC and XMP together, in bytes."""
    steps: int | None = 1000
    """Steps of diffusion."""
    pixel_steps: int | None = 2**32
    """Steps of diffusion times pixels: about an hour on two cores."""
    frames: int | None = 36000
    """Frames of a clip: ten minutes at 60 a second."""
    pixel_frames: int | None = 2**37
    """Frames times pixels: as many frames of 2560x1440 px."""

    def check_steps(self, width: int, height: int, steps: int) -> None:
        """Raises LimitExceeded if an image of ``width`` x ``height`` px is to be decoded in too many ``steps``."""
        too_many = self.steps is not None and steps > self.steps
        if too_many or (self.pixel_steps is not None and width * height * steps > self.pixel_steps):
            raise LimitExceeded(
                f"{steps} steps of diffusion for {width}x{height} px are above the limit; ask for fewer steps{_ADVICE}"
            )

    def check_size(self, width: int, height: int, what: str = "image") -> None:
        """Raises LimitExceeded if an image of ``width`` x ``height`` px is larger than allowed."""
        if self.side_px is not None and max(width, height) > self.side_px:
            raise LimitExceeded(f"{what} is {width}x{height} px, a side above the limit of {self.side_px} px{_ADVICE}")
        if self.pixels is not None and width * height > self.pixels:
            raise LimitExceeded(f"{what} is {width}x{height} px, above the limit of {self.pixels} pixels{_ADVICE}")

    def check_frames(self, frames: int, width: int, height: int) -> None:
        """Raises LimitExceeded if a clip of ``frames`` frames of ``width`` x ``height`` px is larger than allowed."""
        self.check_size(width, height, what="frame")
        too_many = self.frames is not None and frames > self.frames
        if too_many or (self.pixel_frames is not None and frames * width * height > self.pixel_frames):
            raise LimitExceeded(f"{frames} frames of {width}x{height} px are above the limit{_ADVICE}")

    def check_metadata(self, size_bytes: int) -> None:
        """Raises LimitExceeded if EXIF, ICC and XMP together are larger than allowed."""
        if self.metadata_bytes is not None and size_bytes > self.metadata_bytes:
            raise LimitExceeded(
                f"metadata of {size_bytes} bytes is above the limit of {self.metadata_bytes} bytes{_ADVICE}"
            )


DEFAULT_LIMITS = Limits()
