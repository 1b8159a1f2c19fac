"""The published networks, as settings of the one U-Net."""

from difflate.nn.unet import UNetConfig

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
    "diffae": UNetConfig(
        in_channels=4,
        out_channels=4,
        widths=(320, 576, 1152, 1152),
        blocks=(2, 4, 14, 4),
        up_repeats=2,
        block="depthwise",
        attention=("none", "none", "full", "full"),
        attention_each=True,
        head_width=64,
        patch=2,
        cond_channels=(16, 0, 0, 0),
    ),
}
