"""Folders of models on the command line: damaged ones are told, whole ones can be named."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from cli_helpers import VQ, Run, crafted
from difflate import DEFAULT_CODEC
from difflate.registry import WEIGHTS


def _flip(model: Path) -> None:
    data = bytearray((model / "model.safetensors").read_bytes())
    data[-100] ^= 1
    (model / "model.safetensors").write_bytes(data)


def _cut(model: Path) -> None:
    (model / "model.safetensors").write_bytes((model / "model.safetensors").read_bytes()[:1000])


def _set(**changes: object) -> Callable[[Path], None]:
    def change(model: Path) -> None:
        config = json.loads((model / "config.json").read_text())
        (model / "config.json").write_text(json.dumps(config | changes))

    return change


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (_flip, "model/model.safetensors: damaged"),
        (_cut, "model/model.safetensors: damaged"),
        (lambda model: (model / "config.json").unlink(), "config.json is missing"),
        (lambda model: (model / "model.safetensors").unlink(), "model.safetensors is missing"),
        (lambda model: (model / "config.json").write_text("[" * 100_000), "config.json: cannot be read"),
        (lambda model: (model / "config.json").write_bytes(b"\xff"), "config.json: cannot be read"),
        (lambda model: (model / "config.json").write_text("[]"), "must be a JSON object"),
        (_set(codec="other"), "kind (=other)"),
        (_set(name=[1]), "name (=[1]) must be a text"),
        (_set(method=None), "method (=None) must be a text"),
        (_set(fingerprint=3), "fingerprint (=3) must be a text"),
        (_set(patch_px="x"), "do not fit together"),
        (_set(patch_px=-8), "the weights are not those"),
        (_set(plane_bits=[float("inf")] * 6), "do not fit together"),
        (_set(plane_bits=8), "do not fit together"),
        (_set(neutral=None), "do not fit together"),
    ],
)
def test_a_damaged_model_is_told(run: Run, folder: Path, change: Callable[[Path], None], message: str) -> None:
    shutil.copytree(WEIGHTS / VQ, folder / "model")
    change(folder / "model")
    code, out, err = run("compress", "photo.png", "--codec", "model")
    assert (code, out, err.count("\n")) == (4, b"", 1)
    assert err.startswith("difflate: model")
    assert message in err


def test_a_models_folder_can_be_named(run: Run, folder: Path, dfl: bytes) -> None:
    shutil.copytree(WEIGHTS / DEFAULT_CODEC, folder / "model")
    assert run("compress", "photo.png", "--codec", "model")[0] == 0
    assert (folder / "photo.dfl").read_bytes() == dfl
    assert run("verify", "photo.dfl", "--codec", "model")[0] == 0
    assert run("decompress", "photo.dfl", "--codec", "model", "-o", "x.png")[0] == 0
    (folder / "other.dfl").write_bytes(crafted(model_id=b"none"))
    code, _, err = run("decompress", "other.dfl", "--codec", "model")
    assert code == 4
    assert "other.dfl: written with model 6e6f6e65, not with" in err
