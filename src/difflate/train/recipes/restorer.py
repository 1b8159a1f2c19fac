"""Recipe `restorer`: a small network that takes back what JPEG, WebP or AVIF has lost."""

from dataclasses import dataclass, field
from typing import ClassVar

import torch
from torch import Tensor

from difflate.data.crops import Batch, collate
from difflate.data.degraded import GRID_PX, Degradations, all_tables
from difflate.diffusion import ProcessConfig, expand, normal
from difflate.errors import ConfigError
from difflate.models.restorer import NETWORK, PROCESS, Degraded, Restorer
from difflate.nn.colour import signed_to_uint8
from difflate.nn.unet import UNetConfig, multiply_adds, parameters
from difflate.train import perceptual_loss
from difflate.train.diffusion_loss import denoise_noisy, noisy_at
from difflate.train.draws import Draws
from difflate.train.perceptual_loss import Nets, check_nets, shifted
from difflate.train.recipe import Data, crops_of, loop_recipe
from difflate.train.settings import CropSettings, LoopSettings
from difflate.train.structure import psnr_db
from difflate.train.task import Task

_PICTURES = 4
_COST_PX = (512, 768)


@dataclass(frozen=True)
class RestorerTraining(CropSettings):
    """Settings of the recipe `restorer`. Crops have a side that is a multiple of 16."""

    crop_multiple: ClassVar[int] = GRID_PX
    network: UNetConfig = field(default_factory=lambda: NETWORK)
    process: ProcessConfig = field(default_factory=lambda: PROCESS)
    one_step: float = 0.75
    """Share of the crops that are restored at once, from zeros; from the others the network learns to take steps from
    noise."""
    rho: float = 0.85
    """ρ: share of the loss that is the LPIPS of the image that one step makes, from zeros or from noise."""
    lpips: Nets = "vgg"
    """Network that LPIPS looks with: vgg, alex, or [alex, vgg], the mean of both."""
    training: LoopSettings = field(default_factory=LoopSettings)

    def __post_init__(self) -> None:
        super().__post_init__()
        for key in ("one_step", "rho"):
            if not 0 <= getattr(self, key) <= 1:
                raise ConfigError(f"{key} (={getattr(self, key)}) must be from 0 to 1")
        check_nets(self.lpips)
        with torch.device("meta"):
            Restorer(self.network, self.process)  # what it does not take is said here


class Restoration(Task):
    """(1 - ρ)·squared error of x0 + ρ·LPIPS of a `Restorer`, from zeros or at a time that is drawn.

    x0 is what was lost in units of what is typical, so that all qualities count about alike. Absolute errors learn
    nothing for long: most of what was lost is near 0, and so is the median of what it could be.
    """

    model: Restorer

    def __init__(self, model: Restorer, settings: RestorerTraining, shown: Batch | None = None):
        """``shown``: what `pictures` are of. Raises ConfigError: no LPIPS weights."""
        super().__init__(model, settings.training)
        self.settings, self.shown = settings, shown
        self.register_buffer("tables", torch.from_numpy(all_tables()), persistent=False)
        if settings.rho:
            self.freeze(lpips=perceptual_loss.load_lpips(settings.lpips))

    def loss(self, batch: Batch, draws: Draws) -> dict[str, Tensor]:
        """{"loss": ()} of a batch; on held-back images also PSNR before and after one step from zeros."""
        model, rho = self.model, self.settings.rho
        images, degraded = self._pairs(batch)
        at_once = draws.drop_mask(self.settings.one_step).to(images.device)
        times = model.diffusion.training_times(draws.uniform()).to(images.device).masked_fill(at_once, 1.0)
        noise = normal(images.shape, draws.generators(), images.device)
        noise = noise.masked_fill(expand(at_once, noise), 0.0)
        x0 = model.to_x0(images, degraded)
        noisy = noisy_at(model.diffusion, x0, times, noise)
        found = denoise_noisy(model.diffusion, model, x0, noisy, degraded=degraded)
        losses, values = (1 - rho) * found.losses, {}
        if rho:
            seen = (model.to_images(found.x0, degraded).clamp(-1, 1).float(), images)
            perceptual = self.lpips(*(shifted(seen, draws.shift()) if self.training else seen))
            losses = losses + rho * perceptual
            values["lpips"] = perceptual.mean()
        if not self.training:
            restored = model.refine(degraded, 1, torch.zeros_like(images)).clamp(-1, 1).float()
            values["psnr_before_db"] = psnr_db(degraded.images, images)
            values["psnr_after_db"] = psnr_db(restored, images)
            if rho:
                values["lpips_before"] = self.lpips(degraded.images, images).mean()
                values["lpips_after"] = self.lpips(restored, images).mean()
        return {"loss": losses.mean(), **values}

    def _pairs(self, batch: Batch) -> tuple[Tensor, Degraded]:
        """Images (B, 3, H, W) in [-1, 1], and what is left of them."""
        images, degraded = batch.images(self.device).chunk(2, dim=1)
        tables = self.tables[batch.labels.to(self.device)]  # -1 is the last
        return images, self.model.degraded(degraded, tables)

    def pictures(self) -> Tensor | None:
        """(12, 3, H, W) uint8 of four images: originals, degraded, restored."""
        if self.shown is None:
            return None
        images, degraded = self._pairs(self.shown)
        restored = self.model.refine(degraded, 1, torch.zeros_like(images))
        return signed_to_uint8(torch.cat([images, degraded.images, restored])).cpu()


def cost(settings: RestorerTraining) -> str:
    """What the network of ``settings`` takes, in one line; nothing of it is allocated."""
    with torch.device("meta"):
        model = Restorer(settings.network, settings.process)
    height, width = _COST_PX
    work = multiply_adds(model.network, height, width)
    return (
        f"{parameters(model) / 1e6:.2f} million parameters, {work / 1e9:.1f} billion multiply-adds for {width}x{height}"
    )


def _data(settings: RestorerTraining) -> Data:
    size, seed = settings.crop_px, settings.training.seed
    crops = crops_of(settings, size + GRID_PX, seed)
    held_back = None if crops.held_back is None else Degradations(crops.held_back, size, seed=seed, held_back=True)
    return Data(Degradations(crops.trained_on, size, seed=seed), held_back, crops.sources)


def _task(settings: RestorerTraining, data: Data) -> Restoration:
    shown = None
    if data.held_back is not None:
        shown = collate([data.held_back.read(number) for number in range(min(_PICTURES, len(data.held_back)))])
    return Restoration(Restorer(settings.network, settings.process), settings, shown)


RECIPE = loop_recipe("restorer", RestorerTraining, data=_data, task=_task, cost=cost)
