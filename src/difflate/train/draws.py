"""Randomness of training that follows from the seed and an image's number alone.

So it does not matter in which process, in which part of a step, or after which interruption an image is trained on.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from difflate.seeds import Stream, numpy_generator, torch_generator


@dataclass(frozen=True)
class Draws:
    """All that is drawn for images ``numbers: (B,)`` int64 of steps with ``batch`` images each."""

    seed: int
    numbers: Tensor
    batch: int

    def generators(self) -> list[torch.Generator]:
        """One for each image, on the CPU."""
        return [torch_generator(self.seed, Stream.TRAINING_NOISE, int(n)) for n in self.numbers]

    def of_plane(self, plane: int, device: torch.device) -> list[torch.Generator]:
        """One for each image and plane of a latent, on ``device``: there are too many numbers to bring them there."""
        return [torch_generator(self.seed, Stream.GUMBEL, int(n) << 8 | plane, device) for n in self.numbers]

    def of_first_answer(self, device: torch.device) -> list[torch.Generator]:
        """One for each image, on ``device``: for what is drawn of the answer that a network is then conditioned on."""
        return [torch_generator(self.seed, Stream.FIRST_ANSWER, int(n), device) for n in self.numbers]

    def uniform(self) -> Tensor:
        """(B,) float32 in [0, 1), those of a step equally spaced from a random start: every noise level has its share
        in every step (Kingma et al. 2021, I.1)."""
        starts = {
            step: numpy_generator(self.seed, Stream.TRAINING_TIMES, step).random()
            for step in {int(n) // self.batch for n in self.numbers}
        }
        values = [(starts[int(n) // self.batch] + int(n) % self.batch / self.batch) % 1.0 for n in self.numbers]
        return torch.tensor(values, dtype=torch.float64).float().clamp(max=1 - 2**-24)

    def spread(self) -> Tensor:
        """(B,) float32 in [0, 1), spread over a step as `uniform`, but in an order that has nothing to do with it."""
        places = {}
        for step in {int(n) // self.batch for n in self.numbers}:
            rng = numpy_generator(self.seed, Stream.QUALITY, step)
            places[step] = (rng.random() + rng.permutation(self.batch) / self.batch) % 1.0
        values = [places[int(n) // self.batch][int(n) % self.batch] for n in self.numbers]
        return torch.tensor(values, dtype=torch.float64).float().clamp(max=1 - 2**-24)

    def drop_mask(self, probability: float) -> Tensor:
        """(B,) bool, true with ``probability``: whose condition is hidden, for classifier-free guidance."""
        values = [
            numpy_generator(self.seed, Stream.DROPPED_CONDITION, int(n)).random() < probability for n in self.numbers
        ]
        return torch.tensor(values)

    def drop_text(self, probability: float) -> Tensor:
        """(B,) bool, true with ``probability``: whose text is hidden; it has nothing to do with `drop_mask`."""
        values = [numpy_generator(self.seed, Stream.DROPPED_TEXT, int(n)).random() < probability for n in self.numbers]
        return torch.tensor(values)

    def shift(self) -> Tensor:
        """(2,) float32 in [0, 1): where a loss looks at all images of a step, down and sideways."""
        rng = numpy_generator(self.seed, Stream.SHIFT, int(self.numbers[0]) // self.batch)
        return torch.from_numpy(rng.random(2)).float().clamp(max=1 - 2**-24)

    def step(self) -> Tensor:
        """() int64: the step of the training that the images are of."""
        return torch.tensor(int(self.numbers[0]) // self.batch)

    def input_size(self) -> float:
        """In [0, 1): how large the encoder sees all images of a step."""
        return float(numpy_generator(self.seed, Stream.INPUT_SIZE, int(self.numbers[0]) // self.batch).random())

    def toss(self) -> torch.Generator:
        """A generator for what is decided once for all images of a step."""
        return torch_generator(self.seed, Stream.SELF_CONDITION, int(self.numbers[0]) // self.batch)
