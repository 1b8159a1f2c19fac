"""Latents fitted to one image before they are coded: what `effort` above 1 buys (Campos et al. 2019).

The decoder stays as it is, and so does the file; only the choice of the integers differs. Analysis gives a good latent
at once, a few gradient steps on bits + λ·squared error of this very image give a better one. In the place of rounding,
which has no gradient, each number falls at random on one of its two neighbours, ever more decidedly (stochastic Gumbel
annealing: Yang, Bamler, Mandt 2020, "Improving inference for neural image compression").
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from difflate.entropy.hyperprior import Z_STRIDE
from difflate.models.transform_coder import TransformModel
from difflate.nn.soft_rounding import SoftRounding
from difflate.nn.tiles import windows
from difflate.seeds import Stream, torch_generator

Progress = Callable[[int, int], None]
"""Called with the steps that are done and all there are."""
_STEPS = (0, 4, 8, 14, 25, 45, 80, 140, 250)
_MARGIN_CELLS = 1
"""Sites of z, 64 px each, that a window has around what it changes: what the transforms see further away is faint."""
_SQUARED_ERROR = 1.5
"""What it counts, in λ. Models are trained for λ with a share of MS-SSIM in their distortion, so that they pay more for
squared errors: from quality to quality the bundled ones by about so much."""
_FEW = 20
"""So few steps cannot decide number by number; bits that pull towards 0 then save more."""
_WARM, _COLD = (0.7, 0.5), (0.5, 0.2)
"""Temperatures of the first and the last step: of few steps, and of more."""
_RATE = 0.03
"""Of the first step, in quantizer steps."""
_LAST_RATE = 0.1
"""Share of it that the last step has."""
_NOISE = 0.75
"""Share of the Gumbel noise that the most steps have; fewer have less, and of all of it none settles."""
_MOMENTS = 0.9, 0.99
_FLAT = 2.0
"""Bits per quantizer step. Gradients far below it move a number in proportion, not by whole steps as Adam's do: most
numbers are 0 and should stay there."""


def steps_of(effort: int | None) -> int:
    """Gradient steps of an ``effort`` from 1 to 9; None is 1, which takes none."""
    return _STEPS[(effort or 1) - 1]


def fit_latent(
    model: TransformModel, y: Tensor, pixels: Tensor, quality: Tensor, tile: int, steps: int,
    progress: Progress | None = None,
) -> Tensor:  # fmt: skip
    """(M, h, w) float32: ``y``, of the same shape, changed so that bits + λ·squared error of ``pixels`` are fewer.

    ``pixels: (1 or 3, H, W)`` uint8, of which a latent of h = ⌈H/s⌉ and w = ⌈W/s⌉ sites was made at ``quality: (1,)``.
    ``tile``: sites of a window's side, which memory depends on. Windows overlap, but each number belongs to one: what
    is around is seen and left as it is. The same on one machine each time; another one may come to other integers.
    """
    stride = model.stride_px
    # a caller may be without gradients, or in inference mode, whose tensors cannot have any
    with torch.inference_mode(False), torch.enable_grad():
        y, pixels, quality = y.clone(), pixels.clone(), quality.clone()
        places = list(_windows(y.shape[1], y.shape[2], tile))
        for number, (rows, columns, inside) in enumerate(places):
            part = pixels[:, rows.start * stride : rows.stop * stride, columns.start * stride : columns.stop * stride]
            window = _Window(model, y[:, rows, columns], part, quality, inside)
            noise = torch_generator(0, Stream.GUMBEL_ANNEALING, number)
            for step in range(steps):
                window.step(step, steps, noise)
                if progress:
                    progress(number * steps + step + 1, len(places) * steps)
            y[:, rows, columns] = window.latent()
    return y


def _windows(height: int, width: int, tile: int) -> Iterator[tuple[slice, slice, Tensor]]:
    """(rows, columns, inside: (h', w') bool) of each window of ``height`` x ``width`` sites: each site is inside of
    one. They begin at whole sites of z, as the entropy model's two passes and its side information do."""
    cells = -(-height // Z_STRIDE), -(-width // Z_STRIDE)
    for rows, columns in windows(*cells, tile // Z_STRIDE, _MARGIN_CELLS, 0, Z_STRIDE):
        inside = (rows.weight[:, None] * columns.weight) > 0
        places = [slice(Z_STRIDE * span.start, Z_STRIDE * span.stop) for span in (rows, columns)]
        yield places[0], places[1], inside[: height - places[0].start, : width - places[1].start]


class _Window:
    """A window of an image's latent, between two steps of Adam (Kingma & Ba 2015).

    By hand: torch.optim takes seconds to import its compiler.
    """

    def __init__(self, model: TransformModel, y: Tensor, pixels: Tensor, quality: Tensor, inside: Tensor):
        device = quality.device
        self.model, self.quality, self.inside = model, quality, inside.to(device)
        self.start, self.pixels = y[None].to(device), pixels[None].to(device).float()
        self.y = self.start.clone()
        self.mean, self.square = torch.zeros_like(self.y), torch.zeros_like(self.y)

    def latent(self) -> Tensor:
        """(M, h', w') on the CPU."""
        return self.y[0].cpu()

    def step(self, step: int, steps: int, draws: torch.Generator) -> None:
        """Takes step number ``step`` of ``steps``; noise is from ``draws``."""
        share, many = step / max(steps - 1, 1), _share_of(steps)
        logistic = torch.rand(self.y.shape, generator=draws, dtype=torch.float32).clamp(1e-6, 1 - 1e-6).logit()
        temperatures = _WARM if steps < _FEW else _COLD
        noise = (_NOISE * many * logistic).to(self.y)
        rounding = SoftRounding(_between(temperatures, share), noise, average=steps >= _FEW)
        y = self.y.detach().requires_grad_()
        (gradient,) = torch.autograd.grad(self._bits(y, rounding), y)
        first, second = _MOMENTS
        self.mean = first * self.mean + (1 - first) * gradient
        self.square = second * self.square + (1 - second) * gradient.square()
        rate = _RATE * _LAST_RATE**share / (1 - first ** (step + 1))
        deviation = (self.square / (1 - second ** (step + 1))).sqrt()
        moved = y.detach() - rate * self.mean / (deviation + _FLAT)
        self.y = torch.where(self.inside, moved, self.start)

    def _bits(self, y: Tensor, rounding: SoftRounding) -> Tensor:
        """() the bits of the window, and those that its squared errors are worth."""
        coded = self.model.entropy(y, self.quality, rounding=rounding)
        height, width = self.pixels.shape[2:]
        restored = self.model.synthesise(coded.y_hat, self.quality)[:, :, :height, :width]
        if self.pixels.shape[1] == 1:
            restored = restored.mean(dim=1, keepdim=True)  # as grey pictures are decoded
        errors = ((restored + 1) * 127.5 - self.pixels).square().mean(dim=1)
        return coded.y_bits.sum() + coded.z_bits.sum() + (error_bits(self.model, self.quality) * errors.sum()).sum()


def _share_of(steps: int) -> float:
    """0 of the fewest steps that an effort has, 1 of the most; in between by their logarithm."""
    return min(max(math.log(steps / _STEPS[1]) / math.log(_STEPS[-1] / _STEPS[1]), 0), 1)


def error_bits(model: TransformModel, quality: Tensor) -> Tensor:
    """(B,) bits that a squared error of one 8-bit level in a pixel, the mean of its channels, is worth."""
    return _SQUARED_ERROR * model.lmbda(quality)


def _between(ends: tuple[float, float], share: float) -> float:
    """From the first to the second of ``ends`` in equal ratios."""
    return ends[0] * (ends[1] / ends[0]) ** share
