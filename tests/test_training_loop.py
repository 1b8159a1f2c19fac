"""The one training loop: it learns, goes on from where it was, and says what is wrong."""

import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from difflate.cli.main import main
from difflate.diffusion import ProcessConfig
from difflate.errors import ConfigError, DifflateError, ImageError, ModelError, OutputExists
from difflate.generate import PixelDiffusion, load_generator
from difflate.nn import UNetConfig
from difflate.train import checkpoint
from difflate.train.loop import CHECKPOINTS, _Run
from difflate.train.recipes import pixel
from training_helpers import NETWORK, assert_same, settings, tensors, write_images, write_yaml


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_images(tmp_path_factory.mktemp("images"))


@pytest.fixture(scope="module")
def whole(images: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A training that nothing disturbed."""
    return pixel.RECIPE.run(settings(images, tmp_path_factory.mktemp("whole")))


def test_loss_falls_and_the_averaged_model_is_saved(images: Path, tmp_path: Path) -> None:
    out = pixel.RECIPE.run(settings(images, tmp_path, {"max_steps": 60, "lr": 1e-2}), "the command", progress=False)
    newest = checkpoint.latest(out / CHECKPOINTS)
    assert newest is not None
    assert newest.name == "step-00000060.safetensors"
    progress, _ = checkpoint.read_head(newest)
    assert progress.step == 60
    first, last = progress.validations[0][1]["loss"], progress.validations[-1][1]["loss"]
    assert last < 0.7 * first
    state = load_generator(out).state_dict()
    for name, value in tensors(out).items():
        if name.startswith("average.model."):
            torch.testing.assert_close(state[name.removeprefix("average.model.")], value, rtol=0, atol=0)
    card = (out / "README.md").read_text()
    assert "`the command`" in card
    assert "24 images" in card
    assert f"| 60 | {last:.4f} |" in card
    assert len(list((out / "log").glob("events*"))) == 1
    assert len(list((out / CHECKPOINTS).iterdir())) == 2  # keep_checkpoints


def test_resume_is_exact_between_checkpoints(images: Path, whole: Path, tmp_path: Path) -> None:
    pixel.RECIPE.run(settings(images, tmp_path, {"max_steps": 4}), "")
    left = [tmp_path / CHECKPOINTS / ".difflate-left.tmp", tmp_path / ".difflate-left.tmp"]  # of one that was killed
    for path in left:
        path.write_bytes(b"half a checkpoint")
    pixel.RECIPE.run(settings(images, tmp_path, {"max_steps": 9}), "")
    pixel.RECIPE.run(settings(images, tmp_path), "")
    assert not any(path.exists() for path in left)
    ours = tensors(tmp_path)
    for name, value in tensors(whole).items():
        if "average" not in name:  # its profile is the same too, but for the last place of the step that ended a run
            assert torch.equal(ours[name], value), name
    assert_same(whole, tmp_path)


@pytest.mark.parametrize("loop", [{"accumulate": 4}, {"workers": 2}, {"gradient_checkpointing": True}])
def test_parts_and_workers_change_nothing(loop: dict, images: Path, whole: Path, tmp_path: Path) -> None:
    pixel.RECIPE.run(settings(images, tmp_path, loop), "")
    assert_same(whole, tmp_path, tolerance=1e-5)


def test_an_odd_share_of_a_batch_is_refused(images: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"batch \(=8\) must be divisible by processes x accumulate \(=1 x 3\)"):
        pixel.RECIPE.run(settings(images, tmp_path, {"accumulate": 3}), "")


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_a_recording_without_cuda_is_refused(images: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"cuda_graph \(=true\) needs"):
        pixel.RECIPE.run(settings(images, tmp_path, {"cuda_graph": True}))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_a_recorded_step_trains_as_others_do(images: Path, whole: Path, tmp_path: Path) -> None:
    pixel.RECIPE.run(settings(images, tmp_path / "graph", {"cuda_graph": True}))
    assert validation(tmp_path / "graph") == pytest.approx(validation(whole), rel=0.2)


def test_a_finished_training_is_not_done_again(images: Path, whole: Path) -> None:
    with pytest.raises(OutputExists, match="is trained already"):
        pixel.RECIPE.run(settings(images, whole), "")


def test_another_setting_is_not_taken_for_the_same_training(images: Path, whole: Path) -> None:
    with pytest.raises(ConfigError, match=r"training.lr \(=0.5\) is 0.002 in .*step-00000012"):
        pixel.RECIPE.run(settings(images, whole, {"lr": 0.5, "max_steps": 20}), "")


def test_force_starts_anew(images: Path, whole: Path, tmp_path: Path) -> None:
    pixel.RECIPE.run(settings(images, tmp_path, {"max_steps": 4, "lr": 1e-1}), "")
    pixel.RECIPE.run(settings(images, tmp_path, {"force": True}), "")
    assert_same(whole, tmp_path)


def test_a_model_of_another_kind_is_not_written_over(images: Path, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(OutputExists, match="holds a model already"):
        pixel.RECIPE.run(settings(images, tmp_path), "")


def test_a_loss_that_is_not_finite_ends_the_training(images: Path, tmp_path: Path) -> None:
    with pytest.raises(DifflateError, match=r"the loss is (nan|inf) at step"):
        pixel.RECIPE.run(settings(images, tmp_path, {"lr": 1e30, "clip_norm": 0, "warmup_steps": 0}))


def test_a_signal_while_validating_saves_that_step(images: Path, tmp_path: Path, monkeypatch) -> None:
    original = _Run._validate

    def validate(self: _Run) -> None:
        original(self)
        if self.progress.step == 6:
            signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr(_Run, "_validate", validate)
    with pytest.raises(KeyboardInterrupt):
        pixel.RECIPE.run(settings(images, tmp_path, {"max_steps": 10}), "")
    newest = checkpoint.latest(tmp_path / CHECKPOINTS)
    assert newest is not None
    assert newest.name == "step-00000006.safetensors"


def test_nothing_that_others_wrote_is_removed(images: Path, tmp_path: Path) -> None:
    own = [
        tmp_path / name
        for name in ("pictures/mine.png", "log/diary.txt", "checkpoints/other.pt", "model_mine.safetensors")
    ]
    for path in own:
        path.parent.mkdir(exist_ok=True)
        path.write_text("mine")
    pixel.RECIPE.run(settings(images, tmp_path, {"max_steps": 2}), "")
    pixel.RECIPE.run(settings(images, tmp_path, {"max_steps": 2, "force": True}), "")
    assert all(path.read_text() == "mine" for path in own)


def test_images_that_changed_are_noticed(tmp_path: Path) -> None:
    folder = write_images(tmp_path / "images", 30)
    pixel.RECIPE.run(settings(folder, tmp_path / "out", {"max_steps": 2}), "")
    (folder / "003.png").unlink()
    with pytest.raises(ConfigError, match=r"data.training_images \(=23 images.* is 24 images"):
        pixel.RECIPE.run(settings(folder, tmp_path / "out"), "")


@pytest.mark.parametrize("first", [{}, {"gamma": 5}])
def test_options_that_come_or_go_are_another_training(first: dict, images: Path, tmp_path: Path) -> None:
    then = {"gamma": 4} if not first else {}
    for number, options in enumerate((first, then)):
        process = ProcessConfig(weighting="min-snr", weighting_options=options)
        made = settings(images, tmp_path, {"max_steps": 2 + number}, process=process)
        if number:
            with pytest.raises(ConfigError, match=r"process\.weighting_options"):
                pixel.RECIPE.run(made, "")
        else:
            pixel.RECIPE.run(made, "")


def test_a_forced_training_is_not_forced_again_by_its_own_settings(images: Path, tmp_path: Path, capsys) -> None:
    config = write_yaml(tmp_path, images, tmp_path / "out")
    for _ in range(2):
        assert main(["train", str(config), "training.max_steps=2", "training.force=true"]) == 0
    assert main(["train", str(tmp_path / "out" / "training.yaml")]) == 6
    assert "is trained already" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda p: p / "nonsense", "no such folder"),
        (lambda p: p, "config.json is missing"),
        (lambda p: other_shape(p), "another shape"),
    ],
)
def test_a_model_that_cannot_be_started_from_is_named(make, message: str, images: Path, tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.mkdir()
    with pytest.raises((ConfigError, ModelError), match=message):
        pixel.RECIPE.run(settings(images, tmp_path / "out", {"init_from": str(make(source))}), "")


def other_shape(folder: Path) -> Path:
    PixelDiffusion(UNetConfig(widths=(4,), blocks=(1,)), ProcessConfig(), 8).save_pretrained(folder)
    return folder


@pytest.mark.parametrize("workers", [0, 1])
def test_images_that_cannot_be_read_are_one_sentence(workers: int, tmp_path: Path) -> None:
    folder = tmp_path / "images"
    folder.mkdir()
    for number in range(9):
        (folder / f"{number}.png").write_text("no image")
    for holdback, message in ((0, r"one after the other; the last: .*\.png"), (3, "none of the 3 images")):
        made = settings(folder, tmp_path / "out", {"workers": workers}, holdback=holdback)
        with pytest.raises(ImageError, match=message):
            pixel.RECIPE.run(made, "")


def test_an_error_leaves_the_next_training_free(images: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError):
        pixel.RECIPE.run(settings(images, tmp_path, {"accumulate": 3}), "")
    pixel.RECIPE.run(settings(images, tmp_path, {"precision": "bf16", "max_steps": 1}), "")


def test_init_from_starts_at_the_weights_of_a_model(images: Path, whole: Path, tmp_path: Path) -> None:
    loop = {"init_from": str(whole), "max_steps": 0}
    pixel.RECIPE.run(settings(images, tmp_path, loop), "")
    ours, theirs = load_generator(tmp_path).state_dict(), load_generator(whole).state_dict()
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)


def test_bf16_trains_weights_that_stay_float32(images: Path, whole: Path, tmp_path: Path) -> None:
    out = pixel.RECIPE.run(settings(images, tmp_path, {"precision": "bf16"}), "")
    saved, exact = load_file(out / "model.safetensors"), load_file(whole / "model.safetensors")
    assert all(value.dtype == torch.float32 for value in saved.values())
    differences = [float((saved[name] - exact[name]).abs().max()) for name in saved]
    assert 1e-6 < max(differences) < 0.05
    assert abs(validation(out) - validation(whole)) < 0.05


def validation(out: Path) -> float:
    newest = checkpoint.latest(out / CHECKPOINTS)
    assert newest is not None
    return checkpoint.read_head(newest)[0].validations[-1][1]["loss"]


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_self_conditioning_leaves_every_weight_its_gradient(precision: str, images: Path, tmp_path: Path) -> None:
    network = UNetConfig(**{**vars(NETWORK), "self_condition": True})
    loop = {"precision": precision, "max_steps": 4}
    out = pixel.RECIPE.run(settings(images, tmp_path, loop, network=network), "")
    moments = [value for name, value in tensors(out).items() if name.endswith("exp_avg")]
    counts = [value for name, value in tensors(out).items() if name.endswith(".step")]
    assert len(moments) == len(list(load_generator(out).parameters()))
    assert all(int(count) == 4 for count in counts)


def test_pictures_are_written(images: Path, tmp_path: Path) -> None:
    out = pixel.RECIPE.run(settings(images, tmp_path, {"max_steps": 2, "pictures_every": 2}), "")
    assert (out / "pictures" / "step-00000002.png").is_file()


def test_the_command_trains_shows_and_samples(images: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    config = write_yaml(tmp_path, images, tmp_path / "out")
    assert main(["train", str(config), "--dry-run"]) == 0
    shown = capsys.readouterr().out
    assert "max_steps: 12" in shown
    assert re.search(r"# 0\.0 million parameters, 0\.00 billion multiply-adds", shown)
    assert main(["train", str(config), "training.max_steps=2"]) == 0
    assert capsys.readouterr().out.strip() == str(tmp_path / "out")
    again = (tmp_path / "out" / "training.yaml").read_text()
    assert "max_steps: 2" in again
    assert main(["train", str(tmp_path / "out" / "training.yaml"), "training.max_steps=4"]) == 0
    capsys.readouterr()
    assert main(["sample", str(tmp_path / "out"), "-n", "3", "-o", str(tmp_path / "grid.png"), "--steps", "2"]) == 0


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("training.lx=2", "training.lx"),
        ("training.lr=fast", "training.lr"),
        ("training.lr=-1", r"lr \(=-1"),
        ("process.target=z", "process.target"),
        ("process.schedule_options.steps=5", "schedule_options"),
        ("network.widths=[7]", "blocks"),
        ("network.noise_scale=3", "network.noise_scale follows"),
        ("training.ema=2", r"ema \(=2.0\)"),
        ("holdback=30", r"holdback \(=30\)"),
        ("images=nowhere", "nowhere: no such file or folder"),
        ("training.precision=fp8", "training.precision"),
        ("training.batch=0", r"batch \(=0\)"),
        ("training.seed=99999999999999999999", r"seed \(=9+\) must be from 0"),
        ("image_px=0", r"image_px` \(=0\)"),
        ("images=", "images holds an empty name"),
        ("recipe=vq", r"recipe \(=vq\)"),
        ("process.weighting_options.gamma=abc", "weighting_options"),
        ("network.cond_channels=[4,0]", "network.cond_channels follows"),
    ],
)  # fmt: skip
def test_a_wrong_key_is_named(
    override: str, message: str, images: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    config = write_yaml(tmp_path, images, tmp_path / "out")
    assert main(["train", str(config), override]) == 2
    errors = capsys.readouterr().err
    assert re.search(message, errors), errors
    assert len(errors.strip().splitlines()) == 1
    assert not (tmp_path / "out").exists()


def test_help_of_the_loop_needs_no_torch() -> None:
    code = "import sys, difflate.cli.main as m; m.build_parser(); assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
