"""Kills, signals, several processes and two trainings in one folder."""

import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from adversarial_task import paint, train_adversary
from difflate.cli.main import main
from difflate.generate import PixelDiffusion, load_generator
from difflate.train import checkpoint
from difflate.train.lock import LOCK, BeingTrained, lock
from difflate.train.loop import _Run
from difflate.train.output import CHECKPOINTS
from difflate.train.recipes import pixel
from training_helpers import FORKED, assert_same, forked, newest, settings, tensors, write_images, write_yaml


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_images(tmp_path_factory.mktemp("images"))


@pytest.fixture(scope="module")
def whole(images: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A training that nothing disturbed."""
    return pixel.RECIPE.run(settings(images, tmp_path_factory.mktemp("whole")), "command")


def at_call(number: int, act: Callable[[], None], before: Callable[..., Any]) -> Callable[..., Any]:
    """``before``, which does ``act`` when it is called for the ``number``-th time."""
    calls = []

    def after(*arguments: Any, **options: Any) -> Any:
        calls.append(None)
        if len(calls) == number:
            act()
        return before(*arguments, **options)

    return after


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def train_until_killed(images: Path, out: Path, moment: str) -> None:
    """Trains with one thread; SIGKILL comes from within."""
    torch.set_num_threads(1)
    if moment == "in a step":
        _Run._step = at_call(3, die, _Run._step)
    elif moment == "while a checkpoint is written":

        def half(tensors: dict, name: str, metadata: dict) -> None:
            Path(name).write_bytes(b"half a checkpoint")
            die()

        checkpoint.save_file = half
    elif moment == "before the model is saved":
        PixelDiffusion.save_pretrained = at_call(1, die, PixelDiffusion.save_pretrained)
    elif moment == "while the model is saved":
        os.fsync = at_call(2, die, os.fsync)  # the first is of the checkpoint
    pixel.RECIPE.run(settings(images, out), "command")


MOMENTS = ["in a step", "while a checkpoint is written", "before the model is saved", "while the model is saved", ""]


def test_killed_and_resumed_is_the_same_as_undisturbed(images: Path, whole: Path, tmp_path: Path) -> None:
    """SIGKILL at one moment after the other, each in a sitting that goes on from the last."""
    for moment in MOMENTS:
        process = forked(train_until_killed, images, tmp_path, moment)
        process.join()
        assert process.exitcode == (-signal.SIGKILL if moment else 0), moment
        assert moment != "while a checkpoint is written" or list(tmp_path.rglob(".difflate-*.tmp"))
    assert_same(whole, tmp_path)
    for name in ("model.safetensors", "config.json"):
        assert (whole / name).read_bytes() == (tmp_path / name).read_bytes()
    assert not list(tmp_path.rglob(".difflate-*"))  # what a kill left is removed by the next start


def train_until_signal(config: Path, number: int, errors: Path) -> None:
    """Sends ``number`` in the third step, as a terminal to its workers too, or as `kill` to itself alone."""
    os.setsid()
    sys.stderr = errors.open("w", buffering=1)
    ask = os.killpg if number == signal.SIGINT else os.kill
    _Run._step = at_call(3, lambda: ask(os.getpid(), number), _Run._step)
    sys.exit(main(["train", str(config), "training.workers=1", "training.checkpoint_every=100"]))


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_the_step_saves_and_exits_with_130(number: signal.Signals, images: Path, tmp_path: Path) -> None:
    config = write_yaml(tmp_path, images, tmp_path / "out")
    process = forked(train_until_signal, config, number, tmp_path / "errors")
    process.join()
    errors = (tmp_path / "errors").read_text()
    assert process.exitcode == 130, errors
    assert "stopping after this step" in errors
    assert "Traceback" not in errors
    assert newest(tmp_path / "out").name == "step-00000003.safetensors"
    assert load_generator(tmp_path / "out") is not None


def train_as_one_of_two(rank: int, file: Path, train: Callable[..., object], *arguments: object) -> None:
    """What `accelerate launch` does, but for the rendezvous, which is a file: no port can be taken already."""
    os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2",
                   "ACCELERATE_USE_CPU": "true", "MASTER_ADDR": "localhost", "MASTER_PORT": "0"}  # fmt: skip
    torch.set_num_threads(1)
    torch.distributed.init_process_group("gloo", init_method=f"file://{file}", rank=rank, world_size=2)
    train(*arguments)


def train_pixels(images: Path, out: Path) -> None:
    pixel.RECIPE.run(settings(images, out, {"clip_norm": 0}))


@pytest.mark.parametrize("train", [train_pixels, train_adversary, paint])
def test_two_processes_average_their_gradients_and_one_writes(train: Any, images: Path, tmp_path: Path) -> None:
    """Adam's first moments are sums of gradients: without clipping they tell a mean from a sum."""
    one, two = tmp_path / "one", tmp_path / "two"
    pair = [forked(train_as_one_of_two, rank, tmp_path / "meet", train, images, two) for rank in range(2)]
    train(images, one)
    for process in pair:
        process.join()
    assert [process.exitcode for process in pair] == [0, 0]
    assert_same(one, two, tolerance=1e-5)
    first_moments = [value for name, value in tensors(one).items() if name.endswith("exp_avg")]
    assert max(float(value.abs().max()) for value in first_moments) > 1e-3  # so the tolerance could tell
    assert len(list((two / "log").glob("events*"))) == 1
    assert not (two / LOCK).exists()


def train_and_wait(images: Path, out: Path, at_work: Any) -> None:
    """Tells that it is in its second step, and stays there."""

    def stay() -> None:
        at_work.set()
        signal.pause()

    _Run._step = at_call(2, stay, _Run._step)
    pixel.RECIPE.run(settings(images, out), "command")


def test_a_folder_is_trained_in_by_one_process_at_a_time(images: Path, whole: Path, tmp_path: Path) -> None:
    at_work = FORKED.Event()
    process = forked(train_and_wait, images, tmp_path, at_work)
    assert at_work.wait(60)
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    with pytest.raises(BeingTrained, match=f"is already being trained here, by process {process.pid}"):
        pixel.RECIPE.run(settings(images, tmp_path, {"force": True}))
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before
    process.kill()
    process.join()
    assert (tmp_path / LOCK).exists()  # left behind, and taken over
    pixel.RECIPE.run(settings(images, tmp_path), "command")
    assert_same(whole, tmp_path)
    assert not (tmp_path / LOCK).exists()


def test_a_lock_that_wrote_nothing_leaves_nothing(tmp_path: Path) -> None:
    with lock(tmp_path / "out"):
        assert (tmp_path / "out" / LOCK).read_text() == str(os.getpid())
    assert not (tmp_path / "out").exists()
    (tmp_path / CHECKPOINTS).mkdir()
    with lock(tmp_path):
        pass
    assert (tmp_path / CHECKPOINTS).exists()
