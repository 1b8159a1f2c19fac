"""What goes wrong on the command line: one line, the code it ends with, and nothing left behind."""

from pathlib import Path

import pytest

from cli_helpers import VQ, Run, crafted, files, picture
from difflate import DEFAULT_CODEC


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        ([], 2, "COMMAND; see difflate --help"),
        (["nonsense"], 2, "invalid choice: 'nonsense'"),
        (["compress"], 2, "INPUT; see difflate compress --help"),
        (["compress", ""], 2, "is empty"),
        (["compress", "photo.png", "-o", ""], 2, "is empty"),
        (["compress", "photo.png", "-q", "high"], 2, "'high'"),
        (["compress", "photo.png", "-"], 2, "must be the only input"),
        (["compress", "photo.png", "old.dfl", "-o", "-"], 2, "takes one input"),
        (["compress", "missing.png"], 2, "missing.png: no such file"),
        (["compress", "empty"], 2, "empty: no images in this folder"),
        (["compress", "text.txt"], 3, "text.txt: this is not an image format"),
        (["compress", "zero.png"], 3, "zero.png: the file is empty"),
        (["compress", "cut.jpg"], 3, "cut.jpg: image file is truncated"),
        (["compress", "photo.png", "--codec", "nonsense"], 2, "codec 'nonsense' is unknown; choose one of jpeg"),
        (["compress", "photo.png", "--codec", "empty"], 4, "empty: is not a model folder"),
        (["compress", "photo.png", "-q", "5", "--codec", VQ], 2, f"quality (=5) has no meaning for {VQ}"),
        (["compress", "photo.png", "-q", "101"], 2, f"quality (=101) must be from 0 to 100 for {DEFAULT_CODEC}"),
        (["compress", "photo.png", "-q", "5", "--bpp", "1"], 2, "--quality and --bpp exclude each other"),
        (["compress", "photo.png", "--bpp", "nan"], 2, "--bpp (=nan) must be a number above 0"),
        (["compress", "photo.png", "--max-bytes", "1"], 2, "at its lowest quality, more than the 1 asked for"),
        (["compress", "photo.png", "--max-bytes", "9", "--codec", VQ], 2, f"{VQ} has one quality only"),
        (["compress", "photo.png", "--tile", "512", "--codec", "jpeg"], 2, "--tile has no meaning for jpeg"),
        (["compress", "photo.png", "--tile", "8"], 2, "tile (=8 px) must be at least 16"),
        (["compress", "photo.png", "-q", "5", "--codec", "png"], 2, "no meaning for png"),
        (["compress", "photo.png", "-q", "nan", "--codec", "jpeg"], 2, "quality (=nan) must be from 1 to 100"),
        (["compress", "photo.png", "-q", "101", "--codec", "jpeg"], 2, "quality (=101) must be from 1 to 100"),
        (["compress", "photo.png", "-q", "1.5", "--codec", "jpeg"], 2, "photo.png: quality (=1.5) must be a whole"),
        (["compress", "photo.png", "--fixed-rate", "--codec", "jpeg"], 2, "--fixed-rate has no meaning for jpeg"),
        (["compress", "photo.png", "-o", "x.jpg"], 2, f"x.jpg: {DEFAULT_CODEC} writes .dfl files"),
        (["compress", "photo.png", "-o", "old.dfl"], 6, "old.dfl: exists already; use --force"),
        (["compress", "photo.png", "--codec", "png"], 2, "photo.png: the output would be the input itself"),
        (["compress", "photo.png", "-o", "text.txt/x.dfl"], 1, "text.txt/x.dfl: cannot be written"),
        (["compress", "photo.png", "-o", "text.txt/"], 1, "text.txt/photo.dfl: cannot be written"),
        (["compress", "photo.png", "-f", "-o", "/dev/null"], 2, "/dev/null: is not a regular file"),
        (["compress", "photo.png", "--codec", "jpeg", "-o", "/proc/none/x"], 1, "/proc/none/x: cannot be written"),
        (["decompress", "old.dfl"], 3, "old.dfl: neither a .dfl file nor a JPEG"),
        (["decompress", "empty"], 2, "empty: no .dfl files in this folder"),
        (["decompress", "zero.png", "-o", "x.png"], 3, "zero.png: the file is empty"),
        (["decompress", "cut.jpg"], 3, "cut.jpg: image file is truncated"),
        (["decompress", "huge.dfl"], 5, "huge.dfl: image is 65535x65535 px, above the limit"),
        (["decompress", "other.dfl"], 4, "other.dfl: written with model 6e6f6e65, which is not bundled"),
        (["decompress", "hollow.dfl"], 3, "hollow.dfl: "),
        (["decompress", "photo.png", "-o", "x.nonsense"], 2, "(=x.nonsense) has a suffix of no image format"),
        (["decompress", "photo.png", "--format", "psd"], 2, "--format (=psd) is no image format"),
        (["decompress", "photo.png", "--codec", "jpeg"], 2, "--codec (=jpeg) must be a model's folder"),
        (["decompress", "alpha.png", "-o", "x.jpg"], 2, "alpha.png: JPEG cannot hold the image's alpha"),
        (["info", "missing.dfl"], 2, "missing.dfl: no such file"),
        (["info", "empty"], 2, "empty: no .dfl files in this folder"),
        (["info", "photo.png"], 3, "photo.png: not a .dfl file"),
        (["info", "zero.png"], 3, "zero.png: the file is empty"),
        (["info", "huge.dfl"], 5, "huge.dfl: image is 65535x65535 px"),
        (["verify", "huge.dfl"], 5, "huge.dfl: image is 65535x65535 px"),
        (["verify", "photo.png"], 3, "photo.png: not a .dfl file"),
        (["verify", "other.dfl"], 4, "other.dfl: written with model"),
        (["verify", "hollow.dfl"], 3, "hollow.dfl: "),
        (["verify", "hollow.dfl", "--codec", "jpeg"], 2, "--codec (=jpeg) must be a model's folder"),
        (["eval", "empty"], 2, "empty: no images in this folder"),
        (["eval", "photo.png", "--codecs", "jpeg:500"], 2, "quality 500"),
        (["eval", "photo.png", "--codecs", "png", "--out", "text.txt"], 2, "text.txt is a file"),
        (["train", "missing.yaml"], 2, "missing.yaml: no such file"),
        (["train", "text.txt"], 2, "text.txt: has no key recipe"),
        (["train", "vq.yaml", "images"], 2, "'images' must be written key=value"),
        (["train", "vq.yaml", "nonsense=1"], 2, "nonsense (=1): the recipe has no key nonsense; it has "),
        (["train", "vq.yaml", "--dry-run", "nonsense=1"], 2, "nonsense (=1): the recipe has no key"),
        (["train", "vq.yaml", "bits=x"], 2, "bits"),
        (["train", "vq.yaml", "images=empty"], 2, "empty: no images in this folder"),
        (["train", "vq.yaml", "images=empty", "out=text.txt/x"], 1, "cannot be written"),
        (["reproduce", "table2"], 2, "table2"),
        (["reproduce", "figure3", "--images", "empty"], 2, "--out FILE.png"),
        (["reproduce", "table1", "--images", "empty"], 2, "empty has no image called baboon"),
    ],
)  # fmt: skip
def test_errors_are_one_line_and_leave_nothing(
    run: Run, folder: Path, words: list[str], code: int, message: str
) -> None:
    if words[:1] in (["eval"], ["train"], ["reproduce"]):
        for package in ("jsonargparse", "ssimulacra2", "matplotlib", "skimage"):
            pytest.importorskip(package)
    (folder / "text.txt").write_text("Dear Sir\n")
    (folder / "vq.yaml").write_text("recipe: vq\nout: model\n")
    (folder / "zero.png").write_bytes(b"")
    (folder / "old.dfl").write_bytes(b"old")
    picture(size=(200, 200)).save("cut.jpg")
    (folder / "cut.jpg").write_bytes((folder / "cut.jpg").read_bytes()[:1200])
    picture("RGBA").save("alpha.png")
    (folder / "huge.dfl").write_bytes(crafted(width=65535, height=65535))
    (folder / "other.dfl").write_bytes(crafted(model_id=b"none"))
    (folder / "hollow.dfl").write_bytes(crafted())
    (folder / "empty").mkdir()
    before = {name: (folder / name).read_bytes() for name in files(folder)}
    ended, out, err = run(*words)
    assert (ended, out) == (code, b"")
    assert err.startswith("difflate: ")
    assert err.count("\n") == 1
    assert message in err
    assert {name: (folder / name).read_bytes() for name in files(folder)} == before


def test_a_file_cut_at_any_byte(run: Run, folder: Path, dfl: bytes) -> None:
    for length in range(len(dfl)):
        (folder / "x.dfl").write_bytes(dfl[:length])
        for words in (["info"], ["verify"], ["verify", "--quick"], ["decompress"]):
            code, out, err = run(*words, "x.dfl")
            assert (code, out, err.count("\n")) == (3, b"", 1)
            assert err.startswith("difflate: x.dfl: the file ")
    assert files(folder) == ["photo.png", "x.dfl"]


def test_a_file_with_any_bit_flipped(run: Run, folder: Path, dfl: bytes) -> None:
    for bit in range(8 * len(dfl)):
        damaged = bytearray(dfl)
        damaged[bit // 8] ^= 1 << bit % 8
        (folder / "x.dfl").write_bytes(damaged)
        code, out, err = run("decompress", "x.dfl")
        assert (code, out, err.count("\n")) == (3, b"", 1)
        assert err.startswith("difflate: x.dfl: ")
    assert files(folder) == ["photo.png", "x.dfl"]


def test_verbose_shows_where(run: Run, folder: Path) -> None:
    for words in (["--verbose", "info", "photo.png"], ["info", "photo.png", "--verbose"]):
        code, _, err = run(*words)
        assert code == 3
        assert "Traceback" in err
        assert err.splitlines()[-1].startswith("difflate: photo.png: not a .dfl file")
