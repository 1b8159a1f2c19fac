"""The published networks, as settings of the one U-Net."""

from dataclasses import replace

from difflate.nn.unet import AttentionKind, TemporalKind, UNetConfig


def _diffae(widths: tuple[int, ...], head_width: int = 64, latent_channels: int = 16) -> UNetConfig:
    """The diffusion autoencoder's decoder in the latent of an f4 first stage (Rampas 2024, 3.3.1).

    The thesis gives the widths of 700 million parameters. Those of its other sizes are these, scaled together and
    rounded to multiples of the attention's heads. Its 156 million are for a latent of 36 channels, as its VQGAN has.
    """
    return UNetConfig(
        in_channels=4,
        out_channels=4,
        widths=widths,
        blocks=(2, 4, 14, 4),
        up_repeats=2,
        block="depthwise",
        attention=("none", "none", "full", "full"),
        attention_each=True,
        head_width=head_width,
        patch=2,
        cond_channels=(latent_channels, 0, 0, 0),
    )


def _video(widths: tuple[int, ...], temporal: TemporalKind, attention: AttentionKind) -> UNetConfig:
    """The decoder of clips (Rampas 2024, 3.4.1): without any attention, and with attention in space and along time.

    The thesis gives the counts of parameters alone, 734 million and 1.3 billion; its 3D convolutions are ours of frames
    and along time. Told are 16 channels for each of the two frames that its first stage makes one.
    """
    attentions = ("none", "none", attention, attention)
    return replace(_diffae(widths, latent_channels=32), attention=attentions, temporal=temporal)


PRESETS = {
    "latent": UNetConfig(
        in_channels=6,
        out_channels=6,
        widths=(128, 256, 384, 512),
        blocks=(2, 2, 2, 2),
        attention=("none", "none", "none", "full"),
        self_condition=True,
    ),
    "refiner": UNetConfig(
        widths=(24, 48, 72, 96),
        blocks=(2, 2, 2, 2),
        attention=("none", "none", "none", "full"),
        head_width=32,
    ),
    "cdc": UNetConfig(
        widths=(64, 128, 192, 256, 320, 384),
        blocks=(2, 2, 2, 2, 2, 2),
        attention=("linear",) * 6,
        head_width=64,
        cond_channels=(64, 64, 128, 192, 0, 0),
    ),
    "diffae-156m": _diffae((160, 256, 544, 544), head_width=32, latent_channels=36),
    "diffae-280m": _diffae((192, 352, 736, 736), head_width=32),
    "diffae-700m": _diffae((320, 576, 1152, 1152)),
    "diffae-3b": _diffae((640, 1216, 2368, 2368)),
    "diffae-video-734m": _video((128, 416, 1280, 1280), "conv", "none"),
    "diffae-video-1.3b": _video((192, 384, 1344, 1280), "attention", "full"),
}
