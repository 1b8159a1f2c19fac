"""Layers that look along time, at what was before and never at what comes; clips are (B, C, T, H, W).

So a clip may be computed in chunks: `Past` keeps what the next chunk has to see of this one, and chunks give what the
whole clip gives. Before the first frame of a clip its first frame stands still.
"""

from collections import Counter

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from difflate.nn.layers import ChannelNorm, conv, zero_weights

KERNEL = 3
"""Frames that a convolution along time sees, the present one among them."""
WINDOW = 8
"""Frames that attention along time sees, the present one among them."""


class Past:
    """The last frames of what layers were given, for the chunk that comes next."""

    def __init__(self) -> None:
        self._kept: dict[tuple[nn.Module, int], Tensor] = {}
        self._turns: Counter[nn.Module] = Counter()

    def begin(self) -> None:
        """To be called before each chunk: a layer that runs several times in one has a past for each time."""
        self._turns.clear()

    def join(self, layer: nn.Module, x: Tensor, count: int) -> Tensor:
        """``x: (B, C, T, H, W)`` behind the ``count`` frames that ``layer`` was given before, or what there is."""
        key = layer, self._turns[layer]
        self._turns[layer] += 1
        before = self._kept.get(key)
        whole = x if before is None else torch.cat([before, x], dim=2)
        self._kept[key] = whole[:, :, -count:].detach().clone()
        return whole


def with_past(layer: nn.Module, x: Tensor, count: int, past: Past | None) -> Tensor:
    """(B, C, up to count + T, H, W): ``x`` behind the ``count`` frames before, as far as there were any.

    ``past``: None for a whole clip.
    """
    return x if past is None else past.join(layer, x, count)


class TemporalConv(nn.Module):
    """A causal convolution along time of each pixel's channels, beside what they are."""

    def __init__(self, width: int):
        super().__init__()
        self.norm = ChannelNorm(width)
        self.mix = zero_weights(conv(KERNEL * width, width, 1))

    def forward(self, x: Tensor, past: Past | None = None) -> Tensor:
        """``x: (B, C, T, H, W)``, same shape."""
        count, frames = KERNEL - 1, x.shape[2]
        whole = with_past(self, F.silu(self.norm(x)), count, past)
        missing = count + frames - whole.shape[2]
        if missing:
            whole = torch.cat([whole[:, :, :1].expand(-1, -1, missing, -1, -1), whole], dim=2)
        # frames as channels: one product of matrices, where a convolution of 3x1x1 is a slow one
        return x + self.mix(torch.cat([whole[:, :, k : k + frames] for k in range(KERNEL)], dim=1))


class TemporalAttention(nn.Module):
    """Each pixel looks at itself in the last `WINDOW` frames, beside what it is."""

    def __init__(self, width: int, head_width: int):
        super().__init__()
        self.heads = width // head_width
        self.norm = ChannelNorm(width)
        self.q = conv(width, width, 1)
        self.kv = conv(width, 2 * width, 1)
        self.out = zero_weights(conv(width, width, 1))
        self.distance = nn.Parameter(torch.zeros(self.heads, WINDOW, dtype=torch.float32))
        """(heads, WINDOW) what is added for how long ago a frame was."""

    def forward(self, x: Tensor, past: Past | None = None) -> Tensor:
        """``x: (B, C, T, H, W)``, same shape."""
        h = self.norm(x)
        whole = with_past(self, h, WINDOW - 1, past)
        q = self._tokens(self.q(h))
        k, v = (self._tokens(part) for part in self.kv(whole).chunk(2, dim=1))
        found = F.scaled_dot_product_attention(q, k, v, self._bias(x.shape[2], whole.shape[2]).to(q.dtype))
        count, _, frames, height, width = x.shape
        grid = found.transpose(2, 3).reshape(count, height, width, -1, frames).permute(0, 3, 4, 1, 2)
        return x + self.out(grid.contiguous(memory_format=torch.channels_last_3d))

    def _tokens(self, x: Tensor) -> Tensor:
        """(B·H·W, heads, T, D) of ``x: (B, heads·D, T, H, W)``."""
        return x.permute(0, 3, 4, 2, 1).flatten(0, 2).unflatten(2, (self.heads, -1)).transpose(1, 2)

    def _bias(self, frames: int, seen: int) -> Tensor:
        """(heads, ``frames``, ``seen``): minus infinity for what is to come, and what is too long ago."""
        device = self.distance.device
        ago = torch.arange(seen - frames, seen, device=device)[:, None] - torch.arange(seen, device=device)
        inside = (ago >= 0) & (ago < WINDOW)
        return self.distance[:, ago.clamp(0, WINDOW - 1)].masked_fill(~inside, -torch.inf)
