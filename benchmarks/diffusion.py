"""Decoding by diffusion: a few steps of the small decoder against the layout and the steps of the paper."""

import torch

import difflate
from benchmarks.timing import Fact, Results, Timings, stopwatch
from difflate.codecs.cdc import CdcCodec
from difflate.codecs.transform import quality_of
from difflate.format.container import read_dfl
from difflate.media.picture import Picture
from difflate.models.diffusion_decoder import DiffusionDecoder
from difflate.nn.presets import PRESETS as NETWORKS
from difflate.nn.unet import UNet, multiply_adds, parameters

BUNDLED = "cdc-small"
STEPS, STEPS_PAPER = 4, 65
LIMIT_S, LIMIT_ONE_S = 1.5, 0.5
AIM = 100.0
ROUNDS_SHARE = 12
"""The paper's network takes seconds a step: one in so many of the rounds must do."""


@torch.no_grad()
def run(picture: Picture, rounds: int) -> Results:
    """Whole decoding of ``picture``, and the steps alone against one step of the paper's network, times 65."""
    codec, model = _codec()
    data = codec.encode(picture)
    file = read_dfl(data)
    quality = codec.space.as_network_input(quality_of(dict(file.sections)))
    y_hat = torch.from_numpy(codec.read_latent(file).y_hat)[None]
    conditions = model.conditions(y_hat, quality)
    noise = torch.randn(conditions.synthesis.shape, generator=torch.Generator().manual_seed(0))
    paper, inputs = _paper(*noise.shape[2:])
    few = max(1, rounds // ROUNDS_SHARE)
    programs = {
        "file": stopwatch(lambda: codec.decode(data, steps=STEPS)),
        "file in one step": stopwatch(lambda: codec.decode(data, steps=1)),
        "file by default": stopwatch(lambda: codec.decode(data)),
        "conditions": stopwatch(lambda: model.conditions(y_hat, quality)),
        "steps": stopwatch(lambda: model.refine(conditions, STEPS, noise)),
        f"{STEPS_PAPER} steps of CDC's U-Net": stopwatch(lambda: paper(**inputs)),
    }
    timings = Timings(programs, few, warm_up=1)
    reference = f"{STEPS_PAPER} steps of CDC's U-Net"
    rows = [
        timings.row(f"diffusion, {STEPS} steps", "steps", reference, AIM, scale=STEPS_PAPER),
        timings.row(f"diffusion, file decoded in {STEPS} steps", "file", reference, scale=STEPS_PAPER),
    ]
    size = tuple(picture.pixels.shape[1:])
    seconds, one_s = timings.ms("file") / 1e3, timings.ms("file in one step") / 1e3
    work = multiply_adds(NETWORKS["cdc"], *size) / multiply_adds(model.network, *size)
    facts = [
        Fact(f"{BUNDLED}, file of 768 x 512 decoded in {STEPS} steps, s", seconds, f"< {LIMIT_S}", seconds < LIMIT_S),
        Fact(f"{BUNDLED}, the same in one step, s", one_s, f"< {LIMIT_ONE_S}", one_s < LIMIT_ONE_S),
        Fact(
            f"{BUNDLED}, the same in {model.decoder.steps} steps, the default, s", timings.ms("file by default") / 1e3
        ),
        Fact(f"{BUNDLED}, the conditions of all steps, s", timings.ms("conditions") / 1e3),
        Fact(f"{BUNDLED}, {STEPS} steps, s", timings.ms("steps") / 1e3),
        Fact("one step of CDC's U-Net, s", timings.ms(reference) / 1e3),
        Fact("multiply-adds of CDC's steps / ours", work * STEPS_PAPER / STEPS),
        Fact("parameters of our U-Net, million", parameters(model.unet) / 1e6),
        Fact("parameters of CDC's U-Net, million", parameters(paper) / 1e6),
    ]
    return Results(rows, facts)


def _codec() -> tuple[CdcCodec, DiffusionDecoder]:
    codec = difflate.load(BUNDLED)
    assert isinstance(codec, CdcCodec)
    assert isinstance(codec.model, DiffusionDecoder)
    return codec, codec.model


def _paper(height: int, width: int) -> tuple[UNet, dict]:
    """The paper's network in our U-Net, seeded, and what a step gives it."""
    torch.manual_seed(0)
    config = NETWORKS["cdc"]
    network = UNet(config).eval()
    torch.nn.init.normal_(network.exit.weight, std=0.02)
    spatial = [
        torch.randn(1, channels, height >> level, width >> level) if channels else None
        for level, channels in enumerate(config.cond_channels or ())
    ]
    return network, dict(x=torch.randn(1, 3, height, width), condition=torch.rand(1), spatial=spatial)
