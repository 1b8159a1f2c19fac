"""Generators: sampling, classes and guidance, model folders."""

import json
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

import difflate
from difflate import registry
from difflate.cli.main import main
from difflate.diffusion import SAMPLERS, ProcessConfig
from difflate.errors import ConfigError, LimitExceeded, ModelError
from difflate.generate import PixelDiffusion, SampleOptions, load_generator, sample
from difflate.generate.sampling import trajectory
from difflate.nn import UNetConfig
from difflate.train.recipes import pixel
from training_helpers import NETWORK, settings, write_images

CLASSY = UNetConfig(**{**vars(NETWORK), "vector_channels": 2})


def model(network: UNetConfig = NETWORK, classes: list[str] | None = None, **process) -> PixelDiffusion:
    """Random weights everywhere, also where training starts from zero."""
    torch.manual_seed(0)
    made = PixelDiffusion(network, ProcessConfig(**process), 8, classes)
    for parameter in made.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    return made.eval()


def images_of(made: PixelDiffusion, count: int, **options) -> torch.Tensor:
    return torch.cat(list(sample(made, count, **{"steps": 4, **options})))


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_an_image_depends_on_seed_and_number_only(sampler: str) -> None:
    made = model()
    whole = images_of(made, 7, seed=3, sampler=sampler)
    assert whole.shape == (7, 3, 8, 8)
    assert whole.dtype == torch.uint8
    for other in (
        images_of(made, 7, seed=3, sampler=sampler, batch=3),
        torch.cat([images_of(made, 3, seed=3, sampler=sampler), images_of(made, 4, seed=3, sampler=sampler, first=3)]),
    ):
        assert (whole.int() - other.int()).abs().max() <= 1  # the rounding of float arithmetic in another batch
    assert not torch.equal(images_of(made, 7, seed=4, sampler=sampler), whole)


def test_self_conditioned_and_other_processes_sample() -> None:
    network = UNetConfig(**{**vars(NETWORK), "self_condition": True})
    for process in ({"scaling": "flow", "target": "flow", "schedule": "flow"}, {"schedule": "edm", "scaling": "ve"}):
        assert images_of(model(network, **process), 2).shape == (2, 3, 8, 8)


def test_guidance_moves_away_from_the_model_without_class() -> None:
    made = model(CLASSY, ["cats", "dogs"])
    labels = torch.tensor([0, 1])
    x, t = torch.randn(2, 3, 8, 8), torch.tensor([0.5, 0.5])
    with torch.no_grad():
        conditional, free = made(x, t, labels=labels), made(x, t)
        guided = made.denoiser(labels, 3.0)(x, t)
    assert not torch.allclose(conditional, free)
    torch.testing.assert_close(guided, free + 3 * (conditional - free))
    assert not torch.equal(made(x, t, labels=labels), made(x, t, labels=labels.flip(0)))
    torch.testing.assert_close(made(x, t, labels=torch.tensor([-1, -1])), made(x, t))


def test_classes_are_taken_in_turn() -> None:
    made = model(CLASSY, ["cats", "dogs"])
    all_classes = images_of(made, 4)
    assert torch.equal(images_of(made, 4, classes=["cats", "dogs"]), all_classes)
    dogs = images_of(made, 4, classes=["dogs"])
    assert torch.equal(dogs[1::2], all_classes[1::2])
    assert not torch.equal(dogs[::2], all_classes[::2])


def test_classes_are_learned(tmp_path: Path) -> None:
    """Dark and bright images by name, after a short training."""
    for name, value in (("bright", 220), ("dark", 30)):
        (tmp_path / name).mkdir()
        for number in range(4):
            Image.new("RGB", (8, 8), (value + number,) * 3).save(tmp_path / name / f"{number}.png")
    loop = {"max_steps": 80, "lr": 1e-2, "checkpoint_every": 80, "batch": 8}
    out = pixel.RECIPE.run(settings(tmp_path, tmp_path / "out", loop, classes=True, holdback=0), "", progress=False)
    made = load_generator(out)
    assert made.classes == ["bright", "dark"]
    means = {name: images_of(made, 8, classes=[name], steps=10).float().mean().item() for name in made.classes}
    assert means["bright"] > means["dark"] + 60


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"guidance": float("nan")}, r"guidance \(=nan\) must be a number"),
        ({"guidance": 2.0}, r"guidance \(=2\) needs a model with classes"),
        ({"classes": ["cat"]}, r"class \(=cat\) is unknown; this model knows no classes"),
        ({"sampler": "magic"}, r"sampler \(=magic\) must be one of ddpm"),
        ({"steps": 0}, r"steps \(=0\)"),
        ({"steps": 10**9}, r"steps \(=1000000000\)"),
        ({"batch": 0}, r"batch \(=0\)"),
        ({"seed": -1}, r"seed \(=-1\)"),
    ],
)
def test_wrong_options_of_sampling_are_named(options: dict, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        images_of(model(), 2, **options)


def test_options_are_given_at_once_or_by_name() -> None:
    made, options = model(), SampleOptions(steps=4, seed=3, sampler="ddim")
    whole = torch.cat(list(sample(made, 2, options)))
    assert torch.equal(images_of(made, 2, seed=3, sampler="ddim"), whole)
    other = torch.cat(list(sample(made, 2, options, seed=4)))
    assert torch.equal(images_of(made, 2, seed=4, sampler="ddim"), other)
    assert not torch.equal(other, whole)
    *_, last = trajectory(made, range(2), options)
    assert torch.equal(made.images(last.x), whole)


def test_a_trajectory_shows_every_step() -> None:
    steps = list(trajectory(model(), range(2), steps=5, sampler="ddim"))
    assert [step.index for step in steps] == list(range(5))
    assert steps[-1].x.shape == (2, 3, 8, 8)


def test_folder_round_trip_in_one_file_and_in_shards(tmp_path: Path) -> None:
    made = model(CLASSY, ["a", "b"])
    for size, files in (("2GB", 1), ("10KB", 3)):
        made.save_pretrained(tmp_path, card="# A card", max_shard_size=size)
        assert len(list(tmp_path.glob("*.safetensors"))) >= files
        loaded = PixelDiffusion.from_pretrained(tmp_path)
        assert loaded.classes == ["a", "b"]
        assert loaded.process == made.process
        assert loaded.card == "# A card"
        assert not loaded.training
        for name, value in made.state_dict().items():
            assert torch.equal(loaded.state_dict()[name], value)
        assert torch.equal(images_of(loaded, 2), images_of(made, 2))
    made.save_pretrained(tmp_path)  # back to one file: no shard remains
    assert [path.name for path in tmp_path.glob("*.safetensors*")] == ["model.safetensors"]
    assert (tmp_path / "README.md").read_text() == "# A card"


def test_push_to_hub_uploads_the_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = {}

    class Api:
        def __init__(self, token=None):
            pass

        def create_repo(self, repo_id, **options):
            return SimpleNamespace(repo_id=repo_id)

        def upload_folder(self, folder_path, **options):
            seen.update({path.name: path.stat().st_size for path in Path(folder_path).iterdir()})
            return f"hub/{options['repo_id']}"

    monkeypatch.setattr("huggingface_hub.HfApi", Api)
    made = model()
    made.card = "# Mine"
    assert made.push_to_hub("me/cats") == "hub/me/cats"
    assert set(seen) == {"config.json", "model.safetensors", "README.md"}
    assert seen["README.md"] == len("# Mine")
    assert made.save_pretrained(tmp_path, push_to_hub=True, repo_id="me/others") == "hub/me/others"


def test_a_repository_is_only_fetched_when_allowed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model().save_pretrained(tmp_path)
    asked = []

    def fetch(name: str, **options: object) -> str:
        asked.append(options)
        if options["local_files_only"]:
            from huggingface_hub.errors import LocalEntryNotFoundError

            raise LocalEntryNotFoundError("not here")
        return str(tmp_path)

    monkeypatch.setattr("huggingface_hub.snapshot_download", fetch)
    with pytest.raises(ModelError, match=r"me/cats: is no folder, and not in the cache .*--allow-download"):
        load_generator("me/cats")
    assert load_generator("me/cats", allow_download=True).image_px == 8
    assert all("*.bin" not in str(options["allow_patterns"]) for options in asked)
    with pytest.raises(ModelError, match="not in the cache"):
        difflate.load("me/codec")


def test_codecs_are_fetched_for_the_commands_that_allow_it(tmp_path: Path, monkeypatch, capsys) -> None:
    def fetch(name: str, **options: object) -> str:
        asked.append(options["local_files_only"])
        return str(registry.WEIGHTS / "vq-8-8-8")

    asked: list[object] = []
    monkeypatch.setattr("huggingface_hub.snapshot_download", fetch)
    monkeypatch.chdir(tmp_path)
    write_images(tmp_path, 1)
    codec = ["--codec", "me/codec", "--allow-download"]
    assert main(["compress", "000.png", *codec]) == 0
    assert main(["verify", "000.dfl", *codec]) == 0
    assert main(["decompress", "000.dfl", "-o", "back.png", *codec]) == 0
    assert asked == [False] * 3


def test_a_network_that_cannot_be_reached_is_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(name: str, **options: object) -> str:
        raise OSError("no route")

    monkeypatch.setattr("huggingface_hub.snapshot_download", fail)
    with pytest.raises(ModelError, match=r"me/cats: cannot be fetched \(no route\)"):
        load_generator("me/cats", allow_download=True)


def _without(name: str):
    return lambda folder: (folder / name).unlink()


def _config(**changes: object):
    def change(folder: Path) -> None:
        path = folder / "config.json"
        path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))

    return change


def _network(**changes: object):
    return lambda folder: _config(network={**json.loads((folder / "config.json").read_text())["network"], **changes})(
        folder
    )


def _truncate(folder: Path) -> None:
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-10])


def _another_shape(folder: Path) -> None:
    tensors = load_file(folder / "model.safetensors")
    tensors["unet.entrance.bias"] = torch.zeros(9)
    save_file(tensors, folder / "model.safetensors")


class _Harm:
    def __reduce__(self):
        return exec, ("raise SystemExit('code of a model folder was run')",)


def _index_to_a_pickle(folder: Path) -> None:
    """A foreign index that names another file, which an unpickler would run."""
    import pickle

    names = load_file(folder / "model.safetensors")
    (folder / "README.md").write_bytes(pickle.dumps(_Harm()))
    index = {"metadata": {}, "weight_map": dict.fromkeys(names, "README.md")}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))


def test_an_index_of_shards_cannot_name_other_files(tmp_path: Path) -> None:
    made = model()
    made.save_pretrained(tmp_path)
    _index_to_a_pickle(tmp_path)
    assert torch.equal(load_generator(tmp_path).unet.entrance.weight, made.unet.entrance.weight)


def test_other_files_beside_the_weights_are_left_alone(tmp_path: Path) -> None:
    made = model()
    (tmp_path / "model_backup.safetensors").write_text("mine")
    made.save_pretrained(tmp_path)
    assert load_generator(tmp_path).image_px == 8
    assert (tmp_path / "model_backup.safetensors").read_text() == "mine"


def test_a_batch_of_too_many_pixels_is_refused() -> None:
    torch.manual_seed(0)
    made = PixelDiffusion(NETWORK, ProcessConfig(), 4096)
    with pytest.raises(LimitExceeded, match=r"batch \(=64\) images of 4096 x 4096 px"):
        sample(made, 64)


def _pickle(folder: Path) -> None:
    torch.save({}, folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()


@pytest.mark.parametrize(
    ("harm", "message"),
    [
        (_without("config.json"), "config.json is missing"),
        (_without("model.safetensors"), "model.safetensors is missing"),
        (_pickle, "model.safetensors is missing"),
        (_truncate, "cannot be loaded"),
        (_network(cond_channels=[1, 0]), "cond_channels"),
        (_network(in_channels=4), "in_channels"),
        (_another_shape, r"do not fit config.json \(unet.entrance.bias\)"),
        (_config(kind="other"), r"kind \(=other\) must be one of pixel-diffusion"),
        (_config(image_px=10**9), r"image_px"),
        (_config(image_px="x"), "cannot be loaded"),
        (_config(network=5), "cannot be loaded"),
        (_config(network={}), "do not fit config.json"),
        (_config(classes=["a"]), "vector_channels"),
        (_network(widths=[10**9] * 3), "widths"),
        (_network(blocks=[10**9, 1]), "blocks"),
        (_network(widths=[16384] * 2, blocks=[256] * 2), "do not fit config.json"),
        (lambda folder: (folder / "config.json").write_text("[" * 100_000), "cannot be read"),
        (lambda folder: (folder / "config.json").write_text("[]"), "must be a JSON object"),
    ],
)  # fmt: skip
def test_a_harmed_folder_is_refused(harm, message: str, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    model().save_pretrained(tmp_path)
    harm(tmp_path)
    with pytest.raises(ModelError, match=message):
        load_generator(tmp_path)
    assert main(["sample", str(tmp_path), "-o", str(tmp_path / "x.png")]) == 4
    assert len(capsys.readouterr().err.strip().splitlines()) == 1
    assert not (tmp_path / "x.png").exists()


def test_a_generator_is_no_codec(tmp_path: Path, capsys) -> None:
    folder = tmp_path / "model"
    model().save_pretrained(folder)
    images = write_images(tmp_path / "images", 1)
    assert main(["compress", str(images / "000.png"), "--codec", str(folder), "-o", str(tmp_path / "x.dfl")]) == 4
    assert "difflate sample" in capsys.readouterr().err
    assert main(["sample", str(registry.WEIGHTS / "vq-8-8-8"), "-o", str(tmp_path / "x.png")]) == 4
    assert "kind (=vq) must be one of pixel-diffusion" in capsys.readouterr().err
