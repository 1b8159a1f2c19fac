"""Generation in the model-based latent space against the same U-Net in pixels, at the same size of the images."""

import dataclasses

import torch

from benchmarks.timing import Fact, Results, Timings, stopwatch
from difflate.generate import LatentDiffusion, load_generator, sample
from difflate.nn import UNet, UNetConfig
from difflate.nn.presets import PRESETS as NETWORKS
from difflate.nn.unet import multiply_adds, parameters

MODEL = "cats-small"
STEPS, SAMPLES = 30, 16
PAPER_PX, AIM = 512, 40.0
ROUNDS_SHARE = 12


@torch.no_grad()
def run(rounds: int) -> Results:
    """One evaluation of the network in latents and in pixels, whole samples, and what decoding adds."""
    model = load_generator(MODEL)
    if not isinstance(model, LatentDiffusion):
        raise SystemExit(f"model ({MODEL}) must be one of latents")
    px, latent = model.image_px, model.shape((model.image_px, model.image_px))
    z = torch.rand(SAMPLES, *latent, generator=torch.Generator().manual_seed(0)) * 2 - 1
    in_latents, in_pixels = _step(model.network, *latent), _step(_in_pixels(model.network), 3, px, px)
    few = max(1, rounds // ROUNDS_SHARE)
    programs = {
        "latents": stopwatch(in_latents),
        "pixels": stopwatch(in_pixels),
        "samples": stopwatch(lambda: list(sample(model, SAMPLES, steps=STEPS, batch=SAMPLES))),
        "decoding": stopwatch(lambda: model.images(z)),
    }
    timings = Timings(programs, few, warm_up=1)
    row = timings.row(f"a step of {MODEL} at {px} px", "latents", "pixels")
    row = dataclasses.replace(row, reference="the same U-Net in pixels")
    paper = NETWORKS["latent"]
    side = PAPER_PX // model.space.stride_px
    work, pixel_work = multiply_adds(paper, side, side), multiply_adds(_in_pixels(paper), PAPER_PX, PAPER_PX)
    own, own_pixels = multiply_adds(model.network, *latent[1:]), multiply_adds(_in_pixels(model.network), px, px)
    seconds = timings.ms("samples") / 1e3 / SAMPLES
    facts = [
        Fact(f"multiply-adds in pixels / in latents, a step of the paper's network at {PAPER_PX} px",
             pixel_work / work, f"≥ {AIM:g}", pixel_work / work >= AIM),
        Fact(f"multiply-adds of that step in latents, billion (× {STEPS} steps a sample)", work / 1e9),
        Fact(f"multiply-adds in pixels / in latents, a step of {MODEL} at {px} px", own_pixels / own),
        Fact(f"{MODEL}, multiply-adds of a sample of {STEPS} steps, billion", own * STEPS / 1e9),
        Fact(f"{MODEL}, parameters, million", parameters(model) / 1e6),
        Fact(f"{MODEL}, samples/s, {STEPS} steps, {SAMPLES} at once", 1 / seconds),
        Fact("share of decoding in that, %", 100 * timings.ms("decoding") / 1e3 / SAMPLES / seconds),
        Fact(f"decoding, ms an image of {px} px (softness {model.softness:g})", timings.ms("decoding") / SAMPLES),
    ]  # fmt: skip
    return Results([row], facts)


def _in_pixels(network: UNetConfig) -> UNetConfig:
    return dataclasses.replace(network, in_channels=3, out_channels=3)


def _step(config: UNetConfig, channels: int, height: int, width: int):
    """A call of the network on one image."""
    torch.manual_seed(0)
    network = UNet(config).eval()
    x, condition = torch.randn(1, channels, height, width), torch.rand(1)
    extra = (torch.randn_like(x),) if config.self_condition else ()
    return lambda: network(x, condition, *extra)
