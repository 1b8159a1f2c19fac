"""What several tests share."""

import os
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def data_dir() -> Path:
    """The folder of public test images (kodak/, sipi/ …): $DIFFLATE_DATA, or shared/data beside the repository."""
    folder = Path(os.environ.get("DIFFLATE_DATA") or Path(__file__).parents[2] / "shared" / "data")
    if not folder.is_dir():
        pytest.skip(f"needs the test images: no folder {folder}; set DIFFLATE_DATA")
    return folder
