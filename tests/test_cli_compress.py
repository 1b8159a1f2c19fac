"""`difflate compress` and `decompress`: images become small files and come back."""

import json
from pathlib import Path

import pytest
from PIL import Image

import difflate
from cli_helpers import VQ, Run, files, picture


def test_a_new_users_first_commands(run: Run, folder: Path) -> None:
    code, out, err = run("compress", "photo.png")
    size = (folder / "photo.dfl").stat().st_size
    assert (code, err) == (0, "")
    before = (folder / "photo.png").stat().st_size
    assert out.decode() == f"photo.png -> photo.dfl: 40x24 px, {before} -> {size} bytes, {8 * size / 960:.3f} bpp\n"
    assert run("verify", "photo.dfl")[1].decode() == f"photo.dfl: verified, 40x24 px, {size} bytes\n"
    assert run("verify", "--quick", "photo.dfl")[1].decode() == f"photo.dfl: intact, 40x24 px, {size} bytes\n"
    code, out, err = run("decompress", "photo.dfl", "-o", "restored.png")
    assert (code, out, err) == (0, b"photo.dfl -> restored.png: 40x24 px\n", "")
    expected = difflate.decode((folder / "photo.dfl").read_bytes())
    with Image.open("restored.png") as restored:
        assert restored.tobytes() == expected.tobytes()
    assert files(folder) == ["photo.dfl", "photo.png", "restored.png"]


@pytest.mark.parametrize("mode", ["L", "RGB", "LA", "RGBA", "P", "1"])
@pytest.mark.parametrize("size", [(1, 1), (9, 17)])
def test_kinds_of_images_come_back(run: Run, folder: Path, mode: str, size: tuple[int, int]) -> None:
    picture(mode, size).save("x.png")
    assert run("compress", "x.png")[0] == 0
    assert run("decompress", "x.dfl", "-o", "back.png")[0] == 0
    kind = {"P": "RGB", "1": "L"}.get(mode, mode)
    with Image.open("back.png") as back:
        assert (back.size, back.mode) == (size, kind)


@pytest.mark.parametrize(
    ("codec", "quality", "name"),
    [("jpeg", "50", "photo.jpg"), ("webp", "10", "photo.webp"), ("avif", "20", "photo.avif"), ("png", "", "o.png")],
)
def test_classical_codecs_write_their_own_files(run: Run, folder: Path, codec: str, quality: str, name: str) -> None:
    options = ["-q", quality] if quality else ["-o", name]
    assert run("compress", "photo.png", "--codec", codec, *options)[0] == 0
    assert files(folder) == sorted(["photo.png", name])
    with Image.open(name) as image:
        assert image.format == codec.upper()
    assert run("decompress", name, "-o", "back.bmp")[0] == 0
    with Image.open("back.bmp") as image:
        assert (image.format, image.size) == ("BMP", (40, 24))


def test_fixed_rate_takes_the_codecs_bits(run: Run, folder: Path) -> None:
    assert run("compress", "photo.png", "--fixed-rate", "--codec", VQ)[0] == 0
    _, out, _ = run("info", "photo.dfl", "--json")
    section = json.loads(out)["sections"][0]
    assert section == {"type": "indices (fixed rate)", "bytes": 5 * 3 * 48 // 8}


def test_metadata_is_kept_on_demand(run: Run, folder: Path) -> None:
    exif = Image.Exif()
    exif[0x010F] = "maker"
    picture().save("photo.jpg", exif=exif)
    assert run("compress", "photo.jpg", "--metadata", "-o", "with.dfl")[0] == 0
    assert run("compress", "photo.jpg", "-o", "without.dfl")[0] == 0
    for name, tags in (("with", {0x010F: "maker"}), ("without", {})):
        assert run("decompress", f"{name}.dfl", "--format", "webp")[0] == 0
        with Image.open(f"{name}.webp") as image:
            assert dict(image.getexif()) == tags
