"""LFQ and BSQ as bottlenecks of an autoencoder: a latent space, its coder, folders, and a loss that falls."""

from pathlib import Path

import numpy as np
import pytest
import torch

from difflate.entropy.coder import SymbolReader, SymbolWriter
from difflate.errors import ConfigError
from difflate.models.autoencoder import Autoencoder, even_context
from difflate.models.autoencoder_space import FiniteSpace
from difflate.models.bottlenecks import BottleneckConfig
from difflate.models.latent_space import LatentSpace
from difflate.nn.encoder_kinds import EncoderConfig
from difflate.nn.encoders import ConvConfig
from difflate.quantize.usage import code_usage
from difflate.seeds import torch_generator

pytestmark = pytest.mark.usefixtures("one_thread")
KINDS = ("lfq", "bsq")


def model(kind: str, bits: int = 6) -> Autoencoder:
    torch.manual_seed(0)
    bottleneck = BottleneckConfig(kind=kind, bits=bits)  # type: ignore[arg-type]
    return Autoencoder(EncoderConfig((8, 16), (1, 1), 4), bottleneck, ConvConfig((8, 16), (1, 1), 4)).eval()


def pixels(height: int, width: int, count: int = 1) -> torch.Tensor:
    return torch.randint(256, (count, 3, height, width), generator=torch_generator(0, 0), dtype=torch.uint8)


@pytest.mark.parametrize("kind", KINDS)
def test_it_is_a_latent_space_of_bits(kind: str) -> None:
    made = model(kind)
    space = FiniteSpace(kind, made)
    assert isinstance(space, LatentSpace)
    assert list(space.sizes) == [2] * 6
    assert made.plane_bits == [1] * 6
    for height, width in ((1, 1), (17, 30)):
        latent = space.to_latent(pixels(height, width, 2))
        assert latent.shape == (2, 6, -(-height // 8), -(-width // 8))
        assert set(latent.unique().tolist()) <= {0, 1}
        codewords = [book[plane].movedim(-1, 1) for book, plane in zip(space.codebooks, latent.unbind(1), strict=True)]
        assert torch.equal(made.between.join(codewords), made.between.latent(latent))
        assert space.from_latent(latent, height, width).shape == (2, 3, height, width)


@pytest.mark.parametrize("kind", KINDS)
def test_what_training_sees_is_what_a_file_gives(kind: str) -> None:
    made = model(kind)
    images = pixels(24, 16, 2).float() / 127.5 - 1
    passed = made(images)
    assert torch.allclose(passed.z, made.between.latent(made.coded(images)), atol=1e-6)
    assert passed.loss.shape == (2,)
    assert 0 <= passed.scalars["plane_bits"] <= 1


@pytest.mark.parametrize("kind", KINDS)
def test_bits_are_coded_and_folders_are_read(kind: str, tmp_path: Path) -> None:
    made = model(kind)
    grid = made.coded(pixels(64, 40).float() / 127.5 - 1)[0].numpy()
    context = even_context(made.plane_bits)
    writer = SymbolWriter()
    context.encode(grid, writer)
    data = writer.finish()
    assert len(data) <= 6 * 8 * 5 / 8 + 8  # a bit costs a bit while nothing is known of it
    assert np.array_equal(context.decode(8, 5, SymbolReader(data)), grid)
    made.save_pretrained(tmp_path)
    again = Autoencoder.from_pretrained(tmp_path)
    assert again.fingerprint == made.fingerprint
    assert np.array_equal(again.coded(pixels(64, 40).float() / 127.5 - 1)[0].numpy(), grid)


@pytest.mark.parametrize("kind", KINDS)
def test_training_lowers_the_loss_and_keeps_codes_in_use(kind: str) -> None:
    made = model(kind, bits=8).train()
    smooth = torch.rand(24, 3, 4, 4, generator=torch_generator(3, 0)) * 2 - 1
    images = torch.nn.functional.interpolate(smooth, (32, 32), mode="bilinear")
    optimizer = torch.optim.Adam(made.parameters(), lr=3e-3)
    errors = []
    for _ in range(80):
        passed = made(images)
        error = (made.restore(passed.z) - images).square().mean()
        optimizer.zero_grad()
        (error + passed.loss.mean()).backward()
        optimizer.step()
        errors.append(error.item())
    assert np.mean(errors[-5:]) < 0.6 * errors[0]
    usage = code_usage(made.eval().coded(images), made.between.sizes or ())
    assert np.mean(usage.plane_bits) > 0.8


def test_settings_of_bits() -> None:
    for wrong, message in (
        ({"kind": "bsq", "bits": 0}, r"`bits` \(=0\) must be from 1 to 256"),
        ({"kind": "bsq", "commitment": 0.5}, r"`commitment` \(=0.5\) has no meaning for the bottleneck bsq"),
        ({"kind": "lfq", "levels": (4,)}, "has no meaning for the bottleneck lfq"),
        ({"kind": "lfq", "entropy_weight": -1.0}, r"`entropy_weight` \(=-1.0\) must be from 0"),
    ):
        with pytest.raises(ConfigError, match=message):
            BottleneckConfig(**wrong)
