"""One learned codebook (van den Oord et al. 2017)."""

import torch
import torch.nn.functional as F
from torch import Tensor, distributed, nn

from difflate.diffusion.draws import Generators, uniform
from difflate.models.bottlenecks.base import Bottleneck, Passed
from difflate.quantize.nearest import nearest
from difflate.quantize.ordering import principal_order
from difflate.quantize.scalar import straight_through

_PATIENCE = 20
"""The use of a codeword is a mean over about so many vectors for each of the codebook's."""
_UNUSED = 0.01
"""Share of its even share of vectors below which a codeword counts as unused."""


class VectorQuantizer(Bottleneck):
    """Each site the nearest of K codewords; the gradient passes straight through.

    Codewords learn by gradients as all else does, so that averages, checkpoints and processes are those of any weights.
    One that is not used is put where a feature of the batch is; before the first step none is used.
    """

    def __init__(self, size: int, channels: int, commitment: float):
        """``size``: K. ``commitment``: β of Eq. 3."""
        super().__init__()
        self.features = self.channels = channels
        self.sizes, self.commitment = [size], commitment
        self.codebook = nn.Parameter(torch.randn(size, channels, dtype=torch.float32))
        self.use: Tensor
        self.register_buffer("use", torch.zeros(size, dtype=torch.float32))

    def forward(self, features: Tensor, generator: Generators = None) -> Passed:
        x = features.float()
        if self.training:
            self._replace_unused(x.detach(), generator)
        codes = self.coded(x.detach())
        if self.training:
            self._count(codes)
        chosen = self.latent(codes)
        errors = (chosen - x.detach()).square() + self.commitment * (chosen.detach() - x).square()
        used = (self.use >= _UNUSED).float().mean()
        return Passed(straight_through(chosen, x), errors.flatten(1).mean(1), {"used_codes": used})

    def coded(self, features: Tensor) -> Tensor:
        vectors = features.float().movedim(1, -1)
        with torch.autocast(vectors.device.type, enabled=False):  # in full precision, as a codec has it
            codes = nearest(vectors.reshape(-1, self.channels), self.codebook.detach())
        return codes.reshape(vectors.shape[:-1])[:, None]

    def latent(self, coded: Tensor) -> Tensor:
        return F.embedding(coded[:, 0], self.codebook).movedim(-1, 1)

    @property
    def codebooks(self) -> list[Tensor]:
        return [self.codebook.detach()]

    @torch.no_grad()
    def put_in_order(self) -> None:
        order = principal_order(self.codebook)
        self.codebook.copy_(self.codebook[order])
        self.use.copy_(self.use[order])

    @torch.no_grad()
    def _replace_unused(self, x: Tensor, generator: Generators) -> None:
        """Puts codewords that are not used where features ``x: (B, n, h, w)`` of random sites are.

        No size depends on how many there are, and nothing waits for the answer: a step may be recorded.
        """
        (count,), batch = self.use.shape, len(x)
        sites = x.flatten(2)
        picked = (uniform((batch, -(-count // batch)), generator, x.device) * sites.shape[2]).long()
        found = sites.gather(2, picked[:, None].expand(-1, self.channels, -1)).movedim(1, -1)
        found = found.reshape(-1, self.channels)[:count].contiguous()
        if distributed.is_available() and distributed.is_initialized():
            distributed.broadcast(found, 0)  # all processes have one codebook
        unused = self.use < _UNUSED
        self.codebook.copy_(torch.where(unused[:, None], found, self.codebook))
        self.use.copy_(torch.where(unused, torch.ones_like(self.use), self.use))

    @torch.no_grad()
    def _count(self, codes: Tensor) -> None:
        """Notes which codewords ``codes`` use; an even share of them is 1."""
        (count,) = self.use.shape
        chosen = torch.zeros_like(self.use).index_add_(
            0, codes.flatten(), torch.ones(codes.numel(), dtype=torch.float32, device=codes.device)
        )
        vectors = codes.numel()
        if distributed.is_available() and distributed.is_initialized():
            distributed.all_reduce(chosen)
            vectors *= distributed.get_world_size()
        self.use.lerp_(chosen * (count / vectors), vectors / (vectors + _PATIENCE * count))
