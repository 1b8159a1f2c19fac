"""Generators of random numbers from a seed, a stream and a number: one for each purpose and image."""

import enum

import numpy as np
import torch

from difflate.errors import ConfigError

MAX_SEED = 2**63 - 1


@enum.unique
class Stream(enum.IntEnum):
    """The streams of random numbers. A number once given stays: trainings, samples and files depend on it."""

    TRAINING_NOISE = 1
    """Noise of a training image, by its number."""
    TRAINING_TIMES = 2
    """Where the noise levels of a training step start."""
    SELF_CONDITION = 3
    """Whether a training step conditions the network on its own answer."""
    SAMPLE_NOISE = 4
    """Noise that a sample of a generator starts from, by its number."""
    DROPPED_CONDITION = 5
    """Whose condition a training step hides; which crops of a refiner's have no noise."""
    CROP = 6
    """Place and mirroring of a crop."""
    ORDER = 7
    """Order of the images, each time round."""
    QUALITY = 8
    """Qualities of the images of a training step."""
    KERNEL_DISTANCE = 9
    """Subsets of the kernel inception distance."""
    SLICED_SPOTS = 10
    """Places of the patches of the sliced distance."""
    SLICED_DIRECTIONS = 11
    """Directions of the sliced distance."""
    DECODER_NOISE = 12
    """BITSTREAM: noise that the decoding of a file starts from, by its frame and its place in the image."""
    MIRRORED_LATENT = 13
    """Whether the latent of the mirrored image is taken."""
    SAMPLE_DRAWS = 14
    """What a categorical generator draws of its answers."""
    GUMBEL = 15
    """Gumbel noise of a training image, by its number and plane."""
    FIRST_ANSWER = 16
    """What is drawn of the answer that a categorical model is then conditioned on."""
    DECODER_PICTURE = 17
    """Noise of the pictures that the training of a cdc model shows."""
    MADE = 18
    """A picture that is no photograph, by its number."""
    MADE_SHARE = 19
    """Whether a training image is made, and whether it is shown without colour."""
    ODD = 20
    """The test set of pictures that are no photographs."""
    GUMBEL_ANNEALING = 21
    """Noise by which an encoder decides on integers, by the window."""
    SHIFT = 22
    """Where a perceptual loss looks at the images of a training step."""
    INPUT_SIZE = 23
    """How large an encoder sees the images of a training step."""
    DROPPED_TEXT = 24
    """Whose text a training step hides."""
    MOVING = 25
    """Whether a training clip has made motion, and that motion, by the clip's number."""
    CLIP = 26
    """Place, time and direction of a crop of a real clip."""
    DEGRADATION = 27
    """By which file a training image of a restorer is degraded, and where its blocks begin."""
    STUDY_PAIRS = 28
    """Which pairs of pictures people are asked about."""
    STUDY_BOOTSTRAP = 29
    """Which images a preference's interval is resampled from."""


def torch_generator(seed: int, stream: int, number: int = 0, device: torch.device | str = "cpu") -> torch.Generator:
    """A generator, on the CPU unless asked otherwise; another seed, `Stream` or number gives unrelated numbers.

    Raises ConfigError.
    """
    return torch.Generator(device).manual_seed(integer_seed(seed, stream, number))


def integer_seed(seed: int, stream: int, number: int = 0) -> int:
    """From 0 to 2^63 - 1: what a generator of torch is seeded with."""
    return int(_sequence(seed, stream, number).generate_state(1, np.uint64)[0] >> 1)


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
