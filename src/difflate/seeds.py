"""Generators of random numbers from a seed, a stream and a number: one for each purpose and image."""

import numpy as np
import torch

from difflate.errors import ConfigError

MAX_SEED = 2**63 - 1


def torch_generator(seed: int, stream: int, number: int = 0, device: torch.device | str = "cpu") -> torch.Generator:
    """A generator, on the CPU unless asked otherwise; another seed, stream or number gives unrelated numbers.

    Raises ConfigError.
    """
    state = _sequence(seed, stream, number).generate_state(1, np.uint64)[0]
    return torch.Generator(device).manual_seed(int(state >> 1))


def numpy_generator(seed: int, stream: int, number: int = 0) -> np.random.Generator:
    """The same for numpy."""
    return np.random.default_rng(_sequence(seed, stream, number))


def check_seed(seed: int) -> None:
    """Raises ConfigError for a seed that is not from 0 to 2^63 - 1."""
    if not 0 <= seed <= MAX_SEED:
        raise ConfigError(f"seed (={seed}) must be from 0 to {MAX_SEED}")


def _sequence(seed: int, stream: int, number: int) -> np.random.SeedSequence:
    check_seed(seed)
    # of a fixed length: numpy pads shorter keys with zeros, so that (5, 1) and (5, 1, 0) would be the same
    return np.random.SeedSequence(seed, spawn_key=(stream, number & 0xFFFFFFFF, number >> 32))
