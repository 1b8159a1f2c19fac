"""First stages: our own autoencoders and those of diffusers, whose latent a diffusion runs in."""

import dataclasses
import json
from pathlib import Path

import pytest
import torch
from torch import Tensor

from autoencoder_helpers import SMALL, autoencoder
from difflate.diffusion import ProcessConfig
from difflate.errors import ModelError
from difflate.models.autoencoder import Autoencoder
from difflate.models.bottlenecks import BottleneckConfig
from difflate.models.diffusion_autoencoder import DiffusionAutoencoder, LatentDecoderConfig
from difflate.models.first_stage import Pixels, first_stage
from difflate.nn.unet import UNetConfig

IMAGES = torch.linspace(-1, 1, 2 * 3 * 32 * 48).reshape(2, 3, 32, 48)
SHAPE = dict(
    block_out_channels=(8, 16, 16), down_block_types=("DownEncoderBlock2D",) * 3,
    up_block_types=("UpDecoderBlock2D",) * 3, layers_per_block=1, norm_num_groups=4, latent_channels=4,
)  # fmt: skip


def saved(folder: Path, name: str = "vae", std: float = 2.0) -> str:
    """The folder of one of our own, of stride 8."""
    model = autoencoder(name)
    model.std.fill_(std)
    model.save_pretrained(folder)
    return str(folder)


def test_pixels_are_their_own() -> None:
    stage = first_stage(None)
    assert isinstance(stage, Pixels)
    assert torch.equal(stage.decode(stage.encode(IMAGES)), IMAGES)


def test_our_own_has_the_scale_of_its_training(tmp_path: Path) -> None:
    stage = first_stage(saved(tmp_path))
    assert (stage.stride_px, stage.channels, stage.scale) == (8, 4, 0.5)
    model = Autoencoder.from_pretrained(tmp_path)
    with torch.no_grad():
        mean = model.encode(IMAGES)[:, :4]
        torch.testing.assert_close(stage.encode(IMAGES), mean / 2)
        torch.testing.assert_close(stage.decode(mean / 2), model.restore(mean))


def test_training_measures_the_deviation_of_z() -> None:
    torch.manual_seed(0)
    model = Autoencoder(SMALL, BottleneckConfig("rounded", channels=4), SMALL).train()
    with torch.no_grad():
        model.encode.exit.weight.mul_(30)
        for _ in range(300):
            z = model(IMAGES).z
    torch.testing.assert_close(model.std, z.std(), rtol=0.02, atol=0)
    before = model.std.clone()
    model.eval()(IMAGES / 2)
    assert torch.equal(model.std, before)


def test_an_autoencoder_of_diffusers(tmp_path: Path) -> None:
    diffusers = pytest.importorskip("diffusers")
    torch.manual_seed(0)
    theirs = diffusers.AutoencoderKL(**SHAPE, scaling_factor=0.3, shift_factor=0.1).eval()
    theirs.save_pretrained(tmp_path)
    stage = first_stage(str(tmp_path))
    assert (stage.stride_px, stage.channels, stage.scale) == (4, 4, 0.3)
    with torch.no_grad():
        mean = theirs.encode(IMAGES).latent_dist.mean
        torch.testing.assert_close(stage.encode(IMAGES), (mean - 0.1) * 0.3)
        torch.testing.assert_close(stage.decode((mean - 0.1) * 0.3), theirs.decode(mean).sample)
    x = torch.zeros(1, 4, 8, 8, requires_grad=True)
    stage.decode(x).sum().backward()
    assert x.grad is not None
    assert x.grad.abs().sum() > 0


def test_a_codebook_model_of_diffusers(tmp_path: Path) -> None:
    diffusers = pytest.importorskip("diffusers")
    torch.manual_seed(0)
    theirs = diffusers.VQModel(**SHAPE, num_vq_embeddings=32, vq_embed_dim=3).eval()
    theirs.save_pretrained(tmp_path)
    stage = first_stage(str(tmp_path))
    assert (stage.stride_px, stage.channels) == (4, 3)
    with torch.no_grad():
        before_look_up = theirs.encode(IMAGES).latents
        torch.testing.assert_close(stage.encode(IMAGES), before_look_up * stage.scale)
        torch.testing.assert_close(stage.decode(before_look_up * stage.scale), theirs.decode(before_look_up).sample)


def test_weights_that_are_pickled_missing_or_damaged_are_not_read(tmp_path: Path) -> None:
    diffusers = pytest.importorskip("diffusers")
    theirs = diffusers.AutoencoderKL(**SHAPE)
    theirs.save_pretrained(tmp_path, safe_serialization=False)
    stage = first_stage(str(tmp_path))
    with pytest.raises(ModelError, match=r"diffusion_pytorch_model\.safetensors is missing; get the folder again"):
        _ = stage.digest
    with pytest.raises(ModelError, match="cannot be loaded"):
        stage.encode(IMAGES)
    (tmp_path / "config.json").write_text('{"_class_name": "AutoencoderKL"}')
    with pytest.raises(ModelError, match=r"config\.json is damaged"):
        first_stage(str(tmp_path))


def test_what_is_no_first_stage_is_told(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="first stage 'nowhere' is not here"):
        first_stage("nowhere")
    with pytest.raises(ModelError, match=r"is a model of the kind vq; name one of the recipe autoencoder, or of diff"):
        first_stage("opq-32-8-8")
    (tmp_path / "config.json").write_text(json.dumps({"kind": "autoencoder"}))
    with pytest.raises(ModelError, match=r"config\.json is damaged"):
        first_stage(str(tmp_path))


def diffae(stage: str) -> DiffusionAutoencoder:
    network = UNetConfig(in_channels=4, out_channels=4, widths=(8, 8), blocks=(1, 1), patch=1)
    coarse = dataclasses.replace(SMALL, widths=(8, 16, 16), blocks=(1, 1, 1))
    return DiffusionAutoencoder(
        coarse, BottleneckConfig(levels=(5, 5)), coarse, LatentDecoderConfig(first_stage=stage), network,
        ProcessConfig("cosine", target="v", condition="t"),
    ).eval()  # fmt: skip


def restored(model: DiffusionAutoencoder) -> Tensor:
    z = torch.zeros(1, 2, 2, 3)
    noise = torch.randn(model.noise_shape(z), generator=torch.Generator().manual_seed(0))
    return model.restore(z, 2, noise)


def test_a_diffusion_autoencoder_is_that_of_its_first_stage(tmp_path: Path) -> None:
    model = diffae(saved(tmp_path / "stage"))
    image = restored(model)
    assert image.shape == (1, 3, 32, 48)
    model.save_pretrained(tmp_path / "model")
    torch.testing.assert_close(restored(DiffusionAutoencoder.from_pretrained(tmp_path / "model")), image)
    autoencoder("vae", seed=5).save_pretrained(tmp_path / "stage")  # another one in its place
    with pytest.raises(ModelError, match="was trained with another first stage than the one that is there now"):
        DiffusionAutoencoder.from_pretrained(tmp_path / "model")
    (tmp_path / "stage").rename(tmp_path / "moved")
    with pytest.raises(ModelError, match="is not here"):
        DiffusionAutoencoder.from_pretrained(tmp_path / "model")
