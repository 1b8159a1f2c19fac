"""Pictures that a transform fails at are coded as WebP: which they are, how they come back, what a forged file does."""

import dataclasses
import io
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

import difflate
from cli_helpers import Run
from coder_helpers import photo, psnr, tiny_codec
from difflate.cli.info import describe
from difflate.codecs.fallback import Fallback, windows
from difflate.errors import DifflateError, FormatError
from difflate.format import container, sections
from difflate.format.container import DflFile, read_dfl, symbols_crc, write_dfl
from difflate.format.webp import decode_webp, encode_webp, fallback_notes, is_lossless, webp_size
from difflate.limits import Limits
from difflate.media.picture import Picture
from image_helpers import noise, saved
from test_fuzz import mutate, with_valid_checksum

BAYER = np.array([[0, 8, 2, 10], [12, 4, 14, 6], [3, 11, 1, 9], [15, 7, 13, 5]])


def checkerboard(height: int, width: int) -> np.ndarray:
    """(1, height, width) uint8, squares of one pixel."""
    return (np.indices((1, height, width)).sum(0) % 2 * 255).astype(np.uint8)


def dither(height: int, width: int) -> np.ndarray:
    """(1, height, width) uint8 of 0 and 255, a photograph by ordered dithering."""
    grey = photo(height, width).mean(0)
    return ((grey / 16 > np.resize(BAYER, (4, width))[np.arange(height) % 4] + 0.5)[None] * 255).astype(np.uint8)


def static(height: int, width: int) -> np.ndarray:
    """(1, height, width) uint8, Gaussian noise: nothing to be had without loss."""
    return np.random.default_rng(0).normal(128, 40, (1, height, width)).clip(0, 255).astype(np.uint8)


def section_of(data: bytes) -> bytes | None:
    return read_dfl(data).section(sections.WEBP)


def file_of(webp: bytes, width: int = 20, height: int = 12, **changes: object) -> bytes:
    """A file with right checksums, of the bundled model, that holds ``webp``."""
    codec = difflate.load("hyperprior-small")
    file = DflFile(2, codec.model_id, width, height, False, symbols_crc(webp), ((sections.WEBP, webp),))  # type: ignore[attr-defined]
    return write_dfl(dataclasses.replace(file, **changes))  # type: ignore[arg-type]


@pytest.mark.parametrize("name", ["hyperprior-small", "cdc-small"])
@pytest.mark.parametrize("quality", [20, 75, 100])
def test_what_is_drawn_comes_back_without_loss(name: str, quality: float) -> None:
    codec = difflate.load(name)
    both = np.repeat(dither(64, 64), 3, 0) * np.array([1, 0, 1], np.uint8)[:, None, None]
    for pixels in (checkerboard(67, 81), dither(96, 131), both):
        data = codec.encode(Picture(pixels), quality=quality)
        webp = section_of(data)
        assert webp is not None
        assert is_lossless(webp)
        np.testing.assert_array_equal(codec.decode(data).pixels, pixels)
        # sections that say how to restore by diffusion are left out
        assert [number for number, _ in read_dfl(data).sections] == [sections.WEBP]


def test_noise_is_lossy_and_far_nearer_than_by_the_transform() -> None:
    codec, picture = difflate.load("hyperprior-small"), Picture(static(80, 112))
    data = codec.encode(picture, quality=90)
    webp = section_of(data)
    assert webp is not None
    assert not is_lossless(webp)
    alone = codec.encode(picture, quality=90, learned_only=True)
    assert section_of(alone) is None
    restored = codec.decode(data).pixels
    assert restored.shape == picture.pixels.shape
    assert psnr(restored, picture.pixels) > psnr(codec.decode(alone).pixels, picture.pixels) + 5
    assert psnr(restored, picture.pixels) > 25


@pytest.mark.parametrize("quality", [0, 30, 60, 100])
def test_photographs_are_left_to_the_transform(quality: float) -> None:
    pixels = photo()
    small = np.asarray(Image.fromarray(pixels.transpose(1, 2, 0)).resize((192, 128))).transpose(2, 0, 1)
    for part in (pixels[:, 100:356, 200:456], pixels[:, 300:364, 500:597], pixels[1:2, :100, :300], small):
        data = difflate.load("hyperprior-small").encode(Picture(np.ascontiguousarray(part)), quality=quality)
        assert section_of(data) is None
        assert fallback_notes(data) == ()


def test_one_pixel_alpha_metadata_and_hidden_colours() -> None:
    codec = difflate.load("cdc-small")
    assert codec.decode(codec.encode(Picture(noise(3, 1, 1)))).pixels.shape == (3, 1, 1)
    alpha = (np.indices((40, 50)).sum(0) % 7).astype(np.uint8)
    picture = Picture(np.repeat(checkerboard(40, 50), 3, 0) * np.array([1, 0, 1], np.uint8)[:, None, None], alpha)
    picture = dataclasses.replace(picture, exif=b"II*\0abc", xmp=b"<x/>")
    for exact in (False, True):
        data = codec.encode(picture, exact_alpha=exact)
        assert section_of(data) is not None
        restored = codec.decode(data, steps=3, seed=1)
        np.testing.assert_array_equal(restored.alpha, alpha)
        assert (restored.exif, restored.xmp) == (picture.exif, picture.xmp)
        seen = alpha > 0
        np.testing.assert_array_equal(restored.pixels[:, seen], picture.pixels[:, seen])
        assert np.array_equal(restored.pixels, picture.pixels) == exact


def test_latents_never_fall_back() -> None:
    import torch

    codec = difflate.load("hyperprior-small")
    images = torch.from_numpy(np.repeat(checkerboard(32, 48), 3, 0))[None]
    assert codec.to_latent(images).shape == (1, 256, 2, 3)  # type: ignore[attr-defined]


def test_a_size_that_is_asked_for_goes_first() -> None:
    codec = difflate.load("hyperprior-small")
    picture = Picture(noise(3, 48, 64) // 128 * np.uint8(255))  # 3 bits a pixel, and less by the transform
    lossless = len(codec.encode(picture, quality=75))
    for allowed, exact in ((10 * lossless, True), (lossless, True), (lossless * 3 // 4, False)):
        data = difflate.encode(picture, codec, max_bytes=allowed)
        assert len(data) <= allowed
        assert np.array_equal(codec.decode(data).pixels, picture.pixels) == exact


def test_an_untrained_transform_falls_back_at_every_rate() -> None:
    codec = tiny_codec()
    codec.fallback = Fallback(codec.space)
    for quality in (0, 50, 100):
        data = codec.encode(Picture(checkerboard(50, 70)), quality=quality)
        np.testing.assert_array_equal(codec.decode(data).pixels, checkerboard(50, 70))


@given(st.integers(1, 4096), st.integers(1, 4096))
def test_windows_lie_inside_apart_and_cover_half_or_a_megapixel(rows: int, columns: int) -> None:
    found = windows(rows, columns)
    cells = {(r.start, r.stop, c.start, c.stop) for r, c in found}
    assert len(cells) == len(found) <= 16
    assert all(0 <= top < bottom <= rows and 0 <= left < right <= columns for top, bottom, left, right in cells)
    area = sum((bottom - top) * (right - left) for top, bottom, left, right in cells)
    assert len(found) == 16 or area >= rows * columns / 3
    assert area <= 16 * 24**2
    if min(rows, columns) > 100:
        for side, places in ((rows, [r.start for r, _ in found]), (columns, [c.start for _, c in found])):
            assert 4 <= sum(2 * place < side for place in places) <= 12


# -- the section -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [(1, 1), (1, 37), (17, 2), (64, 65)])
@pytest.mark.parametrize("quality", [None, 0, 60, 100])
def test_webp_has_the_size_it_says(size: tuple[int, int], quality: int | None) -> None:
    pixels = noise(3, *size)
    for fast in (False, True):
        data = encode_webp(pixels, quality, fast)
        assert webp_size(data) == size
        assert decode_webp(data, *size).shape == pixels.shape
        assert is_lossless(data) == (quality is None)
        if quality is None:
            np.testing.assert_array_equal(decode_webp(data, *size), pixels)


def others() -> dict[str, bytes]:
    """WebP files, and others, that no encoder writes for a picture of 20x12 px."""
    image = Image.fromarray(noise(12, 20, 3))
    good = saved(image, "WebP", lossless=True)
    return {
        "larger": encode_webp(noise(3, 13, 20)),
        "huge": good[:21] + (16383 | 16383 << 14).to_bytes(4, "little") + good[25:],
        "animated": saved(image, "WebP", save_all=True, append_images=[Image.new("RGB", (20, 12))]),
        "alpha": saved(Image.fromarray(noise(12, 20, 4)), "WebP", lossless=True),
        "lossy alpha": saved(Image.fromarray(noise(12, 20, 4)), "WebP"),
        "metadata": saved(image, "WebP", exif=b"Exif\0\0II*\0\x08\0\0\0\0\0"),
        "PNG": saved(image, "PNG"),
        "followed": good + b"\0\0",
        "cut": good[:-40],
        "empty": b"",
        "header": good[:20],
        "nothing inside": good[:4] + (12).to_bytes(4, "little") + good[8:16] + bytes(4),
        "of no use": b"RIFF" + (len(good) - 8).to_bytes(4, "little") + good[8:25] + bytes(len(good) - 25),
    }


@pytest.mark.parametrize("kind", list(others()))
def test_another_picture_is_refused(kind: str) -> None:
    data = file_of(others()[kind])
    with pytest.raises(FormatError):
        difflate.decode(data)
    with pytest.raises(FormatError):
        difflate.load("hyperprior-small").read_latent(read_dfl(data))  # type: ignore[attr-defined]


def test_sizes_are_compared_before_anything_is_decoded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("difflate.format.webp.open_pil", lambda *arguments: pytest.fail("opened"))
    for kind in ("larger", "huge", "animated", "alpha", "lossy alpha", "metadata", "PNG", "followed", "cut"):
        with pytest.raises(FormatError):
            decode_webp(others()[kind], 12, 20)


def test_a_file_has_its_picture_once_and_for_readers_that_know_the_section() -> None:
    codec, webp = difflate.load("hyperprior-small"), encode_webp(noise(3, 12, 20))
    latent = read_dfl(codec.encode(Picture(photo(12, 20)), learned_only=True)).sections[0]
    with pytest.raises(FormatError, match="twice"):
        difflate.decode(file_of(webp, sections=((sections.WEBP, webp), latent)))
    with pytest.raises(FormatError):
        difflate.decode(file_of(webp, symbols_crc=symbols_crc(webp) ^ 1))
    assert not sections.WEBP & sections.OPTIONAL


def test_a_reader_of_before_refuses_it(monkeypatch: pytest.MonkeyPatch) -> None:
    names = {number: name for number, name in sections.NAMES.items() if number != sections.WEBP}
    monkeypatch.setattr(sections, "NAMES", names)
    with pytest.raises(FormatError, match="newer difflate"):
        read_dfl(file_of(encode_webp(noise(3, 12, 20))))


def test_mutated_files_give_the_same_or_an_error() -> None:
    rng = np.random.default_rng(0)
    files = [file_of(encode_webp(noise(3, 12, 20), quality)) for quality in (None, 50)]
    for i in range(300):
        data = mutate(files[i % 2], rng)
        if i % 3:
            data = with_valid_checksum(data)
        try:
            restored = difflate.decode(data, limits=Limits(pixels=2**14))
        except DifflateError:
            continue
        assert restored.size == (read_dfl(data).width, read_dfl(data).height)
    for file in files:
        for end in range(0, len(file), 7):
            with pytest.raises(FormatError):
                difflate.decode(file[:end])


# -- what users see ----------------------------------------------------------------------------------------------------


def test_commands_say_so(run: Run, folder: Path) -> None:
    Image.fromarray(checkerboard(32, 40)[0]).save("board.png")
    said = "difflate: board.png: coded as lossless WebP, as the codec restores it far worse\n"
    assert run("compress", "board.png", "--codec", "hyperprior-small")[::2] == (0, said)
    assert "coded_as WebP, lossless" in run("info", "board.dfl")[1].decode()
    assert run("verify", "board.dfl")[0] == 0
    assert run("decompress", "board.dfl", "-o", "back.png")[0] == 0
    with Image.open("back.png") as back:
        assert back.mode == "L"
        np.testing.assert_array_equal(np.asarray(back), checkerboard(32, 40)[0])
    assert run("compress", "board.png", "--learned-only", "-f")[2] == ""
    row = describe(Path("board.dfl").read_bytes())
    assert (row["settings"].get("quality"), row["sections"][0]["type"]) == (50.0, "latent")


def test_pillow_opens_it(tmp_path: Path) -> None:
    import difflate.integrations.pillow  # noqa: F401

    image = Image.fromarray(checkerboard(30, 41)[0]).convert("RGB")
    image.save(tmp_path / "x.dfl", codec="hyperprior-small")
    data = (tmp_path / "x.dfl").read_bytes()
    assert section_of(data) is not None
    for source in (tmp_path / "x.dfl", io.BytesIO(data)):
        with Image.open(source) as opened:
            assert opened.convert("L").tobytes() == image.convert("L").tobytes()


def test_files_of_another_codec_ignore_nothing() -> None:
    webp = encode_webp(noise(3, 12, 20))
    vq = difflate.load("opq-32-8-8")
    data = file_of(webp, codec=1, model_id=vq.model_id)  # type: ignore[attr-defined]
    assert container.read_dfl(data).section(sections.WEBP) == webp
    np.testing.assert_array_equal(vq.decode(data).pixels, decode_webp(webp, 12, 20))
