"""Analysis and synthesis transforms: where they start, and what every kind must do."""

import math
from itertools import pairwise

import numpy as np
import pytest
import torch
from scipy.fft import dctn, idctn

from coder_helpers import HYPERPRIOR, as_images, photo, psnr, tiny_transform
from difflate.errors import ConfigError
from difflate.models.transform_coder import TransformModel
from difflate.nn.colour import RGB_TO_YCRCB, YCRCB_TO_RGB
from difflate.nn.dct import MID_STEP, basis
from difflate.nn.padding import pad_to_multiple
from difflate.nn.transforms import GDN, LMBDA_MIDDLE, TransformConfig, TransformKind, transforms

KINDS = ["dct", "gdn", "residual"]
PIXELS = photo(128, 160, 200, 300)


def to_pixels(images: torch.Tensor) -> np.ndarray:
    return ((images[0].detach().clamp(-1, 1) + 1) * 127.5).round().numpy().astype(np.uint8)


def quantised_dct(pixels: np.ndarray, step: float) -> np.ndarray:
    """(3, H, W) float: what scipy's 16x16 DCT of YCrCb leaves, quantized uniformly."""
    planes = np.einsum("ij,jhw->ihw", RGB_TO_YCRCB.double().numpy(), pixels / 127.5 - 1)
    height, width = planes.shape[1:]
    blocks = planes.reshape(3, height // 16, 16, width // 16, 16).transpose(0, 1, 3, 2, 4)
    restored = idctn(np.rint(dctn(blocks, axes=(3, 4), norm="ortho") / step) * step, axes=(3, 4), norm="ortho")
    planes = restored.transpose(0, 1, 3, 2, 4).reshape(3, height, width)
    return (np.einsum("ij,jhw->ihw", YCRCB_TO_RGB.double().numpy(), planes) + 1) * 127.5


@pytest.mark.parametrize("channels", [1, 7, 200, 376])
def test_the_basis_is_orthonormal_in_ycrcb(channels: int) -> None:
    forward, spread = basis(channels)
    backward, _ = basis(channels, inverse=True)
    product = forward.flatten(1).double() @ backward.flatten(1).double().T
    torch.testing.assert_close(product, torch.eye(channels, dtype=torch.float64), atol=1e-5, rtol=0)
    assert spread.shape == (channels,)
    assert (spread > 0).all()


def test_more_channels_than_a_block_has_frequencies_are_refused() -> None:
    with pytest.raises(ConfigError, match="latent_channels"):
        TransformModel(TransformConfig("dct", 384), HYPERPRIOR)
    TransformConfig("residual", 384)


@torch.no_grad()
def test_the_dct_kind_starts_as_a_block_dct() -> None:
    model = TransformModel(TransformConfig("dct", 200, widths=(8, 8, 16), blocks=(1, 1, 1)), HYPERPRIOR)
    images, quality = as_images(PIXELS), torch.tensor([0.5])
    y = model.analysis(images, quality)
    assert y.shape == (1, 200, 8, 10)
    luma = np.einsum("j,jhw->hw", RGB_TO_YCRCB[0].double().numpy(), PIXELS / 127.5 - 1)
    block = dctn(luma[16:32, 32:48], norm="ortho")
    for channel, (row, column) in ((0, (0, 0)), (1, (0, 1)), (2, (1, 0)), (3, (1, 1))):
        assert y[0, channel, 1, 2].item() * MID_STEP == pytest.approx(block[row, column], abs=2e-4)
    # blocks of the lowest frequencies are restored as they are
    smooth = model.synthesis(torch.randn(1, 200, 4, 4), quality)
    torch.testing.assert_close(model.synthesis(model.analysis(smooth, quality), quality), smooth, atol=2e-4, rtol=1e-4)


@torch.no_grad()
@pytest.mark.parametrize("share", [0.0, 0.5, 0.9])
def test_at_the_start_photographs_are_as_good_as_a_plain_dct_leaves_them(share: float) -> None:
    torch.manual_seed(0)
    quality = torch.tensor([share])
    model = TransformModel(TransformConfig("dct", 256, widths=(8, 8, 16), blocks=(1, 1, 1)), HYPERPRIOR).eval()
    y = model.analyse(as_images(PIXELS), quality)
    ours = psnr(PIXELS, to_pixels(model.synthesise(y.round(), quality)))
    step = MID_STEP * math.sqrt(LMBDA_MIDDLE / float(model.lmbda(quality)))
    plain = psnr(PIXELS, quantised_dct(PIXELS, step))
    assert plain > 24
    assert ours > plain - 2 if share < 0.9 else ours > 30  # the highest frequencies are not among the 256 channels


@torch.no_grad()
def test_smooth_images_are_restored_closely_at_a_high_quality() -> None:
    torch.manual_seed(0)
    rows, columns = np.mgrid[0:64, 0:80]
    waves = [np.sin(rows / 19 + phase) + np.cos(columns / 23 - phase) for phase in (0, 1, 2)]
    pixels = (127 + 60 * np.stack(waves)).astype(np.uint8)
    model = TransformModel(TransformConfig("dct", 128, widths=(8, 8, 16)), HYPERPRIOR).eval()
    image = model(as_images(pixels), torch.ones(1)).image
    assert psnr(pixels, to_pixels(image)) > 40


@torch.no_grad()
@pytest.mark.parametrize("kind", KINDS)
def test_higher_levels_take_more_bits(kind) -> None:
    torch.manual_seed(0)
    model = TransformModel(tiny_transform(kind), HYPERPRIOR).eval()
    images = as_images(PIXELS)
    qualities = [i / 8 for i in range(9)]
    found = [model(images, torch.tensor([quality])) for quality in qualities]
    lmbdas = [float(model.lmbda(torch.tensor(quality))) for quality in qualities]
    assert lmbdas == sorted(lmbdas)
    assert lmbdas[0] == pytest.approx(0.0006)
    assert lmbdas[-1] == pytest.approx(0.08)
    energies = [float(model.analyse(images, torch.tensor([quality])).square().mean()) for quality in qualities]
    np.testing.assert_allclose(np.diff(np.log(energies)), np.log(0.08 / 0.0006) / 8, rtol=0.02)
    if kind == "dct":  # the others' latents are nearly 0 before they are trained
        bits = [float(reconstruction.coded.y_bits) for reconstruction in found]
        errors = [float((reconstruction.image - images).square().mean()) for reconstruction in found]
        assert all(a < b for a, b in pairwise(bits))
        assert all(a > b for a, b in pairwise(errors))


@torch.no_grad()
def test_gains_undo_each_other() -> None:
    model = TransformModel(TransformConfig("dct", 200, blocks=(0, 0, 0)), HYPERPRIOR).eval()
    y = torch.randn(3, 200, 2, 2)
    quality = torch.tensor([0.0, 0.31, 1.0])
    gains = model._gain(model.gain, quality).exp()
    torch.testing.assert_close(model.dequantise(y * gains, quality), y)
    # each image of a batch has a quality of its own
    one = model._gain(model.gain, quality[1:2]).exp()
    torch.testing.assert_close(gains[1:2], one)


@torch.no_grad()
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("size", [(1, 1), (1, 40), (16, 16), (17, 31), (48, 33)])
def test_every_kind_takes_any_size(kind, size: tuple[int, int]) -> None:
    torch.manual_seed(0)
    model = TransformModel(tiny_transform(kind), HYPERPRIOR).eval()
    images = torch.rand(2, 3, *size) * 2 - 1
    quality = torch.tensor([0.2, 0.9])
    y = model.analyse(images, quality)
    sites = tuple(-(-side // 16) for side in size)
    assert y.shape == (2, 24, *sites)
    found = model(images, quality)
    assert found.image.shape == images.shape
    assert found.image.isfinite().all()
    assert model.synthesise(y, quality).shape == (2, 3, 16 * sites[0], 16 * sites[1])
    # images do not depend on those beside them
    alone = model.analyse(images[1:], quality[1:])
    torch.testing.assert_close(y[1:], alone, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("kind", KINDS)
def test_every_weight_gets_a_gradient(kind) -> None:
    torch.manual_seed(0)
    analysis, synthesis = transforms(tiny_transform(kind))
    quality, images = torch.tensor([0.3, 0.6]), torch.rand(2, 3, 64, 64) * 2 - 1
    for module in (analysis, synthesis):
        for parameter in module.parameters():  # away from the zeros that hide what is before them
            parameter.data.add_(0.01 * torch.randn_like(parameter))
    synthesis(analysis(images, quality), quality).square().sum().backward()
    for name, parameter in [*analysis.named_parameters(), *synthesis.named_parameters()]:
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all()
        assert parameter.grad.abs().max() > 0, name


@torch.no_grad()
@pytest.mark.parametrize("kind", ["dct", "gdn", "residual"])
def test_the_stride_that_a_model_tells_is_that_of_its_latents(kind: TransformKind) -> None:
    model = TransformModel(tiny_transform(kind), HYPERPRIOR).eval()
    y = model.analyse(torch.zeros(1, 3, 50, 64), torch.tensor([0.5]))
    assert y.shape[2:] == (-(-50 // model.stride_px), 64 // model.stride_px)
    assert model.synthesise(y, torch.tensor([0.5])).shape[3] == 64


def test_padding_repeats_the_edge() -> None:
    images = torch.randn(1, 3, 17, 30)
    padded = pad_to_multiple(images, 16)
    assert padded.shape == (1, 3, 32, 32)
    assert torch.equal(padded[..., :17, :30], images)
    assert torch.equal(padded[..., 17:, :30], images[..., 16:, :].expand(-1, -1, 15, -1))
    assert torch.equal(padded[..., 30:], padded[..., 29:30].expand(-1, -1, -1, 2))
    whole = torch.randn(1, 3, 16, 32)
    assert pad_to_multiple(whole, 16) is whole


def test_gdn_is_its_formula_and_undone_by_its_inverse_at_fixed_norm() -> None:
    torch.manual_seed(0)
    gdn, inverse = GDN(5), GDN(5, inverse=True)
    with torch.no_grad():
        gdn.gamma.copy_(torch.rand(5, 5))
        gdn.beta.copy_(0.5 + torch.rand(5))
        inverse.load_state_dict(gdn.state_dict())
    x = torch.randn(2, 5, 3, 4)
    norm = torch.einsum("ij,bjhw->bihw", gdn.gamma.square(), x.square()) + gdn.beta.square()[:, None, None]
    torch.testing.assert_close(gdn(x), x / norm.sqrt(), atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(inverse(x), x * norm.sqrt(), atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(gdn(x) * inverse(x), x.square(), atol=1e-5, rtol=1e-5)
    assert torch.equal(gdn(-x), -gdn(x))
    torch.testing.assert_close(GDN(1)(torch.full((1, 1, 1, 1), 2.0)), torch.full((1, 1, 1, 1), 2 / math.sqrt(1.4)))


def test_gdn_stays_positive_whatever_its_weights_become() -> None:
    for value in (-5.0, 0.0, 1e-9):
        for inverse in (False, True):
            layer = GDN(3, inverse)
            with torch.no_grad():
                layer.beta.fill_(value)
                layer.gamma.fill_(value)
            x = torch.randn(1, 3, 2, 2, requires_grad=True)
            out = layer(x)
            out.sum().backward()
            assert out.isfinite().all()
            assert torch.equal(out.sign(), x.sign())
            assert layer.gamma.grad is not None
            assert layer.gamma.grad.isfinite().all()
