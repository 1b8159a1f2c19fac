"""Generators of random numbers from several integers: one for each image, step or purpose."""

import numpy as np
import torch


def torch_generator(*key: int) -> torch.Generator:
    """A generator on the CPU, seeded by all of ``key``; other keys give unrelated numbers."""
    return torch.Generator().manual_seed(int(np.random.SeedSequence(key).generate_state(1, np.uint64)[0] >> 1))


def numpy_generator(*key: int) -> np.random.Generator:
    """The same for numpy."""
    return np.random.default_rng(key)
