"""Generators ask a latent space for no more than `LatentSpace` says: block means as a few scalars are one."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from difflate.data.items import list_items
from difflate.data.latent_writer import write_latents
from difflate.data.latents import Latents
from difflate.diffusion import ProcessConfig
from difflate.errors import ConfigError, ModelError
from difflate.generate import CategoricalDiffusion, LatentDiffusion, LatentSpec, sample
from difflate.models.latent_space import LatentSpace, latent_space
from difflate.models.refiner import Refiner
from difflate.nn import UNetConfig
from difflate.train.recipes import latent as recipe
from difflate.train.settings import LoopSettings
from latent_helpers import BlockMeans, squares
from training_helpers import LOOP, NETWORK, picture

SPACE = BlockMeans()
CODEC = SimpleNamespace(name="block-means", space=SPACE)


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("scalars")
    write_latents(list_items([squares(folder / "images", 16, side=32)]), CODEC, folder / "shards", workers=0)
    return folder / "shards"


def test_a_space_is_that_of_its_codec_or_itself() -> None:
    assert isinstance(SPACE, LatentSpace)
    assert latent_space(CODEC) is latent_space(SPACE) is SPACE
    for without in (SimpleNamespace(name="plain"), SimpleNamespace(name="plain", space=None)):
        with pytest.raises(
            ConfigError, match="codec 'plain' has no finite latent space of images; choose one that has"
        ):
            latent_space(without)


def test_shards_hold_indices_of_any_number(shards: Path) -> None:
    data = Latents.open([shards], augment=False)
    assert (data.header.codec, data.header.codebook_sizes, data.shape) == ("block-means", (5, 3, 3), (3, 4, 4))
    for number in range(len(data)):
        pixels = torch.from_numpy(picture(number, 32, 32)).movedim(2, 0)
        assert torch.equal(data[number][0].long(), SPACE.to_latent(pixels[None])[0])


@pytest.mark.parametrize("kind", ["continuous", "categorical"])
def test_a_generator_trains_and_samples(
    kind: Any, shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recipe, "load", lambda name: CODEC)
    process = ProcessConfig(target="x0", weighting="min-snr") if kind == "categorical" else ProcessConfig()
    loop = LoopSettings(**{**vars(LOOP), "max_steps": 30, "validate_every": 30, "lr": 5e-3, "ema": 0.05})
    settings = recipe.LatentTraining(
        out=str(tmp_path), latents=[str(shards)], codec="folder", holdback=4, model=kind, network=NETWORK,
        process=process, training=loop,
    )  # fmt: skip
    recipe.RECIPE.run(settings, "", progress=False)
    lines = [line for line in (tmp_path / "README.md").read_text().splitlines() if line.startswith("| ")]
    heads, *rows = [[cell.strip() for cell in line.split("|")] for line in lines]
    losses = [float(row[heads.index("loss")]) for row in rows]
    assert losses[-1] < 0.9 * losses[0]
    cls = {"continuous": LatentDiffusion, "categorical": CategoricalDiffusion}[kind]
    model = cls.from_pretrained(tmp_path)
    assert model.latent == LatentSpec("block-means", SPACE.fingerprint.hex(), [5, 3, 3], 8)
    images = next(sample(model.use_codec(CODEC), 2, steps=3, size=(16, 40)))
    assert images.shape == (2, 3, 16, 40)
    blocks = images.unflatten(3, (5, 8)).unflatten(2, (2, 8)).flatten(1, 1)
    assert torch.equal(blocks, blocks[:, :, :, :1, :, :1].expand_as(blocks))  # each block has one colour
    assert torch.equal(SPACE.from_latent(SPACE.to_latent(images)), images)


def test_softness_mixes_scalars() -> None:
    network = UNetConfig(in_channels=3, out_channels=3, widths=(8,), blocks=(1,))
    model = LatentDiffusion(LatentSpec.of(SPACE), network, ProcessConfig(), 16).use_codec(SPACE)
    z = torch.tensor([0.25, 0.0, 0.0])[None, :, None, None].expand(1, 3, 2, 2)  # Y between the places 0 and .5
    greys = [float(model.soften(softness).images(z).float().mean()) for softness in (0.0, 0.05)]
    assert greys == pytest.approx([127.5, (2.5 / 4) * 255], abs=1)


def test_a_space_of_another_model_is_refused() -> None:
    class Other(BlockMeans):
        name, fingerprint = "other", bytes(32)

    network = UNetConfig(in_channels=3, out_channels=3, widths=(8,), blocks=(1,))
    model = LatentDiffusion(LatentSpec.of(SPACE), network, ProcessConfig(), 16)
    with pytest.raises(ModelError, match=r"the latents are of block-means \(00010203\), not of other \(00000000\)"):
        model.use_codec(Other())
    refiner = Refiner(UNetConfig(widths=(8,), blocks=(1,)), "block-means", SPACE.fingerprint.hex())
    refiner.check(SPACE)
    with pytest.raises(ModelError, match=r"images of block-means \(00010203\), not of other \(00000000\)"):
        refiner.check(Other())
