"""Pillow and imageio open and save .dfl files as they do other formats."""

import dataclasses
import io
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, UnidentifiedImageError

import difflate
import difflate.integrations.pillow
from difflate.errors import ChecksumError, DifflateError
from difflate.format import sections
from difflate.format.container import read_dfl
from difflate.media.picture import from_pil, open_image
from image_helpers import P3_TO_XYZ, rgb_profile

XMP = b'<x:xmpmeta xmlns:x="adobe:ns:meta/"/>'


def photo(mode: str = "RGB", size: tuple[int, int] = (45, 30)) -> Image.Image:
    """Soft colours; alpha falls from left to right."""
    rows, columns = np.mgrid[: size[1], : size[0]]
    samples = np.stack([128 + 90 * np.sin(rows / 9 + c + columns / (7 + c)) for c in range(3)], axis=2)
    image = Image.fromarray(samples.astype(np.uint8))
    if mode in ("LA", "RGBA"):
        image.putalpha(Image.fromarray((255 - 4 * columns).astype(np.uint8)))
    return image.convert(mode)


def saved(image: Image.Image, **options: object) -> bytes:
    file = io.BytesIO()
    image.save(file, "DFL", **options)
    return file.getvalue()


def exif(orientation: int = 1) -> Image.Exif:
    made = Image.Exif()
    made[0x010F], made[0x0112] = "maker", orientation
    return made


@pytest.fixture
def path(tmp_path: Path) -> Path:
    photo().save(tmp_path / "photo.dfl")
    return tmp_path / "photo.dfl"


@pytest.mark.parametrize("mode", ["L", "LA", "RGB", "RGBA", "P", "1"])
def test_what_is_saved_opens_in_its_mode(tmp_path: Path, mode: str) -> None:
    image = photo(mode)
    image.save(tmp_path / "x.dfl")
    with Image.open(tmp_path / "x.dfl") as opened:
        assert (opened.format, opened.size) == ("DFL", image.size)
        mode_before = opened.mode
        opened.load()
        assert opened.mode == mode_before == {"P": "RGB", "1": "L"}.get(mode, mode)
        if mode in ("LA", "RGBA"):
            assert opened.getchannel("A").tobytes() == image.getchannel("A").tobytes()
        expected = difflate.decode((tmp_path / "x.dfl").read_bytes())
        assert opened.tobytes() == expected.tobytes()


def test_opening_decodes_nothing_and_imports_no_torch(path: Path) -> None:
    script = (
        "import sys, difflate.integrations.pillow; from PIL import Image\n"
        "image = Image.open(sys.argv[1])\n"
        "print(image.size, image.mode, image.format, Image.MIME['DFL'], 'torch' in sys.modules)"
    )
    result = subprocess.run([sys.executable, "-c", script, path], capture_output=True, text=True, check=True)
    assert result.stdout == "(45, 30) RGB DFL image/x-dfl False\n"


def test_with_copy_and_use_after_closing(path: Path) -> None:
    with Image.open(path) as opened:
        copied = opened.copy()
    assert copied.tobytes() == difflate.decode(path.read_bytes()).tobytes()
    opened = Image.open(path)
    opened.load()
    opened.close()
    with Image.open(path) as unused:
        assert unused.size == (45, 30)


def test_pixels_are_decoded_once(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []
    decode = difflate.decode
    monkeypatch.setattr(difflate, "decode", lambda data: calls.append(1) or decode(data))
    with Image.open(path) as opened:
        assert not calls
        opened.getpixel((0, 0))
        opened.load()
        opened.resize((10, 10))
        opened.convert("L")
    assert calls == [1]


def test_thumbnails_verify_and_file_objects(path: Path) -> None:
    with path.open("rb") as file, Image.open(file) as opened:
        opened.thumbnail((20, 20))
        assert opened.size == (20, 13)
        assert not file.closed
    with Image.open(io.BytesIO(path.read_bytes())) as opened:
        opened.verify()
    assert Image.open(io.BytesIO(path.read_bytes()), formats=["DFL"]).size == (45, 30)


def test_saving_to_a_file_object_and_by_format(path: Path, tmp_path: Path) -> None:
    assert saved(photo()) == path.read_bytes()
    photo().save(tmp_path / "other.name", "DFL")
    assert (tmp_path / "other.name").read_bytes() == path.read_bytes()


def test_options_of_the_codec() -> None:
    assert read_dfl(saved(photo(), codec="eopq-32-8-8", fixed_rate=True)).section(sections.FIXED) is not None
    assert len(saved(photo(), quality=90)) > len(saved(photo(), quality=10))
    with pytest.raises(OSError, match="`fixed_rate` has no meaning"):
        saved(photo(), fixed_rate=True)
    named = saved(photo(), codec=difflate.DEFAULT_CODEC)
    assert named == saved(photo(), codec=difflate.load()) == saved(photo())
    for codec in ("jpeg", "none"):
        with pytest.raises(OSError, match=codec):
            saved(photo(), codec=codec)


def test_metadata_is_saved_where_it_is_given(tmp_path: Path) -> None:
    profile = rgb_profile(P3_TO_XYZ)
    image = photo()
    image.save(tmp_path / "x.dfl", exif=exif(), icc_profile=profile, xmp=XMP)
    with Image.open(tmp_path / "x.dfl") as opened:
        assert opened.getexif()[0x010F] == "maker"
        assert (opened.info["icc_profile"], opened.info["xmp"]) == (profile, XMP)
        opened.load()
        assert opened.info["icc_profile"] == profile
    # given a profile, the pixels are in it already
    assert read_dfl(saved(image, icc_profile=profile)).sections[0] == read_dfl(saved(image)).sections[0]
    tagged = image.copy()
    tagged.info["icc_profile"] = profile
    converted = read_dfl(saved(tagged))
    assert not {kind for kind, _ in converted.sections} & {sections.EXIF, sections.ICC, sections.XMP}
    assert converted.sections[0] == read_dfl(saved(_in_srgb(tagged))).sections[0]
    only_exif = read_dfl(saved(tagged, exif=exif().tobytes()))
    metadata = {kind for kind, _ in only_exif.sections} & {sections.EXIF, sections.ICC, sections.XMP}
    assert metadata == {sections.EXIF}
    assert only_exif.sections[0] == converted.sections[0]


def _in_srgb(image: Image.Image) -> Image.Image:
    from difflate.media.picture import to_pil

    return to_pil(dataclasses.replace(from_pil(image), exif=None))


def test_a_turned_photograph_is_saved_upright(tmp_path: Path) -> None:
    turned = photo()
    turned.save(tmp_path / "turned.jpg", exif=exif(6), quality=95)
    with Image.open(tmp_path / "turned.jpg") as image:
        image.save(tmp_path / "plain.dfl")
        image.save(tmp_path / "kept.dfl", exif=image.getexif())
    for name, tags in (("plain.dfl", {}), ("kept.dfl", {0x010F: "maker", 0x0112: 1})):
        with Image.open(tmp_path / name) as opened:
            assert opened.size == (30, 45)
            assert dict(opened.getexif()) == tags


def test_damaged_files_are_os_errors(path: Path, tmp_path: Path) -> None:
    data = path.read_bytes()
    for cut in (*range(4, 30), len(data) // 2, len(data) - 1):
        with pytest.raises(OSError, match="too early"):
            Image.open(io.BytesIO(data[:cut]))
    for cut in (0, 1, 3):
        with pytest.raises(UnidentifiedImageError):
            Image.open(io.BytesIO(data[:cut]))
    flipped = bytearray(data)
    flipped[-20] ^= 4
    (tmp_path / "flipped.dfl").write_bytes(flipped)
    with pytest.raises(OSError, match="checksum") as caught:
        Image.open(tmp_path / "flipped.dfl")
    assert isinstance(caught.value.__cause__, ChecksumError)
    (tmp_path / "text.dfl").write_text("Dear Sir")
    with pytest.raises(UnidentifiedImageError):
        Image.open(tmp_path / "text.dfl")


def test_a_file_of_another_model_opens_and_tells_so_when_pixels_are_asked_for(path: Path) -> None:
    from difflate.format.container import write_dfl

    other = write_dfl(dataclasses.replace(read_dfl(path.read_bytes()), model_id=b"none"))
    with Image.open(io.BytesIO(other)) as opened:
        assert opened.size == (45, 30)
        with pytest.raises(OSError, match="not bundled") as caught:
            opened.load()
    assert isinstance(caught.value.__cause__, DifflateError)


def test_what_cannot_be_saved_is_an_os_error_and_leaves_no_file(tmp_path: Path) -> None:
    wrong = Image.fromarray(np.full((8, 8), 300.0, np.float32))
    with pytest.raises(OSError, match="scale them"):
        wrong.save(tmp_path / "x.dfl")
    assert not (tmp_path / "x.dfl").exists()


def test_difflate_itself_still_tells_how_to_read_dfl(path: Path) -> None:
    with pytest.raises(DifflateError, match="difflate decompress"):
        open_image(path)


@pytest.mark.parametrize("options", [{"plugin": "pillow"}, {}])
def test_imageio_reads_and_writes(tmp_path: Path, options: dict[str, str]) -> None:
    iio = pytest.importorskip("imageio.v3")
    pixels = np.asarray(photo())
    iio.imwrite(tmp_path / "x.dfl", pixels, **options)
    assert (tmp_path / "x.dfl").read_bytes() == saved(photo())
    read = iio.imread(tmp_path / "x.dfl", **options)
    assert np.array_equal(read, np.asarray(difflate.decode(saved(photo()))))
