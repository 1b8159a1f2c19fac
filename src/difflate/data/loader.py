"""Batches of samples, read by processes of their own."""

import signal
from collections.abc import Iterator

import torch
from torch.utils.data import DataLoader

from difflate.data.crops import Batch, Samples, collate, log_notes


def batches_of(samples: Samples, numbers: Iterator[list[int]], workers: int, device: torch.device) -> Iterator[Batch]:
    """The batch of each list of ``numbers``, in their order, on the CPU; ``workers`` processes read ahead, 0: none.

    What is lost of images when they are opened is logged, once of each kind.
    """
    loader = DataLoader(
        samples,
        batch_sampler=_Once(numbers),
        num_workers=workers,
        collate_fn=collate,
        pin_memory=device.type == "cuda",
        worker_init_fn=_leave_signals,
    )

    def log_first(batch: Batch) -> Batch:
        log_notes(batch.notes, samples.noted)
        return batch

    # not a generator: the workers start now
    return map(log_first, iter(loader))  # type: ignore[arg-type]  # collate makes batches


def _leave_signals(worker: int) -> None:
    """Ctrl-C goes to all processes of a terminal; those that read images must live until the step is done."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)


class _Once:
    """The lists of an iterator, as a sampler."""

    def __init__(self, lists: Iterator[list[int]]):
        self._lists = lists

    def __iter__(self) -> Iterator[list[int]]:
        return self._lists
