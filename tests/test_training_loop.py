"""The one training loop: it learns, and it is repeatable through kills, processes and parts of steps."""

import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from difflate.cli.main import main
from difflate.diffusion import ProcessConfig
from difflate.errors import ConfigError, DifflateError, ImageError, ModelError, OutputExists
from difflate.generate import PixelDiffusion, load_generator
from difflate.nn import UNetConfig
from difflate.train import checkpoint
from difflate.train.loop import CHECKPOINTS, _Run
from difflate.train.recipes import pixel
from training_helpers import NETWORK, command, settings, start, write_images, write_yaml


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_images(tmp_path_factory.mktemp("images"))


@pytest.fixture(scope="module")
def whole(images: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A training that nothing disturbed."""
    return pixel.RECIPE.run(settings(images, tmp_path_factory.mktemp("whole")), "command", progress=False)


def tensors(folder: Path) -> dict[str, torch.Tensor]:
    newest = checkpoint.latest(folder / CHECKPOINTS)
    assert newest is not None
    return load_file(newest)


def assert_same(a: Path, b: Path, tolerance: float = 0.0) -> None:
    ours, theirs = tensors(a), tensors(b)
    assert ours.keys() == theirs.keys()
    for name in ours:
        torch.testing.assert_close(ours[name], theirs[name], rtol=tolerance, atol=tolerance, msg=name)


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
    pixel.RECIPE.run(settings(images, tmp_path, {"max_steps": 4}), "", progress=False)
    left = [tmp_path / CHECKPOINTS / ".difflate-left.tmp", tmp_path / ".difflate-left.tmp"]  # of one that was killed
    for path in left:
        path.write_bytes(b"half a checkpoint")
    pixel.RECIPE.run(settings(images, tmp_path, {"max_steps": 9}), "", progress=False)
    pixel.RECIPE.run(settings(images, tmp_path), "", progress=False)
    assert not any(path.exists() for path in left)
    ours = tensors(tmp_path)
    for name, value in tensors(whole).items():
        if "average" not in name:  # its profile is the same too, but for the last place of the step that ended a run
            assert torch.equal(ours[name], value), name
    assert_same(whole, tmp_path)


def test_killed_and_resumed_is_the_same_as_undisturbed(images: Path, tmp_path: Path) -> None:
    """SIGKILL at moments that are left to chance, until the training is done."""
    config = write_yaml(tmp_path, images, tmp_path / "undisturbed")
    undisturbed = start(command("train", str(config), "training.max_steps=60"))
    out = tmp_path / "killed"
    words = command("train", str(config), f"out={out}", "training.max_steps=60")
    kills = 0
    for moment in (0.05, 0.3):
        process = start(words)
        before = checkpoint.latest(out / CHECKPOINTS)
        while process.poll() is None and checkpoint.latest(out / CHECKPOINTS) == before:
            time.sleep(0.01)
        time.sleep(moment)
        if process.poll() is None:
            process.kill()
            kills += 1
        process.communicate()
        if checkpoint.latest(out / CHECKPOINTS) and load_or_none(out):
            break
    assert kills >= 1
    last = None
    if not load_or_none(out):
        last = start(words)
        assert last.wait() == 0, last.communicate()
        last.communicate()
    _, errors = undisturbed.communicate()
    assert undisturbed.returncode == 0, errors
    assert_same(tmp_path / "undisturbed", out)
    for name in ("model.safetensors", "config.json"):
        assert (tmp_path / "undisturbed" / name).read_bytes() == (out / name).read_bytes()
    if last is not None:  # what a kill left is removed by the next start
        assert not list(out.rglob(".difflate-*"))


def load_or_none(out: Path) -> bool:
    """Whether the training in ``out`` is finished."""
    newest = checkpoint.latest(out / CHECKPOINTS)
    return newest is not None and checkpoint.read_head(newest)[0].step == 60


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_the_step_saves_and_exits_with_130(number: signal.Signals, images: Path, tmp_path: Path) -> None:
    config = write_yaml(tmp_path, images, tmp_path / "out")
    never = ["training.max_steps=100000", "training.checkpoint_every=100000"]
    process = start(command("train", str(config), "training.workers=1", *never))
    while process.poll() is None and not list((tmp_path / "out").rglob("events*")):
        time.sleep(0.02)
    time.sleep(0.5)
    process.send_signal(number)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130, errors
    assert "stopping after this step" in errors
    assert "Traceback" not in errors
    newest = checkpoint.latest(tmp_path / "out" / CHECKPOINTS)
    assert newest is not None  # no other than that of the signal
    assert load_generator(tmp_path / "out") is not None


@pytest.mark.parametrize("loop", [{"accumulate": 4}, {"workers": 2}, {"gradient_checkpointing": True}])
def test_parts_and_workers_change_nothing(loop: dict, images: Path, whole: Path, tmp_path: Path) -> None:
    pixel.RECIPE.run(settings(images, tmp_path, loop), "", progress=False)
    assert_same(whole, tmp_path, tolerance=1e-5)


def test_two_processes_average_their_gradients_and_one_writes(images: Path, tmp_path: Path) -> None:
    """Adam's first moments are sums of gradients: without clipping they tell a mean from a sum."""
    config = write_yaml(tmp_path, images, tmp_path / "one")
    single = start(command("train", str(config), "training.clip_norm=0"))
    launcher = [sys.executable, "-m", "accelerate.commands.launch", "--multi_gpu", "--num_processes", "2"]
    launcher += ["--num_machines", "1", "--mixed_precision", "no", "--dynamo_backend", "no"]
    words = ["-m", "difflate", "train", str(config), f"out={tmp_path / 'two'}", "training.clip_norm=0"]
    pair = start([*launcher, *words], ACCELERATE_USE_CPU="true")
    output, errors = pair.communicate(timeout=120)
    assert pair.returncode == 0, errors
    _single_output, single_errors = single.communicate()
    assert single.returncode == 0, single_errors
    assert_same(tmp_path / "one", tmp_path / "two", tolerance=1e-5)
    first_moments = [value for name, value in tensors(tmp_path / "one").items() if name.endswith("exp_avg")]
    assert max(float(value.abs().max()) for value in first_moments) > 1e-3  # so the tolerance could tell
    assert output.count(str(tmp_path / "two")) == 1
    assert len(list((tmp_path / "two" / "log").glob("events*"))) == 1
    assert re.search(r"2 processes", errors), errors


def test_an_odd_share_of_a_batch_is_refused(images: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"batch \(=8\) must be divisible by processes x accumulate \(=1 x 3\)"):
        pixel.RECIPE.run(settings(images, tmp_path, {"accumulate": 3}), "", progress=False)


def test_a_finished_training_is_not_done_again(images: Path, whole: Path) -> None:
    with pytest.raises(OutputExists, match="is trained already"):
        pixel.RECIPE.run(settings(images, whole), "", progress=False)


def test_another_setting_is_not_taken_for_the_same_training(images: Path, whole: Path) -> None:
    with pytest.raises(ConfigError, match=r"training.lr \(=0.5\) is 0.002 in .*step-00000012"):
        pixel.RECIPE.run(settings(images, whole, {"lr": 0.5, "max_steps": 20}), "", progress=False)


def test_force_starts_anew(images: Path, whole: Path, tmp_path: Path) -> None:
    pixel.RECIPE.run(settings(images, tmp_path, {"max_steps": 4, "lr": 1e-1}), "", progress=False)
    pixel.RECIPE.run(settings(images, tmp_path, {"force": True}), "", progress=False)
    assert_same(whole, tmp_path)


def test_a_model_of_another_kind_is_not_written_over(images: Path, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(OutputExists, match="holds a model already"):
        pixel.RECIPE.run(settings(images, tmp_path), "", progress=False)


@pytest.mark.parametrize("share", [0.0, 0.3, 0.99])
def test_a_truncated_checkpoint_is_named(share: float, images: Path, tmp_path: Path) -> None:
    pixel.RECIPE.run(settings(images, tmp_path, {"max_steps": 4}), "", progress=False)
    newest = checkpoint.latest(tmp_path / CHECKPOINTS)
    assert newest is not None
    data = newest.read_bytes()
    newest.write_bytes(data[: int(share * len(data))])
    with pytest.raises(ModelError, match=r"step-00000004.*remove it to go on"):
        pixel.RECIPE.run(settings(images, tmp_path), "", progress=False)


def test_a_checkpoint_of_other_tensors_is_named(images: Path, tmp_path: Path) -> None:
    pixel.RECIPE.run(settings(images, tmp_path, {"max_steps": 4}), "", progress=False)
    newest = checkpoint.latest(tmp_path / CHECKPOINTS)
    assert newest is not None
    from safetensors import safe_open

    with safe_open(str(newest), "pt") as file:
        metadata = file.metadata()
    save_file({"objective.model.nothing": torch.zeros(3)}, newest, metadata)
    with pytest.raises(ModelError, match="is damaged or of another network"):
        pixel.RECIPE.run(settings(images, tmp_path), "", progress=False)


def test_a_loss_that_is_not_finite_ends_the_training(images: Path, tmp_path: Path) -> None:
    with pytest.raises(DifflateError, match=r"the loss is (nan|inf) at step"):
        pixel.RECIPE.run(settings(images, tmp_path, {"lr": 1e30, "clip_norm": 0, "warmup_steps": 0}))


def test_a_time_budget_ends_the_training(images: Path, tmp_path: Path) -> None:
    began = time.monotonic()
    loop = {"max_steps": 10**6, "max_minutes": 1 / 60, "decay": "cosine"}
    pixel.RECIPE.run(settings(images, tmp_path, loop), "", progress=False)
    assert time.monotonic() - began < 20
    newest = checkpoint.latest(tmp_path / CHECKPOINTS)
    assert newest is not None
    progress, _ = checkpoint.read_head(newest)
    assert 1.0 <= progress.seconds < 5
    assert load_generator(tmp_path) is not None


def test_a_signal_while_validating_saves_that_step(images: Path, tmp_path: Path, monkeypatch) -> None:
    original = _Run._validate

    def validate(self: _Run) -> None:
        original(self)
        if self.progress.step == 6:
            signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr(_Run, "_validate", validate)
    with pytest.raises(KeyboardInterrupt):
        pixel.RECIPE.run(settings(images, tmp_path, {"max_steps": 10}), "", progress=False)
    newest = checkpoint.latest(tmp_path / CHECKPOINTS)
    assert newest is not None
    assert newest.name == "step-00000006.safetensors"


@pytest.mark.parametrize("first_save_fails", [True, False])
def test_a_kill_between_the_last_checkpoint_and_the_model_is_repaired(
    first_save_fails: bool, images: Path, whole: Path, tmp_path: Path, monkeypatch
) -> None:
    def fail(self: PixelDiffusion, *args: object, **options: object) -> None:
        if first_save_fails or checkpoint.latest(tmp_path / CHECKPOINTS).name == "step-00000012.safetensors":
            raise RuntimeError("killed")
        original(self, *args, **options)

    original = PixelDiffusion.save_pretrained
    loop = {"checkpoint_every": 12} if first_save_fails else {}
    monkeypatch.setattr(PixelDiffusion, "save_pretrained", fail)
    with pytest.raises(RuntimeError, match="killed"):
        pixel.RECIPE.run(settings(images, tmp_path, loop), "", progress=False)
    monkeypatch.setattr(PixelDiffusion, "save_pretrained", original)
    with pytest.raises(OutputExists, match="is trained already"):
        pixel.RECIPE.run(settings(images, tmp_path, loop), "", progress=False)
    assert (tmp_path / "model.safetensors").read_bytes() == (whole / "model.safetensors").read_bytes()
    assert "| 12 |" in (tmp_path / "README.md").read_text()


def test_nothing_that_others_wrote_is_removed(images: Path, tmp_path: Path) -> None:
    own = [
        tmp_path / name
        for name in ("pictures/mine.png", "log/diary.txt", "checkpoints/other.pt", "model_mine.safetensors")
    ]
    for path in own:
        path.parent.mkdir(exist_ok=True)
        path.write_text("mine")
    pixel.RECIPE.run(settings(images, tmp_path, {"max_steps": 2}), "", progress=False)
    pixel.RECIPE.run(settings(images, tmp_path, {"max_steps": 2, "force": True}), "", progress=False)
    assert all(path.read_text() == "mine" for path in own)


def test_images_that_changed_are_noticed(tmp_path: Path) -> None:
    folder = write_images(tmp_path / "images", 30)
    pixel.RECIPE.run(settings(folder, tmp_path / "out", {"max_steps": 2}), "", progress=False)
    (folder / "003.png").unlink()
    with pytest.raises(ConfigError, match=r"data.training_images \(=23 images.* is 24 images"):
        pixel.RECIPE.run(settings(folder, tmp_path / "out"), "", progress=False)


@pytest.mark.parametrize("first", [{}, {"gamma": 5}])
def test_options_that_come_or_go_are_another_training(first: dict, images: Path, tmp_path: Path) -> None:
    then = {"gamma": 4} if not first else {}
    for number, options in enumerate((first, then)):
        process = ProcessConfig(weighting="min-snr", weighting_options=options)
        made = settings(images, tmp_path, {"max_steps": 2 + number}, process=process)
        if number:
            with pytest.raises(ConfigError, match=r"process\.weighting_options"):
                pixel.RECIPE.run(made, "", progress=False)
        else:
            pixel.RECIPE.run(made, "", progress=False)


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
        pixel.RECIPE.run(settings(images, tmp_path / "out", {"init_from": str(make(source))}), "", progress=False)


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
            pixel.RECIPE.run(made, "", progress=False)


def test_an_error_leaves_the_next_training_free(images: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError):
        pixel.RECIPE.run(settings(images, tmp_path, {"accumulate": 3}), "", progress=False)
    pixel.RECIPE.run(settings(images, tmp_path, {"precision": "bf16", "max_steps": 1}), "", progress=False)


def test_init_from_starts_at_the_weights_of_a_model(images: Path, whole: Path, tmp_path: Path) -> None:
    loop = {"init_from": str(whole), "max_steps": 0}
    pixel.RECIPE.run(settings(images, tmp_path, loop), "", progress=False)
    ours, theirs = load_generator(tmp_path).state_dict(), load_generator(whole).state_dict()
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)


def test_bf16_trains_weights_that_stay_float32(images: Path, whole: Path, tmp_path: Path) -> None:
    out = pixel.RECIPE.run(settings(images, tmp_path, {"precision": "bf16"}), "", progress=False)
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
    out = pixel.RECIPE.run(settings(images, tmp_path, loop, network=network), "", progress=False)
    moments = [value for name, value in tensors(out).items() if name.endswith("exp_avg")]
    counts = [value for name, value in tensors(out).items() if name.endswith(".step")]
    assert len(moments) == len(list(load_generator(out).parameters()))
    assert all(int(count) == 4 for count in counts)


def test_pictures_are_written(images: Path, tmp_path: Path) -> None:
    out = pixel.RECIPE.run(settings(images, tmp_path, {"max_steps": 2, "pictures_every": 2}), "", progress=False)
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
