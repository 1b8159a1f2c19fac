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
from difflate.models.diffusion_decoder import DecoderConfig, DiffusionDecoder
from difflate.models.transform_coder import TransformModel
from difflate.nn import UNetConfig
from difflate.nn.entropy_network import HyperpriorConfig
from difflate.nn.transforms import TransformConfig
from difflate.train import perceptual_loss
from difflate.train.checkpoint import latest, read_head
from difflate.train.config import read_settings
from difflate.train.decoder_task import DecoderTask
from difflate.train.draws import Draws
from difflate.train.recipes.cdc import RECIPE, CdcTraining
from difflate.train.recipes.hyperprior import CoderSettings
from difflate.train.settings import LoopSettings
from difflate.train.stages import CoderStage, DiffusionStage, Stage
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


TRANSFORMS = CoderStage("transforms", crop_px=32, bit_price=0.01, training=LOOP)
HYPERPRIOR = CoderStage("hyperprior", crop_px=32, training=LOOP)
DIFFUSION = DiffusionStage("diffusion", crop_px=32, training=LOOP)


def settings(images: Path, out: Path, *stages: Stage, **others: Any) -> CdcTraining:
    """Of a model that trains in a second."""
    values: dict[str, Any] = {
        "holdback": 4,
        "coder": CODER,
        "decoder": DecoderConfig(context_widths=(0, 0, 8)),
        "network": UNetConfig(widths=(8, 8, 8), blocks=(1, 1, 1), patch=4),
        "process": ProcessConfig("cosine", target="v", condition="t"),
        **others,
    }
    return CdcTraining(
        out=str(out), images=[str(images)], stages=list(stages or (TRANSFORMS, HYPERPRIOR, DIFFUSION)), **values
    )


def short(stage: Stage, **others: Any) -> Any:
    return dataclasses.replace(stage, training=loop(**others))


def run(found: CdcTraining) -> DiffusionDecoder:
    return DiffusionDecoder.from_pretrained(RECIPE.run(found, "command"))


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
    assert [stage.name for stage in again.stages] == ["transforms", "hyperprior", "diffusion"]
    assert again.stages[2].training.max_steps == 6
    assert again.stages[0].bit_price == 0.01


def test_what_is_finished_is_not_trained_again(images: Path, trained: Path) -> None:
    with pytest.raises(OutputExists, match="trained already"):
        run(settings(images, trained))


def test_an_interrupted_stage_goes_on_exactly(images: Path, trained: Path, tmp_path: Path) -> None:
    out = tmp_path / "model"
    RECIPE.run(settings(images, out, TRANSFORMS, short(HYPERPRIOR, max_steps=3)))
    run(settings(images, out, TRANSFORMS, HYPERPRIOR, short(DIFFUSION, max_steps=3)))
    assert same(run(settings(images, out)), DiffusionDecoder.from_pretrained(trained))


def test_a_stage_does_not_go_on_from_another_start(images: Path, tmp_path: Path) -> None:
    out = tmp_path / "model"
    run(settings(images, out, short(HYPERPRIOR, max_steps=1), short(DIFFUSION, max_steps=1)))
    coder = short(HYPERPRIOR, max_steps=2)
    with pytest.raises(ConfigError, match="start"):
        run(settings(images, out, coder, short(DIFFUSION, max_steps=2)))
    anew = run(settings(images, out, coder, short(DIFFUSION, max_steps=2, force=True)))
    assert same(anew.coder, TransformModel.from_pretrained(out / "stages" / "hyperprior"))


def test_the_loss_of_the_diffusion_falls(images: Path, trained: Path, tmp_path: Path) -> None:
    stage = short(DIFFUSION, max_steps=60, lr=3e-3, validate_every=60)
    coder = str(trained / "stages" / "hyperprior")
    model = run(settings(images, tmp_path / "model", stage, coder_from=coder))
    progress = read_head(latest(tmp_path / "model" / "stages" / "diffusion" / "checkpoints"))[0]
    losses = [values["loss"] for _, values in progress.validations]
    assert losses[-1] < 0.97 * losses[0]
    source = TransformModel.from_pretrained(trained / "stages" / "hyperprior")
    assert same(model.coder, source)
    exact = (tmp_path / "model" / "exact.safetensors").read_bytes()
    assert exact == (trained / "stages" / "hyperprior" / "exact.safetensors").read_bytes()


def test_weights_of_another_coder_are_refused(images: Path, trained: Path, tmp_path: Path) -> None:
    coder = str(trained / "stages/hyperprior")
    with pytest.raises(ConfigError, match=r"coder\.lmbda_max"):
        run(settings(images, tmp_path, DIFFUSION, coder_from=coder, coder=dataclasses.replace(CODER, lmbda_max=0.05)))
    with pytest.raises(ConfigError, match="no such folder"):
        run(settings(images, tmp_path, DIFFUSION, coder_from=str(tmp_path / "none")))


def task(stage: DiffusionStage, **decoder: Any) -> DecoderTask:
    torch.manual_seed(0)
    config = DecoderConfig(**{"context_widths": (0, 0, 8), **decoder})
    network = UNetConfig(widths=(8, 8, 8), blocks=(1, 1, 1), patch=4)
    process = ProcessConfig("cosine", target="v", condition="t")
    model = DiffusionDecoder(CODER.transform, CODER.hyperprior, 0.0006, 0.08, config, network, process)
    torch.nn.init.normal_(model.unet.exit.weight, std=0.1)
    return DecoderTask(model, stage).train()


def batch(count: int = 4) -> Batch:
    pixels = torch.randint(0, 256, (count, 3, 32, 32), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    return Batch(pixels, torch.arange(count), torch.full((count,), -1), [])


def moved(module: nn.Module) -> bool:
    return any(p.grad is not None and bool(p.grad.abs().sum() > 0) for p in module.parameters())


def test_a_frozen_coder_rounds_and_learns_nothing() -> None:
    found = task(DiffusionStage("diffusion", crop_px=32, training=LOOP))
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
    found = task(DiffusionStage("diffusion", crop_px=32, joint=True, error=error, training=LOOP))
    found(batch())["loss"].backward()
    coder = found.model.coder
    assert all(moved(part) for part in (coder.analysis, coder.entropy, coder.synthesis, found.model.context))
    free = task(DiffusionStage("diffusion", crop_px=32, joint=True, bit_price=0.0, error=error, training=LOOP))
    assert free(batch())["loss"] < found(batch())["loss"]


def test_the_synthesis_is_left_alone_where_nothing_needs_it() -> None:
    stage = DiffusionStage("diffusion", crop_px=32, joint=True, training=LOOP)
    found = task(stage, residual=False, see_synthesis=False, max_refinement=0.0)
    found(batch())["loss"].backward()
    assert not moved(found.model.coder.synthesis)
    assert moved(found.model.coder.analysis)


class FakeLpips(nn.Module):
    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        return (x - y).abs().flatten(1).mean(1)


def test_the_perceptual_loss_is_of_the_image_of_one_step(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(perceptual_loss, "load_lpips", lambda net: FakeLpips())
    only, none = (task(DiffusionStage("diffusion", crop_px=32, rho=rho, training=LOOP)) for rho in (1.0, 0.0))
    values = only(batch())
    assert values["loss"].item() == pytest.approx(values["lpips"].item())
    assert "lpips" not in none(batch())
    half = task(DiffusionStage("diffusion", crop_px=32, rho=0.5, training=LOOP))(batch())
    expected = (values["loss"] + none(batch())["loss"]) / 2
    assert half["loss"].item() == pytest.approx(expected.item(), rel=1e-5)
    values["loss"].backward()
    assert moved(only.model.unet)
    assert not any("lpips" in name for name in only.state_dict())


def test_one_step_is_trained_from_noise_and_on_its_own_image(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(perceptual_loss, "load_lpips", lambda net: FakeLpips())
    found = task(DiffusionStage("diffusion", crop_px=32, one_step=True, rho=0.5, training=LOOP), gamma=0.7)
    optimizer = torch.optim.Adam(found.trained("loss"), 3e-3)
    losses = []
    for _ in range(12):
        values = found(batch())
        optimizer.zero_grad()
        values["loss"].backward()
        optimizer.step()
        losses.append(values["loss"].item())
    assert losses[-1] < losses[0]
    assert not moved(found.model.coder)
    silent = task(DiffusionStage("diffusion", crop_px=32, one_step=True, training=LOOP), gamma=0.0)
    assert silent(batch())["loss"].item() != task(silent.stage, gamma=0.7)(batch())["loss"].item()


def test_missing_weights_of_lpips_are_told_before_anything_is_trained(
    images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path / "empty"))
    pytest.importorskip("torchvision")
    with pytest.raises(ConfigError):
        run(
            settings(
                images, tmp_path / "model", HYPERPRIOR, DiffusionStage("perceptual", crop_px=32, rho=0.5, training=LOOP)
            )
        )
    assert not (tmp_path / "model").exists()


def test_a_perceptual_stage_goes_on_from_the_diffusion(
    images: Path, trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(perceptual_loss, "load_lpips", lambda net: FakeLpips())
    first = short(DIFFUSION, max_steps=2, pictures_every=2)
    perceptual = dataclasses.replace(first, name="perceptual", rho=0.5)
    coder = str(trained / "stages" / "hyperprior")
    model = run(settings(images, tmp_path / "model", first, perceptual, coder_from=coder))
    stages = tmp_path / "model" / "stages"
    assert same(model, DiffusionDecoder.from_pretrained(stages / "perceptual"))
    assert not same(model.unet, DiffusionDecoder.from_pretrained(stages / "diffusion").unet)
    assert list((stages / "diffusion" / "pictures").glob("*.png"))


@pytest.mark.parametrize(
    ("stages", "others", "message"),
    [
        ([DIFFUSION], {}, "coder_from"),
        ([DIFFUSION, DIFFUSION], {"coder_from": "x"}, "two stages have the name diffusion"),
        ([dataclasses.replace(HYPERPRIOR, name="1")], {}, "stage's name"),
        ([dataclasses.replace(HYPERPRIOR, name="../x")], {}, "stage's name"),
        ([DIFFUSION], {"coder_from": "x", "init_from": "y"}, "coder_from and init_from"),
        ([HYPERPRIOR], {"decoder": DecoderConfig(context_widths=(0, 8))}, "context_widths"),
    ],
)
def test_settings_are_checked_before_work(
    images: Path, tmp_path: Path, stages: list[Stage], others: dict, message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        settings(images, tmp_path, *stages, **others)


@pytest.mark.parametrize(
    ("stage", "values", "message"),
    [
        (DiffusionStage, {"crop_px": 0}, "at least 1"),
        (DiffusionStage, {"rho": 1.5}, "rho"),
        (CoderStage, {"bit_price": -1.0}, "bit_price"),
        (CoderStage, {"rate_ramp_steps": -1}, "rate_ramp_steps"),
    ],
)
def test_settings_of_stages_are_checked(stage: Any, values: dict, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        stage("stage", **values)


def test_no_images_and_a_foreign_model(tmp_path: Path, images: Path) -> None:
    with pytest.raises(ConfigError, match="images"):
        CdcTraining(out="here", coder_from="there", stages=[DIFFUSION])
    with pytest.raises(ConfigError, match="stages is empty"):
        CdcTraining(out="here", images=["x"], coder_from="there")
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(OutputExists, match="holds a model"):
        run(settings(images, tmp_path))


def shipped(name: str, *overrides: str) -> CdcTraining:
    return read_settings(CdcTraining, CONFIGS / f"{name}.yaml", list(overrides))


@pytest.mark.parametrize("name", ["x-param", "eps-param", "small", "smoke"])
def test_a_stage_is_set_by_its_name_or_its_place(name: str) -> None:
    before = shipped(f"cdc-{name}")
    place = [stage.name for stage in before.stages].index("diffusion")
    for key in ("diffusion", place):
        after = shipped(f"cdc-{name}", f"stages.{key}.training.max_minutes=5", f"stages.{key}.training.lr=1e-4")
        changed = dataclasses.replace(before.stages[place].training, max_minutes=5.0, lr=1e-4)
        assert after.stages[place] == dataclasses.replace(before.stages[place], training=changed)
        assert [s for i, s in enumerate(after.stages) if i != place] == [
            s for i, s in enumerate(before.stages) if i != place
        ]


def test_a_stage_is_left_out() -> None:
    assert [stage.name for stage in shipped("cdc-smoke", "stages.transforms=null").stages] == [
        "hyperprior",
        "diffusion",
    ]


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("stages.diffusion.training.lx=1", r"stages\.diffusion: .*training\.lx"),
        ("stages.diffusion.training.max_step=1", r"stages\.diffusion: .*training has no key max_step; it has "),
        ("diffusion.training.lr=1", r"write stages\.diffusion\.training\.lr=1"),
        ("training.lr=1", r"training\.lr \(=1\): the recipe has no key training; it has "),
        ("stages.diffusion.training.lr=fast", r"stages\.diffusion: .*training\.lr"),
        ("stages.diffusion.training.batch=0", r"stages\.diffusion: batch \(=0\)"),
        ("stages.diffusion.crop_px=30", r"stages\.diffusion: crop_px \(=30\)"),
        ("stages.diffusion.rate_ramp_steps=3", r"stages\.diffusion: .*rate_ramp_steps"),
        ("stages.diffusion.kind=other", r"stages\.diffusion: .*kind"),
        ("stages.perception.rho=1", r"stages\.perception\.rho .*there are transforms, hyperprior, diffusion"),
        ("stages.diffusion=5", r"stages\.diffusion \(=5\) must be null"),
        ("stages=null", r"stages \(=null\) is a list"),
    ],
)
def test_a_wrong_key_of_a_stage_is_named(override: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        shipped("cdc-smoke", override)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("stages: {name: a}", "must be a list"),
        ("stages: [{name: a, kind: other}]", r"stages\.a\.kind \(=other\) must be one of coder, diffusion"),
        ("stages: [{kind: coder}]", r"stages\.0: .*name"),
    ],
)
def test_entries_that_are_no_stages_are_named(text: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / "c.yaml"
    path.write_text(f"recipe: cdc\nout: x\nimages: [y]\n{text}\n")
    with pytest.raises(ConfigError, match=message):
        read_settings(CdcTraining, path, [])


def test_the_published_models_are_trained_as_their_paper_says() -> None:
    """Yang & Mandt 2023: a million steps, bits nearly free in the first of them; the error of ε is absolute; λ is
    .0032 of a bit."""
    x, eps = shipped("cdc-x-param"), shipped("cdc-eps-param")
    for settings, error, target in ((x, "squared", "x0"), (eps, "absolute", "eps")):
        first, second = settings.stages
        assert isinstance(first, DiffusionStage)
        assert isinstance(second, DiffusionStage)
        assert (first.joint, second.joint, settings.process.target) == (True, True, target)
        assert (first.error, second.error) == (error, error)
        assert (first.bit_price, second.bit_price, first.rho, second.rho) == (0.0003, 1.0, 0.0, 0.9)
        assert first.training.max_steps + second.training.max_steps == 1_000_000
        assert 1 / (settings.coder.lmbda_min * 127.5**2) == pytest.approx(0.0032, rel=0.01)


def test_the_rate_is_learnt_with_noise_and_measured_with_rounding() -> None:
    """Ballé et al. 2018: noise in the place of rounding, in training alone, and another for another image."""
    joint = task(DiffusionStage("diffusion", crop_px=32, joint=True, training=LOOP))
    images, quality = batch(2).images(torch.device("cpu")), torch.tensor([0.5, 0.5])

    def latent(first: int) -> Tensor:
        draws = Draws(0, torch.arange(first, first + 2), 4)
        return joint._encode(images, quality, draws).y_bits.detach()

    assert torch.equal(latent(0), latent(0))
    assert not torch.equal(latent(0), latent(2))
    joint.eval()
    assert torch.equal(latent(0), latent(2))


def test_the_command_shows_what_it_would_cost(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", str(CONFIGS / "cdc-small.yaml"), "--dry-run"]) == 0
    out = capsys.readouterr().out
    assert "recipe: cdc" in out
    assert "34.1 billion multiply-adds of the U-Net a step" in out


def test_errors_count_most_where_the_original_is_smooth() -> None:
    images = torch.zeros(1, 3, 32, 32)
    images[:, :, :, 16:] = torch.randn(1, 3, 32, 16, generator=torch.Generator().manual_seed(0)) * 0.5
    weight = perceptual_loss.visibility(images)
    assert weight.shape == (1, 1, 32, 32)
    assert torch.allclose(weight[..., :12], torch.full((1, 1, 32, 12), 20.0))
    assert weight[..., 20:].max() < 1.5
    assert weight.min() >= 1
