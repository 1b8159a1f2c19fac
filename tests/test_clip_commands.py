"""compress, decompress, info and verify on clips, Python's functions for them, and what Pillow says of one."""

import io
import json
import os
import sys
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import difflate
import difflate.integrations.pillow
from cli_helpers import Run, files
from clip_helpers import NTSC, moving, pixels
from difflate.errors import ConfigError, FormatError
from difflate.media.clip import Clip
from test_cli_streams import process, stdin

pytest.importorskip("av")
CHEAP = ("--codec", "opq-32-8-8")
NAMES = ["clip.mkv", "photo.png"]


@pytest.fixture
def clip(folder: Path) -> Clip:
    """That of ``clip.mkv``, 6 frames."""
    made = moving(6)
    difflate.write_clip(made, "clip.mkv")
    return made


@pytest.fixture
def coded(clip: Clip) -> bytes:
    """The .dfl file of it."""
    return difflate.encode_clip(clip, "opq-32-8-8")


def test_to_a_file_and_back(run: Run, folder: Path, clip: Clip) -> None:
    code, out, err = run("compress", "clip.mkv", *CHEAP)
    size = (folder / "clip.dfl").stat().st_size
    told = f"19x13 px, 6 frames in 0.20 s, {size} bytes, {8 * size / (6 * 19 * 13):.4f} bpp, "
    assert (code, err) == (0, "")
    assert out.decode().startswith(f"clip.mkv -> clip.dfl: {told}")
    assert out.decode().endswith(" kbit/s\n")
    restored = difflate.decode_clip("clip.dfl")
    assert (restored.rate, restored.time_base * NTSC) == (NTSC, 1)
    code, out, err = run("decompress", "clip.dfl", "-o", "new/back.mkv")
    assert (code, err) == (0, "")
    assert out.decode().startswith(f"clip.dfl -> new/back.mkv: {told}")
    back = difflate.open_clip("new/back.mkv")
    np.testing.assert_array_equal(pixels(back), pixels(restored))
    assert [f.time * back.time_base for f in back.frames] == [f.time * clip.time_base for f in clip.frames]
    assert run("verify", "clip.dfl")[1].decode().startswith(f"clip.dfl: verified, {told}")
    assert run("verify", "--quick", "clip.dfl")[1].decode().startswith(f"clip.dfl: intact, {told}")
    code, _, err = run("decompress", "clip.dfl")
    assert (code, "clip.mkv: exists already" in err) == (6, True)  # the name without -o
    assert run("decompress", "clip.dfl", "-f")[0] == 0


def test_info(run: Run, folder: Path, coded: bytes) -> None:
    (folder / "x.dfl").write_bytes(coded)
    told = json.loads(run("info", "x.dfl", "--json")[1])
    assert told | {
        "frames": 6, "rate": "30000/1001", "time_base": "1001/30000", "group_frames": 1, "audio": False,
        "regular_times": True, "bytes": len(coded), "bpp": 8 * len(coded) / (6 * 19 * 13), "model": "opq-32-8-8",
        "settings": {"fixed_rate": False},
    } == told  # fmt: skip
    assert told["kbit_per_s"] == pytest.approx(8 * len(coded) / 0.2002 / 1000)
    assert [section["type"] for section in told["sections"]] == ["stream", "groups of frames"]
    text = run("info", "x.dfl")[1].decode()
    assert "clip      6 frames, 29.97 a second (30000/1001), 0.20 s\n" in text
    assert " bits per pixel, " in text


@pytest.mark.parametrize("suffix", ["mp4", "webm", "y4m"])
def test_formats(run: Run, folder: Path, coded: bytes, suffix: str) -> None:
    (folder / "x.dfl").write_bytes(coded)
    assert run("decompress", "x.dfl", "--format", suffix)[0] == 0
    assert len(tuple(difflate.open_clip(f"x.{suffix}").frames)) == 6


def test_folders_of_frames(run: Run, folder: Path, coded: bytes) -> None:
    (folder / "x.dfl").write_bytes(coded)
    assert run("decompress", "x.dfl", "-o", "frames", "--format", "png")[0] == 0
    assert [path.name for path in sorted((folder / "frames").iterdir())] == [f"{n:06d}.png" for n in range(1, 7)]
    assert run("decompress", "x.dfl", "--format", "png", "-o", "out/")[0] == 0
    assert len(files(folder / "out" / "x")) == 6
    code, _, err = run("decompress", "x.dfl", "--format", "png", "-o", "out/")
    assert (code, "out/x" in err, "force" in err) == (6, True, True)
    assert run("decompress", "x.dfl", "--format", "png", "-o", "out/", "-f")[0] == 0
    code, out, err = run("compress", "frames/", "--clip", "--fps", "24000/1001", *CHEAP)
    assert (code, err) == (0, "")
    assert out.decode().startswith("frames -> frames.dfl: 19x13 px, 6 frames in 0.25 s, ")
    assert difflate.decode_clip("frames.dfl").rate == Fraction(24000, 1001)
    code, out, err = run("compress", "frames/", *CHEAP, "-o", "each/")  # without --clip they are photographs
    assert (code, len(files(folder / "each"))) == (0, 6)


def test_standard_streams(run: Run, folder: Path, clip: Clip, coded: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    stdin(monkeypatch, coded)
    code, out, err = run("decompress", "-")
    assert (code, err, out[:10]) == (0, "", b"YUV4MPEG2 ")
    assert len(tuple(difflate.open_clip(io.BytesIO(out)).frames)) == 6
    stdin(monkeypatch, coded)
    assert run("verify", "-")[1].startswith(b"stdin: verified, 19x13 px, 6 frames")
    stdin(monkeypatch, out)
    code, out, err = run("compress", "-", "--clip", *CHEAP)
    assert (code, err) == (0, "")
    assert len(tuple(difflate.decode_clip(out).frames)) == 6


def test_a_reader_that_goes_away(folder: Path, clip: Clip) -> None:
    read, write = os.pipe()
    os.close(read)
    with process("decompress", "clip.mkv", "-o", "-", stdout=write) as running:
        os.close(write)
        _, err = running.communicate(timeout=120)
    assert (running.returncode, err) == (1, b"")


def test_several_inputs(run: Run, folder: Path, clip: Clip) -> None:
    (folder / "bad.mp4").write_bytes(b"no video")
    code, out, err = run("compress", "bad.mp4", "clip.mkv", "photo.png", *CHEAP, "-o", "small/")
    assert (code, len(out.splitlines())) == (3, 2)
    assert err.startswith("difflate: bad.mp4: ")
    assert files(folder / "small") == ["clip.dfl", "photo.dfl"]
    code, out, err = run("decompress", "small/", "-o", "back/")
    assert (code, err, files(folder / "back")) == (0, "", ["clip.mkv", "photo.png"])


def test_what_is_left_of_a_damaged_clip(run: Run, folder: Path, clip: Clip, coded: bytes) -> None:
    for number, damaged in enumerate((coded[:-40], coded[:-40] + bytes([coded[-40] ^ 1]) + coded[-39:])):
        (folder / "cut.dfl").write_bytes(damaged)
        code, out, err = run("decompress", "cut.dfl", "-o", "left.mkv")
        assert (code, out, err.count("\n")) == (3, b"", 1)
        assert "--salvage restores " in err
        assert not (folder / "left.mkv").exists()
        code, out, err = run("decompress", "cut.dfl", "-o", "left.mkv", "--salvage")
        assert code == 0
        assert err.startswith("difflate: cut.dfl: salvaged ")
        left = pixels(difflate.open_clip("left.mkv"))
        assert 0 < len(left) < 6, number
        np.testing.assert_array_equal(left, pixels(difflate.decode_clip(coded))[: len(left)])
        assert difflate.decode_clip(damaged, salvage=True).notes == (err[len("difflate: cut.dfl: ") : -1],)
        (folder / "left.mkv").unlink()
    (folder / "cut.dfl").write_bytes(coded[:20])
    code, _, err = run("decompress", "cut.dfl", "--salvage")
    assert (code, err.startswith("difflate: cut.dfl: nothing can be salvaged: ")) == (3, True)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("compress", "clip.mkv", "--codec", "jpeg"), "clip.mkv: codec jpeg codes images, not clips; choose one that"),
        (("compress", "clip.mkv", *CHEAP, "--bpp", "1"), "clip.mkv: --bpp, --max-bytes and --metadata are for images"),
        (("compress", "clip.mkv", *CHEAP, "--fps", "24"), "clip.mkv: --fps is for folders of images"),
        (("compress", "clip.mkv", "--fps", "0"), "argument --fps: (=0) must be a number or fraction above 0"),
        (("compress", "photo.png", *CHEAP, "--audio", "copy"), "photo.png: --audio and --fps are for clips"),
        (("compress", "photo.png", *CHEAP, "--clip"), "photo.png: is one image; with --clip name the folder"),
        (("compress", "clip.mkv", *CHEAP, "-o", "x.mp4"), "x.mp4: opq-32-8-8 writes .dfl files"),
        (("decompress", "x.dfl", "-o", "x.png"), "x.dfl: x.png: a clip is written as"),
        (("decompress", "x.dfl", "--format", "jpg"), "x.dfl: --format (=jpg) is for images; choose mkv"),
        (("decompress", "x.dfl", "-o", "-", "--format", "mp4"), "x.dfl: .mp4 cannot be written to a stream"),
        (("decompress", "clip.mkv", "-o", "y.mkv", "--salvage"), "clip.mkv: --salvage is for .dfl files"),
        (("decompress", "clip.mkv", "-o", "y.mkv", "--steps", "3"), "clip.mkv: `steps` has no meaning for video files"),
        (("decompress", "clip.mkv"), "clip.mkv: the output would be the input itself"),
    ],
)
def test_errors_are_one_line_and_leave_nothing(
    run: Run, folder: Path, coded: bytes, words: tuple[str, ...], message: str
) -> None:
    (folder / "x.dfl").write_bytes(coded)
    code, out, err = run(*words)
    assert (code, out, err.count("\n")) == (2, b"", 1)
    assert message in err
    assert files(folder) == sorted([*NAMES, "x.dfl"])


def test_video_files_are_converted_as_images_are(run: Run, folder: Path, clip: Clip) -> None:
    assert run("decompress", "clip.mkv", "-o", "clip.y4m")[0] == 0
    assert len(tuple(difflate.open_clip("clip.y4m").frames)) == 6


def test_progress_is_shown_on_a_terminal(
    run: Run, folder: Path, clip: Clip, coded: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    (folder / "x.dfl").write_bytes(coded)
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    assert "frame" in run("compress", "clip.mkv", *CHEAP)[2]
    assert "/6 [" in run("decompress", "x.dfl")[2]
    assert "group" in run("verify", "x.dfl")[2]


def test_python(folder: Path, clip: Clip, coded: bytes) -> None:
    assert difflate.encode_clip("clip.mkv", "opq-32-8-8")[:10] == coded[:10]
    for source in (coded, io.BytesIO(coded)):
        assert len(tuple(difflate.decode_clip(source, codec="opq-32-8-8").frames)) == 6
    with pytest.raises(FormatError, match=r"holds a clip, not an image; .*difflate.decode_clip"):
        difflate.decode(coded)
    with pytest.raises(FormatError, match="holds an image, not a clip"):
        difflate.decode_clip(difflate.encode("photo.png", "opq-32-8-8"))
    with pytest.raises(ConfigError, match="codec jpeg codes images, not clips"):
        difflate.encode_clip(clip, "jpeg")
    with pytest.raises(OSError, match="holds a clip, not an image"):
        Image.open(io.BytesIO(coded), formats=["DFL"])
