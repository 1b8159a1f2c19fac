"""The sections of .dfl files, one row each: number, name, what it is for. docs/format.md gives their bytes.

Numbers from 0x40 on are optional: a reader that does not know one skips it. A number is never given to anything else.
"""

CONTEXT = 1
FIXED = 2
ALPHA = 3
LATENT = 4
WEBP = 5
STREAM = 6
GROUPS = 7
EXIF = 0x41
ICC = 0x42
XMP = 0x43
DIFFUSION = 0x44
SAMPLING = 0x45
TEXT = 0x46
AUDIO = 0x47

NAMES = {
    CONTEXT: "indices (context)",
    FIXED: "indices (fixed rate)",
    ALPHA: "alpha",
    LATENT: "latent",
    WEBP: "webp",
    STREAM: "stream",
    GROUPS: "groups of frames",
    EXIF: "exif",
    ICC: "icc",
    XMP: "xmp",
    DIFFUSION: "diffusion",
    SAMPLING: "sampling",
    TEXT: "text",
    AUDIO: "audio",
}
METADATA = (EXIF, ICC, XMP)
PIXELS = (CONTEXT, FIXED, LATENT, WEBP)
"""Those that a picture is restored from; the file of one has one of them, that of a clip one in each group."""
OPTIONAL = 0x40
