"""Files of JPEG, WebP and AVIF, restored by a `Restorer` when they are decoded."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import torch

from difflate.limits import Limits
from difflate.media.jpeg import quantization_tables
from difflate.media.metadata import orientation, turn_back, turn_upright
from difflate.media.picture import Picture
from difflate.models.restorer import load_restorer
from difflate.nn.tiles import TILE_PX
from difflate.options import RestoredDecoding


def restored(picture: Picture, image: Any, options: RestoredDecoding, limits: Limits) -> Picture:
    """``picture``, what was decoded of ``image`` of Pillow, as a `Restorer` makes it; alpha and metadata stay.

    Raises ConfigError, ModelError, LimitExceeded.
    """
    steps = 1 if options.steps is None else options.steps
    limits.check_steps(picture.width, picture.height, steps)
    restorer = load_restorer(options.restorer)
    turn = orientation(image)
    # as the file has it: only there do the blocks begin at the first pixel
    pixels = turn_back(picture.pixels, turn)
    made = restorer.restore(
        torch.from_numpy(np.ascontiguousarray(pixels)).expand(3, -1, -1),
        torch.from_numpy(quantization_tables(image)),
        steps=steps,
        seed=options.seed or 0,
        tile_px=options.tile_px or TILE_PX,
    )
    upright = turn_upright(made[: len(pixels)].numpy(), turn)
    return replace(picture, pixels=np.ascontiguousarray(upright))
