"""What a recipe of training is: typed settings, data and a task, which the one loop trains."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor

from difflate.data.clips import ClipCrops, load_clips
from difflate.data.crops import Crops, Samples
from difflate.data.items import Item, hold_back, list_items
from difflate.data.mixed import Mixed
from difflate.train.cards import card_of
from difflate.train.config import plain_settings
from difflate.train.loop import train
from difflate.train.settings import ClipSettings, ImageSettings
from difflate.train.task import Task


@dataclass(frozen=True)
class Recipe:
    """What `difflate train` asks of a recipe; a row of `difflate.registry.RECIPES` names the module that has it."""

    name: str
    """What a configuration's key `recipe` says."""
    settings: type
    """The dataclass that a configuration fills; it has `out`, the folder that is written to."""
    train: Callable[[Any, str, bool], Path]
    """(settings, command, whether to show a progress bar) -> the model's folder."""
    cost: Callable[[Any], str] | None = None
    """What the networks of settings take, in one line; nothing of it is allocated."""

    def run(self, settings: Any, command: str = "", progress: bool = False) -> Path:
        """Trains, writes the model folder and returns it. ``command`` goes into the model card.

        Raises what `difflate.train.loop.train` raises.
        """
        return self.train(settings, command, progress)


@dataclass(frozen=True)
class Data:
    """What is trained on."""

    trained_on: Samples
    held_back: Samples | None
    sources: list[str]
    """Where the images are from, for the card."""


S = TypeVar("S")
D = TypeVar("D", bound=Data)


def loop_recipe(
    name: str,
    settings: type[S],
    *,
    data: Callable[[S], D],
    task: Callable[[S, D], Task],
    cost: Callable[[S], str] | None = None,
) -> Recipe:
    """A recipe of one training in the loop. ``settings`` have `out` and `training`, which is a `LoopSettings`.

    ``task`` is called with torch's seed set: the weights that it makes follow from the seed.
    """

    def run(given: Any, command: str, progress: bool) -> Path:
        samples = data(given)
        torch.manual_seed(given.training.seed)
        made = task(given, samples)
        counts = len(samples.trained_on), len(samples.held_back or ())
        train(
            made,
            samples.trained_on,
            samples.held_back,
            Path(given.out),
            config=plain_settings(given, name),
            card=card_of(made.model, samples.sources, *counts, command),
            bar=progress,
        )
        return Path(given.out)

    return Recipe(name, settings, run, cost)


def crops_of(
    settings: ImageSettings,
    size: int,
    seed: int,
    *,
    items: Sequence[Item] | None = None,
    short_side: int | None = None,
    flips: bool = True,
    captions: bool = False,
) -> Data:
    """Square crops of ``size`` px of the images, or of ``items`` of them; those held back are their centres.
    ``captions``: with their texts, which follow them.

    What is trained on is mixed as ``settings`` say; what is held back are photographs as they are.
    """
    listed = list_items(settings.images) if items is None else items
    trained_on, held_back = hold_back(listed, settings.holdback)
    crops = Crops(trained_on, size, short_side=short_side, flips=flips, seed=seed, captions=captions)
    if settings.in_memory:
        crops.hold()
    shares = {"made": settings.made, "without colour": settings.grey}
    return Data(
        Mixed(crops, made=settings.made, grey=settings.grey) if settings.made or settings.grey else crops,
        Crops(held_back, size, short_side=short_side, augment=False, captions=captions) if held_back else None,
        [*settings.images, *(f"a share of {share:g} {what}" for what, share in shares.items() if share)],
    )


def clips_of(settings: ClipSettings, size: int, frames: int, seed: int) -> Data:
    """Clips of ``frames`` square frames of ``size`` px: real ones, and images that are moved.

    What is trained on is mixed as ``settings`` say; what is held back are the middles of its clips, and then moved
    photographs, which do not depend on ``seed``.
    """
    trained_on, held_back = hold_back(list_items(settings.images), settings.holdback)
    photographs = Crops(trained_on, size, seed=seed)
    clips, held_clips = load_clips(settings.clips), load_clips(settings.held_clips)
    if settings.in_memory:
        photographs.hold()
    held_photographs = Crops(held_back, size, augment=False) if held_back else None
    samples = ClipCrops(photographs, clips, frames, moving=settings.moving, made=settings.made, grey=settings.grey)
    shares = {"made motion": samples.moving, "made": settings.made, "without colour": settings.grey}
    return Data(
        samples,
        ClipCrops(held_photographs, held_clips, frames) if held_photographs else None,
        [
            *settings.images,
            *settings.clips,
            *(f"a share of {share:g} {what}" for what, share in shares.items() if share),
        ],
    )


def first_images(held_back: Samples | None, count: int) -> Tensor | None:
    """(at most ``count``, 3, …) uint8 of what is held back, for `Task.pictures`; None: nothing is."""
    if held_back is None:
        return None
    return torch.stack([held_back.read(number)[0] for number in range(min(count, len(held_back)))])


def first_captions(held_back: Samples | None, count: int) -> tuple[str, ...]:
    """The texts of `first_images`."""
    if held_back is None:
        return ()
    return tuple(held_back.read(number).caption for number in range(min(count, len(held_back))))
