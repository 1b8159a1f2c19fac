"""What a process imports that compresses or restores one photograph, and how a model is built for its weights."""

import functools
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from cli_helpers import picture
from coder_helpers import tiny_model
from difflate.cli.main import main
from difflate.errors import LimitExceeded
from difflate.models.transform_coder import TransformModel
from difflate.store.unfilled import Unfilled

TRAINING = ("accelerate", "jsonargparse", "tensorboard", "rich", "faiss", "yaml")
EVALUATION = ("scipy", "skimage", "matplotlib", "torchmetrics", "torchvision", "torch_fidelity", "imagecodecs")
SLOW = {"torch._dynamo", "sympy", "torch.distributed.tensor", "huggingface_hub", *TRAINING, *EVALUATION}
COMMANDS = """
import json, sys, torch
before = set(sys.modules)  # torch may import some of it by itself
from difflate.cli.main import main
for codec in ("cdc-small", "hyperprior-small", "opq-32-8-8"):
    assert main(["compress", "photo.png", "--codec", codec, "-o", codec + ".dfl"]) == 0
    assert main(["info", codec + ".dfl"]) == main(["verify", codec + ".dfl"]) == 0
    assert main(["decompress", codec + ".dfl", "-o", codec + ".png"]) == 0
print("\\n" + json.dumps({"imported": sorted(set(sys.modules) - before)}))
"""


def test_commands_of_bundled_codecs_import_nothing_slow_beside_torch(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    picture().save("photo.png")
    done = subprocess.run([sys.executable, "-c", COMMANDS], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    imported = json.loads(done.stdout.splitlines()[-1])["imported"]
    assert "difflate.codecs.cdc" in imported
    assert not SLOW.intersection(imported)


def test_commands_wait_without_spinning_and_libraries_wait_as_they_did(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["difflate", "codecs"])
    monkeypatch.setenv("OMP_WAIT_POLICY", "active")
    assert main() == 0
    assert os.environ["OMP_WAIT_POLICY"] == "active"
    monkeypatch.delenv("OMP_WAIT_POLICY")
    assert main(["codecs"]) == 0
    assert "OMP_WAIT_POLICY" not in os.environ
    assert main() == 0
    assert os.environ["OMP_WAIT_POLICY"] == "passive"


def test_parts_that_know_no_tensors_import_no_torch() -> None:
    code = (
        "import importlib, pkgutil, sys\n"
        "import difflate.registry, difflate.format as f, difflate.entropy as e, difflate.media as m\n"
        "for package in (f, e, m):\n"
        "    for module in pkgutil.walk_packages(package.__path__, package.__name__ + '.'):\n"
        "        importlib.import_module(module.name)\n"
        "sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def test_a_model_is_built_once_and_without_random_numbers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tiny_model().save_pretrained(tmp_path)
    built, original = [], TransformModel.__init__

    @functools.wraps(original)
    def build(*args: Any, **options: Any) -> None:
        built.append(args)
        original(*args, **options)

    monkeypatch.setattr(TransformModel, "__init__", build)
    before = torch.random.get_rng_state()
    TransformModel.from_pretrained(tmp_path)
    assert len(built) == 1
    assert torch.equal(torch.random.get_rng_state(), before)


def test_what_is_built_has_the_layout_and_the_constants_that_it_has_anyhow() -> None:
    made = tiny_model()
    with Unfilled(1 << 24):
        unfilled = TransformModel(*(getattr(made, name) for name in made.config_dict() if name != "kind"))
    for name, value in made.named_parameters():
        assert unfilled.get_parameter(name).stride() == value.stride(), name
        assert unfilled.get_parameter(name).requires_grad
    stored = made.state_dict()
    constants = {name: value for name, value in made.named_buffers() if name not in stored}
    assert constants
    for name, value in constants.items():
        assert torch.equal(unfilled.get_buffer(name), value)


@pytest.mark.parametrize(
    "build", [lambda: nn.Linear(1 << 20, 1 << 20), lambda: [nn.Linear(9, 9) for _ in range(10**9)]]
)
def test_building_stops_before_it_takes_more_than_it_may(build: Callable[[], object]) -> None:
    with pytest.raises(LimitExceeded, match="more than"), Unfilled(10_000):
        build()
