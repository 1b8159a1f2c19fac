"""The recipe `distil`: students of every kind of model by both methods, exact resume, wrong teachers."""

import dataclasses
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import difflate
from difflate.cli.main import main
from difflate.codecs.vq import VqCodec
from difflate.data.crops import Batch
from difflate.data.items import list_items
from difflate.data.latent_writer import write_latents
from difflate.diffusion import ProcessConfig, ddim
from difflate.errors import ConfigError, ModelError
from difflate.generate import LatentDiffusion, LatentSpec, PixelDiffusion, load_generator, sample
from difflate.models.diffusion_decoder import DecoderConfig, DiffusionDecoder
from difflate.models.exact import EXACT
from difflate.models.latent_space import latent_space
from difflate.nn import UNetConfig
from difflate.nn.entropy_network import HyperpriorConfig
from difflate.nn.transforms import TransformConfig
from difflate.train import checkpoint, perceptual_loss
from difflate.train.config import read_settings
from difflate.train.distillation import LatentDistilTask, PixelDistilTask
from difflate.train.draws import Draws
from difflate.train.recipes.distil import RECIPE, DistilTraining, cost, student_of
from difflate.train.settings import LoopSettings
from training_helpers import LOOP, newest, write_images

CONFIGS = Path(__file__).parents[1] / "configs"
CODEC = "opq-32-8-8"
NETWORK = UNetConfig(widths=(8, 16), blocks=(1, 1), head_width=8)
METHODS = {"direct": {"teacher_steps": 4}, "consistency": {"method": "consistency", "teacher_steps": 8}}


def weighty(model: Any) -> Any:
    """With an output that is not 0, as of a network that was trained."""
    nn.init.normal_(model.unet.exit.weight, std=0.2)
    return model


def codec() -> VqCodec:
    found = difflate.load(CODEC)
    assert isinstance(found, VqCodec)
    return found


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a teacher of each kind, images and latents."""
    folder = tmp_path_factory.mktemp("distil")
    torch.manual_seed(0)
    weighty(PixelDiffusion(NETWORK, ProcessConfig(), 8)).save_pretrained(folder / "pixel")
    spec = LatentSpec.of(latent_space(codec()))
    network = dataclasses.replace(NETWORK, in_channels=6, out_channels=6, self_condition=True)
    weighty(LatentDiffusion(spec, network, ProcessConfig(), 32, 0.03)).save_pretrained(folder / "latent")
    decoder = DiffusionDecoder(
        TransformConfig("dct", 24, (8, 8, 8), (1, 1, 1)),
        HyperpriorConfig(4, 8, 8),
        0.0006,
        0.08,
        DecoderConfig(context_widths=(0, 0, 8), steps=8, gamma=0.9),
        UNetConfig(widths=(8, 8, 8), blocks=(1, 1, 1), patch=4),
        ProcessConfig(target="x0"),
    )
    weighty(decoder).save_pretrained(folder / "cdc")
    write_images(folder / "images", 20)
    write_latents(list_items([folder / "images"]), codec(), folder / "latents", image_px=32, flips=True)
    return folder


def settings(made: Path, kind: str, out: Path, loop: dict[str, Any] | None = None, **others: Any) -> DistilTraining:
    data = {"latents" if kind == "latent" else "images": [str(made / ("latents" if kind == "latent" else "images"))]}
    return DistilTraining(
        out=str(out),
        training=LoopSettings(**{**vars(LOOP), **(loop or {})}),
        **{"teacher": str(made / kind), "holdback": 4, "crop_px": 32, **data, **others},
    )


def losses(out: Path) -> list[float]:
    return [values["loss"] for _, values in checkpoint.read_head(newest(out))[0].validations]


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("kind", ["pixel", "latent", "cdc"])
def test_the_loss_falls_and_the_student_is_used_as_any_model(
    kind: str, method: str, made: Path, tmp_path: Path
) -> None:
    steps = 1 if method == "direct" else 2
    loop = {"max_steps": 40, "lr": 5e-3, "ema": 0.05, "validate_every": 40, "checkpoint_every": 40, "batch": 4}
    out = RECIPE.run(settings(made, kind, tmp_path, loop, steps=steps, **METHODS[method]))
    before, after = losses(out)
    assert after < 0.9 * before
    if kind != "cdc":
        student = load_generator(out)
        assert student.steps == steps
        assert not student.self_conditioned
        assert torch.equal(next(sample(student, 2)), next(sample(student, 2, steps=steps)))
        return
    student = DiffusionDecoder.from_pretrained(out)
    teacher = DiffusionDecoder.from_pretrained(made / "cdc")
    assert student.decoder == dataclasses.replace(teacher.decoder, steps=steps)
    assert (out / EXACT).read_bytes() == (made / "cdc" / EXACT).read_bytes()
    for part in ("coder", "context"):  # what is around the network is the teacher's
        for ours, theirs in zip(getattr(student, part).parameters(), getattr(teacher, part).parameters(), strict=True):
            assert torch.equal(ours, theirs)
    picture = difflate.open_image(made / "images" / "000.png")
    file = difflate.load(out).encode(picture)
    again = difflate.load(out).decode(file, steps=steps)
    assert (difflate.load(out).decode(file).pixels == again.pixels).all()


def test_resume_is_exact_with_the_averaged_student(made: Path, tmp_path: Path) -> None:
    given = {**METHODS["consistency"], "target_decay": 0.9}
    whole = RECIPE.run(settings(made, "pixel", tmp_path / "whole", **given))
    for steps in (5, 12):
        RECIPE.run(settings(made, "pixel", tmp_path / "parts", {"max_steps": steps}, **given))
    assert (whole / "model.safetensors").read_bytes() == (tmp_path / "parts" / "model.safetensors").read_bytes()


def test_a_student_begins_as_its_teacher_given_zeros(made: Path) -> None:
    teacher = LatentDiffusion.from_pretrained(made / "latent")
    student = student_of(teacher, 2).eval()
    x, condition = torch.randn(2, 6, 4, 4), torch.tensor([0.3, 1.0])
    torch.testing.assert_close(student(x, condition), teacher(x, condition, torch.zeros_like(x)))
    assert isinstance(student, LatentDiffusion)
    assert (student.steps, student.softness) == (2, 0.03)


def batch(pixels: Tensor, labels: Tensor | None = None) -> Batch:
    count = len(pixels)
    return Batch(pixels, torch.arange(count), torch.full((count,), -1) if labels is None else labels, [])


def test_the_error_is_that_of_samples_from_the_same_noise(made: Path) -> None:
    teacher = LatentDiffusion.from_pretrained(made / "latent")
    given = settings(made, "latent", Path("out"), steps=1, teacher_steps=4, error="squared")
    task = LatentDistilTask(student_of(teacher, 1), teacher.unet, given).train()
    latents = torch.randint(0, 200, (3, 6, 4, 4), dtype=torch.uint8)
    values = task(batch(latents))
    noise = task.noise(torch.zeros(3, 6, 4, 4), Draws(0, torch.arange(3), LOOP.batch))
    ends = [
        list(ddim(task.process, model, noise, steps, clip=clip, self_condition=model.network.self_condition))[-1].x
        for model, steps, clip in ((task.model, 1, None), (teacher, 4, 1.0))
    ]
    assert values["loss"].item() == pytest.approx((ends[0] - ends[1]).square().mean().item(), rel=1e-4)


def test_the_average_follows_once_a_step(made: Path) -> None:
    """However many parts a step has, and not in validation."""
    teacher = PixelDiffusion.from_pretrained(made / "pixel")
    given = settings(made, "pixel", Path("out"), {"batch": 4}, target_decay=0.75, **METHODS["consistency"])
    task = PixelDistilTask(student_of(teacher, 1), teacher.unet, given).train()
    pixels = torch.zeros(4, 3, 8, 8, dtype=torch.uint8)
    images = batch(pixels)

    def step(number: int) -> float:
        for part in (slice(0, 2), slice(2, 4)):
            task(Batch(images.pixels[part], images.numbers[part] + 4 * number, images.labels[part], []))
        return float(task.averaged.exit.bias[0])

    bias = task.model.unet.exit.bias
    torch.nn.init.constant_(bias, 1.0)  # as of a model that training starts from
    assert step(0) == 1.0
    torch.nn.init.constant_(bias, 5.0)
    assert step(1) == 2.0
    task.eval()
    assert step(2) == 2.0
    assert not any(name.startswith("teacher") for name in task.state_dict())
    assert all(name.startswith("model.unet.") for name, p in task.named_parameters() if p.requires_grad)


def test_classes_are_passed_on(made: Path, tmp_path: Path) -> None:
    for name in ("dark", "light"):
        write_images(tmp_path / "images" / name, 6)
    network = dataclasses.replace(NETWORK, vector_channels=2)
    teacher = weighty(PixelDiffusion(network, ProcessConfig(), 8, ["dark", "light"]))
    teacher.save_pretrained(tmp_path / "teacher")
    given = settings(
        made, "pixel", tmp_path / "out", {"max_steps": 1}, teacher=str(tmp_path / "teacher"),
        images=[str(tmp_path / "images")],
    )  # fmt: skip
    student = load_generator(RECIPE.run(given))
    assert isinstance(student, PixelDiffusion)
    assert student.classes == ["dark", "light"]
    task = PixelDistilTask(student_of(teacher, 1), teacher.unet, dataclasses.replace(given, unlabelled=0.0))
    pixels = torch.zeros(2, 3, 8, 8, dtype=torch.uint8)
    told = [
        task.example(batch(pixels, torch.tensor(labels)), Draws(0, torch.arange(2), 8)).told
        for labels in ([0, 1], [-1, 1])
    ]
    assert told[0]["vector"].tolist() == [[1, 0], [0, 1]]
    assert told[1]["vector"].tolist() == [[0, 0], [0, 1]]
    weighty(PixelDiffusion(network, ProcessConfig(), 8, ["cats", "dogs"])).save_pretrained(tmp_path / "other")
    with pytest.raises(ConfigError, match="name folders of these"):
        RECIPE.run(dataclasses.replace(given, teacher=str(tmp_path / "other"), out=str(tmp_path / "none")))


class FakeLpips(nn.Module):
    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        assert x.shape[1] == 3
        assert max(x.abs().max(), y.abs().max()) <= 1
        return (x - y).abs().flatten(1).mean(1)


@pytest.mark.parametrize("kind", ["pixel", "cdc"])
def test_lpips_has_its_share(kind: str, made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(perceptual_loss, "load_lpips", lambda net: FakeLpips())
    RECIPE.run(settings(made, kind, tmp_path, {"max_steps": 2, "pictures_every": 2}, rho=0.25, teacher_steps=2))
    for _, values in checkpoint.read_head(newest(tmp_path))[0].validations:
        assert values["loss"] == pytest.approx(0.75 * values["error"] + 0.25 * values["lpips"], rel=1e-4)
        assert ("psnr_db" in values) == (kind == "cdc")
    assert list((tmp_path / "pictures").glob("*.png"))
    assert not any("lpips" in name for name in checkpoint_names(tmp_path))


def checkpoint_names(out: Path) -> list[str]:
    from safetensors import safe_open

    with safe_open(str(newest(out)), "pt") as file:
        return list(file.keys())


@pytest.mark.parametrize(
    ("kind", "others", "message"),
    [
        ("pixel", {"teacher": CODEC}, r"teacher \(=opq-32-8-8\): is of the kind vq, whose steps cannot be distilled"),
        ("pixel", {"teacher": "hyperprior-small"}, "is of the kind hyperprior, whose steps cannot be distilled"),
        ("pixel", {"teacher": "nowhere"}, r"teacher \(=nowhere\): no such folder"),
        ("pixel", {"images": [], "latents": ["x"]}, "is trained on images; name folders with images=FOLDER"),
        ("latent", {"images": ["x"]}, "is trained on latents; .* leave images empty"),
        ("latent", {"rho": 0.5}, r"rho \(=0.5\) is a share of LPIPS"),
        ("cdc", {"codec": CODEC}, "codec .* is of latents"),
        ("cdc", {"crop_px": 30}, r"crop_px \(=30\) must be a multiple of 16"),
    ],
)
def test_wrong_teachers_and_settings_of_another_kind(
    kind: str, others: dict[str, Any], message: str, made: Path, tmp_path: Path
) -> None:
    given = settings(made, kind, tmp_path, **others)
    for ask in (cost, RECIPE.run):
        with pytest.raises(ConfigError, match=message):
            ask(given)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("others", "message"),
    [
        ({"steps": 3}, r"steps \(=3\) must be 1 or 2"),
        ({"steps": 2, "teacher_steps": 2}, r"teacher_steps \(=2\) must be above steps"),
        ({"rho": 1.5}, r"rho \(=1.5\)"),
        ({"unlabelled": -1.0}, "unlabelled"),
        ({"target_decay": 1.0}, "target_decay"),
        ({"teacher": ""}, "teacher is empty"),
    ],
)
def test_settings_are_checked(others: dict[str, Any], message: str, made: Path) -> None:
    with pytest.raises(ConfigError, match=message):
        settings(made, "pixel", Path("out"), **others)


def test_latents_of_another_codec_are_refused(made: Path, tmp_path: Path) -> None:
    given = settings(made, "latent", tmp_path, codec="pq-32-8-8")
    with pytest.raises(ModelError, match=r"the latents are of opq-32-8-8 .*, not of pq-32-8-8"):
        RECIPE.run(given)
    spec = dataclasses.replace(LatentSpec.of(latent_space(codec())), fingerprint="0" * 64)
    network = dataclasses.replace(NETWORK, in_channels=6, out_channels=6)
    LatentDiffusion(spec, network, ProcessConfig(), 32).save_pretrained(tmp_path / "other")
    with pytest.raises(ModelError, match="the latents are of opq-32-8-8"):
        RECIPE.run(dataclasses.replace(given, codec=None, teacher=str(tmp_path / "other")))


@pytest.mark.parametrize("name", ["cdc", "cats"])
def test_the_shipped_configurations(name: str, made: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = CONFIGS / f"distil-{name}-small.yaml"
    # the decoder's teacher is to be trained first
    found = read_settings(DistilTraining, path, ["teacher=cdc-small"] if name == "cdc" else [])
    assert "million parameters of the network" in cost(found)
    assert main(["train", str(path), "teacher=opq-32-8-8", "--dry-run"]) == 2
    assert "cannot be distilled" in capsys.readouterr().err
