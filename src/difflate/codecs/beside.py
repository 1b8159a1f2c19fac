"""What stands in a .dfl file beside the pixels' symbols, whatever codec wrote them: alpha and metadata."""

from torch import Tensor

from difflate.format import container
from difflate.format.alpha import decode_alpha, encode_alpha
from difflate.format.container import DflFile
from difflate.media.picture import Picture
from difflate.nn.colour import to_uint8


def sections_beside(picture: Picture) -> list[tuple[int, bytes]]:
    """(type, data) of the sections that hold alpha and metadata, as far as ``picture`` has them."""
    found = [] if picture.alpha is None else [(container.SECTION_ALPHA, encode_alpha(picture.alpha))]
    metadata = (
        (container.SECTION_EXIF, picture.exif),
        (container.SECTION_ICC, picture.icc),
        (container.SECTION_XMP, picture.xmp),
    )
    return found + [(kind, data) for kind, data in metadata if data is not None]


def picture_of(file: DflFile, rgb: Tensor) -> Picture:
    """The picture of a file whose ``rgb: (3, H, W)`` uint8 on the CPU is restored, with its alpha and metadata.

    Raises FormatError for a damaged alpha section.
    """
    if file.grey:
        rgb = to_uint8(rgb.float().mean(dim=0, keepdim=True))
    alpha = file.section(container.SECTION_ALPHA)
    return Picture(
        pixels=rgb.numpy(),
        alpha=None if alpha is None else decode_alpha(alpha, file.height, file.width),
        exif=file.section(container.SECTION_EXIF),
        icc=file.section(container.SECTION_ICC),
        xmp=file.section(container.SECTION_XMP),
    )
