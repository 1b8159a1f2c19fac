"""The versions of what numbers depend on."""

import importlib.metadata
import platform

_PACKAGES = (
    "difflate", "torch", "numpy", "pillow", "scipy", "ssimulacra2", "imagecodecs", "torchvision", "torchmetrics",
    "av", "imageio-ffmpeg",
)  # fmt: skip


def versions() -> dict[str, str]:
    """Name to version of Python and of those packages that are installed."""
    result = {"python": platform.python_version()}
    for package in _PACKAGES:
        try:
            result[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return result
