"""The text model of a diffusion autoencoder: what transformers' CLIP gives, from folders that are checked."""

import json
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from difflate.errors import ConfigError, ModelError
from difflate.models.text import text_encoder
from text_helpers import text_model

transformers = pytest.importorskip("transformers")
CPU = torch.device("cpu")
TEXTS = ["a cat", "", "Zwölf Boxkämpfer", "a cat " + "and a dog " * 20]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return text_model(tmp_path_factory.mktemp("text") / "clip")


@pytest.fixture
def copied(folder: Path, tmp_path: Path) -> Path:
    """A folder that a test may spoil."""
    for path in folder.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    return tmp_path


def test_embeddings_are_those_of_transformers(folder: Path) -> None:
    """Of each text by itself, without padding."""
    encoder = text_encoder(str(folder))
    found = encoder.embed(TEXTS, CPU)
    assert (found.shape, found.dtype) == ((4, encoder.channels), torch.float32)
    model = transformers.CLIPTextModel.from_pretrained(folder).eval()
    tokenizer = transformers.CLIPTokenizerFast.from_pretrained(folder)
    for text, vector in zip(TEXTS, found, strict=True):
        tokens = tokenizer(text, truncation=True, max_length=16, return_tensors="pt")["input_ids"]
        with torch.no_grad():
            expected = model(input_ids=tokens).pooler_output[0]
        torch.testing.assert_close(vector, expected, rtol=1e-4, atol=1e-5)
    assert (found[0] - found[1]).abs().max() > 0.1


def test_the_text_model_of_a_whole_clip(folder: Path, copied: Path) -> None:
    own = transformers.CLIPTextModel.from_pretrained(folder)
    vision = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2,
              "image_size": 16, "patch_size": 8}  # fmt: skip
    config = transformers.CLIPConfig(text_config=own.config.to_dict(), vision_config=vision, projection_dim=16)
    whole = transformers.CLIPModel(config)
    whole.text_model.load_state_dict(own.state_dict())
    whole.save_pretrained(copied)
    assert json.loads((copied / "config.json").read_text())["model_type"] == "clip"
    expected = text_encoder(str(folder)).embed(TEXTS, CPU)
    assert torch.equal(text_encoder(str(copied)).embed(TEXTS, CPU), expected)


def test_its_weights_stay_as_they_are(folder: Path) -> None:
    encoder = text_encoder(str(folder))
    before = torch.get_rng_state()
    assert not any(parameter.requires_grad for parameter in encoder.network(CPU).parameters())
    assert torch.equal(torch.get_rng_state(), before)
    assert not encoder.embed(["a cat"], CPU).requires_grad


def test_another_model_and_another_tokenizer_are_told_apart(folder: Path, copied: Path, tmp_path: Path) -> None:
    digest = text_encoder(str(folder)).digest
    assert text_encoder(str(copied)).digest == digest
    (copied / "merges.txt").write_text("#version: 0.2\na b\n")
    assert text_encoder(str(copied)).digest != digest
    other = text_encoder(str(text_model(tmp_path / "other", seed=1)))
    assert other.digest != digest
    with pytest.raises(ModelError, match="trained with another text model"):
        other.check_same(digest, folder)


def edit(key: str, value: object) -> Callable[[Path], object]:
    def write(folder: Path) -> None:
        config = json.loads((folder / "config.json").read_text())
        (folder / "config.json").write_text(json.dumps({**config, key: value}))

    return write


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda f: (f / "model.safetensors").unlink(), r"model\.safetensors is missing"),
        (lambda f: (f / "model.safetensors").write_bytes(b"no weights at all"), "cannot be loaded"),
        (lambda f: (f / "merges.txt").unlink(), r"merges\.txt is missing"),
        (lambda f: (f / "vocab.json").write_text("["), "cannot be loaded"),
        (lambda f: (f / "config.json").unlink(), r"config\.json is missing"),
        (edit("model_type", "bert"), "kind bert"),
        (edit("hidden_size", 1 << 40), "hidden_size"),
        (edit("hidden_size", "many"), "hidden_size"),
        (edit("hidden_size", 32), "do not fit"),
        (edit("num_hidden_layers", 3), "do not fit"),
        (edit("num_hidden_layers", 1 << 40), "more than they hold"),
        (edit("vocab_size", 1 << 50), "more than they hold"),
        (edit("num_attention_heads", 0), "cannot be loaded"),
        (edit("hidden_act", "no such thing"), "cannot be loaded"),
        (edit("eos_token_id", 7), "not that of its weights"),
    ],
)
def test_a_folder_that_cannot_be_is_told(spoil: Callable[[Path], object], message: str, copied: Path) -> None:
    spoil(copied)
    with pytest.raises(ModelError, match=message) as error:
        text_encoder(str(copied)).embed(["a cat"], CPU)
    assert "\n" not in str(error.value)


def test_pickled_weights_are_not_read(copied: Path) -> None:
    torch.save({}, copied / "pytorch_model.bin")
    (copied / "model.safetensors").unlink()
    with pytest.raises(ModelError, match=r"model\.safetensors is missing"):
        text_encoder(str(copied)).embed(["a cat"], CPU)


def test_a_name_that_is_none_is_told() -> None:
    with pytest.raises(ModelError, match=r"text model 'no where' is not here"):
        text_encoder("no where")


def test_without_transformers_the_extra_is_named(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(ConfigError, match=r"pip install 'difflate\[text\]'"):
        text_encoder(str(folder)).embed(["a cat"], CPU)
