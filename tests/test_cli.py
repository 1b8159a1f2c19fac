"""The command line: what it prints where, which code it ends with, and what it leaves in the file system."""

import io
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import difflate
from difflate import DEFAULT_CODEC, container
from difflate.cli import batch
from difflate.cli.main import build_parser, main
from difflate.hub import WEIGHTS_FOLDER
from difflate.limits import Limits

VQ = "eopq-32-8-8"
"""A codec with one quality, and with what vq codecs alone have."""
Run = Callable[..., tuple[int, bytes, str]]
COMMANDS = (
    "compress", "decompress", "info", "verify", "codecs", "eval", "latents", "train", "sample", "distance", "reproduce"
)  # fmt: skip


@pytest.fixture
def run(capfdbinary: pytest.CaptureFixture[bytes]) -> Run:
    """``run(*words) -> (exit code, stdout, stderr)``, in this process."""

    def call(*words: str | Path) -> tuple[int, bytes, str]:
        try:
            code = main([str(word) for word in words])
        except SystemExit as exit:
            code = exit.code
        out, err = capfdbinary.readouterr()
        assert isinstance(code, int)
        return code, out, err.decode()

    return call


def picture(mode: str = "RGB", size: tuple[int, int] = (40, 24)) -> Image.Image:
    rows, columns = np.mgrid[: size[1], : size[0]]
    samples = np.stack([128 + 100 * np.sin(rows / 9 + c + columns / (7 + c)) for c in range(4)], axis=2)
    image = Image.fromarray(samples.astype(np.uint8))
    return image.convert("RGB").convert("P") if mode == "P" else image.convert(mode)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder, with ``photo.png``."""
    monkeypatch.chdir(tmp_path)
    picture().save("photo.png")
    return tmp_path


@pytest.fixture(scope="session")
def dfl() -> bytes:
    return difflate.encode(picture())


def stdin(monkeypatch: pytest.MonkeyPatch, data: bytes) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(data)))


def files(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def crafted(**changes: object) -> bytes:
    """A .dfl file with right checksums that need not hold what it declares."""
    model_id = bytes.fromhex(json.loads((WEIGHTS_FOLDER / VQ / "config.json").read_text())["fingerprint"])[:4]
    values = dict(
        codec=1, model_id=model_id, width=40, height=24, grey=False, symbols_crc=0, sections=((1, bytes(90)),)
    )
    return container.write_dfl(container.DflFile(**(values | changes)), Limits(pixels=None))  # pyright: ignore[reportArgumentType]


# What works


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


def test_info(run: Run, folder: Path, dfl: bytes) -> None:
    (folder / "x.dfl").write_bytes(dfl)
    code, out, _ = run("info", "x.dfl", "--json")
    found = json.loads(out)
    assert code == 0
    assert (found["file"], found["version"], found["bytes"]) == ("x.dfl", "1.0", len(dfl))
    assert (found["width"], found["height"], found["colour"], found["alpha"]) == (40, 24, "rgb", False)
    assert (found["model"], found["bpp"]) == (DEFAULT_CODEC, 8 * len(dfl) / 960)
    assert found["overhead_bytes"] + sum(s["bytes"] for s in found["sections"]) == len(dfl)
    text = run("info", "x.dfl")[1].decode()
    assert f"{len(dfl)} bytes" in text
    assert f"{DEFAULT_CODEC} ({found['model_id']})" in text


def test_codecs(run: Run) -> None:
    code, out, _ = run("codecs", "--json")
    listed = json.loads(out)
    assert code == 0
    assert listed["default"] == DEFAULT_CODEC
    assert {"jpeg", "webp", "avif", "png", "jxl", DEFAULT_CODEC} <= {codec["name"] for codec in listed["codecs"]}
    assert all(codec["about"] and codec["suffix"] for codec in listed["codecs"])
    text = run("codecs")[1].decode()
    assert f"* {DEFAULT_CODEC}" in text
    assert "-q 1 to 100, default 75" in text


@pytest.mark.parametrize("command", COMMANDS)
def test_help_has_an_example(run: Run, command: str) -> None:
    code, out, _ = run(command, "--help")
    assert code == 0
    assert f"examples:\n  difflate {command}" in out.decode()


def test_help_tells_the_exit_codes(run: Run) -> None:
    code, out, _ = run("--help")
    assert code == 0
    assert "130 interrupted" in out.decode()
    assert all(command in out.decode() for command in COMMANDS)


# Standard input and output


def test_standard_input_to_standard_output(run: Run, folder: Path, monkeypatch: pytest.MonkeyPatch, dfl: bytes) -> None:
    stdin(monkeypatch, (folder / "photo.png").read_bytes())
    assert run("compress", "-") == (0, dfl, "")
    stdin(monkeypatch, dfl)
    code, out, err = run("decompress", "-", "-o", "-", "--format", "webp")
    assert (code, err, out[8:12]) == (0, "", b"WEBP")
    stdin(monkeypatch, dfl)
    assert run("decompress", "-", "-o", "x.png") == (0, b"stdin -> x.png: 40x24 px\n", "")
    stdin(monkeypatch, dfl)
    assert run("decompress", "-", "-o", "new/")[0] == 0
    stdin(monkeypatch, dfl)
    assert run("verify", "-")[1].startswith(b"stdin: verified")
    stdin(monkeypatch, dfl)
    assert json.loads(run("info", "-", "--json")[1])["bytes"] == len(dfl)
    assert files(folder) == ["new/stdin.png", "photo.png", "x.png"]
    stdin(monkeypatch, b"Dear Sir")
    code, out, err = run("decompress", "-")
    assert (code, out) == (3, b"")
    assert err.startswith("difflate: standard input: neither a .dfl")
    assert run("compress", "photo.png", "-o", "-") == (0, dfl, "")


def test_files_are_not_shown_on_a_terminal(run: Run, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    code, out, err = run("compress", "photo.png", "-o", "-", "--codec", "png")
    assert (code, out) == (2, b"")
    assert "terminal" in err


def test_input_without_an_end_is_refused(run: Run, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batch, "MAX_INPUT_BYTES", 3 << 20)
    code, _, err = run("info", "/dev/zero")
    assert code == 5
    assert err.startswith("difflate: /dev/zero: more than 3145728 bytes")


# Batches and the names of outputs


def test_folders_keep_their_shape(run: Run, folder: Path) -> None:
    (folder / "in" / "deep").mkdir(parents=True)
    (folder / "in" / "x.png").mkdir()
    for name in ("a.png", "deep/b c.PNG", "deep/d.jpg"):
        picture().save(folder / "in" / name)
    (folder / "in" / "notes.txt").write_text("no image")
    code, out, err = run("compress", "in", "-o", "small")
    assert (code, err, out.count(b"\n")) == (0, "", 3)
    assert files(folder / "small") == ["a.dfl", "deep/b c.dfl", "deep/d.dfl"]
    assert run("decompress", "small", "-o", "back", "--format", "jpg")[0] == 0
    assert files(folder / "back") == ["a.jpg", "deep/b c.jpg", "deep/d.jpg"]
    assert run("verify", *(folder / "small").rglob("*.dfl"))[0] == 0


def test_a_batch_goes_on_and_ends_with_the_worst_code(run: Run, folder: Path) -> None:
    (folder / "text.txt").write_text("Dear Sir")
    (folder / "empty").mkdir()
    code, out, err = run("compress", "missing.png", "text.txt", "empty", "photo.png", "-o", "out", "--codec", "jpeg")
    assert code == 3
    assert out.startswith(b"photo.png -> out/photo.jpg: ")
    lines = err.splitlines()
    assert [line.split(":")[1] for line in lines] == [" missing.png", " text.txt", " empty"]
    code, out, err = run("verify", "--quick", "photo.png", "missing.dfl")
    assert (code, out, err.count("\n")) == (3, b"", 2)


def test_an_unforeseen_error_does_not_stop_a_batch(run: Run, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    picture().save("b.png")

    opened = difflate.open_image("photo.png")
    outcomes = iter([ZeroDivisionError("division by zero"), opened])

    def sometimes(*_: object, **__: object) -> object:
        if isinstance(outcome := next(outcomes), Exception):
            raise outcome
        return outcome

    monkeypatch.setattr("difflate.pixels.open_image", sometimes)
    code, out, err = run("compress", "photo.png", "b.png", "--codec", "jpeg")
    assert (code, files(folder)) == (1, ["b.jpg", "b.png", "photo.png"])
    assert out.startswith(b"b.png -> b.jpg")
    assert err == "difflate: unexpected ZeroDivisionError: division by zero; run again with --verbose for details\n"


def test_two_inputs_of_one_output(run: Run, folder: Path) -> None:
    picture().save("photo.jpg")
    code, out, err = run("compress", "photo.png", "photo.jpg", "./photo.png", "--codec", "webp", "-f")
    assert (code, out.count(b"\n")) == (2, 1)
    assert err.splitlines() == [
        f"difflate: {name}: photo.webp is already made from photo.png; name another with -o"
        for name in ("photo.jpg", "photo.png")
    ]


@pytest.mark.parametrize("output", ["new/", "old", "old/"])
def test_an_output_folder_for_one_input(run: Run, folder: Path, output: str) -> None:
    (folder / "old").mkdir()
    assert run("compress", "photo.png", "-o", output, "--codec", "jpeg")[0] == 0
    assert files(folder) == sorted(["photo.png", f"{output.rstrip('/')}/photo.jpg"])


def test_links_and_odd_names(run: Run, folder: Path) -> None:
    odd = os.fsdecode(b"odd \xff.png")
    shutil.copy("photo.png", odd)
    (folder / "link.png").symlink_to("photo.png")
    code, out, err = run("compress", odd, "link.png", "--codec", "jpeg")
    assert (code, err) == (0, "")
    assert out.startswith(b"odd \\udcff.png -> odd \\udcff.jpg: ")
    assert {os.fsdecode(b"odd \xff.jpg"), "link.jpg"} <= set(files(folder))
    code, _, err = run("compress", "link.png", "--codec", "png", "-o", "photo.png", "--force")
    assert code == 2
    assert "the output would be the input itself" in err


# What goes wrong


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
        (["compress", "photo.png", "-q", "5", "--bpp", "1"], 2, "--quality stands against --bpp"),
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
        (["info", "empty"], 2, "empty: is a folder"),
        (["info", "photo.png"], 3, "photo.png: not a .dfl file"),
        (["info", "zero.png"], 3, "zero.png: the file is empty"),
        (["info", "huge.dfl"], 5, "huge.dfl: image is 65535x65535 px"),
        (["verify", "huge.dfl"], 5, "huge.dfl: image is 65535x65535 px"),
        (["verify", "photo.png"], 3, "photo.png: not a .dfl file"),
        (["verify", "other.dfl"], 4, "other.dfl: written with model"),
        (["verify", "hollow.dfl"], 3, "hollow.dfl: "),
        (["verify", "hollow.dfl", "--codec", "jpeg"], 2, "--codec (=jpeg) must be a model's folder"),
        (["eval", "empty"], 2, "no image in empty"),
        (["eval", "photo.png", "--codecs", "jpeg:500"], 2, "quality 500"),
        (["eval", "photo.png", "--codecs", "png", "--out", "text.txt"], 2, "text.txt is a file"),
        (["train", "missing.yaml"], 2, "missing.yaml: no such file"),
        (["train", "text.txt"], 2, "text.txt: has no key recipe"),
        (["train", "vq.yaml", "images"], 2, "'images' must be written key=value"),
        (["train", "vq.yaml", "nonsense=1"], 2, "nonsense"),
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


def test_force_overwrites_and_nothing_else_does(run: Run, folder: Path, dfl: bytes) -> None:
    (folder / "photo.dfl").write_bytes(b"old")
    assert run("compress", "photo.png")[0] == 6
    assert (folder / "photo.dfl").read_bytes() == b"old"
    assert run("compress", "photo.png", "-f")[0] == 0
    assert (folder / "photo.dfl").read_bytes() == dfl


# Models


def _flip(model: Path) -> None:
    data = bytearray((model / "model.safetensors").read_bytes())
    data[-100] ^= 1
    (model / "model.safetensors").write_bytes(data)


def _cut(model: Path) -> None:
    (model / "model.safetensors").write_bytes((model / "model.safetensors").read_bytes()[:1000])


def _set(**changes: object) -> Callable[[Path], None]:
    def change(model: Path) -> None:
        config = json.loads((model / "config.json").read_text())
        (model / "config.json").write_text(json.dumps(config | changes))

    return change


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (_flip, "model: the weights are not those that the model was saved with"),
        (_cut, "model/model.safetensors: damaged"),
        (lambda model: (model / "config.json").unlink(), "config.json is missing"),
        (lambda model: (model / "model.safetensors").unlink(), "model.safetensors is missing"),
        (lambda model: (model / "config.json").write_text("[" * 100_000), "config.json: cannot be read"),
        (lambda model: (model / "config.json").write_bytes(b"\xff"), "config.json: cannot be read"),
        (lambda model: (model / "config.json").write_text("[]"), "must be a JSON object"),
        (_set(codec="other"), "codec (=other)"),
        (_set(name=[1]), "name (=[1]) must be a text"),
        (_set(method=None), "method (=None) must be a text"),
        (_set(fingerprint=3), "fingerprint (=3) must be a text"),
        (_set(patch_px="x"), "do not fit together"),
        (_set(patch_px=-8), "the weights are not those"),
        (_set(plane_bits=[float("inf")] * 6), "do not fit together"),
        (_set(plane_bits=8), "do not fit together"),
        (_set(neutral=None), "do not fit together"),
    ],
)
def test_a_damaged_model_is_told(run: Run, folder: Path, change: Callable[[Path], None], message: str) -> None:
    shutil.copytree(WEIGHTS_FOLDER / VQ, folder / "model")
    change(folder / "model")
    code, out, err = run("compress", "photo.png", "--codec", "model")
    assert (code, out, err.count("\n")) == (4, b"", 1)
    assert err.startswith("difflate: model")
    assert message in err


def test_a_models_folder_can_be_named(run: Run, folder: Path, dfl: bytes) -> None:
    shutil.copytree(WEIGHTS_FOLDER / DEFAULT_CODEC, folder / "model")
    assert run("compress", "photo.png", "--codec", "model")[0] == 0
    assert (folder / "photo.dfl").read_bytes() == dfl
    assert run("verify", "photo.dfl", "--codec", "model")[0] == 0
    assert run("decompress", "photo.dfl", "--codec", "model", "-o", "x.png")[0] == 0
    (folder / "other.dfl").write_bytes(crafted(model_id=b"none"))
    code, _, err = run("decompress", "other.dfl", "--codec", "model")
    assert code == 4
    assert "other.dfl: written with model 6e6f6e65, not with" in err


# Measuring and training


def test_eval_writes_a_report(run: Run, folder: Path) -> None:
    for package in ("scipy", "ssimulacra2", "matplotlib"):
        pytest.importorskip(package)
    picture(size=(64, 48)).save("b.png")
    (folder / "bad.png").write_bytes(b"no image")
    words = ["eval", "photo.png", "b.png", "bad.png", "--codecs", f"jpeg:50,{VQ}"]
    code, out, err = run(*words, "--out", "report")
    assert code == 3
    assert err.startswith("difflate: bad.png: this is not an image format")
    assert err.count("\n") == 1
    assert "| jpeg:50 | 2 of 3 |" in out.decode()
    assert files(folder / "report") == ["rate_distortion.png", "results.json", "results.md"]
    report = json.loads((folder / "report" / "results.json").read_text())
    assert len(report["records"]) == 6
    code, out, err = run(*words[:3], *words[4:], "--json")
    assert (code, err) == (0, "")
    assert [row["images"] for row in json.loads(out)["means"]] == [2, 2]
    code, _, err = run(*words, "--out", "report")
    assert (code, err.count("\n")) == (6, 1)


def test_train_dry_run_prints_the_settings(run: Run, folder: Path) -> None:
    pytest.importorskip("jsonargparse")
    (folder / "vq.yaml").write_text("recipe: vq\nout: model\nmethod: pq\n")
    code, out, err = run("train", "vq.yaml", "images=photos", "bits=[16,8,8]", "--dry-run")
    assert (code, err) == (0, "")
    assert "method: pq" in out.decode()
    assert "bits: [16, 8, 8]" in out.decode()
    assert files(folder) == ["photo.png", "vq.yaml"]


# Processes


def process(*words: str | Path, **options: object) -> "subprocess.Popen[bytes]":
    command = [sys.executable, "-m", "difflate", *map(str, words)]
    streams: dict[str, object] = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    # tests that a shell runs in the background ignore Ctrl-C, and so would what they start
    streams["preexec_fn"] = lambda: signal.signal(signal.SIGINT, signal.SIG_DFL)
    return subprocess.Popen(command, **(streams | options))  # pyright: ignore[reportCallIssue, reportArgumentType]


@pytest.mark.parametrize(
    ("words", "banned"),
    [
        (["--help"], ["torch", "numpy", "PIL", "tqdm"]),
        (["compress", "--help"], ["torch", "numpy", "PIL", "tqdm"]),
        (["codecs"], ["torch"]),
        (["info", "x.dfl"], ["torch"]),
        (["verify", "--quick", "x.dfl"], ["torch", "numpy", "PIL"]),
        (["compress", "photo.png", "--codec", "jpeg"], ["torch"]),
    ],
)
def test_what_needs_no_model_imports_no_torch(folder: Path, dfl: bytes, words: list[str], banned: list[str]) -> None:
    (folder / "x.dfl").write_bytes(dfl)
    script = (
        "import sys; from difflate.cli.main import main\n"
        "try: code = main(sys.argv[2:])\n"
        "except SystemExit as exit: code = exit.code\n"
        "assert not code, code\n"
        "loaded = set(sys.argv[1].split()) & set(sys.modules)\n"
        "assert not loaded, loaded"
    )
    subprocess.run([sys.executable, "-c", script, " ".join(banned), *words], check=True, stdout=subprocess.PIPE)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_interrupted(folder: Path, number: int) -> None:
    os.mkfifo("pipe.png")
    with process("compress", "pipe.png", "--codec", "jpeg") as running:
        with open("pipe.png", "wb") as pipe:  # waits until the command opens its input
            pipe.write(b"\x89PNG")
            pipe.flush()
            running.send_signal(number)
        out, err = running.communicate(timeout=120)
    assert (running.returncode, out, err) == (130, b"", b"difflate: interrupted\n")
    assert files(folder) == ["photo.png"]


def test_a_reader_that_goes_away(folder: Path) -> None:
    read, write = os.pipe()
    os.close(read)
    with process("compress", "photo.png", "-o", "-", "--codec", "png", stdout=write) as running:
        os.close(write)
        _, err = running.communicate(timeout=120)
    assert (running.returncode, err) == (1, b"")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_a_full_disk_behind_standard_output() -> None:
    with open("/dev/full", "wb") as full, process("codecs", stdout=full) as running:
        _, err = running.communicate(timeout=120)
    assert running.returncode == 1
    assert err.startswith(b"difflate: standard output: cannot be written (No space")
    assert err.count(b"\n") == 1


def test_closed_standard_output() -> None:
    with process("codecs", preexec_fn=lambda: os.close(1)) as running:
        _, err = running.communicate(timeout=120)
    assert (running.returncode, err) == (0, b"")


def test_the_parser_knows_every_command() -> None:
    parser = build_parser()
    for command in COMMANDS:
        assert parser.parse_args(_least(command)).command == command


def _least(command: str) -> list[str]:
    """The shortest command line that it takes."""
    special = {
        "codecs": [],
        "reproduce": ["table1", "--images", "x"],
        "latents": ["x", "-o", "x/"],
        "sample": ["x", "-o", "x.png"],
        "distance": ["x", "y"],
    }
    return [command, *special.get(command, ["x"])]
