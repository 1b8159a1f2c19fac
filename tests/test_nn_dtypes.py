"""What torch's default dtype is, before or after the import, changes no file and no pixel."""

import hashlib
import json
import subprocess
import sys

import pytest
import torch

import difflate
from coder_helpers import HYPERPRIOR, photo
from difflate import registry
from difflate.media.picture import Picture
from difflate.models.transform_coder import TransformModel
from difflate.nn import UNet, UNetConfig
from difflate.nn.transforms import TransformConfig

SCRIPT = """
import json, sys
import torch
torch.set_default_dtype(torch.float64)
import difflate
sys.path.insert(0, sys.argv[1])
import test_nn_dtypes as tests
codecs = {name: difflate.load(name) for name in tests.NAMES}
print(json.dumps([tests.digests(codecs), [name for name in ("torch._dynamo", "sympy") if name in sys.modules]]))
"""
NAMES = ["vq-8-8-8", "rq-32-8-8", "opq-32-8-8", "hyperprior-small", "cdc-small"]
REFINED = "opq-32-8-8"


def digests(codecs):
    """Of files and pixels of each codec, with and without a refiner."""
    picture, digests = Picture(photo(45, 60)), {}
    for name, codec in codecs.items():
        data = codec.encode(picture)
        pixels = [codec.decode(data).pixels]
        if name == REFINED:
            pixels.append(codec.decode(data, refine=True).pixels)
        digests[name] = [hashlib.sha256(part).hexdigest() for part in (data, *(p.tobytes() for p in pixels))]
    return digests


@pytest.fixture(scope="module")
def codecs():
    return {name: difflate.load(name) for name in NAMES}


@pytest.fixture(scope="module")
def expected(codecs):
    assert torch.get_default_dtype() == torch.float32
    return digests(codecs)


@pytest.fixture(params=[torch.float64, torch.bfloat16])
def other_default(request, expected):
    torch.set_default_dtype(request.param)
    yield request.param
    torch.set_default_dtype(torch.float32)


def test_codecs_are_the_same_when_the_default_changes_after_they_were_loaded(other_default, codecs, expected):
    assert digests(codecs) == expected


def test_codecs_are_the_same_when_they_are_loaded_under_another_default(other_default, expected):
    anew = {name: difflate.load(registry.WEIGHTS / name) for name in NAMES}
    assert digests(anew) == expected


def test_codecs_are_the_same_when_the_default_changed_before_the_import(expected):
    command = [sys.executable, "-c", SCRIPT, __file__.rpartition("/")[0]]
    run = subprocess.run(command, check=True, capture_output=True, text=True)
    theirs, heavy = json.loads(run.stdout)
    assert theirs == expected
    assert heavy == []  # they take seconds to import, and loading needs nothing of them


@pytest.mark.parametrize("kind", ["dct", "gdn", "residual"])
def test_networks_are_float32_under_any_default(other_default, kind):
    transform = TransformModel(TransformConfig(kind, 24, (8, 8, 8), (1, 1, 1)), HYPERPRIOR)
    for network in (transform, UNet(UNetConfig(widths=(8, 8), blocks=(1, 1), vector_channels=2))):
        tensors = [*network.parameters(), *network.buffers()]
        assert {tensor.dtype for tensor in tensors if tensor.is_floating_point()} == {torch.float32}
    images = torch.rand(1, 3, 16, 32, dtype=torch.float32) * 2 - 1
    restored = transform(images, torch.tensor([0.5], dtype=torch.float32))
    assert restored.image.dtype == torch.float32
