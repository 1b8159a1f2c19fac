"""What stands for rounding where a latent is fitted by its gradient, which rounding has none of."""

from dataclasses import dataclass

from torch import Tensor

from difflate.nn.entropy_models import gaussian_bits


@dataclass(frozen=True)
class SoftRounding:
    """Numbers between their two integers, nearer to one of them the lower the temperature is.

    With Gumbel noise it is stochastic Gumbel annealing (Yang, Bamler, Mandt 2020): cold, each number falls on one of
    the two at random, on the nearer one more likely.
    """

    temperature: float
    noise: Tensor
    """Of the numbers' shape, logistic: the difference of two Gumbel variables, or a share of it."""
    average: bool
    """Bits are those of the two integers, averaged; if not, those of the number as it is. They are fewer, more so in
    the middle, which pulls numbers to the smaller integer."""

    def __call__(self, x: Tensor) -> Tensor:
        """``x`` softly rounded, same shape: the logit of each integer is -atanh of its distance, over the temperature
        (Eq. 7)."""
        below = x.detach().floor()
        share = (x - below).clamp(1e-5, 1 - 1e-5)
        logit = (share.atanh() - (1 - share).atanh()) / self.temperature
        return below + ((logit + self.noise) / self.temperature).sigmoid()

    def bits(self, rounded: Tensor, scale: Tensor) -> Tensor:
        """Bits of each of ``rounded``, same shape, of N(0, ``scale``²): see `gaussian_bits`."""
        if not self.average:
            return gaussian_bits(rounded, scale)
        below = rounded.detach().floor()
        first, second = gaussian_bits(below, scale), gaussian_bits(below + 1, scale)
        return first + (rounded - below) * (second - first)
