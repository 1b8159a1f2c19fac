"""What comes out of video files against the ffmpeg program of imageio-ffmpeg, an independent build."""

import dataclasses
import itertools
import subprocess
from fractions import Fraction

import numpy as np
import pytest

from difflate.errors import ImageError
from difflate.media.video import open_clip, write_clip
from difflate.media.video_colour import Unpacker, coding_of
from video_helpers import made

av = pytest.importorskip("av")
imageio_ffmpeg = pytest.importorskip("imageio_ffmpeg")
EXACT = "flags=bicubic+accurate_rnd+full_chroma_int+full_chroma_inp"
WEIGHTS = {"bt601": (0.299, 0.114), "bt709": (0.2126, 0.0722), "bt2020": (0.2627, 0.0593)}
NUMBERS = {"bt601": 6, "bt709": 1, "bt2020": 9, None: 2}


def ffmpeg(*arguments):
    command = [imageio_ffmpeg.get_ffmpeg_exe(), "-v", "error", "-y", *map(str, arguments)]
    return subprocess.run(command, check=True, capture_output=True).stdout


def rgb_of_ffmpeg(path, width, height, scale=EXACT):
    raw = ffmpeg(
        "-i", path, "-vf", f"scale={scale}", "-fps_mode", "passthrough", "-f", "rawvideo", "-pix_fmt", "rgb24", "-"
    )
    return np.frombuffer(raw, np.uint8).reshape(-1, height, width, 3).transpose(0, 3, 1, 2)


def stored(path, format, planes, matrix=None, full=None, codec="ffv1"):
    """A file of one frame with these ``planes``, each (H, W)."""
    height, width = planes[0].shape
    frame = av.VideoFrame(width, height, format)
    for plane, samples in zip(frame.planes, planes, strict=True):
        rows = np.zeros((plane.height, plane.line_size), np.uint8)
        data = np.ascontiguousarray(samples).view(np.uint8)
        rows[:, : data.shape[1]] = data
        plane.update(rows.tobytes())
    with av.open(str(path), "w") as file:
        stream = file.add_stream(codec, rate=25)
        stream.width, stream.height, stream.pix_fmt = width, height, format
        context = stream.codec_context
        for thing in (frame, context):
            thing.colorspace = NUMBERS[matrix]
            thing.color_range = {None: 0, False: 1, True: 2}[full]
        frame.pts, frame.time_base = 0, Fraction(1, 25)
        file.mux(stream.encode(frame))
        file.mux(stream.encode(None))
    return path


def random_planes(width, height, chroma, bits=8, seed=0):
    """In gamut for every matrix."""
    rng, unit = np.random.default_rng(seed), 1 << (bits - 8)
    dtype = np.uint8 if bits == 8 else np.dtype("<u2")
    luma = rng.integers(70 * unit, 170 * unit, (height, width)).astype(dtype)
    size = {"444": (height, width), "422": (height, -(-width // 2)), "420": (-(-height // 2), -(-width // 2))}[chroma]
    return [luma] + [rng.integers(112 * unit, 144 * unit, size).astype(dtype) for _ in range(2)]


def ideal(planes, matrix, full, bits=8):
    """(3, H, W) float: RGB from 0 to 255 by the definition, ITU-T H.273."""
    red, blue = WEIGHTS[matrix]
    unit = 1 << (bits - 8)
    luma, cb, cr = (plane.astype(float) for plane in planes)
    if full:
        luma, cb, cr = (
            luma / (256 * unit - 1),
            (cb - 128 * unit) / (256 * unit - 1),
            (cr - 128 * unit) / (256 * unit - 1),
        )
    else:
        luma, cb, cr = (luma / unit - 16) / 219, (cb / unit - 128) / 224, (cr / unit - 128) / 224
    r, b = luma + 2 * (1 - red) * cr, luma + 2 * (1 - blue) * cb
    return np.stack([r, (luma - red * r - blue * b) / (1 - red - blue), b]).clip(0, 1) * 255


@pytest.mark.parametrize(
    ("matrix", "full", "chroma"), list(itertools.product(["bt601", "bt709", "bt2020"], [False, True], ["444", "420"]))
)
def test_tagged_colours_are_those_of_ffmpeg(matrix, full, chroma, tmp_path):
    planes = random_planes(15, 9, chroma)
    path = stored(tmp_path / "clip.mkv", f"yuv{chroma}p", planes, matrix, full)
    clip = open_clip(path)
    (frame,) = clip.frames
    np.testing.assert_array_equal(frame.pixels, rgb_of_ffmpeg(path, 15, 9)[0])
    if chroma == "444":
        assert np.abs(frame.pixels - ideal(planes, matrix, full)).max() < 0.52


@pytest.mark.parametrize(("width", "height"), [(15, 9), (1280, 720)])
def test_colours_without_tags_are_those_of_ffmpeg(width, height, tmp_path):
    path = stored(tmp_path / "clip.mkv", "yuv420p", random_planes(width, height, "420"))
    (frame,) = open_clip(path).frames
    np.testing.assert_array_equal(frame.pixels, rgb_of_ffmpeg(path, width, height)[0])


@pytest.mark.parametrize(
    ("matrix", "full", "bits"), list(itertools.product(["bt601", "bt709", "bt2020"], [False, True], [10, 12, 16]))
)
def test_more_than_8_bits_are_rounded(matrix, full, bits, tmp_path):
    planes = random_planes(32, 16, "444", bits)
    clip = open_clip(stored(tmp_path / "clip.mkv", f"yuv444p{bits}le", planes, matrix, full))
    (frame,) = clip.frames
    error = frame.pixels - ideal(planes, matrix, full, bits)
    assert np.abs(error).max() < 0.65
    assert abs(error.mean()) < 0.03
    assert "more than 8 bits" in clip.notes[0]


@pytest.mark.parametrize("bits", [8, 10, 16])
@pytest.mark.parametrize("full", [None, True, False])
def test_grey_stays_grey(bits, full, tmp_path):
    ramp = np.linspace(0, (1 << bits) - 1, 40 * 7).round().astype(np.uint8 if bits == 8 else "<u2").reshape(7, 40)
    format = "gray" if bits == 8 else f"gray{bits}le"
    clip = open_clip(stored(tmp_path / "clip.mkv", format, [ramp], full=full))
    (frame,) = clip.frames
    level = ramp / (1 << (bits - 8))
    wanted = (level - 16) / 219 if full is False else ramp / ((1 << bits) - 1)
    assert clip.channels == 1
    assert np.abs(frame.pixels[0] - wanted.clip(0, 1) * 255).max() <= 0.5 + 1e-9


@pytest.mark.parametrize("format", ["yuv444p", "yuv422p", "yuv420p", "gray"])
@pytest.mark.parametrize("full", [False, True])
def test_y4m_of_ffmpeg_is_read_as_ffmpeg_reads_it(format, full, tmp_path):
    path, source = tmp_path / "clip.y4m", ["-f", "lavfi", "-i", "testsrc2=size=32x18:rate=30000/1001:duration=0.1"]
    scale = f"scale=31:17:out_range={'full' if full else 'limited'}:out_color_matrix=bt601"
    ffmpeg(*source, "-vf", scale, "-pix_fmt", format, "-strict", "-1", path)
    clip = open_clip(path)
    frames = np.stack([frame.pixels for frame in clip.frames])
    assert clip.rate == Fraction(30000, 1001)
    if format == "gray":
        raw = np.frombuffer(ffmpeg("-i", path, "-f", "rawvideo", "-pix_fmt", "gray", "-"), np.uint8)
        np.testing.assert_array_equal(frames.ravel(), raw)
    else:
        np.testing.assert_array_equal(frames, rgb_of_ffmpeg(path, 31, 17))


@pytest.mark.parametrize("suffix", ["mp4", "webm", "y4m", "mkv"])
def test_ffmpeg_reads_what_is_written_as_it_is_read_here(suffix, tmp_path):
    path = tmp_path / f"clip.{suffix}"
    write_clip(made(height=16, width=24, smooth=True), path)
    pixels = np.stack([frame.pixels for frame in open_clip(path).frames])
    np.testing.assert_array_equal(pixels, rgb_of_ffmpeg(path, 24, 16))


@pytest.mark.parametrize(
    "turn", [["-display_rotation", n] for n in (90, 180, 270)] + [["-display_hflip"], ["-display_vflip"]]
)
def test_frames_are_turned_as_ffmpeg_turns_them(turn, tmp_path):
    clip = made(1, height=6, width=10, times=[0, 1])
    grey = [frame._replace(pixels=np.repeat(frame.pixels, 3, axis=0)) for frame in clip.frames]
    write_clip(dataclasses.replace(clip, channels=3, frames=grey), tmp_path / "lying.mp4", crf=0)
    ffmpeg(*turn, "-i", tmp_path / "lying.mp4", "-c", "copy", tmp_path / "clip.mp4")
    clip = open_clip(tmp_path / "clip.mp4")
    assert (clip.width, clip.height) == ((6, 10) if turn[-1] in (90, 270) else (10, 6))
    wanted = rgb_of_ffmpeg(tmp_path / "clip.mp4", clip.width, clip.height)
    np.testing.assert_array_equal(np.stack([frame.pixels for frame in clip.frames]), wanted)


def test_white_of_5_bits_is_white():
    frame = av.VideoFrame(2, 1, "rgb555le")
    row = np.zeros(frame.planes[0].line_size, np.uint8)
    row[:4] = np.array([0x7FFF, 0], "<u2").view(np.uint8)
    frame.planes[0].update(row.tobytes())
    assert Unpacker(coding_of(frame, "clip"))(frame).tolist() == [[[255, 0]]] * 3


def test_transparency_is_refused(tmp_path):
    planes = random_planes(8, 8, "444")
    path = stored(tmp_path / "clip.mkv", "yuva444p", [*planes, planes[0]])
    with pytest.raises(ImageError, match="has transparency"):
        open_clip(path)


@pytest.mark.parametrize(
    ("filters", "encoder", "note"),
    [
        ("setsar=4/3", ["libx264"], "not square (4:3)"),
        ("setfield=tff", ["libx264", "-flags", "+ilme+ildct"], "interlaced"),
        ("format=yuv420p10le,setparams=color_trc=smpte2084:color_primaries=bt2020", ["ffv1"], "HDR (PQ)"),
        ("format=yuv420p10le,setparams=color_trc=arib-std-b67:color_primaries=bt2020", ["ffv1"], "wide gamut"),
    ],
)
def test_what_a_clip_cannot_hold_is_said(filters, encoder, note, tmp_path):
    source = ["-f", "lavfi", "-i", "testsrc2=size=32x32:rate=25:duration=0.1"]
    ffmpeg(*source, "-vf", filters, "-c:v", *encoder, tmp_path / "clip.mkv")
    notes = open_clip(tmp_path / "clip.mkv").notes
    assert any(note in line for line in notes)
