"""Memory of large images."""

import subprocess
import sys
from pathlib import Path

import pytest

from difflate.format.webp import fallback_notes

PHOTO = Path(__file__).parents[1] / "examples" / "kodim23.png"
_SCRIPT = """
import resource, sys, numpy as np, difflate
from difflate.media.picture import Picture
what, file, name, kind, height, width, *options = sys.argv[1:]
height, width = int(height), int(width)
codec = difflate.load(name)
if what == "encode":
    if kind == "squares":
        small = np.random.default_rng(0).integers(0, 256, (3, -(-height // 16), -(-width // 16)), dtype=np.uint8)
        pixels = small.repeat(16, axis=1).repeat(16, axis=2)[:, :height, :width]
    else:
        pixels = difflate.open_image(kind).pixels
        pixels = np.pad(pixels, ((0, 0), (0, height - pixels.shape[1]), (0, width - pixels.shape[2])), "symmetric")
    open(file, "wb").write(codec.encode(Picture(pixels)))
else:
    given = {key: int(value) for key, value in (option.split("=") for option in options)}
    picture = codec.decode(open(file, "rb").read(), **given)
    assert picture.pixels.shape == (3, height, width)
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024)
"""


def peak_mib(tmp_path: Path, what: str, name: str, size: tuple[int, int], kind: str, *options: str) -> int:
    """Of a process of its own that encodes or decodes an image of ``size``, height and width.

    ``kind``: "squares" of one colour, or the path of a photograph, which is mirrored until it is large enough.
    """
    words = [what, str(tmp_path / "big.dfl"), name, kind, *map(str, size), *options]
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", _SCRIPT, *words], capture_output=True, text=True, check=True
    )
    print(f"{name} {what}: peak {done.stdout.strip()} MiB")
    return int(done.stdout)


@pytest.mark.slow
def test_64_megapixels_take_less_than_4_gib(tmp_path):
    for what in ("encode", "decode"):
        assert peak_mib(tmp_path, what, "eopq-32-8-8", (8192, 8192), "squares") < 4096


@pytest.mark.slow
@pytest.mark.parametrize("name", ["eopq-32-8-8", "hyperprior-small", "cdc-small", "diffae-small"])
def test_45_megapixels_of_a_photograph_take_less_than_2_gb(name, tmp_path):
    size, limit = (5464, 8192), 2e9 / 2**20
    options = ["steps=1"] if name in ("cdc-small", "diffae-small") else []  # more take as much
    assert peak_mib(tmp_path, "encode", name, size, str(PHOTO)) < limit
    assert peak_mib(tmp_path, "decode", name, size, str(PHOTO), *options) < limit


@pytest.mark.slow
def test_45_megapixels_of_a_drawing_take_less_than_2_4_gb(tmp_path):
    """It becomes lossless WebP, whose encoder takes 26 bytes a pixel, with Pillow's image of four."""
    size = (5464, 8192)
    assert peak_mib(tmp_path, "encode", "hyperprior-small", size, "squares") < 2.4e9 / 2**20
    assert fallback_notes((tmp_path / "big.dfl").read_bytes())
    assert peak_mib(tmp_path, "decode", "hyperprior-small", size, "squares") < 2e9 / 2**20


_LOSS = """
import resource, sys, torch, difflate
from difflate.data.crops import Batch
from difflate.diffusion import ProcessConfig
from difflate.generate import CategoricalDiffusion, LatentSpec
from difflate.nn import UNetConfig
from difflate.train.categorical import CategoricalSettings, CategoricalTask
from difflate.train.settings import LoopSettings
count, precision, checkpointing = int(sys.argv[1]), sys.argv[2], sys.argv[3] == "checkpointing"
codec = difflate.load("opq-32-8-8")
network = UNetConfig(in_channels=12, out_channels=1536, widths=(8,), blocks=(1,))
model = CategoricalDiffusion(LatentSpec.of(codec.space), network, ProcessConfig(target="x0"), 512, True)
model.use_codec(codec)
objective = CategoricalTask(model, LoopSettings(batch=count), CategoricalSettings())
objective.gradient_checkpointing = checkpointing
def measure(count, side):
    indices = torch.randint(0, 256, (count, 6, side, side), dtype=torch.uint8)
    batch = Batch(indices, torch.arange(count), torch.zeros(count, dtype=torch.long), [])
    with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16"):
        loss = objective(batch)["loss"]
    loss.backward()
measure(1, 8)  # what torch loads when it is first used is no copy of logits
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
measure(count, 64)
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024)
"""


@pytest.mark.slow
def test_the_categorical_loss_holds_few_copies_of_its_logits():
    """Of 8 images of 512x512 px, as 64x64 indices of 6 planes; the network itself is next to nothing."""
    logits_mib, found = 8 * 64 * 64 * 6 * 256 * 4 / 2**20, {}
    for words in (("fp32", ""), ("fp32", "checkpointing"), ("bf16", ""), ("bf16", "checkpointing")):
        done = subprocess.run(
            [sys.executable, "-W", "ignore", "-c", _LOSS, "8", *words], capture_output=True, text=True, check=True
        )
        found[words] = int(done.stdout) / logits_mib
        print(f"{words}: {done.stdout.strip()} MiB, {found[words]:.1f} times the logits in float32")
    assert max(found.values()) < 6
    assert found["bf16", "checkpointing"] < 0.85 * min(found["bf16", ""], found["fp32", ""])
