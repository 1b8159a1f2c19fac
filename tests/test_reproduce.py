import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from difflate.codecs import loading
from difflate.errors import ConfigError, OutputExists
from difflate.reproduce.figure3 import add_one, add_one_in_arbitrary_order, figure3, panels
from difflate.reproduce.table1 import PRINTED, format_table, table1
from fake_codecs import Coarse, command, save


@pytest.fixture
def sipi(tmp_path: Path) -> Path:
    for i, name in enumerate(("baboon", "peppers", "lenna")):
        save(tmp_path / "sipi" / f"{name}.png", i)
    return tmp_path / "sipi"


def test_table1(sipi: Path) -> None:
    result = table1(sipi, ["vq-8-8-8", "mine"], load=lambda name: Coarse(name, None))
    assert [(row["encoding"], row["image"]) for row in result["rows"]] == [
        (encoding, image) for encoding in ("vq-8-8-8", "mine") for image in ("baboon", "peppers", "lenna")
    ]
    first, last = result["rows"][0], result["rows"][-1]
    assert (first["psnr_printed"], first["ssim_printed"]) == PRINTED["vq-8-8-8"][0]
    assert last["psnr_printed"] is None
    # errors of 4 bits are at most 8 and do not wrap
    assert first["psnr_wrapped"] == pytest.approx(first["psnr_true"], abs=1e-9)
    lines = format_table(result).splitlines()
    assert len(lines) == 4
    assert lines[2].startswith(f"| vq-8-8-8 | 28.83 | {first['psnr_wrapped']:.2f} | {first['psnr_true']:.2f} | 0.40 |")
    assert lines[3].startswith("| mine | – |")
    with pytest.raises(ConfigError, match="no image called baboon"):
        table1(sipi.parent, ["mine"], load=lambda name: Coarse(name, None))


class Ladder(Coarse):
    """A codec for tests whose latent is the image at an eighth of its size and whose codewords are in order."""

    codebook_sizes = (256, 256, 256)

    def to_latent(self, images: torch.Tensor) -> torch.Tensor:
        return images[:, :, ::8, ::8].long()

    def from_latent(self, latent: torch.Tensor, height: int, width: int) -> torch.Tensor:
        return latent.to(torch.uint8).repeat_interleave(8, 2).repeat_interleave(8, 3)[:, :, :height, :width]


def test_adding_one() -> None:
    indices = torch.arange(256).view(1, 1, 16, 16).repeat(1, 2, 1, 1) % 16
    assert torch.equal(add_one(indices, [16, 256])[:, 0], (indices[:, 0] + 1).clamp(max=15))
    assert torch.equal(add_one(indices, [16, 256])[:, 1], indices[:, 1] + 1)
    shuffled = add_one_in_arbitrary_order(indices, [16, 256])
    # one entry is the last of its order and stays; the others go, each to another place
    assert (shuffled[0, 0, 0] == indices[0, 0, 0]).sum() == 1
    assert len(set(shuffled[0, 0, 0].tolist())) == 15
    assert int(shuffled[:, 1].max()) < 256
    assert torch.equal(shuffled, add_one_in_arbitrary_order(indices, [16, 256]))


@pytest.mark.parametrize("size", [(48, 64), (41, 27)])
def test_figure3_shows_that_order_matters(size: tuple[int, int]) -> None:
    pixels = np.random.default_rng(0).integers(0, 255, (3, *size), dtype=np.uint8)
    x, plain, arbitrary, ordered = panels(pixels, Ladder("ladder"))
    assert np.array_equal(x, pixels)
    assert {panel.shape for panel in (plain, arbitrary, ordered)} == {(3, *size)}
    assert np.array_equal(ordered, plain + 1)
    assert np.abs(arbitrary.astype(int) - plain).mean() > 50


def test_reproduce_commands(
    sipi: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loading, "load", lambda name: Ladder(name, None))
    out = tmp_path / "new" / "table1.json"
    _, code = command("reproduce", "table1", "--images", sipi, "--out", out, "--json")
    assert code == 0
    assert json.loads(capsys.readouterr().out) == json.loads(out.read_text())
    with pytest.raises(OutputExists):
        command("reproduce", "table1", "--images", sipi, "--out", out)
    with pytest.raises(ConfigError, match="--out"):
        command("reproduce", "figure3", "--images", sipi)
    _, code = command("reproduce", "figure3", "--images", sipi, "--out", tmp_path / "figure3.png")
    assert code == 0
    assert "| baboon |" in capsys.readouterr().out
    with Image.open(tmp_path / "figure3.png") as picture:
        assert picture.format == "PNG"


def test_figure3_needs_codebooks(sipi: Path) -> None:
    with pytest.raises(ConfigError, match="has no codebooks"):
        figure3(sipi, "jpeg")
