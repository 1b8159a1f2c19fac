import dataclasses
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from difflate.cli.main import main
from difflate.data.crops import Batch
from difflate.diffusion import ProcessConfig
from difflate.errors import ConfigError, OutputExists
from difflate.models.diffusion_decoder import PRESETS, DecoderConfig, DiffusionDecoder
from difflate.models.transform_coder import TransformModel
from difflate.nn import UNetConfig
from difflate.nn.entropy_network import HyperpriorConfig
from difflate.nn.transforms import TransformConfig
from difflate.train.checkpoint import latest, read_head
from difflate.train.config import read_settings
from difflate.train.recipes import cdc
from difflate.train.recipes.cdc import CdcTraining, CoderSettings, CoderStage, DecoderObjective, DiffusionStage
from difflate.train.settings import LoopSettings
from training_helpers import write_images

CONFIGS = Path(__file__).parents[1] / "configs"
CODER = CoderSettings(TransformConfig("dct", 24, (8, 8, 8), (1, 1, 1)), HyperpriorConfig(4, 8, 8))
LOOP = LoopSettings(
    max_steps=6, batch=4, lr=1e-3, warmup_steps=2, decay="constant", log_every=2, validate_every=3, pictures_every=0,
    checkpoint_every=3, workers=0,
)  # fmt: skip


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_images(tmp_path_factory.mktemp("images"), 14)


def loop(**others: Any) -> LoopSettings:
    return dataclasses.replace(LOOP, **others)


def settings(images: Path, out: Path, **others: Any) -> CdcTraining:
    """Of a model that trains in a second."""
    values: dict[str, Any] = {
        "holdback": 4,
        "coder": CODER,
        "decoder": DecoderConfig(context_widths=(0, 0, 8)),
        "network": UNetConfig(widths=(8, 8, 8), blocks=(1, 1, 1), patch=4),
        "process": ProcessConfig("cosine", target="v", condition="t"),
        "transforms": CoderStage(32, bit_price=0.01, training=LOOP),
        "hyperprior": CoderStage(32, training=LOOP),
        "diffusion": DiffusionStage(32, training=LOOP),
        **others,
    }
    return CdcTraining(out=str(out), images=[str(images)], **values)


def run(found: CdcTraining) -> DiffusionDecoder:
    return DiffusionDecoder.from_pretrained(cdc.run(found, "command", progress=False))


def same(one: nn.Module, other: nn.Module) -> bool:
    theirs = other.state_dict()
    return all(torch.equal(value, theirs[key]) for key, value in one.state_dict().items())


@pytest.fixture(scope="module")
def trained(images: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of all stages but the perceptual one."""
    out = tmp_path_factory.mktemp("cdc") / "model"
    run(settings(images, out))
    return out


def test_stages_build_on_each_other(trained: Path) -> None:
    model = DiffusionDecoder.from_pretrained(trained)
    hyperprior = TransformModel.from_pretrained(trained / "stages" / "hyperprior")
    transforms = TransformModel.from_pretrained(trained / "stages" / "transforms")
    assert same(model.coder, hyperprior)  # frozen: it stayed what it was
    assert not same(transforms, hyperprior)
    assert same(model, DiffusionDecoder.from_pretrained(trained / "stages" / "diffusion"))
    stored = (trained / name / "exact.safetensors" for name in ("", "stages/hyperprior"))
    assert len({path.read_bytes() for path in stored}) == 1
    before = read_head(latest(trained / "stages" / "transforms" / "checkpoints"))[0].validations[-1][1]
    after = read_head(latest(trained / "stages" / "hyperprior" / "checkpoints"))[0].validations[0][1]
    assert after["psnr_db"] == pytest.approx(before["psnr_db"], abs=1e-4)  # it starts from the averaged weights


def test_the_card_tells_of_the_stages(trained: Path) -> None:
    card = (trained / "README.md").read_text("utf-8")
    assert "| diffusion | 6 |" in card
    assert "| transforms | 6 |" in card
    assert "one_step_psnr_db" in card
    again = read_settings(CdcTraining, trained / "training.yaml", [])
    assert again.diffusion.training.max_steps == 6
    assert again.transforms.bit_price == 0.01


def test_what_is_finished_is_not_trained_again(images: Path, trained: Path) -> None:
    with pytest.raises(OutputExists, match="trained already"):
        run(settings(images, trained))


def test_an_interrupted_stage_goes_on_exactly(images: Path, trained: Path, tmp_path: Path) -> None:
    out = tmp_path / "model"
    half = {"hyperprior": CoderStage(32, training=loop(max_steps=3)), "diffusion": None}
    run(settings(images, out, **half))
    run(settings(images, out, diffusion=DiffusionStage(32, training=loop(max_steps=3))))
    assert same(run(settings(images, out)), DiffusionDecoder.from_pretrained(trained))


def test_a_stage_does_not_go_on_from_another_start(images: Path, tmp_path: Path) -> None:
    out, short = tmp_path / "model", loop(max_steps=1)
    stages = {"transforms": None, "hyperprior": CoderStage(32, training=short)}
    run(settings(images, out, **stages, diffusion=DiffusionStage(32, training=short)))
    stages["hyperprior"] = CoderStage(32, training=loop(max_steps=2))
    with pytest.raises(ConfigError, match="start"):
        run(settings(images, out, **stages, diffusion=DiffusionStage(32, training=loop(max_steps=2))))
    anew = run(settings(images, out, **stages, diffusion=DiffusionStage(32, training=loop(max_steps=2, force=True))))
    assert same(anew.coder, TransformModel.from_pretrained(out / "stages" / "hyperprior"))


def test_the_loss_of_the_diffusion_falls(images: Path, trained: Path, tmp_path: Path) -> None:
    stage = DiffusionStage(32, training=loop(max_steps=60, lr=3e-3, validate_every=60))
    others = {"transforms": None, "hyperprior": None, "coder_from": str(trained / "stages" / "hyperprior")}
    model = run(settings(images, tmp_path / "model", **others, diffusion=stage))
    progress = read_head(latest(tmp_path / "model" / "stages" / "diffusion" / "checkpoints"))[0]
    losses = [values["loss"] for _, values in progress.validations]
    assert losses[-1] < 0.97 * losses[0]
    source = TransformModel.from_pretrained(trained / "stages" / "hyperprior")
    assert same(model.coder, source)
    exact = (tmp_path / "model" / "exact.safetensors").read_bytes()
    assert exact == (trained / "stages" / "hyperprior" / "exact.safetensors").read_bytes()


def test_weights_of_another_coder_are_refused(images: Path, trained: Path, tmp_path: Path) -> None:
    others: dict[str, Any] = {"transforms": None, "hyperprior": None, "coder_from": str(trained / "stages/hyperprior")}
    with pytest.raises(ConfigError, match=r"coder\.lmbda_max"):
        run(settings(images, tmp_path, **others, coder=dataclasses.replace(CODER, lmbda_max=0.05)))
    others["coder_from"] = str(tmp_path / "none")
    with pytest.raises(ConfigError, match="no such folder"):
        run(settings(images, tmp_path, **others))


def objective(stage: DiffusionStage, **decoder: Any) -> DecoderObjective:
    torch.manual_seed(0)
    config = DecoderConfig(**{"context_widths": (0, 0, 8), **decoder})
    network = UNetConfig(widths=(8, 8, 8), blocks=(1, 1, 1), patch=4)
    process = ProcessConfig("cosine", target="v", condition="t")
    model = DiffusionDecoder(CODER.transform, CODER.hyperprior, 0.0006, 0.08, config, network, process)
    torch.nn.init.normal_(model.unet.exit.weight, std=0.1)
    return DecoderObjective(model, stage).train()


def batch(count: int = 4) -> Batch:
    pixels = torch.randint(0, 256, (count, 3, 32, 32), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    return Batch(pixels, torch.arange(count), torch.full((count,), -1), [])


def moved(module: nn.Module) -> bool:
    return any(p.grad is not None and bool(p.grad.abs().sum() > 0) for p in module.parameters())


def test_a_frozen_coder_rounds_and_learns_nothing() -> None:
    found = objective(DiffusionStage(32, training=LOOP))
    values = found(batch())
    values["loss"].backward()
    assert not moved(found.model.coder)
    assert moved(found.model.context)
    assert moved(found.model.unet)
    assert not found.model.coder.training
    assert found.model.unet.training
    assert torch.equal(found(batch())["bpp"], found.eval()(batch())["bpp"])  # no noise in training


@pytest.mark.parametrize("error", ["squared", "absolute"])
def test_a_joint_stage_trains_rate_and_reconstruction(error: Any) -> None:
    found = objective(DiffusionStage(32, joint=True, error=error, training=LOOP))
    found(batch())["loss"].backward()
    coder = found.model.coder
    assert all(moved(part) for part in (coder.analysis, coder.entropy, coder.synthesis, found.model.context))
    free = objective(DiffusionStage(32, joint=True, bit_price=0.0, error=error, training=LOOP))
    assert free(batch())["loss"] < found(batch())["loss"]


def test_the_synthesis_is_left_alone_where_nothing_needs_it() -> None:
    stage = DiffusionStage(32, joint=True, training=LOOP)
    found = objective(stage, residual=False, see_synthesis=False, max_refinement=0.0)
    found(batch())["loss"].backward()
    assert not moved(found.model.coder.synthesis)
    assert moved(found.model.coder.analysis)


class FakeLpips(nn.Module):
    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        return (x - y).abs().flatten(1).mean(1)


def test_the_perceptual_loss_is_of_the_image_of_one_step(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cdc, "_load_lpips", lambda net: FakeLpips())
    only, none = (objective(DiffusionStage(32, rho=rho, training=LOOP)) for rho in (1.0, 0.0))
    values = only(batch())
    assert values["loss"].item() == pytest.approx(values["lpips"].item())
    assert "lpips" not in none(batch())
    half = objective(DiffusionStage(32, rho=0.5, training=LOOP))(batch())
    expected = (values["loss"] + none(batch())["loss"]) / 2
    assert half["loss"].item() == pytest.approx(expected.item(), rel=1e-5)
    values["loss"].backward()
    assert moved(only.model.unet)
    assert not any("lpips" in name for name in only.state_dict())


def test_missing_weights_of_lpips_are_told_before_anything_is_trained(
    images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path / "empty"))
    pytest.importorskip("torchvision")
    with pytest.raises(ConfigError):
        run(settings(images, tmp_path / "model", perceptual=DiffusionStage(32, rho=0.5, training=LOOP)))
    assert not (tmp_path / "model").exists()


def test_a_perceptual_stage_goes_on_from_the_diffusion(
    images: Path, trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cdc, "_load_lpips", lambda net: FakeLpips())
    short = DiffusionStage(32, training=loop(max_steps=2, pictures_every=2))
    perceptual = dataclasses.replace(short, rho=0.5)
    others = {"transforms": None, "hyperprior": None, "coder_from": str(trained / "stages" / "hyperprior")}
    model = run(settings(images, tmp_path / "model", **others, diffusion=short, perceptual=perceptual))
    stages = tmp_path / "model" / "stages"
    assert same(model, DiffusionDecoder.from_pretrained(stages / "perceptual"))
    assert not same(model.unet, DiffusionDecoder.from_pretrained(stages / "diffusion").unet)
    assert list((stages / "diffusion" / "pictures").glob("*.png"))


@pytest.mark.parametrize(
    ("others", "message"),
    [
        ({"transforms": None, "hyperprior": None}, "coder_from"),
        ({"transforms": None, "hyperprior": None, "diffusion": None}, "nothing to train"),
        ({"decoder": DecoderConfig(context_widths=(0, 8))}, "context_widths"),
    ],
)
def test_settings_are_checked_before_work(images: Path, tmp_path: Path, others: dict, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        settings(images, tmp_path, **others)


@pytest.mark.parametrize(
    ("stage", "values", "message"),
    [
        (DiffusionStage, {"crop_px": 40}, "multiple of 16"),
        (DiffusionStage, {"rho": 1.5}, "rho"),
        (CoderStage, {"bit_price": -1.0}, "bit_price"),
        (CoderStage, {"rate_ramp_steps": -1}, "rate_ramp_steps"),
    ],
)
def test_settings_of_stages_are_checked(stage: Any, values: dict, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        stage(**values)


def test_no_images_and_a_foreign_model(tmp_path: Path, images: Path) -> None:
    with pytest.raises(ConfigError, match="images"):
        CdcTraining(out="here", coder_from="there")
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(OutputExists, match="holds a model"):
        run(settings(images, tmp_path))


@pytest.mark.parametrize(("config", "preset"), [("cdc-x-param", "x-param"), ("cdc-eps-param", "eps-param"),
                                                ("cdc-small", "small"), ("cdc-smoke", None)])  # fmt: skip
def test_the_shipped_configurations_are_the_presets(config: str, preset: str | None) -> None:
    found = read_settings(CdcTraining, CONFIGS / f"{config}.yaml", ["diffusion.training.max_minutes=5"])
    assert found.diffusion.training.max_minutes == 5
    assert found.diffusion.training.lr == (5e-5 if "param" in config else found.diffusion.training.lr)
    if preset is not None:
        expected = PRESETS[preset]
        parts = (found.coder.transform, found.coder.hyperprior, found.decoder, found.network, found.process)
        wanted = (expected.transform, expected.hyperprior, expected.decoder, expected.network, expected.process)
        for part, want in zip(parts, wanted, strict=True):
            ours, theirs = plain(part), plain(want)
            ours.pop("cond_channels", None), theirs.pop("cond_channels", None)
            assert ours == theirs


def plain(config: Any) -> dict[str, Any]:
    return {key: list(v) if isinstance(v, tuple) else v for key, v in dataclasses.asdict(config).items()}


def test_the_paper_adds_noise_to_learn_the_rate_and_takes_absolute_errors_of_eps() -> None:
    x, eps = (read_settings(CdcTraining, CONFIGS / f"cdc-{name}-param.yaml", []) for name in ("x", "eps"))
    assert (x.diffusion.joint, x.diffusion.error, eps.diffusion.error) == (True, "squared", "absolute")
    assert (x.perceptual.rho, x.perceptual.bit_price, x.diffusion.bit_price) == (0.9, 1.0, 0.0003)
    assert x.diffusion.training.max_steps + x.perceptual.training.max_steps == 1_000_000
    assert 1 / (x.coder.lmbda_min * 127.5**2) == pytest.approx(0.0032, rel=0.01)


def test_the_command_shows_what_it_would_cost(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", str(CONFIGS / "cdc-small.yaml"), "--dry-run"]) == 0
    out = capsys.readouterr().out
    assert "recipe: cdc" in out
    assert "23.9 billion multiply-adds of the U-Net a step" in out
