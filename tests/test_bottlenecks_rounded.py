"""Bottlenecks of continuous latents, which are rounded in steps."""

import pytest
import torch
from torch import Tensor

from difflate.entropy import SymbolReader, SymbolWriter
from difflate.errors import ConfigError
from difflate.models.bottlenecks import BottleneckConfig
from difflate.models.bottlenecks.rounded import CodedInSteps

KINDS = ["ae", "vae", "rounded"]


def features(channels: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    scale = torch.linspace(0.3, 1.2, channels)[:, None, None]
    return 0.7 + scale * torch.randn(4, channels, 9, 7, generator=generator)


def built(kind: str, hyperprior: int = 0, **others: float) -> CodedInSteps:
    torch.manual_seed(0)
    bottleneck = BottleneckConfig(kind, channels=6, hyperprior=hyperprior, **others).build()  # type: ignore[arg-type]
    assert isinstance(bottleneck, CodedInSteps)
    return bottleneck


def test_ae_has_means_of_0_and_variances_of_1_and_keeps_the_statistics() -> None:
    ae = built("ae")
    for seed in range(60):
        z = ae(features(6, seed)).z
    torch.testing.assert_close(z.mean((0, 2, 3)), torch.zeros(6), atol=1e-5, rtol=0)
    torch.testing.assert_close(z.var((0, 2, 3), correction=0), torch.ones(6), atol=1e-3, rtol=0)
    assert {name for name in ae.state_dict() if name.startswith("norm.running")}
    assert not [name for name, _ in ae.named_parameters() if name.startswith("norm")]
    later = ae.eval().mean(features(6, 99))
    assert later.std((0, 2, 3)).sub(1).abs().max() < 0.15


def test_vae_draws_from_a_gaussian_whose_divergence_is_in_closed_form() -> None:
    vae = built("vae", kl_weight=0.5)
    given = features(12)
    mean, logvar = given.chunk(2, dim=1)
    gaussian = torch.distributions.Normal(mean, (logvar / 2).exp())
    kl = torch.distributions.kl_divergence(gaussian, torch.distributions.Normal(0.0, 1.0)).flatten(1).mean(1)
    passed = vae(given, torch.Generator().manual_seed(3))
    torch.testing.assert_close(passed.loss, 0.5 * kl)
    noise = torch.randn(4, 6, 9, 7, generator=torch.Generator().manual_seed(3))
    torch.testing.assert_close(passed.z, mean + (logvar / 2).exp() * noise)
    wild = torch.full((1, 12, 2, 2), 1e3)
    assert vae(wild).z.isfinite().all()


def test_the_rate_is_a_part_of_the_loss_of_rounded_latents_alone() -> None:
    rounded = built("rounded", bit_price=0.01)
    given = features(6).requires_grad_()
    passed = rounded(given)
    torch.testing.assert_close(passed.loss.mean(), 0.01 * passed.scalars["site_bits"])
    torch.testing.assert_close(passed.z / 0.25, (passed.z / 0.25).round())
    passed.loss.sum().backward()
    assert given.grad is not None
    assert given.grad.abs().sum() > 0
    for kind in ("ae", "vae"):
        bottleneck = built(kind)
        given = features(bottleneck.features).requires_grad_()
        passed = bottleneck(given)
        if kind == "ae":
            assert passed.loss.abs().max() == 0
        (passed.loss.sum() - bottleneck(given).loss.sum().detach()).backward()
        learns = [p.grad is not None and p.grad.abs().sum() > 0 for p in bottleneck.entropy.parameters()]
        assert any(learns)
        # nothing of the bits reaches what makes z: only the divergence, with its tiny weight
        assert given.grad is None or given.grad.abs().max() < 1e-5


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("hyperprior", [0, 8])
def test_what_is_validated_is_what_files_hold(kind: str, hyperprior: int) -> None:
    bottleneck = built(kind, hyperprior)
    optimizer = torch.optim.Adam(bottleneck.parameters(), lr=0.005)
    for seed in range(60):
        optimizer.zero_grad()
        bottleneck(features(bottleneck.features, seed)).loss.mean().backward()
        optimizer.step()
    bottleneck.eval()
    given = features(bottleneck.features)[:1]
    with torch.no_grad():
        passed = bottleneck(given)
        y = bottleneck.coded(given)
        z = bottleneck.side_information(y)
    coder, writer = bottleneck.exact.coder, SymbolWriter()
    latent = coder.encode(y[0].numpy(), z[0].numpy(), 0, writer)
    data = writer.finish()
    read = coder.decode(9, 7, 0, SymbolReader(data))
    assert read.symbols() == latent.symbols()
    restored = bottleneck.latent(torch.from_numpy(read.y_hat)[None])
    # where a mean in floating point and its integer fall on two sides of a half, one step apart
    assert (restored - passed.z).abs().gt(0.02).float().mean() < 0.02
    bits = float(passed.scalars["site_bits"]) * 63
    assert abs(8 * len(data) - bits) < 0.05 * bits + 300


@pytest.mark.parametrize("kind", KINDS)
def test_steps_are_in_units_of_z(kind: str) -> None:
    coarse, fine = built(kind, step=1.0).eval(), built(kind, step=0.01).eval()
    given = features(coarse.features)
    for bottleneck, bound in ((coarse, 0.5001), (fine, 0.00501)):
        errors = (bottleneck(given).z - bottleneck.mean(given)).abs().max()
        assert 0.9 * bound < errors < bound


def test_wrong_settings_are_told() -> None:
    with pytest.raises(ConfigError, match=r"`step` \(=0.0\) must be above 0"):
        BottleneckConfig("ae", step=0.0)
    with pytest.raises(ConfigError, match=r"`bit_price` \(=0.5\) has no meaning for the bottleneck vae"):
        BottleneckConfig("vae", bit_price=0.5)
    with pytest.raises(ConfigError, match=r"`hyperprior` \(=-1\) must be from 0"):
        BottleneckConfig("rounded", hyperprior=-1)
    with pytest.raises(ConfigError, match=r"`kl_weight` \(=-1.0\) must be from 0 to 1000"):
        BottleneckConfig("vae", kl_weight=-1.0)
