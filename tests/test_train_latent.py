"""The recipe `latent`: losses in closed form, a loss that falls, an exact resume, wrong settings."""

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import difflate
from difflate.cli.main import main
from difflate.codecs.vq import VqCodec
from difflate.data.crops import Batch
from difflate.data.items import list_items
from difflate.data.latent_writer import write_latents
from difflate.data.latents import Latents
from difflate.diffusion import ProcessConfig, eps_z, normal
from difflate.diffusion.draws import uniform
from difflate.errors import ConfigError, ModelError, OutputExists
from difflate.generate import CategoricalDiffusion, LatentDiffusion, LatentSpec, load_generator, sample
from difflate.models.categorical_diffusion import channels
from difflate.nn import UNetConfig
from difflate.train.categorical import CategoricalSettings, CategoricalTask
from difflate.train.config import read_settings
from difflate.train.diffusion_loss import diffuse
from difflate.train.draws import Draws
from difflate.train.recipes.latent import RECIPE, LatentTraining, cost
from difflate.train.settings import LoopSettings
from training_helpers import LOOP, write_images

run = RECIPE.run
NAME = "opq-32-8-8"
NETWORK = UNetConfig(widths=(8, 16), blocks=(1, 1), head_width=8)
CATEGORICAL = ProcessConfig(target="x0", weighting="min-snr", weighting_options={"gamma": 5.0})


def codec() -> VqCodec:
    found = difflate.load(NAME)
    assert isinstance(found, VqCodec)
    return found


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("latents")
    images = write_images(folder / "images", 30)
    write_latents(list_items([images]), codec(), folder / "shards", image_px=32, flips=True)
    return folder / "shards"


def settings(shards: Path, out: Path, loop: dict[str, Any] | None = None, **others: Any) -> LatentTraining:
    values: dict[str, Any] = {"holdback": 6, "network": NETWORK, **others}
    return LatentTraining(
        out=str(out), latents=[str(shards)], training=LoopSettings(**{**vars(LOOP), **(loop or {})}), **values
    )


@pytest.mark.parametrize("model", ["continuous", "categorical"])
def test_the_loss_falls_and_the_model_samples(model: Any, shards: Path, tmp_path: Path) -> None:
    process = CATEGORICAL if model == "categorical" else ProcessConfig()
    loop = {"max_steps": 40, "validate_every": 20, "lr": 5e-3, "pictures_every": 40, "ema": 0.05}
    out = run(settings(shards, tmp_path, loop, model=model, process=process), "the command", progress=False)
    made = load_generator(out)
    assert made.kind == f"{'latent' if model == 'continuous' else model}-diffusion"
    assert next(sample(made, 2, steps=2)).shape == (2, 3, 32, 32)
    lines = [line for line in (out / "README.md").read_text().splitlines() if line.startswith("| ")]
    heads, *rows = [[cell.strip() for cell in line.split("|")] for line in lines]
    losses = {int(row[1]): float(row[heads.index("loss")]) for row in rows}
    assert losses[40] < 0.9 * losses[0]
    assert (out / "pictures" / "step-00000040.png").exists()


@pytest.mark.parametrize("model", ["continuous", "categorical"])
def test_resume_is_exact(model: Any, shards: Path, tmp_path: Path) -> None:
    process = CATEGORICAL if model == "categorical" else ProcessConfig()
    network = replace(NETWORK, self_condition=model == "continuous")
    given = {"model": model, "process": process, "network": network}
    whole = run(settings(shards, tmp_path / "whole", **given), "", progress=False)
    for steps in (5, 12):
        run(settings(shards, tmp_path / "parts", {"max_steps": steps}, **given), "", progress=False)
    assert (whole / "model.safetensors").read_bytes() == (tmp_path / "parts" / "model.safetensors").read_bytes()
    with pytest.raises(OutputExists, match="is trained already"):
        run(settings(shards, tmp_path / "parts", **given), "", progress=False)


def task(process: ProcessConfig, **terms: float) -> CategoricalTask:
    spec = LatentSpec.of(codec().space)
    own = CategoricalSettings(self_condition=False, **terms)
    into, out = channels(spec, False)
    torch.manual_seed(0)
    network = replace(NETWORK, in_channels=into, out_channels=out, noise_scale=process.noise_scale)
    model = CategoricalDiffusion(spec, network, process, 32, False)
    torch.nn.init.normal_(model.unet.exit.weight, std=0.3)
    model.use_codec(codec())
    return CategoricalTask(model, LoopSettings(batch=4), own)


def batch(count: int = 4) -> Batch:
    sizes = codec().space.sizes
    rng = np.random.default_rng(0)
    planes = torch.from_numpy(np.stack([rng.integers(0, k, (count, 4, 4), np.uint8) for k in sizes], axis=1))
    return Batch(planes, torch.arange(count), torch.full((count,), -1), [])


def decoded(indices: torch.Tensor) -> torch.Tensor:
    """(B, 3, H, W) in about [-1, 1], not clamped."""
    books = codec().space.codebooks
    return codec().space.from_codewords([book[indices[:, c]].permute(0, 3, 1, 2) for c, book in enumerate(books)])


@pytest.mark.parametrize("name", ["vq-8-8-8", "pq-32-8-8", "opq-32-8-8", "rq-32-8-8"])
def test_codewords_decode_as_their_indices(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    found = difflate.load(name)
    assert isinstance(found, VqCodec)
    monkeypatch.setattr(f"{__name__}.codec", lambda: found)
    rng = np.random.default_rng(0)
    planes = [rng.integers(0, k, (2, 3, 5)) for k in found.space.sizes]
    indices = torch.from_numpy(np.stack(planes, axis=1))
    pixels = ((decoded(indices) + 1) * 127.5).round().clamp(0, 255)
    assert (
        pixels - found.space.from_latent(indices)
    ).abs().max() <= 1  # what is half way may be rounded to either side


def test_the_terms_of_equation_24() -> None:
    """Against the two terms written out with one-hot logits: a Gumbel-softmax of sure logits is the index."""
    found = task(ProcessConfig(target="x0"))
    latent = batch()
    space, draws = found.model.latent.index_space, Draws(0, latent.numbers, 4)
    wrong = (latent.pixels.long() + 7) % 256
    logits = torch.cat([torch.nn.functional.one_hot(wrong[:, c], 256).permute(0, 3, 1, 2) for c in range(6)], dim=1)
    found.model.forward = lambda *_: 1e6 * logits.float()  # type: ignore[method-assign]
    values = found(latent)
    z0, z_tilde = space.scale(latent.pixels.long()), space.scale(wrong)
    noisy = diffuse(found.process, z0, draws)
    images = [decoded(indices) for indices in (latent.pixels.long(), wrong)]
    assert values["image"].item() == pytest.approx((images[0] - images[1]).square().mean().item(), rel=1e-4)
    keep = noisy.logsnr < 14
    eps = (noisy.eps - eps_z(noisy.x, z_tilde, noisy.logsnr))[keep].square().flatten(1).mean(1)
    weighted = noisy.logsnr.exp()[keep] * (z0 - z_tilde)[keep].square().flatten(1).mean(1)
    torch.testing.assert_close(eps, weighted, rtol=1e-2, atol=1e-4)
    every = noisy.logsnr.exp() * (z0 - z_tilde).square().flatten(1).mean(1)
    assert values["eps"].item() == pytest.approx(every.mean().item(), rel=1e-4)
    assert values["loss"].item() == pytest.approx((values["image"] + values["eps"]).item(), rel=1e-6)


def test_right_logits_cost_nothing() -> None:
    found = task(CATEGORICAL, cross_entropy=1.0)
    latent = batch()
    right = [torch.nn.functional.one_hot(latent.pixels[:, c].long(), 256).permute(0, 3, 1, 2) for c in range(6)]
    found.model.forward = lambda *_: 1e6 * torch.cat(right, dim=1).float()  # type: ignore[method-assign]
    assert found(latent)["loss"].item() == pytest.approx(0, abs=1e-6)
    found.model.forward = lambda *_: torch.zeros(4, 6 * 256, 4, 4)  # type: ignore[method-assign]
    assert found(latent)["cross_entropy"].item() == pytest.approx(math.log(256), rel=1e-5)


def test_each_term_reaches_the_network_and_its_weight_counts() -> None:
    for terms in ({"image": 1.0}, {"eps": 1.0}, {"cross_entropy": 1.0}):
        found = task(CATEGORICAL, **{"image": 0.0, "eps": 0.0, **terms}).train()
        values = found(batch())
        values["loss"].backward()
        assert found.model.unet.exit.weight.grad is not None
        assert found.model.unet.exit.weight.grad.abs().sum() > 0
        (name,) = terms
        assert values["loss"].item() == pytest.approx(values[name].item())


def test_the_planes_decoded_once_more_have_the_same_gradient() -> None:
    """What is computed again on the way back draws the same Gumbel noise."""
    gradients = []
    for checkpointing in (False, True):
        found = task(CATEGORICAL).train()
        found.gradient_checkpointing = checkpointing
        found(batch())["loss"].backward()
        gradients.append(found.model.unet.exit.weight.grad)
    torch.testing.assert_close(gradients[0], gradients[1])


def test_what_is_drawn_of_the_first_answer_has_nothing_to_do_with_the_noise() -> None:
    """Self-conditioning must not tell the network of the noise that it is to find."""
    draws = Draws(0, torch.arange(64), 32)
    noise, first = normal((64, 100), draws.generators()), uniform((64, 100), draws.of_first_answer(torch.device("cpu")))
    of_noise, of_first = noise.abs() - noise.abs().mean(), first - first.mean()
    assert abs(float((of_noise * of_first).mean() / (of_noise.std() * of_first.std()))) < 0.05


def test_the_parts_of_a_batch_add_up_to_it() -> None:
    found = task(CATEGORICAL)
    whole, latent = found(batch()), batch()
    parts = [
        found(Batch(latent.pixels[i : i + 2], latent.numbers[i : i + 2], latent.labels[i : i + 2], [])) for i in (0, 2)
    ]
    assert whole["loss"].item() == pytest.approx((parts[0]["loss"] + parts[1]["loss"]).item() / 2, rel=1e-4)


def test_another_codec_is_refused(shards: Path, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"the latents are of opq-32-8-8 .*, not of pq-32-8-8"):
        run(settings(shards, tmp_path, codec="pq-32-8-8"), "", progress=False)
    with pytest.raises(ConfigError, match="codec 'jpeg' has no finite latent space"):
        run(settings(shards, tmp_path, codec="jpeg"), "", progress=False)


@pytest.mark.parametrize(
    ("others", "message"),
    [
        ({"network": replace(NETWORK, in_channels=4)}, "`in_channels` .* follows from codec and process"),
        ({"categorical": CategoricalSettings(tau=2.0)}, "set model=categorical"),
        ({"model": "categorical", "process": ProcessConfig(target="v")}, "must be x0"),
        ({"model": "categorical", "process": CATEGORICAL, "network": replace(NETWORK, self_condition=True)},
         "of the network must be false"),
    ],
)  # fmt: skip
def test_settings_that_do_not_fit(others: dict, message: str, shards: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=message):
        run(settings(shards, tmp_path, **others), "", progress=False)


@pytest.mark.parametrize("terms", [{"tau": 0.0}, {"image": -1.0}, {"image": 0.0, "eps": 0.0}])
def test_terms_out_of_range(terms: dict) -> None:
    with pytest.raises(ConfigError):
        CategoricalSettings(**terms)


@pytest.mark.parametrize(
    ("name", "million", "kind"),
    [
        ("cats-latent-small", 10.2, LatentDiffusion),
        ("cats-diffae-small", 4.5, LatentDiffusion),
        ("cats-categorical-small", 6.7, CategoricalDiffusion),
        ("latent-paper", 48.7, LatentDiffusion),
        ("categorical-paper", 50.5, CategoricalDiffusion),
    ],
)
def test_the_shipped_configurations(name: str, million: float, kind: type, shards: Path, pytestconfig) -> None:
    path = pytestconfig.rootpath / "configs" / f"{name}.yaml"
    found = read_settings(LatentTraining, path, [f"latents={shards}"])
    assert float(cost(found).split()[0]) == pytest.approx(million, rel=0.01)
    assert (found.model == "categorical") == (kind is CategoricalDiffusion)


def test_command(shards: Path, tmp_path: Path, pytestconfig, capsys: pytest.CaptureFixture) -> None:
    config = str(pytestconfig.rootpath / "configs" / "cats-latent-smoke.yaml")
    assert main(["train", config, f"latents={shards}", f"out={tmp_path}", "--dry-run"]) == 0
    assert "million parameters" in capsys.readouterr().out
    assert main(["train", config, f"latents={tmp_path}", f"out={tmp_path / 'out'}"]) == 2
    error = capsys.readouterr().err
    assert "no latents in this folder" in error
    assert error.count("\n") == 1


def test_a_shard_of_another_codec_is_refused(shards: Path, tmp_path: Path) -> None:
    images = write_images(tmp_path / "images", 8)
    found = difflate.load("pq-32-8-8")
    assert isinstance(found, VqCodec)
    write_latents(list_items([images]), found, tmp_path / "other", image_px=32, flips=False)
    with pytest.raises(ConfigError, match="name latents of one codec and size"):
        Latents.open([shards, tmp_path / "other"])
