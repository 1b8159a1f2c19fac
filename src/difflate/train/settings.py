"""The settings that recipes share: of the loop, of images and of their crops."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar, Literal

from difflate.data.mixed import check_share
from difflate.errors import ConfigError
from difflate.seeds import check_seed
from difflate.train.average import exponent
from difflate.train.learning_rate import Decay

FREE_ON_RESUME = {
    "max_steps", "max_minutes", "log_every", "validate_every", "pictures_every", "checkpoint_every", "workers",
    "keep_checkpoints", "accumulate", "gradient_checkpointing", "save_dtype",
}  # fmt: skip
"""Keys that may differ when a training is continued. With `decay` linear or cosine the first two set the learning rate
from there on; the others change nothing of what a step does."""


@dataclass(frozen=True)
class LoopSettings:
    """How long, how fast and how often."""

    max_steps: int = 100_000
    """Steps of the optimizer, after which the training is finished."""
    max_minutes: float | None = None
    """Finish after so many minutes of training, over all sittings, if the steps take longer."""
    batch: int = 64
    """Images of a step, over all processes."""
    accumulate: int = 1
    """Parts that each process computes its share of a step in, to save memory."""
    lr: float = 3e-4
    """Learning rate after the warm-up."""
    warmup_steps: int = 200
    decay: Decay = "inverse-sqrt"
    """constant, linear, cosine or inverse-sqrt; linear and cosine end at max_steps or max_minutes, what comes first."""
    decay_steps: int = 2000
    """Step at which inverse-sqrt begins to fall."""
    weight_decay: float = 0.0
    beta2: float = 0.99
    """AdamW's β2; β1 is 0.9."""
    clip_norm: float = 1.0
    """Largest norm of the gradient; 0: any."""
    ema: float = 0.1
    """Width of the weights' average as a share of the training so far (EDM2's σ_rel); 0: none."""
    precision: Literal["fp32", "bf16"] = "fp32"
    """bf16: mixed, by autocast. Faster on GPUs; most CPUs are slower with it."""
    save_dtype: Literal["float32", "float16", "bfloat16", "int8"] = "float32"
    """Type of the weights in the model folder; int8: with a scale per output channel. Checkpoints have all digits."""
    gradient_checkpointing: bool = False
    """Less memory for about a third more time."""
    cuda_graph: bool = False
    """Record a step as a CUDA graph: three times as many steps of a small network on a fast GPU. For one process on
    CUDA with `accumulate: 1`; noise is then the GPU's own."""
    log_every: int = 50
    validate_every: int = 1000
    """Steps between losses on held-back images."""
    pictures_every: int = 2000
    """Steps between pictures for TensorBoard; 0: none."""
    checkpoint_every: int = 1000
    keep_checkpoints: int = 2
    workers: int = 1
    """Processes that read images, for each process that trains; 0: none beside it."""
    seed: int = 0
    init_from: str | None = None
    """Folder or name of a model of the same kind and size, whose weights the training starts from."""
    resume: bool = True
    """Go on from the newest checkpoint in `out`, if there is one."""
    force: bool = False
    """Start anew, over what is in `out`."""

    def __post_init__(self) -> None:
        least = {
            "batch": 1, "accumulate": 1, "decay_steps": 1, "log_every": 1, "validate_every": 1, "checkpoint_every": 1,
            "keep_checkpoints": 1, "max_steps": 0, "warmup_steps": 0, "pictures_every": 0, "workers": 0,
            "weight_decay": 0, "clip_norm": 0,
        }  # fmt: skip
        for key, value in least.items():
            if getattr(self, key) < value:
                raise ConfigError(f"{key} (={getattr(self, key)}) must be at least {value}")
        check_seed(self.seed)
        if not self.lr > 0:
            raise ConfigError(f"lr (={self.lr}) must be above 0")
        if not 0 < self.beta2 < 1:
            raise ConfigError(f"beta2 (={self.beta2}) must be between 0 and 1")
        if self.max_minutes is not None and not self.max_minutes > 0:
            raise ConfigError(f"max_minutes (={self.max_minutes}) must be above 0, or null for no limit")
        if self.ema:
            exponent(self.ema)


@dataclass(frozen=True)
class ImageSettings:
    """Images to train on."""

    out: str
    """Folder that the model is written to."""
    images: list[str] = field(default_factory=list)
    """Folders of images or tar shards, tar shards, or images."""
    holdback: int = 16
    """Images, evenly spaced among all, that are kept for validation."""
    in_memory: bool = False
    """Open all images at the start and keep them in memory, as many bytes as pixels times three: a GPU may take crops
    faster than images can be opened."""
    made: float = 0.0
    """Share of what is trained on that is no photograph but made: text, screens, drawings, dithers and patterns. What
    is held back has none."""
    grey: float = 0.0
    """Share of what is trained on that is shown without colour."""

    def __post_init__(self) -> None:
        if not self.images:
            raise ConfigError("images is empty; name folders of images with images=FOLDER")
        check_share(self.made, "made")
        check_share(self.grey, "grey")


@dataclass(frozen=True)
class CropSettings(ImageSettings):
    """Images to train on, in square crops."""

    crop_multiple: ClassVar[int] = 1
    crop_px: int = 128
    """Side of the crops."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_crop(self.crop_px, self.crop_multiple)


@dataclass(frozen=True)
class ClipSettings(ImageSettings):
    """Images and clips to train on, in clips of square crops."""

    clips: list[str] = field(default_factory=list)
    """Video files and folders of numbered images. They are kept in memory, three bytes a pixel."""
    held_clips: list[str] = field(default_factory=list)
    """Clips for validation, which none of `clips` may be; they come before what is held back of the images."""
    moving: float = 0.8
    """Share of what is trained on that is made of images which are moved: they pan, zoom, turn, slide over one another.
    All is, if there are no clips."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_share(self.moving, "moving")
        if both := {Path(clip).resolve() for clip in self.clips} & {Path(clip).resolve() for clip in self.held_clips}:
            raise ConfigError(f"held_clips: {min(both)} is also in clips; train on it or hold it back")
        if self.held_clips and self.holdback < 1:
            raise ConfigError(f"holdback (={self.holdback}) must be at least 1 if there are held_clips")


def check_frames(frames: int, ratio: int, stage: str) -> None:
    """Raises ConfigError for clips of ``frames`` frames, of a stage, whose last latent frame would be of fewer."""
    if frames % ratio:
        raise ConfigError(f"{stage}.frames (={frames}) must be a multiple of folding.ratio (={ratio})")


def check_crop(crop_px: int, multiple: int, key: str = "crop_px") -> None:
    """Raises ConfigError for a side of crops that is not a multiple of ``multiple``."""
    if crop_px < 1 or crop_px % multiple:
        rule = f"a multiple of {multiple}, above 0" if multiple > 1 else "at least 1"
        raise ConfigError(f"{key} (={crop_px}) must be {rule}")
