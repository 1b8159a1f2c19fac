"""The recipe `autoencoder`: it learns, resumes to the bit, and what it writes is a codec."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

import difflate
from autoencoder_helpers import BOTTLENECKS, SMALL
from coder_helpers import photo
from difflate.cli.main import main
from difflate.codecs.autoencoder import AutoencoderCodec
from difflate.data.crops import Batch
from difflate.errors import ConfigError, OutputExists
from difflate.generate import load_generator, sample
from difflate.media.picture import Picture
from difflate.models.autoencoder import Autoencoder
from difflate.models.bottlenecks import BottleneckConfig
from difflate.models.bottlenecks.vector import VectorQuantizer
from difflate.models.latent_space import latent_space
from difflate.train import checkpoint
from difflate.train.adversary import AdversarySettings
from difflate.train.autoencoder_task import AutoencoderTask, ReconstructionStage
from difflate.train.config import read_settings
from difflate.train.draws import Draws
from difflate.train.index_context import ContextSettings
from difflate.train.output import CHECKPOINTS
from difflate.train.recipes.autoencoder import RECIPE, AutoencoderTraining, cost
from difflate.train.settings import LoopSettings
from training_helpers import tensors

CONFIGS = Path(__file__).parents[1] / "configs"
LOOP = LoopSettings(
    max_steps=6, batch=4, lr=2e-3, warmup_steps=2, decay="constant", log_every=2, validate_every=3, pictures_every=0,
    checkpoint_every=2, workers=0,
)  # fmt: skip
ADVERSARY = AdversarySettings(start_step=2, widths=(8, 8))
CONTEXT = ContextSettings(views=4, view_px=64, steps=2)


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twelve pieces of a photograph."""
    folder = tmp_path_factory.mktemp("images")
    for number in range(12):
        pixels = photo(56, 64, 60 + 100 * (number // 4), 190 * (number % 4))
        Image.fromarray(pixels.transpose(1, 2, 0)).save(folder / f"{number:02d}.png")
    return folder


def settings(
    images: Path, out: Path, bottleneck: str = "vq", loop: dict[str, Any] | None = None, **stage: Any
) -> AutoencoderTraining:
    training = dataclasses.replace(LOOP, **(loop or {}))
    config = dict(BOTTLENECKS[bottleneck])
    if config["kind"] == "vq":
        config["codebook_size"] = 64
    return AutoencoderTraining(
        out=str(out), images=[str(images)], holdback=3, encoder=SMALL, bottleneck=BottleneckConfig(**config),
        decoder=SMALL, stages=[ReconstructionStage("main", crop_px=32, training=training, **stage)],
        context=CONTEXT if bottleneck in ("vq", "fsq") else ContextSettings(),
    )  # fmt: skip


def main_stage(out: Path) -> Path:
    return out / "stages" / "main"


def validations(out: Path) -> list[dict[str, float]]:
    newest = checkpoint.latest(main_stage(out) / CHECKPOINTS)
    assert newest is not None
    return [values for _, values in checkpoint.read_head(newest)[0].validations]


@pytest.mark.parametrize("bottleneck", ["fsq", "vq", "ae", "vae", "rounded"])
def test_the_loss_of_images_held_back_falls(bottleneck: str, images: Path, tmp_path: Path) -> None:
    loop = {"max_steps": 40, "validate_every": 20, "checkpoint_every": 40}
    RECIPE.run(settings(images, tmp_path, bottleneck, loop))
    found = validations(tmp_path)
    assert found[-1]["psnr_db"] > found[0]["psnr_db"] + 2
    shown = {"vq": {"used_codes"}, "ae": {"site_bits"}, "vae": {"site_bits", "kl"}, "rounded": {"site_bits"}}
    assert set(found[-1]) == {"loss", "psnr_db"} | shown.get(bottleneck, set())
    codec = difflate.load(tmp_path)
    assert isinstance(codec, AutoencoderCodec)
    picture = Picture(photo(40, 56, 100, 100))
    assert codec.decode(codec.encode(picture)).pixels.shape == (3, 40, 56)
    if bottleneck == "vq":
        assert found[-1]["used_codes"] > 0.5


def test_resume_is_exact_codewords_and_their_use_and_the_adversary_too(images: Path, tmp_path: Path) -> None:
    RECIPE.run(settings(images, tmp_path / "whole", adversary=ADVERSARY))
    for steps in (3, 6):
        RECIPE.run(settings(images, tmp_path / "parts", loop={"max_steps": steps}, adversary=ADVERSARY))
    ours, theirs = tensors(main_stage(tmp_path / "parts")), tensors(main_stage(tmp_path / "whole"))
    assert {"objective.model.between.codebook", "objective.model.between.use"} <= theirs.keys()
    assert any("adversary" in name for name in theirs)
    for name, value in theirs.items():
        torch.testing.assert_close(ours[name], value, rtol=0, atol=1e-6 if "average" in name else 0, msg=name)
    files = [(tmp_path / run / "context.safetensors").read_bytes() for run in ("whole", "parts")]
    assert files[0] == files[1]
    with pytest.raises(OutputExists, match="is trained already"):
        RECIPE.run(settings(images, tmp_path / "whole", adversary=ADVERSARY))


def test_the_folder_has_the_average_with_its_indices_in_order(images: Path, tmp_path: Path) -> None:
    RECIPE.run(settings(images, tmp_path, adversary=ADVERSARY), "the command")
    whole, stage = (Autoencoder.from_pretrained(folder) for folder in (tmp_path, main_stage(tmp_path)))
    assert isinstance(whole.between, VectorQuantizer)
    assert isinstance(stage.between, VectorQuantizer)
    book = whole.between.codebook
    again = VectorQuantizer(64, 4, 0.25)
    again.load_state_dict(stage.between.state_dict())
    again.put_in_order()
    assert torch.equal(again.codebook, book)
    assert whole.fingerprint != stage.fingerprint  # the context model was fitted
    card = (tmp_path / "README.md").read_text()
    assert "`the command`" in card
    assert "6 at the fixed rate" in card
    config = json.loads((tmp_path / "config.json").read_text())
    assert config["latent"]["stride_px"] == 8
    assert config["latent"]["std"] != 1
    assert not [name for name in config if "adversary" in name]


def task(stage: ReconstructionStage, bottleneck: str = "fsq") -> tuple[AutoencoderTask, Batch, Draws]:
    torch.manual_seed(0)
    model = Autoencoder(SMALL, BottleneckConfig(**BOTTLENECKS[bottleneck]), SMALL)
    pixels = torch.from_numpy(photo(32, 64, 100, 100).copy())
    numbers = torch.arange(2)
    batch = Batch(torch.stack(pixels.split(32, dim=2)), numbers, -torch.ones(2, dtype=torch.int64), [])
    return AutoencoderTask(model, stage), batch, Draws(0, numbers, 2)


def test_the_losses_have_their_weights() -> None:
    made, batch, draws = task(ReconstructionStage("main", absolute=0.3, squared=2.0, training=LOOP))
    images = batch.images(torch.device("cpu"))
    errors = made.model.restore(made.model(images).z) - images
    loss = made.loss(batch, draws)["loss"]
    torch.testing.assert_close(loss, 0.3 * errors.abs().mean() + 2 * errors.square().mean())


@pytest.mark.parametrize("bottleneck", list(BOTTLENECKS))
def test_a_loss_waits_for_no_answer_of_the_device(bottleneck: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a recording of CUDA cannot have: numbers that Python asks for, and sizes that depend on values."""
    stage = ReconstructionStage("main", adversary=ADVERSARY, training=LOOP)
    made, batch, draws = task(stage, bottleneck)

    def asked(*_: Any, **__: Any) -> Any:
        raise AssertionError("a value was asked for")

    steps = draws.step()
    monkeypatch.setattr(Draws, "step", lambda self: steps)
    monkeypatch.setattr(Draws, "generators", lambda self: None)
    for name in ("item", "tolist", "__bool__", "__float__", "__int__", "nonzero"):
        monkeypatch.setattr(torch.Tensor, name, asked)
    loss = made.loss(batch, draws)["loss"]
    loss.backward()
    made.critic_loss(batch, draws)["loss"].backward()


def test_wrong_settings_are_told(images: Path, tmp_path: Path) -> None:
    good = settings(images, tmp_path)
    with pytest.raises(ConfigError, match=r"stages.main: crop_px \(=36\) must be a multiple of 8"):
        dataclasses.replace(good, stages=[ReconstructionStage("main", crop_px=36, training=LOOP)])
    with pytest.raises(ConfigError, match="absolute, squared and perceptual are all 0"):
        ReconstructionStage("main", absolute=0)
    with pytest.raises(ConfigError, match=r"perceptual \(=-1\) must be at least 0"):
        ReconstructionStage("main", perceptual=-1)
    with pytest.raises(ConfigError, match="stages is empty"):
        dataclasses.replace(good, stages=[])
    with pytest.raises(ConfigError, match="context is set for the bottleneck ae, which has no indices"):
        dataclasses.replace(good, bottleneck=BottleneckConfig("ae"))
    with pytest.raises(ConfigError, match=r"the decoder's stride \(=4 px\) must be the encoder's \(=8 px\)"):
        dataclasses.replace(good, decoder=dataclasses.replace(SMALL, patch=2))


PRESETS = {
    "smoke": ("vq", 8, []),
    "vqgan-small": ("vq", 16, []),
    "vqgan-small ": ("vq", 16, [f"stages.main.{key}" for key in ("adversary=null", "perceptual=0", "squared=1")]),
    "ae-small": ("ae", 16, []),
    "ae-small ": ("vae", 16, ["bottleneck={kind: vae, channels: 16}"]),
    "ae-small  ": ("rounded", 16, ["bottleneck={kind: rounded, channels: 16, hyperprior: 64, bit_price: 0.001}"]),
    "f4": ("vae", 4, []),
    "f4 ": ("vq", 4, ["bottleneck={kind: vq, channels: 4, codebook_size: 8192}"]),
}  # fmt: skip


@pytest.mark.parametrize("name", list(PRESETS))
def test_the_presets_and_the_overrides_in_their_comments(name: str) -> None:
    kind, stride, overrides = PRESETS[name]
    path = CONFIGS / f"autoencoder-{name.strip()}.yaml"
    comment = " ".join(line.lstrip("# ") for line in path.read_text().splitlines() if line.startswith("#"))
    for override in overrides:
        assert override in comment
    found = read_settings(AutoencoderTraining, path, overrides)
    assert found.bottleneck.kind == kind
    text = cost(found)
    assert f"a site every {stride} px" in text
    assert text.startswith("0." if name == "smoke" else ("3.", "1.", "2.", "0."))


def test_a_generator_is_trained_and_sampled_in_its_latent_space(images: Path, tmp_path: Path) -> None:
    RECIPE.run(settings(images, tmp_path / "vqvae"))
    for number in range(12):
        Image.fromarray(photo(32, 32, 40 * number, 40 * number).transpose(1, 2, 0)).save(tmp_path / f"{number}.png")
    shards, codec = str(tmp_path / "shards"), str(tmp_path / "vqvae")
    assert main(["latents", str(tmp_path), "--codec", codec, "-o", shards, "--workers", "0"]) == 0
    config = tmp_path / "latent.yaml"
    config.write_text(
        f"recipe: latent\nout: {tmp_path / 'model'}\nlatents: [{shards}]\ncodec: {codec}\nholdback: 2\n"
        "network: {widths: [16, 16], blocks: [1, 1]}\n"
        "training: {max_steps: 4, batch: 4, workers: 0, pictures_every: 0}\n"
    )
    assert main(["train", str(config)]) == 0
    generator = load_generator(tmp_path / "model", codec=codec)
    (made,) = sample(generator, 2, steps=2)
    assert made.shape == (2, 3, 32, 32)
    assert latent_space(difflate.load(codec)).sizes == [64]
