"""What is left of the .dfl file of a clip that was cut or damaged: the groups before the first that is not whole."""

from dataclasses import replace

from difflate.errors import DifflateError, FormatError, NotDflError
from difflate.format.container import read_sealed
from difflate.format.stream import ClipFile, sealed_parts
from difflate.format.varints import varint
from difflate.limits import DEFAULT_LIMITS, Limits


def salvage_clip_file(data: bytes, limits: Limits = DEFAULT_LIMITS) -> ClipFile:
    """The clip in ``data`` with the groups before the first one that is damaged or missing.

    Where things are is told by STREAM alone, which has a checksum of its own; no byte behind it is trusted. Raises
    FormatError if STREAM or what stands before it is damaged, if no group is left, for files of images; LimitExceeded.
    """
    try:
        file, start = read_sealed(data, limits)
        header, stream = sealed_parts(file, limits)
    except NotDflError:
        raise
    except FormatError as error:
        raise FormatError(f"nothing can be salvaged: {error}") from error
    notes, audio = [], None
    if stream.audio is not None:
        start += 1 + len(varint(stream.audio.size_bytes))
        audio = data[start : start + stream.audio.size_bytes]
        start += stream.audio.size_bytes
        if not stream.audio.matches(audio):
            audio = None
            notes.append("the sound is damaged and left out")
    start += 1 + len(varint(sum(part.size_bytes for part in stream.groups)))
    groups, view = [], memoryview(data)
    for part in stream.groups:
        group = view[start : start + part.size_bytes]
        if not part.matches(group):
            break
        groups.append(group)
        start += part.size_bytes
    if not groups:
        raise FormatError("nothing can be salvaged: the first frames are damaged or missing; get an intact copy of it")
    clip, total = ClipFile(header, stream, groups, None, audio), len(stream.times)
    if clip.frames < total:
        notes.insert(0, f"salvaged {clip.frames} of {total} frames; what follows is damaged or missing")
    return replace(clip, notes=tuple(notes))


def salvageable(data: bytes, limits: Limits = DEFAULT_LIMITS) -> str | None:
    """How many frames of how many `salvage_clip_file` would give, as "12 of 30"; None: none."""
    try:
        clip = salvage_clip_file(data, limits)
    except DifflateError:
        return None
    return f"{clip.frames} of {len(clip.stream.times)}"
