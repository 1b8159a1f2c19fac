"""The diffusion autoencoder of clips (Rampas 2024, 3.4): few latent frames, and a diffusion model that decodes them.

    clip ─ `VideoAutoencoder` ─▶ told ─┬─ head ─▶ clip, in one pass
                                       └─ resized ─ U-Net with layers along time: noise ─ steps ─▶ clip

It is the model of images with layers along time between, so one of images is what a training can start from.
"""

from difflate.diffusion import ProcessConfig
from difflate.errors import ConfigError
from difflate.models.bottlenecks import BottleneckConfig
from difflate.models.diffusion_autoencoder import DiffusionAutoencoder, LatentDecoderConfig
from difflate.models.video_autoencoder import VideoAutoencoder
from difflate.nn.encoder_kinds import EncoderConfig
from difflate.nn.encoders import ConvConfig
from difflate.nn.folding import FoldingConfig
from difflate.nn.unet import UNetConfig


class VideoDiffusionAutoencoder(DiffusionAutoencoder):
    """A `VideoAutoencoder` and the diffusion model that decodes its latent; tensors are (B, C, T, H, W).

    A first stage may make one frame of several; what the U-Net is told of these is then folded alike.
    """

    kind = "diffae-video"
    autoencoder: VideoAutoencoder

    def __init__(
        self,
        encoder: EncoderConfig | ConvConfig,
        bottleneck: BottleneckConfig,
        folding: FoldingConfig,
        head: ConvConfig,
        decoder: LatentDecoderConfig,
        network: UNetConfig,
        process: ProcessConfig,
    ):
        """See `DiffusionAutoencoder`. Raises ConfigError."""
        self.folding = folding  # first: the autoencoder is built of it
        super().__init__(encoder, bottleneck, head, decoder, network, process)
        if network.temporal == "none":
            raise ConfigError("network.temporal (=none) sees no frame but the present one; set it to conv or attention")

    def _fit(self, network: UNetConfig) -> UNetConfig:
        if self.folding.ratio % self.stage.frames:
            raise ConfigError(
                f"folding.ratio (={self.folding.ratio}) must be a multiple of the frames that the first stage "
                f"makes one of (={self.stage.frames})"
            )
        return super()._fit(network)

    def _autoencoder(self) -> VideoAutoencoder:
        return VideoAutoencoder(self.encoder, self.bottleneck, self.head, self.folding)
