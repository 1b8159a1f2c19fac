"""A decoder's folder may name its coder instead of holding it: that very model, or an error."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from coder_helpers import photo, tiny_model
from difflate import registry
from difflate.codecs.loading import codec_for, load, model_of
from difflate.diffusion import ProcessConfig
from difflate.errors import ConfigError, DifflateError, ModelError
from difflate.format.container import read_dfl
from difflate.media.picture import Picture
from difflate.models.diffusion_decoder import DecoderConfig, DiffusionDecoder
from difflate.models.exact import EXACT
from difflate.models.transform_coder import TransformModel
from difflate.nn.unet import UNetConfig
from difflate.store.deflated import load_tensors
from difflate.store.references import FROM

PICTURE = Picture(photo(48, 40, 200, 300))


def decoder(coder: TransformModel) -> DiffusionDecoder:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        model = DiffusionDecoder(
            coder.transform, coder.hyperprior, coder.lmbda_min, coder.lmbda_max,
            DecoderConfig(context_widths=(0, 0, 8), steps=2, gamma=0.5),
            UNetConfig(widths=(8, 8, 16), blocks=(1, 1, 1), patch=4), ProcessConfig(),
        )  # fmt: skip
    model.coder.load_state_dict(coder.state_dict())
    model.coder.keep_exact(coder)
    return model.eval()


@pytest.fixture
def models(tmp_path: Path) -> Path:
    """A folder with `coder`, in 8 bits, and `decoder`, of the coder before it was rounded, which refers to it."""
    tiny_model().save_pretrained(tmp_path / "coder", dtype="int8")
    decoder(tiny_model()).save_pretrained(tmp_path / "decoder", dtype="int8", refer={"coder": "coder"})
    return tmp_path


def config_of(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "config.json").read_text())


def edit(folder: Path, change: Callable[[dict], None]) -> None:
    config = config_of(folder)
    change(config)
    (folder / "config.json").write_text(json.dumps(config))


def test_only_what_is_the_decoders_own_is_stored(models: Path) -> None:
    files = {path.name for path in (models / "decoder").iterdir()}
    assert files == {"config.json", "model.safetensors", "README.md"}
    ours, theirs = config_of(models / "decoder"), config_of(models / "coder")
    assert ours["coder"] == {FROM: "coder", "fingerprint": theirs["fingerprint"], "sha256": theirs["sha256"]}
    assert ours["fingerprint"] == theirs["fingerprint"]
    loaded = DiffusionDecoder.from_pretrained(models / "decoder")
    coder = TransformModel.from_pretrained(models / "coder")
    assert all(torch.equal(value, coder.state_dict()[name]) for name, value in loaded.coder.state_dict().items())
    assert not loaded.coder.training
    data = load(models / "decoder").encode(PICTURE)
    assert np.array_equal(
        load(models / "decoder").decode(data, steps=0).pixels,
        load(models / "coder").decode(load(models / "coder").encode(PICTURE)).pixels,
    )


def test_it_is_whole_again_when_it_is_saved(models: Path) -> None:
    loaded = DiffusionDecoder.from_pretrained(models / "decoder")
    loaded.save_pretrained(models / "elsewhere" / "whole")
    config = config_of(models / "elsewhere" / "whole")
    assert "coder" not in config
    shutil.rmtree(models / "coder")
    whole = load(models / "elsewhere" / "whole")
    assert (models / "elsewhere" / "whole" / EXACT).is_file()
    assert whole.fingerprint == loaded.coder.fingerprint  # type: ignore[attr-defined]
    # and back: nothing that is not referred to any more stays behind
    tiny_model().save_pretrained(models / "elsewhere" / "coder", dtype="int8")
    loaded.save_pretrained(models / "elsewhere" / "whole", refer={"coder": "coder"})
    assert not (models / "elsewhere" / "whole" / EXACT).exists()
    assert load(models / "elsewhere" / "whole").fingerprint == loaded.coder.fingerprint  # type: ignore[attr-defined]


def test_a_bundled_coder_is_found_from_anywhere(models: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bundle = models / "bundle"
    (models / "decoder").rename(models / "alone")
    bundle.mkdir()
    (models / "coder").rename(bundle / "coder")
    with pytest.raises(ModelError, match="its coder is coder, which is neither bundled nor a folder beside it"):
        load(models / "alone")
    for name in ("hyperprior", "cdc"):
        kind = registry.KINDS[name]
        monkeypatch.setitem(registry.KINDS, name, registry.Kind(**{**vars(kind), "models": bundle}))
    codec = load(models / "alone")
    data = codec.encode(PICTURE)
    shutil.move(models / "alone", bundle / "decoder")
    file = read_dfl(data)
    assert model_of(file) == "decoder"
    assert np.array_equal(codec_for(data).decode(data).pixels, codec.decode(data).pixels)
    # one of the same name beside it, which is the right one, is taken where the bundled one was replaced
    shutil.copytree(bundle, models / "kept")
    tiny_model(1).save_pretrained(bundle / "coder")
    assert load(models / "kept" / "decoder").fingerprint == codec.fingerprint  # type: ignore[attr-defined]
    with pytest.raises(ModelError, match=r"its coder is another coder than that in .*bundle.coder"):
        load(bundle / "decoder")


def _other_weights(models: Path) -> None:
    model = TransformModel.from_pretrained(models / "coder")
    torch.nn.init.zeros_(model.synthesis.linear.weight)  # type: ignore[union-attr]
    model.save_pretrained(models / "coder", dtype="int8")


def _damage(models: Path) -> None:
    path = models / "coder" / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-1] + b"\x55")


def _referring(**entries: object) -> Callable[[Path], None]:
    return lambda models: edit(models / "decoder", lambda config: config["coder"].update(entries))


def _config(**entries: object) -> Callable[[Path], None]:
    return lambda models: edit(models / "decoder", lambda config: config.update(entries))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (_other_weights, "its coder is another coder than that in"),
        (lambda models: tiny_model(1).save_pretrained(models / "coder"), "its coder is another coder than that in"),
        (lambda models: shutil.rmtree(models / "coder"), "neither bundled nor a folder beside it"),
        (_damage, "coder/model.safetensors: damaged"),
        (_referring(sha256=None), "another coder"),
        (_referring(sha256={}), "another coder"),
        (_referring(fingerprint="00"), "another coder"),
        (_referring(**{FROM: "decoder"}), "another decoder"),
        (_referring(**{FROM: "opq-32-8-8"}), "another opq-32-8-8"),
        (_referring(**{FROM: "../models/coder"}), "must be a bundled model or the name of a folder"),
        (_referring(**{FROM: "a/../../coder"}), "must be a bundled model or the name of a folder"),
        (_referring(**{FROM: "/etc"}), "must be a bundled model or the name of a folder"),
        (_referring(**{FROM: "a\\b"}), "must be a bundled model or the name of a folder"),
        (_referring(**{FROM: ""}), "must be a bundled model or the name of a folder"),
        (_referring(**{FROM: None}), "must be a bundled model or the name of a folder"),
        (_referring(**{FROM: ["coder"]}), "must be a bundled model or the name of a folder"),
        (_config(fingerprint="00" * 32), "fingerprint is not that of its coder"),
        (_config(lmbda_max=0.05), "config.json does not fit its coder in"),
        (lambda models: edit(models / "decoder", lambda c: c.update(unet=c.pop("coder"))), "unet|do not fit"),
        (lambda models: edit(models / "decoder", lambda c: c.pop("coder")), "do not fit config.json"),
    ],
)
def test_another_coder_is_refused_in_one_line(change: Callable[[Path], None], message: str, models: Path) -> None:
    change(models)
    with pytest.raises(ModelError, match=message) as caught:
        load(models / "decoder")
    assert "\n" not in str(caught.value)


def test_what_is_not_that_model_cannot_be_saved_as_it(models: Path) -> None:
    other = decoder(tiny_model(1))
    nudged = decoder(tiny_model())
    with torch.no_grad():
        nudged.coder.gain[0, 0] += 0.5
    trained = decoder(tiny_model())
    trained._modules["coder"] = tiny_model()  # equal weights, and integers that were made on another day
    for model, refer, message in (
        (other, {"coder": "coder"}, "coder is not the model in .*coder"),
        (nudged, {"coder": "coder"}, r"coder is not the model in .* \(gain\); save it whole"),
        (trained, {"coder": "nothing"}, "nothing: is no bundled model, and no folder beside"),
        (trained, {"coder": "../coder"}, "must be a bundled model"),
        (trained, {"unet": "coder"}, "has no part 'unet' that is a model"),
        (trained, {"other": "coder"}, "has no part 'other' that is a model"),
        (trained, {"coder": "decoder"}, "kind"),
    ):
        with pytest.raises(DifflateError, match=message):
            model.save_pretrained(models / "saved", refer=refer)
        assert not (models / "saved").exists()
    with pytest.raises(ConfigError):
        tiny_model().save_pretrained(models / "saved", refer={"coder": "coder"})


def test_a_whole_decoder_in_8_bits_has_its_coders_integers_once(tmp_path: Path) -> None:
    model = decoder(tiny_model())
    model.save_pretrained(tmp_path / "decoder", dtype="int8")
    left_out = {f"coder.entropy.{name}" for name in model.coder.entropy.fixed_names}  # type: ignore[union-attr]
    names = load_tensors(tmp_path / "decoder" / "model.safetensors").keys()
    assert "coder.entropy.analysis.0.bias" in names
    assert names.isdisjoint(left_out)
    loaded = DiffusionDecoder.from_pretrained(tmp_path / "decoder")
    assert loaded.coder.fingerprint == model.coder.fingerprint
    # the coder alone, stored beside it, is that very model
    loaded.coder.save_pretrained(tmp_path / "coder", dtype="int8")
    loaded.save_pretrained(tmp_path / "light", dtype="int8", refer={"coder": "coder"})
    assert DiffusionDecoder.from_pretrained(tmp_path / "light").coder.fingerprint == model.coder.fingerprint
    other = decoder(tiny_model())
    with torch.no_grad():
        other.coder.entropy.get_parameter("hidden.weight").add_(0.01)
    with pytest.raises(ModelError, match=f"coder is not the model in .* .{EXACT}"):
        other.save_pretrained(tmp_path / "light", dtype="int8", refer={"coder": "coder"})
