"""Sizes that a network or a block divides."""

import torch.nn.functional as F
from torch import Tensor


def pad_to_multiple(images: Tensor, multiple: int) -> Tensor:
    """(B, C, …, H', W') ``images: (B, C, …, H, W)``, last row and column repeated until ``multiple`` divides H' and W'.

    Clips have their frames before H and W, which stay as they are.
    """
    down, right = (-size % multiple for size in images.shape[-2:])
    if not (down or right):
        return images
    # replicate padding exists for floating point only, where all integers of up to 24 bits are exact
    values = images if images.is_floating_point() else images.float()
    padding = (0, right, 0, down, *[0] * (2 * (images.ndim - 4)))
    return F.pad(values, padding, mode="replicate").to(images.dtype)
