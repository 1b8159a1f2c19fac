"""The restorer of JPEG, WebP and AVIF: what it is told, what it leaves alone, the command and the evaluation."""

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import difflate
from cli_helpers import Run, files
from coder_helpers import photo
from difflate.codecs.loading import load
from difflate.errors import ConfigError, ModelError
from difflate.evaluate.options import load_with_options
from difflate.evaluate.run import evaluate
from difflate.media.files import open_pil
from difflate.media.jpeg import quantization_tables
from difflate.media.metadata import turn_back, turn_upright
from difflate.media.picture import Picture
from difflate.models.restorer import NETWORK, PROCESS, Restorer, load_restorer
from difflate.nn import UNetConfig
from difflate.nn.unet import parameters
from difflate.store import hub

TINY = UNetConfig(widths=(8, 12), blocks=(1, 1), patch=2)


def restorer_of(*, trained: bool = True, network: UNetConfig = TINY) -> Restorer:
    """A restorer that changes each pixel by some levels; ``trained`` false: as training starts."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        made = Restorer(network, PROCESS)
        for name, parameter in made.named_parameters():
            if trained and name.endswith("weight"):
                torch.nn.init.normal_(parameter, std=0.2 if "exit" in name else 0.3 / parameter[0].numel() ** 0.5)
    return made.eval()


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A restorer's folder."""
    path = tmp_path_factory.mktemp("restorer") / "tiny"
    restorer_of().save_pretrained(path, dtype=torch.float16)
    return path


def image_of(height: int = 45, width: int = 67, top: int = 100) -> Image.Image:
    return Image.fromarray(photo(height, width, top).transpose(1, 2, 0))


def file_of(image: Image.Image, kind: str = "JPEG", **settings: Any) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **settings)
    return file.getvalue()


def tables_of(data: bytes) -> torch.Tensor:
    return torch.from_numpy(quantization_tables(open_pil(data)))


def pixels_of(data: bytes) -> torch.Tensor:
    return torch.from_numpy(difflate.open_image(data).pixels)


# What is told


def test_tables_are_those_of_the_file() -> None:
    ours = [list(range(1, 65)), list(range(65, 129))]
    np.testing.assert_array_equal(tables_of(file_of(image_of(), qtables=ours)), np.array(ours, np.float32))
    np.testing.assert_array_equal(
        tables_of(file_of(image_of(), qtables=ours, progressive=True)), np.array(ours, np.float32)
    )
    grey = tables_of(file_of(image_of().convert("L"), quality=50))
    assert grey[0, :3].tolist() == [16, 11, 10]  # ISO/IEC 10918-1, table K.1
    assert not grey[1].any()
    assert not tables_of(file_of(image_of(), "WEBP")).any()


def test_pixels_are_turned_back_as_they_were_stored() -> None:
    stored = np.arange(2 * 3 * 4).reshape(2, 3, 4)
    for turn in range(1, 9):
        np.testing.assert_array_equal(turn_back(turn_upright(stored, turn), turn), stored)


def test_the_network_knows_which_tables_are_unknown() -> None:
    tables = torch.stack([torch.full((2, 64), 8.0), torch.ones(2, 64), torch.zeros(2, 64)])
    told = restorer_of().degraded(torch.zeros(3, 3, 16, 16), tables)
    assert told.vector.shape == (3, 128)
    assert (told.vector[0] > told.vector[1]).all()
    assert (told.vector[1] > 0).all()
    assert not told.vector[2].any()
    assert told.std[1] < told.std[0]


def test_a_folder_holds_all_of_it(model: Path) -> None:
    pixels, tables = torch.from_numpy(photo(40, 50, 100).copy()), torch.full((2, 64), 20.0)
    ours, theirs = (each.restore(pixels, tables).int() for each in (restorer_of(), load_restorer(model)))
    assert (ours - theirs).abs().max() <= 1  # saved in half precision
    assert (ours - theirs).abs().float().mean() < 0.01


# Images


@pytest.mark.parametrize("network", [TINY, NETWORK])
def test_before_training_nothing_is_changed(network: UNetConfig) -> None:
    pixels = pixels_of(file_of(image_of()))
    restored = restorer_of(trained=False, network=network).restore(pixels, torch.full((2, 64), 9.0))
    assert torch.equal(restored, pixels)


@pytest.mark.parametrize("size", [(1, 1), (7, 300), (205, 203)])
@pytest.mark.parametrize("steps", [1, 2])
def test_tiles_are_the_whole_image(size: tuple[int, int], steps: int) -> None:
    restorer, pixels = restorer_of(), torch.from_numpy(photo(*size, 100).copy())
    tables = torch.full((2, 64), 20.0)
    whole, tiled = (restorer.restore(pixels, tables, steps=steps, tile_px=px) for px in (4096, 16))
    assert (whole.int() - pixels.int()).abs().float().mean() > (0.5 if min(size) > 1 else 0)
    # what a second step sees of the first reaches further, and is little
    assert (whole.int() - tiled.int()).abs().float().mean() < (0.01 if steps == 1 else 0.2)


def test_steps_follow_from_the_seed() -> None:
    restorer, pixels, tables = restorer_of(), torch.from_numpy(photo(40, 50, 100).copy()), torch.full((2, 64), 20.0)

    def made(steps: int, seed: int) -> torch.Tensor:
        return restorer.restore(pixels, tables, steps=steps, seed=seed)

    assert torch.equal(made(1, 0), made(1, 1))
    assert torch.equal(made(3, 1), made(3, 1))
    assert not torch.equal(made(3, 0), made(3, 1))
    for steps in (0, 1001):
        with pytest.raises(ConfigError, match="steps"):
            made(steps, 0)


def test_a_finer_table_changes_less() -> None:
    restorer, pixels = restorer_of(), torch.from_numpy(photo(40, 50, 100).copy())
    changes = [
        (restorer.restore(pixels, torch.full((2, 64), step)).int() - pixels.int()).abs().float().mean()
        for step in (1.0, 8.0, 64.0)
    ]
    assert changes == sorted(changes)


# Files


@pytest.mark.parametrize("kind", ["JPEG", "WEBP", "AVIF"])
def test_a_codec_restores_what_it_decodes(kind: str, model: Path) -> None:
    data = file_of(image_of(), kind, quality=40)
    plain, restored = np.asarray(difflate.decode(data)), np.asarray(difflate.decode(data, restorer=model))
    expected = load_restorer(model).restore(torch.from_numpy(plain.transpose(2, 0, 1).copy()), tables_of(data))
    np.testing.assert_array_equal(restored, expected.numpy().transpose(1, 2, 0))
    assert not np.array_equal(plain, restored)


def test_turned_files_are_restored_as_they_are_stored(model: Path) -> None:
    image, exif = image_of(), Image.Exif()
    exif[0x0112] = 6
    plain, turned = file_of(image, quality=30), file_of(image, quality=30, exif=exif)
    upright, stored = (difflate.decode(data, restorer=model) for data in (turned, plain))
    assert upright.size == (45, 67)
    np.testing.assert_array_equal(np.asarray(upright), np.asarray(stored.rotate(-90, expand=True)))
    assert upright.getexif().get(0x0112) == 1


def test_grey_and_alpha_stay(model: Path) -> None:
    grey = difflate.decode(file_of(image_of().convert("L"), quality=20), restorer=model)
    assert grey.mode == "L"
    image = image_of().convert("RGBA")
    image.putalpha(Image.fromarray(photo(45, 67, 200)[0]))
    for kind in ("WEBP", "AVIF"):
        data = file_of(image, kind, quality=40)
        plain, restored = difflate.decode(data), difflate.decode(data, restorer=model)
        np.testing.assert_array_equal(np.asarray(plain)[..., 3], np.asarray(restored)[..., 3])
        assert not np.array_equal(np.asarray(plain), np.asarray(restored))


def test_cmyk_and_progressive_files(model: Path) -> None:
    for data in (file_of(image_of().convert("CMYK"), quality=30), file_of(image_of(), quality=30, progressive=True)):
        assert difflate.decode(data, restorer=model).size == (67, 45)


# The command, evaluations, folders


def test_the_command_restores(run: Run, folder: Path, model: Path) -> None:
    (folder / "in" / "deep").mkdir(parents=True)
    for name, kind in (("a.jpg", "JPEG"), ("deep/b.webp", "WEBP"), ("c.avif", "AVIF")):
        (folder / "in" / name).write_bytes(file_of(image_of(), kind, quality=30))
    code, out, err = run("restore", "in", "-o", "out", "--model", model)
    assert (code, err, out.count(b"\n")) == (0, "", 3)
    assert files(folder / "out") == ["a.png", "c.png", "deep/b.png"]
    expected = np.asarray(difflate.decode(folder / "in" / "a.jpg", restorer=model))
    with Image.open(folder / "out" / "a.png") as image:
        np.testing.assert_array_equal(np.asarray(image), expected)
    assert run("restore", "in/a.jpg", "-o", "out", "--model", model)[0] == 6
    assert run("restore", "in/a.jpg", "-o", "a.webp", "--model", model, "--steps", "2", "--seed", "7")[0] == 0


@pytest.mark.parametrize(
    ("name", "code", "message"),
    [
        ("photo.png", 2, "a PNG file without loss: nothing was lost that could be restored"),
        ("lossless.webp", 2, "a WebP file without loss"),
        ("lossless.jpg", 2, "a JPEG file without loss"),
        ("text.jpg", 3, "neither a JPEG nor a WebP nor an AVIF file"),
        ("empty.jpg", 3, "neither a JPEG"),
        ("cut.jpg", 3, "get a complete copy"),
        ("photo.dfl", 2, "difflate decompress"),
        ("photo.tif", 2, "it is a TIFF file; only JPEG, WebP and AVIF"),
        ("missing.jpg", 2, "no such file"),
    ],
)
def test_what_is_not_restored(
    name: str, code: int, message: str, run: Run, folder: Path, model: Path, dfl: bytes
) -> None:
    image_of().save("lossless.webp", lossless=True)
    # its frame is that of the lossless kind
    Path("lossless.jpg").write_bytes(file_of(image_of()).replace(b"\xff\xc0", b"\xff\xc3", 1))
    image_of().save("photo.tif")
    Path("text.jpg").write_text("Dear Sir")
    Path("empty.jpg").touch()
    Path("cut.jpg").write_bytes(file_of(image_of())[:600])
    Path("photo.dfl").write_bytes(dfl)
    found, out, err = run("restore", name, "-o", "out.png", "--model", model)
    assert (found, out, err.count("\n")) == (code, b"", 1)
    assert message in err
    assert name in err


def test_options_that_cannot_be(run: Run, folder: Path, model: Path) -> None:
    Path("photo.jpg").write_bytes(file_of(image_of()))
    for words, code, message in (
        (("--steps", "0"), 2, "--steps (=0) must be from 1 to 1000"),
        (("--seed", "-1"), 2, "--seed (=-1)"),
        (("--tile", "8", "--model", model), 2, "tile (=8 px) must be at least 16"),
        (("--model", "nonsense"), 2, "'nonsense' is unknown"),
        (("--model", "refiner-opq-32-8-8"), 4, "must be restorer"),
        (("--format", "dfl", "--model", model), 2, "--format (=dfl) is no image format"),
    ):
        found, _, err = run("restore", "photo.jpg", "-o", "out.png", *words)
        assert (found, err.count("\n")) == (code, 1), err
        assert message in err


def test_the_bundled_one_is_found(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_models(role: str | None = None) -> dict[str, dict]:
        return {}

    monkeypatch.setattr(hub, "bundled_models", no_models)
    with pytest.raises(ModelError, match="no restorer is bundled; train one with"):
        load_restorer()
    monkeypatch.setattr(hub, "bundled_models", lambda role=None: {"tiny": {"kind": "restorer"}})
    monkeypatch.setattr(hub, "bundled_folder", lambda name: model.parent / name)
    assert load_restorer() is load_restorer()
    with pytest.raises(ModelError, match="is a restorer, not a codec; use it with: difflate restore"):
        load(model)


def test_evaluations_restore(model: Path, tmp_path: Path) -> None:
    image_of(96, 96).save(tmp_path / "photo.png")
    names = ["jpeg", f"jpeg+restorer={model}", f"webp+restorer={model}+steps=2"]
    records = evaluate([tmp_path / "photo.png"], ",".join(f"{name}:20" for name in names))
    assert [record.error for record in records] == [None] * 3
    assert records[0].bytes == records[1].bytes
    assert records[0].values["psnr"] != records[1].values["psnr"]
    for name, message in (
        ("jpeg+steps=2", "`steps` has a meaning only where a file of this kind is restored"),
        ("png+restore=1", "`restore` has no meaning for png"),
        ("jpeg+restore=1+steps=0", "must be from 1"),
    ):
        with pytest.raises(ConfigError, match=message):
            load_with_options(name, load)


def test_the_shipped_network_is_small() -> None:
    assert parameters(Restorer(NETWORK, PROCESS)) < 2e6
    codec = load("jpeg")
    with pytest.raises(ConfigError, match="`refine` has no meaning for jpeg"):
        codec.decode(codec.encode(Picture(photo(16, 16))), refine=True)
