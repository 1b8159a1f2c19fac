"""The entropy model of a latent without side information (Ballé et al. 2017)."""

from torch import Tensor, nn

from difflate.diffusion.draws import Generators
from difflate.nn.entropy_models import FactorizedPrior, add_noise, round_through
from difflate.nn.entropy_network import Coded
from difflate.nn.soft_rounding import SoftRounding


class FactorizedNetwork(nn.Module):
    """A `FactorizedPrior` in the place of a hyperprior."""

    def __init__(self, channels: int):
        super().__init__()
        self.prior = FactorizedPrior(channels)

    def forward(
        self, y: Tensor, quality: Tensor, generator: Generators = None, rounding: SoftRounding | None = None
    ) -> Coded:
        """As `HyperpriorNetwork`; ``quality`` has no meaning."""
        y_hat = rounding(y) if rounding else round_through(y)
        bits = self.prior.bits(add_noise(y, generator) if self.training else y_hat)
        return Coded(y_hat, bits.flatten(1).sum(1), bits.new_zeros(len(y)))

    def side_information(self, y: Tensor) -> Tensor:
        """(B, 0, 0, 0): there is none."""
        return y.new_empty(len(y), 0, 0, 0)
