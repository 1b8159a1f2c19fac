"""Steps of training recorded as CUDA graphs.

A small network on a fast GPU waits for the CPU, which launches a thousand kernels for each step. Recorded once, they
are launched by a single call. What changes from step to step, the images, the draws and the learning rate, is copied
into tensors that stay where they are.
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from difflate.data.crops import Batch
from difflate.errors import ConfigError
from difflate.seeds import Stream, integer_seed
from difflate.train.draws import Draws

_EAGER_STEPS = 3
"""Steps before the recording, in which libraries choose their kernels and optimizers make their state."""


@dataclass(frozen=True)
class RecordedDraws(Draws):
    """`Draws` for a recording: what is drawn for each image stands on the GPU, and noise is the GPU's own."""

    held: dict[tuple[Any, ...], Tensor]
    """Where the answer of each method and its arguments stands, from the first time on that it is asked for."""
    device: torch.device

    def refresh(self) -> None:
        """Brings what stands on the GPU up to date."""
        for (name, *given), place in self.held.items():
            place.copy_(getattr(Draws, name)(self, *given), non_blocking=True)

    def generators(self) -> Any:
        """None: the GPU's global generator, which is seeded for each step."""
        return None

    def uniform(self) -> Tensor:
        """See `Draws.uniform`; on the GPU."""
        return self._standing("uniform")

    def spread(self) -> Tensor:
        """See `Draws.spread`; on the GPU."""
        return self._standing("spread")

    def shift(self) -> Tensor:
        """See `Draws.shift`; on the GPU."""
        return self._standing("shift")

    def step(self) -> Tensor:
        """See `Draws.step`; on the GPU."""
        return self._standing("step")

    def toss(self) -> torch.Generator:
        """Raises ConfigError: what a recording does cannot depend on what is drawn."""
        raise ConfigError("cuda_graph (=true) cannot record a network with self_condition; set it to false")

    def drop_mask(self, probability: float) -> Tensor:
        """See `Draws.drop_mask`; on the GPU."""
        return self._standing("drop_mask", probability)

    def input_size(self) -> float:
        """Raises ConfigError."""
        raise ConfigError("cuda_graph (=true) cannot record inputs of random sizes; set it to false")

    def drop_text(self, probability: float) -> Tensor:
        """Raises ConfigError."""
        raise ConfigError("cuda_graph (=true) cannot record a text model; set it to false")

    def of_plane(self, plane: int, device: torch.device) -> list[torch.Generator]:
        """Raises ConfigError."""
        raise ConfigError("cuda_graph (=true) cannot record a categorical model; set it to false")

    def _standing(self, name: str, *given: Any) -> Tensor:
        if (name, *given) not in self.held:
            self.held[name, *given] = getattr(Draws, name)(self, *given).to(self.device)
        return self.held[name, *given]


class RecordedStep:
    """The gradient and the step of an optimizer for one turn; recorded at the fourth call."""

    def __init__(self, loss: Any, optimizer: torch.optim.Optimizer, clip_norm: float, seed: int):
        """``loss``: (batch, draws) -> {"loss": ()}, as `Task` with its precision. ``clip_norm``: 0 for any."""
        self._loss, self._optimizer, self._clip_norm, self._seed = loss, optimizer, clip_norm, seed
        self._parameters = [p for group in optimizer.param_groups for p in group["params"]]
        self._device = self._parameters[0].device
        self._held: dict[tuple[Any, ...], Tensor] = {}
        self._graph: torch.cuda.CUDAGraph | None = None
        self._batch: Batch | None = None
        self._result = torch.zeros((), dtype=torch.float32, device=self._device)
        self._calls = 0
        self._stream = torch.cuda.Stream(self._device)
        torch.backends.cudnn.benchmark = True  # the same sizes at every step
        self._generator = torch.cuda.default_generators[self._device.index or 0]
        for group in optimizer.param_groups:
            group["capturable"] = True
            group["lr"] = torch.tensor(float(group["lr"]), dtype=torch.float32, device=self._device)
        for state in optimizer.state.values():  # of a checkpoint
            state["step"] = state["step"].to(self._device)

    def __call__(self, batch: Batch, draws: Draws, rate: float) -> Tensor:
        """() the loss of ``batch``, after a step with the learning rate ``rate``."""
        step = int(draws.numbers[0]) // draws.batch
        self._generator.manual_seed(integer_seed(self._seed, Stream.TRAINING_NOISE, step))
        for group in self._optimizer.param_groups:
            group["lr"].fill_(rate)
        held = self._hold(batch)
        recorded = RecordedDraws(draws.seed, draws.numbers, draws.batch, self._held, self._device)
        recorded.refresh()
        if self._calls < _EAGER_STEPS:
            self._stream.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(self._stream):
                self._step(held, recorded)
            torch.cuda.current_stream().wait_stream(self._stream)
        else:
            if self._graph is None:
                torch.cuda.synchronize()
                self._optimizer.zero_grad(set_to_none=True)  # gradients lie where the recording puts them
                self._graph = torch.cuda.CUDAGraph()
                # other threads, such as the one that pins batches, may go on
                with torch.cuda.graph(self._graph, stream=self._stream, capture_error_mode="thread_local"):
                    self._step(held, recorded)
            self._graph.replay()
        self._calls += 1
        return self._result

    def _hold(self, batch: Batch) -> Batch:
        """``batch`` where the recording looks for it."""
        if self._batch is None:
            self._batch = Batch(
                batch.pixels.to(self._device), batch.numbers.to(self._device), batch.labels.to(self._device), []
            )
        else:
            for there, value in zip(
                (self._batch.pixels, self._batch.numbers, self._batch.labels),
                (batch.pixels, batch.numbers, batch.labels),
                strict=True,
            ):
                there.copy_(value, non_blocking=True)
        return self._batch

    def _step(self, batch: Batch, draws: RecordedDraws) -> None:
        if self._graph is None:
            self._optimizer.zero_grad(set_to_none=True)
        loss = self._loss(batch, draws=draws)["loss"]
        loss.backward()
        if self._clip_norm:
            torch.nn.utils.clip_grad_norm_(self._parameters, self._clip_norm, foreach=True)
        self._optimizer.step()
        self._result.copy_(loss.detach())
