"""Texts that tell a diffusion autoencoder what an image shows: in training, in files and in decoding."""

import dataclasses
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from coder_helpers import photo
from diffae_helpers import SHAPE, tiny
from difflate.cli.info import describe
from difflate.cli.main import main
from difflate.codecs.diffae import DiffaeCodec
from difflate.codecs.loading import load
from difflate.data.crops import Batch
from difflate.diffusion import ProcessConfig
from difflate.errors import ConfigError, FormatError, ModelError
from difflate.format import sections
from difflate.format.container import read_dfl, write_dfl
from difflate.media.picture import Picture
from difflate.models.diffusion_autoencoder import DiffusionAutoencoder, LatentDecoderConfig
from difflate.options import SamplingDecoding
from difflate.store.config import read_config
from difflate.train.diffae_task import DiffaeTask
from difflate.train.draws import Draws
from difflate.train.index_context import ContextSettings
from difflate.train.recipes import distil
from difflate.train.recipes.diffae import RECIPE, DiffaeTraining
from difflate.train.recorded import RecordedDraws
from difflate.train.settings import LoopSettings
from difflate.train.stages import AutoencodingStage
from text_helpers import text_model
from training_helpers import picture as slope

pytest.importorskip("transformers")
LOOP = LoopSettings(
    max_steps=4, batch=4, lr=1e-3, warmup_steps=2, decay="constant", log_every=2, validate_every=2, pictures_every=2,
    checkpoint_every=2, workers=0,
)  # fmt: skip
STAGE = AutoencodingStage("joint", crop_px=32, training=LOOP)


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return text_model(tmp_path_factory.mktemp("text") / "clip")


def model_of(clip: Path, **decoder: Any) -> DiffusionAutoencoder:
    return tiny(decoder=LatentDecoderConfig(**{"steps": 2, "text": str(clip), **decoder}))


@pytest.fixture(scope="module")
def codec(clip: Path) -> DiffaeCodec:
    """Of a network without a weight that is 0, so that all that it is told matters."""
    model = model_of(clip)
    torch.manual_seed(1)
    with torch.no_grad():
        for value in model.unet.parameters():
            value.add_(0.05 * torch.randn_like(value))
    return DiffaeCodec("tiny", model)


def picture(height: int = 40, width: int = 60) -> Picture:
    return Picture(photo(height, width))


# in training


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with `clip`, `images` and the trained `model`."""
    root = tmp_path_factory.mktemp("trained")
    text_model(root / "clip")
    (root / "images").mkdir()
    for number in range(10):
        Image.fromarray(slope(number, 70, 90)).save(root / "images" / f"{number}.png")
        if number % 3:
            (root / "images" / f"{number}.txt").write_text(f"the slope of number {number}")
    RECIPE.run(settings(root), "the command")
    return root


def settings(root: Path, loop: LoopSettings = LOOP, **others: Any) -> DiffaeTraining:
    stage = dataclasses.replace(STAGE, training=loop)
    context = ContextSettings(views=8, view_px=64, steps=0)
    decoder = LatentDecoderConfig(steps=2, text=str(root / "clip"))
    given = {**SHAPE, "decoder": decoder, "stages": [stage], "context": context, **others}
    return DiffaeTraining(out=str(root / "model"), images=[str(root / "images")], holdback=4, **given)


def test_the_folder_names_the_text_model_and_does_not_hold_it(trained: Path, tmp_path: Path) -> None:
    config = read_config(trained / "model")
    assert config["decoder"]["text"] == "../clip"
    model = DiffusionAutoencoder.from_pretrained(trained / "model")
    assert model.text is not None
    assert config["text_sha256"] == model.text.digest
    assert model.network.vector_channels == model.text.channels
    assert not any("text" in name for name in model.state_dict())
    moved = shutil.copytree(trained, tmp_path / "moved")
    assert isinstance(load(moved / "model"), DiffaeCodec)
    shutil.rmtree(moved / "clip")
    with pytest.raises(ModelError, match=r"text model '\.\./clip' is not here"):
        load(moved / "model")
    text_model(moved / "clip", seed=1)
    with pytest.raises(ModelError, match="trained with another text model"):
        load(moved / "model")


def test_saved_again_it_is_found_from_there(trained: Path, tmp_path: Path) -> None:
    model = DiffusionAutoencoder.from_pretrained(trained / "model")
    model.save_pretrained(tmp_path / "a" / "b", dtype="int8")
    found = DiffusionAutoencoder.from_pretrained(tmp_path / "a" / "b").text
    assert found is not None
    assert found.folder.resolve() == (trained / "clip").resolve()


def test_a_stopped_training_goes_on_to_the_same_weights(trained: Path, tmp_path: Path) -> None:
    for name in ("clip", "images"):
        shutil.copytree(trained / name, tmp_path / name)
    for steps in (2, 4):
        RECIPE.run(settings(tmp_path, dataclasses.replace(LOOP, max_steps=steps)), "")
    ours, theirs = (DiffusionAutoencoder.from_pretrained(root / "model").state_dict() for root in (tmp_path, trained))
    assert all(torch.equal(value, theirs[name]) for name, value in ours.items())


def test_shares_that_are_hidden(clip: Path) -> None:
    assert LatentDecoderConfig().hidden_share == 0.05
    assert LatentDecoderConfig(text="clip").hidden_share == 0.7
    assert LatentDecoderConfig(text="clip", dropped=0.2).hidden_share == 0.2
    task = DiffaeTask(model_of(clip), STAGE)
    assert (task.dropped, task.text_dropped) == (0.7, 0.1)
    student = DiffaeTask(model_of(clip), dataclasses.replace(STAGE, one_step=True))
    assert (student.dropped, student.text_dropped) == (0, 0)
    draws = Draws(0, torch.arange(8000), 8)
    latents, texts = draws.drop_mask(0.7), draws.drop_text(0.1)
    assert float(texts.float().mean()) == pytest.approx(0.1, abs=0.01)
    assert float((texts & latents).float().mean()) == pytest.approx(0.07, abs=0.01)  # unrelated
    assert torch.equal(Draws(0, torch.arange(5, 9), 4).drop_text(0.1), texts[5:9])


def batch(captions: tuple[str, ...] = ("red", "blue", "red", "blue")) -> Batch:
    pixels = torch.zeros(4, 3, 32, 32, dtype=torch.uint8)
    for image, caption in zip(pixels, ("red", "blue") * 2, strict=True):
        image[0 if caption == "red" else 2] = 255
    numbers = torch.arange(4)
    return Batch(pixels, numbers, torch.full((4,), -1), [], captions=captions)


def test_what_is_hidden_is_the_empty_text(clip: Path) -> None:
    task = DiffaeTask(model_of(clip, text_dropped=0.5), STAGE).train()
    draws = task.draws_of(batch())
    hidden = draws.drop_text(0.5)
    assert 0 < hidden.sum() < 4
    found = task._told(batch(), draws)
    shown, silent = task.model.told(batch().captions, task.device), task.model.told([""] * 4, task.device)
    assert found is not None
    assert shown is not None
    assert silent is not None
    torch.testing.assert_close(found, torch.where(hidden[:, None], silent, shown))
    assert task(batch(()))["loss"].isfinite()  # images without texts


def test_the_text_is_what_the_network_learns_from(clip: Path) -> None:
    """The latent is always hidden: only the text tells red from blue."""
    decoder = LatentDecoderConfig(text=str(clip), dropped=0.999, text_dropped=0.0)
    model = tiny(decoder=decoder, process=ProcessConfig(target="x0"))
    task = DiffaeTask(model, STAGE).train()
    optimizer = torch.optim.Adam(task.trained("loss"), 1e-2)
    assert model.text is not None
    frozen = [value.clone() for value in model.text.network(task.device).parameters()]
    for step in range(60):
        optimizer.zero_grad()
        task(batch(), draws=Draws(0, torch.arange(4) + 4 * step, 4))["loss"].backward()
        optimizer.step()
    assert all(torch.equal(*pair) for pair in zip(frozen, model.text.network(task.device).parameters(), strict=True))
    assert not {id(value) for value in model.text.network(task.device).parameters()} & {
        id(value) for value in task.parameters()
    }
    model.eval()
    z = model.hide(torch.zeros(2, 3, 4, 4), torch.tensor([True, True]))
    noise = torch.randn(model.noise_shape(z), generator=torch.Generator().manual_seed(0))
    red, blue = model.restore(z, 4, noise, vector=model.told(["red", "blue"], task.device))
    assert (red[0] - red[2]).mean() > 1
    assert (blue[2] - blue[0]).mean() > 1


def test_a_recording_is_refused(trained: Path, clip: Path) -> None:
    recorded = dataclasses.replace(LOOP, cuda_graph=True)
    with pytest.raises(ConfigError, match=r"stages\.joint\.training\.cuda_graph \(=true\) cannot record a text model"):
        settings(trained, recorded)
    with pytest.raises(ConfigError, match=r"training\.cuda_graph \(=true\) cannot record a text model"):
        distil.teacher_of(student_settings(trained, trained / "student", recorded))
    draws = RecordedDraws(0, torch.arange(4), 4, {}, torch.device("cpu"))
    with pytest.raises(ConfigError, match="cannot record a text model"):
        draws.drop_text(0.5)


def student_settings(root: Path, out: Path, loop: LoopSettings = LOOP) -> distil.DistilTraining:
    return distil.DistilTraining(
        out=str(out), images=[str(root / "images")], holdback=4, teacher=str(root / "model"), steps=1, teacher_steps=2,
        crop_px=32, training=loop,
    )  # fmt: skip


def test_a_student_is_told_texts_too(trained: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shown: list[str] = []
    told = DiffusionAutoencoder.told

    def listen(self: DiffusionAutoencoder, texts: Any, device: torch.device) -> Tensor | None:
        shown.extend(texts)
        return told(self, texts, device)

    monkeypatch.setattr(DiffusionAutoencoder, "told", listen)
    distil.RECIPE.run(student_settings(trained, trained / "student"), "")
    assert {"", "the slope of number 1", "the slope of number 8"} <= set(shown)
    monkeypatch.undo()
    student = load(trained / "student")
    data = student.encode(picture(), text="a slope")
    assert (student.decode(data).pixels == student.decode(student.encode(picture()), text="a slope").pixels).all()


# in files


def test_a_file_keeps_its_text(codec: DiffaeCodec) -> None:
    plain, told = codec.encode(picture()), codec.encode(picture(), text="ein Kätzchen")
    assert read_dfl(told).section(sections.TEXT) == "ein Kätzchen".encode()
    assert read_dfl(plain).section(sections.TEXT) is None
    assert codec.encode(picture(), text="") == plain
    assert len(told) - len(plain) == 2 + 13
    assert describe(told)["settings"]["text"] == "ein Kätzchen"
    cases: dict[str, tuple[bytes, dict[str, Any]]] = {
        "kept": (told, {}), "given": (plain, {"text": "ein Kätzchen"}), "silent": (told, {"text": ""}),
        "plain": (plain, {}), "other": (told, {"text": "a dog"}),
    }  # fmt: skip
    images = {name: codec.decode(data, **options).pixels for name, (data, options) in cases.items()}
    assert np.array_equal(images["kept"], images["given"])
    assert np.array_equal(images["silent"], images["plain"])
    assert not np.array_equal(images["kept"], images["plain"])
    assert not np.array_equal(images["kept"], images["other"])
    assert np.array_equal(codec.decode(told, steps=0).pixels, codec.decode(plain, steps=0).pixels)


def test_tiles_are_told_the_same(codec: DiffaeCodec) -> None:
    data = codec.encode(picture(400, 530), text="a cat", guidance=1.5)
    whole, tiled = (codec.decode(data, tile_px=tile).pixels.astype(int) for tile in (896, 16))
    assert np.abs(whole - tiled).max() <= 1


def test_guidance_leads_away_from_neither_text_nor_latent(clip: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = model_of(clip)
    device = torch.device("cpu")
    z, vector = torch.ones(1, 3, 2, 2), model.told(["a cat"], device)
    silent = model.told([""], device)
    assert vector is not None
    assert silent is not None
    seen: list[tuple[bool, bool]] = []

    def listen(x: Tensor, condition: Tensor, *, z: Tensor, vector: Tensor, past: None) -> Tensor:
        hides = torch.equal(z, model.hide(z, torch.tensor([True])))
        seen.append((hides, torch.equal(vector, silent)))
        return torch.zeros_like(x)

    monkeypatch.setattr(model, "forward", listen)
    noise = torch.zeros(model.noise_shape(z))
    model.restore(z, 1, noise, 3.0, vector)
    assert seen == [(False, False), (True, True)]
    seen.clear()
    model.restore(z, 1, noise)
    assert seen == [(False, True)]
    with pytest.raises(ConfigError, match=r"hiding its text \(decoder\.text_dropped=0\)"):
        model_of(clip, text_dropped=0.0, guidance=2.0)


def test_a_model_without_text_says_so(clip: Path) -> None:
    codec = DiffaeCodec("plain", tiny())
    data = codec.encode(picture(8, 8), text="")
    for use in (
        lambda: codec.encode(picture(8, 8), text="a cat"),
        lambda: codec.decode(data, text="a cat"),
        lambda: codec.decode(data, text="a cat", steps=0),
        lambda: codec.space.model.told(["", "a cat"], torch.device("cpu")),
    ):
        with pytest.raises(ConfigError, match=r"`text` .*a cat.* has no meaning for a model that was trained without"):
            use()
    assert codec.decode(data, text="").pixels.shape == (3, 8, 8)


@pytest.mark.parametrize(
    ("text", "message"), [("ä" * 2049, "4098 bytes"), ("\ud800", "halves of characters"), (7, "must be a text")]
)
def test_texts_that_cannot_be_are_told(codec: DiffaeCodec, text: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        codec.encode(picture(8, 8), text=text)
    with pytest.raises(ConfigError, match=message):
        codec.decode(codec.encode(picture(8, 8)), text=text)
    assert codec.decode(codec.encode(picture(8, 8), text="ä" * 2048)).pixels.shape == (3, 8, 8)


@pytest.mark.parametrize("data", [b"", b"x" * 4097, b"\xff\xfe"])
def test_sections_that_cannot_be_are_told(codec: DiffaeCodec, data: bytes) -> None:
    file = read_dfl(codec.encode(picture(8, 8)))
    forged = dataclasses.replace(file, sections=(*file.sections, (sections.TEXT, data)))
    with pytest.raises(FormatError, match="the text"):
        codec.decode(write_dfl(forged))
    with pytest.raises(FormatError, match="the text"):
        SamplingDecoding.from_sections({sections.TEXT: data})


def test_the_command_line(trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    Image.fromarray(photo(40, 60).transpose(1, 2, 0)).save(tmp_path / "a.png")
    named = ["--codec", str(trained / "model")]
    assert main(["compress", str(tmp_path / "a.png"), *named, "--text", "a cat"]) == 0
    restored = {}
    for name, given in (("kept", []), ("silent", ["--text", ""]), ("same", ["--text", "a cat"])):
        out = tmp_path / f"{name}.png"
        assert main(["decompress", str(tmp_path / "a.dfl"), "-o", str(out), *named, *given]) == 0
        restored[name] = out.read_bytes()
    assert restored["kept"] == restored["same"] != restored["silent"]
    capsys.readouterr()
    assert main(["info", str(tmp_path / "a.dfl"), *named, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["settings"]["text"] == "a cat"
    assert main(["info", str(tmp_path / "a.dfl"), *named]) == 0
    assert "text a cat" in capsys.readouterr().out
    tiny().save_pretrained(tmp_path / "plain")
    assert main(["compress", str(tmp_path / "a.png"), "-f", "--codec", str(tmp_path / "plain"), "--text", "a"]) != 0
    error = capsys.readouterr().err
    assert "--text" in error
    assert "has no meaning" in error
    assert error.count("\n") == 1
