"""--device."""

import argparse
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch


def add_device_option(parser: argparse.ArgumentParser, default: str = "cuda if there is one") -> None:
    """Adds --device; ``default`` is what its absence means."""
    parser.add_argument("--device", default=None, help=f"cpu, cuda … (default: {default})")


def move_codec(codec: Any, device: str | None) -> None:
    """Moves the networks of ``codec`` to the device that was named, if one was. Raises ConfigError."""
    from difflate.errors import ConfigError

    if device is None:
        return
    if not hasattr(codec, "to"):
        raise ConfigError(f"--device (={device}): {codec.name} has no networks; leave it out")
    codec.to(device_of(device))


def device_of(name: str | None) -> "torch.device":
    """The device ``name``, which is there; by default cuda if there is one. Raises ConfigError."""
    import torch

    from difflate.errors import ConfigError

    try:
        return torch.empty(0, device=name or ("cuda" if torch.cuda.is_available() else "cpu")).device
    except (RuntimeError, AssertionError) as error:
        raise ConfigError(f"--device (={name}) cannot be used ({' '.join(str(error).split())[:120]})") from error
