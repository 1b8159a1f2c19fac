"""An autoencoder of clips: an encoder of frames, temporal compression, a bottleneck, and all that undoes them.

    frames ─ encoder ─ compression ─ bottleneck ─▶ z ─ expansion ─▶ told ─ decoder ─▶ frames
             of each     f_t frames to one              to each       of each

Everything along time is causal: with `Memory` a clip may come in chunks (`difflate.nn.temporal`).
"""

from typing import Any

import torch
from torch import Tensor

from difflate.diffusion.draws import Generators
from difflate.models.autoencoder import Autoencoder
from difflate.models.bottlenecks import BottleneckConfig, Passed
from difflate.nn.encoder_kinds import EncoderConfig, build_encoder
from difflate.nn.encoders import ConvConfig, ConvDecoder
from difflate.nn.folding import Compression, Expansion, FoldingConfig
from difflate.nn.layers import by_frame
from difflate.nn.temporal import Past


class VideoAutoencoder(Autoencoder):
    """Encoder, temporal compression, bottleneck, expansion and plain decoder, trained together.

    Clips are (B, 3, T, H, W); f_t, `folding.ratio`, divides T. What decoders are told of a clip is (B, told_channels,
    T, h, w).
    """

    kind = "video-autoencoder"
    looks_back = True

    def __init__(
        self,
        encoder: EncoderConfig | ConvConfig,
        bottleneck: BottleneckConfig,
        decoder: ConvConfig,
        folding: FoldingConfig,
    ):
        """Raises ConfigError for settings that do not fit."""
        super().__init__(encoder, bottleneck, decoder)
        self.folding = folding
        self.encode = build_encoder(self.encoder, folding.features)
        self.decode = ConvDecoder(decoder, folding.features)
        self.compress = Compression(folding, self.between.features)
        self.expand = Expansion(folding, self.between.channels)

    @property
    def told_channels(self) -> int:
        """Of what decoders are told of each frame."""
        return self.folding.features

    def forward(self, images: Tensor, generator: Generators = None) -> Passed:
        """``images: (B, 3, T, H, W)`` in [-1, 1], to what decoders are told and what the bottleneck asks for."""
        features = self.features(images)
        count, frames = len(features), features.shape[2]
        flat = features.transpose(1, 2).flatten(0, 1)
        if isinstance(generator, list):  # of each clip for all its latent frames
            generator = [one for one in generator for _ in range(frames)]
        passed = self.between(flat, generator)
        if self.training:
            self.follow_std(passed.z)
        z = passed.z.unflatten(0, (count, frames)).transpose(1, 2)
        return Passed(self.expand(z), passed.loss.unflatten(0, (count, frames)).mean(1), passed.scalars)

    def features(self, images: Tensor, past: Past | None = None) -> Tensor:
        """(B, features, T/f_t, ⌈H/s⌉, ⌈W/s⌉) what the bottleneck is given of ``images: (B, 3, T, H, W)``."""
        return self.compress(by_frame(self.encode, images), past)

    def restore(self, told: Tensor) -> Tensor:
        """(B, 3, T, s·h, s·w) in about [-1, 1], not clamped, of ``told: (B, told_channels, T, h, w)``."""
        return by_frame(self.decode, told)

    @torch.no_grad()
    def coded(self, images: Tensor, past: Past | None = None) -> Tensor:
        """(B, C, T/f_t, ⌈H/s⌉, ⌈W/s⌉) what files hold of ``images: (B, 3, T, H, W)`` in [-1, 1]: see
        `Bottleneck.coded`."""
        return by_frame(self.between.coded, self.features(images, past))

    def told(self, coded: Tensor, past: Past | None = None) -> Tensor:
        """(B, told_channels, T, h, w) of ``coded: (B, C, T/f_t, h, w)`` as files have it."""
        return self.expand(by_frame(self.between.latent, coded), past)

    def _architecture(self) -> str:
        # BITSTREAM: part of the fingerprint
        return (
            f"video-autoencoder stride={self.stride_px} frames={self.folding.ratio} "
            f"sizes={list(self.between.sizes or ())}"
        )

    def _latent_entries(self) -> dict[str, Any]:
        return super()._latent_entries() | {"frames": self.folding.ratio}
