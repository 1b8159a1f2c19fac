import io
import subprocess
import sys
from fractions import Fraction

import numpy as np
import pytest

from difflate.errors import ConfigError, ImageError, LimitExceeded, OutputExists
from difflate.limits import Limits
from difflate.media.clip import Clip, Frame
from difflate.media.video import is_clip, open_clip, write_clip
from video_helpers import NTSC, assert_same, made

av = pytest.importorskip("av")
CLIPS = {
    "odd": made(),
    "one pixel": made(height=1, width=1),
    "one frame": made(times=[0]),
    "grey": made(channels=1),
    "grey pixel": made(channels=1, height=1, width=1, times=[0]),
    "wide": made(height=2, width=301),
    "variable": made(times=[3, 4, 9, 10, 200]),
    "fine": made(times=[1001 * n for n in (0, 1, 2, 7, 8)], time_base=Fraction(1, 30000)),
    "late": made(times=[7, 8, 9], rate=25),
    "many": made(height=2, width=2, times=range(31), rate=Fraction(24000, 1001)),
}


@pytest.mark.parametrize("name", CLIPS)
def test_mkv_gives_the_same_pixels_and_times_back(name, tmp_path):
    clip = CLIPS[name]
    assert write_clip(clip, tmp_path / "clip.mkv") == []
    back = open_clip(tmp_path / "clip.mkv")
    assert (back.rate, back.time_base) == (clip.rate, clip.time_base)
    assert_same(clip, back)
    assert_same(clip, back)  # once more
    assert list(back.notes) == []


@pytest.mark.parametrize("name", ["odd", "one pixel", "grey", "one frame"])
def test_a_folder_of_images_gives_the_same_pixels_back(name, tmp_path):
    clip = CLIPS[name]
    write_clip(clip, f"{tmp_path}/frames/")
    assert sorted(path.name for path in tmp_path.joinpath("frames").iterdir())[0] == "000001.png"
    assert_same(clip, open_clip(tmp_path / "frames", fps=clip.rate))


@pytest.mark.parametrize("suffix", ["mp4", "webm", "y4m"])
@pytest.mark.parametrize("name", CLIPS)
def test_no_format_changes_size_or_number_of_frames(name, suffix, tmp_path):
    clip = CLIPS[name]
    notes = write_clip(clip, tmp_path / f"clip.{suffix}")
    back = open_clip(tmp_path / f"clip.{suffix}")
    frames = tuple(back.frames)
    assert len(frames) == len(clip.frames)
    assert (back.width, back.height) == (clip.width, clip.height)
    if suffix != "y4m":
        assert [f.time * back.time_base for f in frames] == [f.time * clip.time_base for f in clip.frames]
    else:
        assert [f.time for f in frames] == list(range(len(frames)))
        assert back.channels == clip.channels
        assert any("constant rate" in note for note in notes) == (name in ("variable", "late", "fine"))


@pytest.mark.parametrize(("suffix", "least_db"), [("mp4", 40), ("webm", 38), ("y4m", 50)])
def test_colours_survive_the_lossy_formats(suffix, least_db, tmp_path):
    clip = made(height=48, width=64, smooth=True)
    write_clip(clip, tmp_path / f"clip.{suffix}")
    back = open_clip(tmp_path / f"clip.{suffix}")
    for a, b in zip(clip.frames, back.frames, strict=True):
        mse = np.mean((a.pixels.astype(float) - b.pixels) ** 2)
        assert 10 * np.log10(255**2 / mse) > least_db


def test_times_that_milliseconds_cannot_hold_are_said(tmp_path):
    clip = made(height=12, width=12, times=[0, 91, 4444], time_base=Fraction(1, 90000), rate=25)
    (note,) = write_clip(clip, tmp_path / "clip.mkv")
    assert "milliseconds" in note
    assert write_clip(clip, tmp_path / "clip.mp4") == []
    assert_times(clip, open_clip(tmp_path / "clip.mp4"))


def assert_times(clip, other):
    assert [f.time * clip.time_base for f in clip.frames] == [f.time * other.time_base for f in other.frames]


def test_times_below_zero_are_moved(tmp_path):
    for suffix in ("mp4", "mkv"):
        (note,) = write_clip(made(height=8, width=8, times=[-3, -1, 2]), tmp_path / f"clip.{suffix}")
        assert "below zero" in note
        assert_times(made(times=[0, 2, 5]), open_clip(tmp_path / f"clip.{suffix}"))


def test_frames_closer_than_a_millisecond_are_refused_where_they_cannot_be(tmp_path):
    clip = made(times=[0, 1, 2], time_base=Fraction(1, 9000), rate=9000)
    with pytest.raises(ConfigError, match=r"frame 1 is less than a millisecond"):
        write_clip(clip, tmp_path / "clip.mkv")
    assert list(tmp_path.iterdir()) == []


def test_y4m_goes_through_streams():
    clip = made()
    file = io.BytesIO()
    write_clip(clip, file)
    assert file.getvalue().startswith(b"YUV4MPEG2 W13 H11 F30000:1001")
    file.seek(0)
    back = open_clip(file)
    assert len(tuple(back.frames)) == 5
    with pytest.raises(ConfigError, match="once only"):
        tuple(back.frames)


def test_a_stream_that_is_closed_raises_what_it_raised():
    class Closed:
        def write(self, data):
            raise BrokenPipeError(32, "Broken pipe")

    with pytest.raises(BrokenPipeError):
        write_clip(made(), Closed())


@pytest.mark.parametrize("suffix", ["mp4", "mkv", "webm"])
def test_the_same_clip_gives_the_same_file(suffix, tmp_path):
    for name in ("a", "b"):
        write_clip(made(), tmp_path / f"{name}.{suffix}")
    assert (tmp_path / f"a.{suffix}").read_bytes() == (tmp_path / f"b.{suffix}").read_bytes()


def test_grey_y4m_is_exact():
    clip, file = CLIPS["grey"], io.BytesIO()
    write_clip(clip, file, format="y4m")
    assert_same(clip, open_clip(io.BytesIO(file.getvalue())))


def test_mkv_goes_through_streams():
    clip, file = CLIPS["variable"], io.BytesIO()
    write_clip(clip, file, format="mkv")
    assert_same(clip, open_clip(io.BytesIO(file.getvalue())))


def test_a_failure_leaves_nothing(tmp_path):
    def frames():
        yield Frame(np.zeros((3, 8, 8), np.uint8), 0)
        raise ImageError("frame 1 is damaged")

    for target in ("clip.mp4", "clip.mkv", "frames/"):
        with pytest.raises(ImageError):
            write_clip(Clip(8, 8, 3, Fraction(25), Fraction(1, 25), frames()), f"{tmp_path}/{target}")
    assert list(tmp_path.iterdir()) == []


def test_outputs_are_not_overwritten_without_force(tmp_path):
    for target in (tmp_path / "clip.mkv", tmp_path / "frames"):
        write_clip(CLIPS["one pixel"], target, format=None if target.suffix else "folder", force=False)
        with pytest.raises(OutputExists):
            write_clip(CLIPS["one frame"], target, format=None if target.suffix else "folder", force=False)
        write_clip(CLIPS["one frame"], target, format=None if target.suffix else "folder")
        assert_same(CLIPS["one frame"], open_clip(target, fps=NTSC))
    (tmp_path / "frames" / "diary.txt").write_text("dear")
    with pytest.raises(OutputExists, match="other files"):
        write_clip(CLIPS["one frame"], tmp_path / "frames")


@pytest.mark.parametrize(
    ("target", "settings", "message"),
    [
        ("clip.mkv", {"crf": 3}, r"crf \(=3\) has no meaning in .mkv"),
        ("clip.mp4", {"crf": 52}, r"crf \(=52\) must be from 0 to 51"),
        ("clip.gif", {}, "a clip is written as"),
        ("clip.mkv", {"format": "gif"}, "choose from mp4"),
    ],
)
def test_settings_that_make_no_sense_are_one_sentence(target, settings, message, tmp_path):
    with pytest.raises(ConfigError, match=message):
        write_clip(CLIPS["odd"], tmp_path / target, **settings)


def test_mp4_needs_a_file():
    with pytest.raises(ConfigError, match="cannot be written to a stream"):
        write_clip(CLIPS["odd"], io.BytesIO(), format="mp4")


def test_clips_are_told_from_pictures_by_name(tmp_path):
    assert is_clip("a.MP4")
    assert is_clip(tmp_path / "a.y4m")
    assert not is_clip(tmp_path)
    assert not is_clip("a.png")
    assert not is_clip("-")


def test_limits_hold_before_and_while_frames_are_read(tmp_path):
    write_clip(made(times=range(9)), tmp_path / "clip.mp4")
    write_clip(made(times=range(9)), tmp_path / "clip.mkv")
    with pytest.raises(LimitExceeded, match="9 frames"):
        open_clip(tmp_path / "clip.mp4", limits=Limits(frames=8))
    clip = open_clip(tmp_path / "clip.mkv", limits=Limits(frames=8))  # its header has no number of frames
    with pytest.raises(LimitExceeded, match="9 frames"):
        tuple(clip.frames)
    with pytest.raises(LimitExceeded, match="13x11"):
        open_clip(tmp_path / "clip.mkv", limits=Limits(side_px=12))


def test_importing_and_naming_needs_no_av():
    code = "import sys, difflate.media.video as v; v.is_clip('a.mp4'); print({'av', 'torch'} & set(sys.modules))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip() == "set()"
