"""Files of bundled models that were replaced: the error names the version that reads them."""

import dataclasses
import json
from pathlib import Path

import pytest

from cli_helpers import crafted
from difflate import registry
from difflate.cli.main import main
from difflate.codecs.loading import codec_for, load
from difflate.errors import ModelError
from difflate.format.container import read_dfl
from difflate.store import former
from difflate.store.former import FORMER, FormerModel, former_model
from difflate.store.hub import bundled_models

ADVICE = (
    "written with hyperprior-small of difflate 0.1.0, which later versions have replaced; read it with that version: "
)
ADVICE += "pip install difflate==0.1.0"
OLD = bytes.fromhex("8f444644")  # no model has it


def file_of(kind: str, model_id: bytes) -> bytes:
    return crafted(codec=registry.KINDS[kind].number, model_id=model_id, sections=((4, bytes(90)),))


@pytest.fixture
def replaced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A file of a model that was bundled once."""
    monkeypatch.setitem(FORMER, ("hyperprior", OLD.hex()), FormerModel("hyperprior-small", "0.1.0"))
    (tmp_path / "old.dfl").write_bytes(file_of("hyperprior", OLD))
    return tmp_path / "old.dfl"


def test_the_error_names_the_version_that_reads_it(replaced: Path) -> None:
    data = replaced.read_bytes()
    with pytest.raises(ModelError) as caught:
        codec_for(data)
    assert str(caught.value) == ADVICE
    with pytest.raises(ModelError) as caught:
        load("hyperprior-small").decode(data)
    assert str(caught.value) == ADVICE
    with pytest.raises(ModelError, match="which is not bundled; name its folder"):
        codec_for(file_of("cdc", OLD))  # of another kind


def test_commands_say_it(replaced: Path, capsys: pytest.CaptureFixture) -> None:
    for words in (["decompress"], ["decompress", "--codec", "hyperprior-small"], ["verify"]):
        assert main([*words, str(replaced)]) == 4
        assert capsys.readouterr().err == f"difflate: {replaced}: {ADVICE}\n"
    assert main(["info", str(replaced)]) == 0
    assert f"model     hyperprior-small of difflate 0.1.0 ({OLD.hex()})" in capsys.readouterr().out
    assert main(["info", "--json", str(replaced)]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["model"], found["former_model"]) == (None, "hyperprior-small of difflate 0.1.0")


def test_models_of_the_first_version_are_known_once_they_are_not_bundled(monkeypatch: pytest.MonkeyPatch) -> None:
    model_id = bytes.fromhex("fb72ec4d")
    for kind, name in (("hyperprior", "hyperprior-small"), ("cdc", "cdc-small")):
        number = registry.KINDS[kind].number
        assert number is not None
        still_there = any(c["fingerprint"].startswith(model_id.hex()) for c in bundled_models("codec").values())
        assert (former_model(number, model_id) is None) == still_there
        monkeypatch.setattr(former, "bundled_models", lambda role: {})
        assert former_model(number, model_id) == (name, "0.1.0")
        monkeypatch.undo()
    assert former_model(0, model_id) is None


def test_every_row_is_of_a_kind_and_an_id() -> None:
    for (kind, model_id), model in FORMER.items():
        assert kind in registry.KINDS
        assert len(bytes.fromhex(model_id)) == 4
        assert model.name in bundled_models("codec")  # its successor
        data = file_of(kind, bytes.fromhex(model_id))
        assert dataclasses.asdict(read_dfl(data))["model_id"].hex() == model_id
