"""A tiny autoencoder of clips for tests."""

from typing import Any

import torch

from difflate.models.bottlenecks import BottleneckConfig
from difflate.models.video_autoencoder import VideoAutoencoder
from difflate.nn.encoders import ConvConfig
from difflate.nn.folding import FoldingConfig
from nn_helpers import alive

SHAPE: dict[str, Any] = {
    "encoder": ConvConfig((8, 8), (1, 0), 2),
    "bottleneck": BottleneckConfig("vq", channels=3, codebook_size=20),
    "decoder": ConvConfig((8, 8), (1, 0), 2),
    "folding": FoldingConfig(2, "fold", 6, 8),
}


def tiny(ratio: int = 2, **bottleneck: Any) -> VideoAutoencoder:
    """Untrained, of stride 4; all that could be 0 says something."""
    torch.manual_seed(0)
    chosen = BottleneckConfig(**bottleneck) if bottleneck else SHAPE["bottleneck"]
    return alive(
        VideoAutoencoder(**{**SHAPE, "bottleneck": chosen, "folding": FoldingConfig(ratio, "fold", 6, 8)})
    ).eval()
