"""Generators of latents: continuous and categorical, with their codec, from Python and by the command `sample`."""

import json
from pathlib import Path

import pytest
import torch
from PIL import Image

import difflate
from difflate.diffusion import ProcessConfig
from difflate.errors import ConfigError, ModelError
from difflate.generate import CategoricalDiffusion, LatentDiffusion, LatentSpec, load_generator, sample, trajectory
from difflate.generate.sampling import trace
from difflate.models.categorical_diffusion import channels
from difflate.models.latent_space import LatentSpace, latent_space
from difflate.nn import UNetConfig
from difflate.nn.colour import signed_to_uint8
from refiner_helpers import refiner_of

NAME = "opq-32-8-8"


def codec(name: str = NAME) -> LatentSpace:
    return latent_space(difflate.load(name))


def randomised(model: torch.nn.Module) -> torch.nn.Module:
    """Random weights everywhere, also where training starts from zero."""
    torch.manual_seed(0)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    return model.eval()


def continuous(name: str = NAME, **process) -> LatentDiffusion:
    spec = LatentSpec.of(codec(name))
    planes = len(spec.codebook_sizes)
    network = UNetConfig(in_channels=planes, out_channels=planes, widths=(8, 8), blocks=(1, 1), self_condition=True)
    made = randomised(LatentDiffusion(spec, network, ProcessConfig(**process), 32))
    assert isinstance(made, LatentDiffusion)
    return made.use_codec(codec(name))


def categorical(name: str = NAME, self_condition: bool = True) -> CategoricalDiffusion:
    spec = LatentSpec.of(codec(name))
    into, out = channels(spec, self_condition)
    network = UNetConfig(in_channels=into, out_channels=out, widths=(8, 8), blocks=(1, 1))
    made = randomised(CategoricalDiffusion(spec, network, ProcessConfig(target="x0"), 32, self_condition))
    assert isinstance(made, CategoricalDiffusion)
    return made.use_codec(codec(name))


def images_of(model, count: int, **options) -> torch.Tensor:
    return torch.cat(list(sample(model, count, **{"steps": 4, **options})))


def size_of(path: Path) -> tuple[int, int]:
    with Image.open(path) as image:
        return image.size


@pytest.mark.parametrize("made", [continuous, categorical])
def test_an_image_depends_on_seed_and_number_only(made) -> None:
    model = made()
    whole = images_of(model, 5, seed=3)
    assert whole.shape == (5, 3, 32, 32)
    assert whole.dtype == torch.uint8
    assert torch.equal(whole, images_of(model, 5, seed=3, batch=2))
    assert torch.equal(whole[3:], images_of(model, 2, seed=3, first=3))
    assert not torch.equal(whole, images_of(model, 5, seed=4))


@pytest.mark.parametrize("name", ["vq-8-8-8", "rq-32-8-8"])
def test_other_codecs(name: str) -> None:
    for model in (continuous(name), categorical(name, self_condition=False)):
        assert images_of(model, 2).shape == (2, 3, 32, 32)


def test_images_are_those_of_the_rounded_indices() -> None:
    model = continuous()
    *_, last = trajectory(model, range(2), steps=3)
    indices = model.latent.index_space.indices(last.x)
    assert torch.equal(images_of(model, 2, steps=3), codec().from_latent(indices))


def test_a_trace_goes_from_noise_to_the_image() -> None:
    model = continuous()
    steps = trajectory(model, range(2), steps=10)
    times, images = zip(*trace(steps, model, 5, 10), strict=True)
    assert times == pytest.approx([0.8, 0.6, 0.4, 0.2, 0.0])
    assert torch.equal(images[-1], images_of(model, 2, steps=10))


def test_other_sizes() -> None:
    for model in (continuous(), categorical()):
        assert images_of(model, 1, size=(16, 40)).shape == (1, 3, 16, 40)
        for size in ((16, 20), (0, 8), (8, 10**5)):
            with pytest.raises(ConfigError, match="in steps of 8"):
                sample(model, 1, size=size)


def test_temperature() -> None:
    """Towards 0 the draws become the most likely index; the default is the model's own."""
    model = categorical()
    coldest = images_of(model, 2, temperature=0.0)
    assert torch.equal(images_of(model, 2, temperature=1e-9), coldest)
    assert torch.equal(images_of(model, 2), images_of(model, 2, temperature=1.0))
    assert not torch.equal(images_of(model, 2), coldest)
    for temperature in (-0.1, float("nan"), 1e9):
        with pytest.raises(ConfigError, match=r"temperature .* must be from 0"):
            sample(model, 2, temperature=temperature)
    with pytest.raises(ConfigError, match="for categorical models only"):
        sample(continuous(), 2, temperature=1.0)


def test_softness_averages_the_codewords_around_a_number() -> None:
    """Towards 0 images are those of the nearest index, and with all of [-1, 1] the mean of a codebook; the default is
    the model's own."""
    model = continuous()
    rounded = images_of(model, 2)
    assert torch.equal(images_of(model.soften(1e-6), 2), rounded)
    found = images_of(model.soften(0.05), 2).float()
    assert not torch.equal(found, rounded)
    assert found.diff(dim=3).abs().mean() < rounded.float().diff(dim=3).abs().mean()
    *_, last = trajectory(model, range(2), steps=3)
    means = [book.mean(0)[None, :, None, None].expand(1, -1, 4, 4) for book in codec().codebooks]
    everywhere = model.soften(1.0).images(last.x * 0).int()
    assert (everywhere - signed_to_uint8(codec().from_codewords(means)).int()).abs().max() <= 12  # the ends count less
    for softness in (-0.1, float("nan"), 2.0, 1e-30, True):
        with pytest.raises(ConfigError, match=r"softness .* must be 0"):
            model.soften(softness)


def test_softness_is_kept_with_the_model_and_chosen_when_it_is_loaded(tmp_path: Path) -> None:
    model = continuous().soften(0.05)
    model.save_pretrained(tmp_path / "continuous")
    assert torch.equal(images_of(load_generator(tmp_path / "continuous"), 2), images_of(model, 2))
    rounded = load_generator(tmp_path / "continuous", softness=0)
    assert torch.equal(images_of(rounded, 2), images_of(continuous(), 2))
    categorical().save_pretrained(tmp_path / "categorical")
    with pytest.raises(ConfigError, match="softness is of continuous models"):
        load_generator(tmp_path / "categorical", softness=0.1)


@pytest.mark.parametrize("made", [continuous, categorical])
def test_guidance_and_classes_are_not_theirs(made) -> None:
    with pytest.raises(ConfigError, match="needs a model with classes"):
        sample(made(), 1, guidance=2.0)
    with pytest.raises(ConfigError, match="knows no classes"):
        sample(made(), 1, classes=["cats"])


@pytest.mark.parametrize("made", [continuous, categorical])
def test_folder_round_trip(made, tmp_path: Path) -> None:
    model = made()
    model.save_pretrained(tmp_path, card="# A card")
    loaded = load_generator(tmp_path)
    assert type(loaded) is type(model)
    assert torch.equal(images_of(loaded, 2), images_of(model, 2))
    assert not any("codec" in key for key in loaded.state_dict())


def test_another_codec_is_refused(tmp_path: Path) -> None:
    continuous().save_pretrained(tmp_path)
    with pytest.raises(ModelError, match=r"the latents are of opq-32-8-8 \(\w{8}\), not of pq-32-8-8"):
        load_generator(tmp_path, codec="pq-32-8-8")
    with pytest.raises(ConfigError, match="codec 'jpeg' has no finite latent space"):
        load_generator(tmp_path, codec="jpeg")
    config = json.loads((tmp_path / "config.json").read_text())
    config["latent"]["codec"] = "mine"
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(ModelError, match="its codec mine is not bundled; name the folder"):
        load_generator(tmp_path)
    assert images_of(load_generator(tmp_path, codec=NAME), 1).shape == (1, 3, 32, 32)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"image_px": 33}, "must be a multiple of the codec's patch"),
        ({"network": UNetConfig(widths=(8,), blocks=(1,))}, "must be 6 and 6"),
        ({"latent": LatentSpec(NAME, "0" * 64, [256] * 5)}, "must be 5 and 5"),
    ],
)
def test_what_does_not_fit_together_is_refused(changed: dict, message: str) -> None:
    given = {
        "latent": LatentSpec.of(codec()),
        "network": continuous().network,
        "process": ProcessConfig(),
        "image_px": 32,
    }
    with pytest.raises(ConfigError, match=message):
        LatentDiffusion(**{**given, **changed})


def test_the_codec_and_the_refiner_of_a_generator_are_its_own() -> None:
    """They move to its device; those that are loaded by name are everybody's."""
    model = continuous()
    assert model.space is not codec()
    assert torch.equal(model.space.codebooks[0], codec().codebooks[0])


def test_samples_are_refined_for_the_largest_noise() -> None:
    model, refiner = continuous(), refiner_of()
    plain = images_of(model, 2)
    refined = images_of(model.use_codec(codec(), refiner), 2)
    assert torch.equal(refined, refiner.refine(plain, refiner.max_noise))
    assert not torch.equal(refined, refiner.refine(plain, 0.0))
    assert torch.equal(images_of(model.use_codec(codec()), 2), plain)
    with pytest.raises(ModelError, match="the refiner is for images of pq-32-8-8"):
        model.use_codec(codec(), refiner_of(codec="pq-32-8-8"))


@pytest.mark.parametrize(
    ("changed", "error"),
    [
        ({"codec": []}, "`codec`"),
        ({"fingerprint": 5}, "`fingerprint`"),
        ({"patch_px": 8.0}, "`patch_px`"),
        ({"patch_px": 4}, "`patch_px`"),
        ({"codebook_sizes": [256.0] * 6}, "`codebook_sizes`"),
        ({"codebook_sizes": [128] * 6}, "`codebook_sizes`"),
    ],
)
def test_an_altered_space_is_refused(changed: dict, error: str, tmp_path: Path) -> None:
    continuous().save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    config["latent"] |= changed
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(ModelError, match=error):
        load_generator(tmp_path)


@pytest.mark.parametrize("sizes", [[], [1], [256] * 65, [1 << 17]])
def test_codebooks_that_no_codec_has(sizes: list[int]) -> None:
    with pytest.raises(ConfigError, match="`codebook_sizes`"):
        LatentSpec(NAME, "0" * 64, sizes)


def test_a_categorical_model_predicts_x0() -> None:
    model = categorical()
    with pytest.raises(ConfigError, match="must be x0"):
        CategoricalDiffusion(model.latent, model.network, ProcessConfig(target="v"), 32, True)
