"""The model: what it is told, what it refuses, and what a first stage changes."""

import dataclasses

import pytest
import torch

from diffae_helpers import SHAPE, tiny
from difflate.diffusion import ProcessConfig, ddim
from difflate.errors import ConfigError
from difflate.models.bottlenecks import BottleneckConfig
from difflate.nn.encoders import ConvConfig
from difflate.nn.unet import UNetConfig


def test_one_step_is_the_answer() -> None:
    model = tiny()
    z, noise = torch.rand(2, 3, 2, 3) * 2 - 1, torch.randn(2, 3, 16, 24)
    answer = model.answer(noise, z)
    assert answer.requires_grad
    torch.testing.assert_close(model.restore(z, 1, noise), answer.clamp(-1, 1), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("target", ["x0", "eps", "v", "flow"])
@pytest.mark.parametrize("scaling", ["vp", "ve", "flow"])
def test_every_target_and_scaling(target: str, scaling: str) -> None:
    model = tiny(process=ProcessConfig(target=target, scaling=scaling, condition="logsnr"))  # type: ignore[arg-type]
    z, noise = torch.rand(1, 3, 2, 2) * 2 - 1, torch.randn(1, 3, 16, 16)
    assert model.restore(z, 3, noise).isfinite().all()


def test_guidance_moves_away_from_the_hidden_latent() -> None:
    """y_null + w·(y - y_null), with the learned vector in the place of z (Ho & Salimans 2022)."""
    model = tiny()
    z, noise = torch.rand(1, 3, 2, 2) * 2 - 1, torch.randn(1, 3, 16, 16)
    hidden = model.hide(z, torch.tensor([True]))
    assert torch.equal(hidden, model.hidden[None, :, None, None].expand_as(z))
    assert torch.equal(model.hide(z, torch.tensor([False])), z)

    def guided(x, condition):
        null = model(x, condition, z=hidden)
        return null + 2.5 * (model(x, condition, z=z) - null)

    *_, last = ddim(model.diffusion, guided, model.diffusion.start_std() * noise, 3, clip=1.0)
    torch.testing.assert_close(model.restore(z, 3, noise, guidance=2.5), last.x)


def test_a_smaller_latent_is_resized() -> None:
    """As training shows it where the encoder sees smaller images."""
    model = tiny()
    x, t = torch.randn(1, 3, 32, 32), torch.tensor([0.5])
    z = torch.rand(1, 3, 2, 2)
    doubled = z.repeat_interleave(2, 2).repeat_interleave(2, 3)
    torch.testing.assert_close(model(x, t, z=z), model(x, t, z=doubled))


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("bottleneck", {"levels": [8, 1]}, "levels"),
        ("bottleneck", {"levels": []}, "levels"),
        ("bottleneck", {"levels": [8.5]}, "levels"),
        ("bottleneck", {"kind": "none"}, "kind"),
        ("decoder", {"steps": -1}, "steps"),
        ("decoder", {"dropped": 1.0}, "dropped"),
        ("decoder", {"dropped": 0.0, "guidance": 2.0}, "guidance"),
        ("network", {"patch": 3}, "patch"),
        ("network", {"patch": 16}, "patch"),
        ("network", {"in_channels": 4}, "in_channels"),
        ("network", {"cond_channels": (1, 1)}, "cond_channels"),
        ("network", {"self_condition": True}, "self_condition"),
        ("head", {"patch": 8}, "stride"),
    ],
)
def test_settings_that_do_not_fit_are_told(key: str, value: dict, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        tiny(**{key: dataclasses.replace(SHAPE[key], **value)})


def test_noise_of_another_shape_is_told() -> None:
    with pytest.raises(ConfigError, match="noise"):
        tiny().restore(torch.zeros(1, 3, 2, 2), 1, torch.zeros(1, 3, 8, 8))
    with pytest.raises(ConfigError, match="steps"):
        tiny().restore(torch.zeros(1, 3, 2, 2), -1)


def test_other_strides_and_bottlenecks() -> None:
    model = tiny(
        encoder=ConvConfig((8, 16, 16, 16), (1, 1, 1, 1), 4), head=ConvConfig((8, 8, 8, 8), (1, 1, 1, 1), 4),
        bottleneck=BottleneckConfig("fsq", levels=[2] * 12), network=UNetConfig(widths=(8,), blocks=(1,), patch=4),
    )  # fmt: skip
    assert model.stride_px == 32
    z = model.autoencoder(torch.zeros(1, 3, 40, 64)).z
    assert z.shape == (1, 12, 2, 2)
    assert model.restore(z, 1, torch.randn(model.noise_shape(z))).shape == (1, 3, 64, 64)
