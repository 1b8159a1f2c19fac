"""Planes cut into the square patches that vector quantizers take, and back."""

from torch import Tensor


def to_patches(plane: Tensor, size: int) -> Tensor:
    """(B*h*w, size*size) row-major non-overlapping patches of ``plane: (B, H, W)``, H = h*size, W = w*size."""
    b, height, width = plane.shape
    grid = plane.reshape(b, height // size, size, width // size, size)
    return grid.transpose(2, 3).reshape(-1, size * size)


def from_patches(patches: Tensor, size: int, batch: int, rows: int, columns: int) -> Tensor:
    """(B, H, W) the inverse of `to_patches`, for ``rows`` x ``columns`` patches per image."""
    grid = patches.reshape(batch, rows, columns, size, size)
    return grid.transpose(2, 3).reshape(batch, rows * size, columns * size)
