"""Our U-Net against those of denoising-diffusion-pytorch and diffusers: the same widths, as many residual blocks."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.timing import Fact, Results, Row, Stopwatch, Timings, stopwatch
from difflate.nn import UNet, UNetConfig

WIDTHS = (64, 128, 256)
HEAD_WIDTH = 32
AIM = 1.0
INSTALL = {"lucidrains": "denoising-diffusion-pytorch", "diffusers": "diffusers"}


@dataclass(frozen=True)
class Setting:
    """Where and on how much the networks run."""

    device: str
    dtype: torch.dtype
    batch: int
    side_px: int

    def __str__(self) -> str:
        name = {torch.float32: "float32", torch.bfloat16: "bfloat16"}[self.dtype]
        return f"{self.device}, {name}, {self.batch} x {self.side_px} x {self.side_px}"


class Network:
    """A network with its input."""

    def __init__(self, module: nn.Module, setting: Setting, call: Callable[[nn.Module, Tensor, Tensor], Tensor]):
        for parameter in module.parameters():
            if not parameter.any():  # a GPU multiplies zeros faster than numbers
                nn.init.normal_(parameter, std=0.02)
        generator = torch.Generator().manual_seed(0)
        self.module, self.setting, self._call = module.to(setting.device), setting, call
        self.x = torch.randn(setting.batch, 3, setting.side_px, setting.side_px, generator=generator).to(setting.device)
        self.t = torch.rand(setting.batch, generator=generator).to(setting.device)

    def run(self) -> Tensor:
        """(B, 3, H, W), the output."""
        with torch.autocast(self.setting.device, self.setting.dtype, enabled=self.setting.dtype != torch.float32):
            return self._call(self.module, self.x, self.t)

    @torch.no_grad()
    def forward(self) -> None:
        """One evaluation, as a sampler does it."""
        self.run()
        self._finish()

    def step(self) -> None:
        """One step of training, without the optimizer."""
        self.module.zero_grad(set_to_none=True)
        self.run().float().square().mean().backward()
        self._finish()

    def _finish(self) -> None:
        if self.setting.device == "cuda":
            torch.cuda.synchronize()

    @property
    def parameters(self) -> int:
        return sum(parameter.numel() for parameter in self.module.parameters())

    @torch.no_grad()
    def multiply_adds(self) -> int:
        """Multiply-adds of one image."""
        with FlopCounterMode(display=False) as counter:
            self.run()
        return counter.get_total_flops() // 2 // self.setting.batch


def run(rounds: int) -> Results:
    """Ratios on the CPU, and on CUDA if there is one."""
    settings = [Setting("cpu", torch.float32, batch=4, side_px=32)]
    if torch.cuda.is_available():  # more work there, or the start of the kernels is all that is measured
        settings += [Setting("cuda", dtype, batch=64, side_px=64) for dtype in (torch.float32, torch.bfloat16)]
    results = Results([], [])
    for name, pair in {"lucidrains": _lucidrains, "diffusers": _diffusers}.items():
        for setting in settings:
            try:
                ours, theirs = pair(setting)
            except ImportError:
                results.facts.append(Fact(f"U-Net against {name}", f"not measured (pip install {INSTALL[name]})"))
                break
            if setting is settings[0]:
                results.facts.extend(_sizes(name, ours, theirs))
            results.rows.extend(_rows(name, ours, theirs, setting, rounds))
    return results


def _lucidrains(setting: Setting) -> tuple[Network, Network]:
    """Ours, theirs; its two blocks in the middle count as the lowest level's, its last block as the highest's."""
    from denoising_diffusion_pytorch import Unet

    config = UNetConfig(
        widths=WIDTHS,
        blocks=(2, 2, 3),
        up_blocks=(3, 2, 3),
        attention=("linear", "linear", "full"),
        head_width=HEAD_WIDTH,
    )
    theirs = Unet(WIDTHS[0], dim_mults=tuple(width // WIDTHS[0] for width in WIDTHS), attn_dim_head=HEAD_WIDTH)
    return _ours(config, setting), Network(theirs, setting, lambda network, x, t: network(x, 1000 * t))


def _diffusers(setting: Setting) -> tuple[Network, Network]:
    """Ours, theirs; theirs without the block in the middle, as ours has none."""
    from diffusers import UNet2DModel

    config = UNetConfig(
        widths=WIDTHS,
        blocks=(2, 2, 2),
        up_blocks=(3, 3, 3),
        attention=("none", "none", "full"),
        attention_each=True,
        head_width=HEAD_WIDTH,
    )
    theirs = UNet2DModel(
        block_out_channels=WIDTHS,
        layers_per_block=2,
        down_block_types=("DownBlock2D", "DownBlock2D", "AttnDownBlock2D"),
        up_block_types=("AttnUpBlock2D", "UpBlock2D", "UpBlock2D"),
        mid_block_type=None,
        attention_head_dim=HEAD_WIDTH,
    )
    return _ours(config, setting), Network(theirs, setting, lambda network, x, t: network(x, 1000 * t).sample)


def _ours(config: UNetConfig, setting: Setting) -> Network:
    return Network(UNet(config), setting, lambda network, x, t: network(x, t))


def _sizes(name: str, ours: Network, theirs: Network) -> list[Fact]:
    facts = []
    for who, network in ((f"our U-Net beside {name}", ours), (f"U-Net of {name}", theirs)):
        facts.append(Fact(f"{who}, million parameters", network.parameters / 1e6))
        facts.append(Fact(f"{who}, million multiply-adds, 32 x 32", network.multiply_adds() / 1e6))
    return facts


def _rows(name: str, ours: Network, theirs: Network, setting: Setting, rounds: int) -> list[Row]:
    programs: dict[str, Stopwatch] = {
        "forward": stopwatch(ours.forward),
        f"{name} forward": stopwatch(theirs.forward),
        "forward + backward": stopwatch(ours.step),
        f"{name} forward + backward": stopwatch(theirs.step),
    }
    timings = Timings(programs, rounds)
    work = ours.multiply_adds() / theirs.multiply_adds()
    rows = []
    for verb in ("forward", "forward + backward"):
        rows.append(timings.row(f"U-Net, {verb} ({setting})", verb, f"{name} {verb}", AIM))
        rows.append(timings.row(f"U-Net, {verb} ({setting}), per multiply-add", verb, f"{name} {verb}", scale=work))
    return rows
