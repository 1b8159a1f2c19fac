"""The bundled models on a photograph: rates, the estimate of them, and what their files are worth beside JPEG's."""

import numpy as np
import pytest
import torch

import difflate
from coder_helpers import as_images, photo
from difflate import metrics
from difflate.cli.main import main
from difflate.codecs.cdc import CdcCodec
from difflate.codecs.hyperprior import HyperpriorCodec
from difflate.codecs.rate_search import encode_within
from difflate.media.picture import Picture

PICTURE = Picture(photo(320, 480, 100, 100))
PIXELS = PICTURE.width * PICTURE.height


@pytest.fixture(scope="module")
def hyperprior() -> HyperpriorCodec:
    codec = difflate.load("hyperprior-small")
    assert isinstance(codec, HyperpriorCodec)
    return codec


@pytest.fixture(scope="module")
def cdc() -> CdcCodec:
    codec = difflate.load("cdc-small")
    assert isinstance(codec, CdcCodec)
    return codec


def test_one_model_has_all_rates(hyperprior: HyperpriorCodec) -> None:
    files = [hyperprior.encode(PICTURE, quality=quality) for quality in (0, 20, 40, 60, 80, 100)]
    rates = [8 * len(data) / PIXELS for data in files]
    distortion = [metrics.psnr(PICTURE, hyperprior.decode(data)) for data in files]
    assert rates == sorted(rates)
    assert distortion == sorted(distortion)
    assert rates[0] < 0.12
    assert rates[-1] > 0.8


@pytest.mark.parametrize("quality", [5, 25, 50, 75, 95])
def test_files_are_as_large_as_the_model_says(hyperprior: HyperpriorCodec, quality: float) -> None:
    data = hyperprior.encode(PICTURE, quality=quality)
    with torch.no_grad():
        coded = hyperprior.model(as_images(PICTURE.pixels), torch.tensor([quality / 100])).coded
    estimate = float(coded.y_bits + coded.z_bits)
    beside = 8 * 27  # header, checksums and quality
    assert 8 * len(data) - beside < 1.01 * estimate


@pytest.mark.parametrize("bpp", [0.15, 0.4, 0.8])
def test_better_than_jpeg_at_the_same_size(hyperprior: HyperpriorCodec, bpp: float) -> None:
    allowed = int(bpp * PIXELS / 8)
    jpeg = difflate.load("jpeg")
    theirs = encode_within(jpeg, allowed, lambda quality: jpeg.encode(PICTURE, quality=quality)).data
    ours = encode_within(hyperprior, len(theirs), lambda q: hyperprior.encode(PICTURE, quality=q)).data
    assert len(ours) <= len(theirs)
    restored, rival = hyperprior.decode(ours), jpeg.decode(theirs)
    assert metrics.psnr(PICTURE, restored) > metrics.psnr(PICTURE, rival) + 1
    assert metrics.ms_ssim(PICTURE, restored) > metrics.ms_ssim(PICTURE, rival)


def test_diffusion_costs_no_more_than_it_may(cdc: CdcCodec, hyperprior: HyperpriorCodec) -> None:
    """rms error <= that of the preview + max_refinement·std, at any number of steps and for any noise."""
    picture = Picture(PICTURE.pixels[:, :160, :160].copy())
    for quality in (10, 90):
        data = cdc.encode(picture, quality=quality)
        preview = cdc.decode(data, steps=0)
        same = hyperprior.decode(hyperprior.encode(picture, quality=quality))
        assert np.abs(preview.pixels.astype(int) - same.pixels).max() <= 1
        std = float(cdc.model.residual_std(torch.tensor(quality / 100))) * 127.5
        for steps, gamma in ((1, 0.0), (4, 0.8), (6, 2.0)):
            restored = cdc.decode(data, steps=steps, gamma=gamma)
            assert (
                rms(restored, picture) <= rms(preview, picture) + cdc.model.decoder.max_refinement * std + 0.5
            )  # rounding to levels


def rms(restored: Picture, picture: Picture) -> float:
    return float(np.sqrt(np.square(restored.pixels.astype(float) - picture.pixels).mean()))


def test_a_file_of_the_same_latent_but_another_codec_is_told_so(tmp_path, capsys):
    picture = Picture(np.full((3, 20, 20), 80, np.uint8))
    (tmp_path / "h.dfl").write_bytes(difflate.load("hyperprior-small").encode(picture))
    assert main(["decompress", str(tmp_path / "h.dfl"), "--codec", "cdc-small"]) == 4
    assert "written with another kind of codec than cdc-small" in capsys.readouterr().err
