"""--device."""

import argparse
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch


def add_device_option(parser: argparse.ArgumentParser) -> None:
    """Adds --device."""
    parser.add_argument("--device", default=None, help="cpu, cuda … (default: cuda if there is one)")


def device_of(name: str | None) -> "torch.device":
    """The device ``name``, which is there; by default cuda if there is one. Raises ConfigError."""
    import torch

    from difflate.errors import ConfigError

    try:
        return torch.empty(0, device=name or ("cuda" if torch.cuda.is_available() else "cpu")).device
    except (RuntimeError, AssertionError) as error:
        raise ConfigError(f"--device (={name}) cannot be used ({' '.join(str(error).split())[:120]})") from error
