"""Memory of the largest image that the limits allow."""

import subprocess
import sys

import pytest

_SCRIPT = """
import resource, sys, numpy as np, difflate
from difflate.pixels import Picture
if sys.argv[1] == "encode":
    small = np.random.default_rng(0).integers(0, 256, (3, 512, 512), dtype=np.uint8)
    picture = Picture(small.repeat(16, axis=1).repeat(16, axis=2))
    open(sys.argv[2], "wb").write(difflate.load().encode(picture))
else:
    assert difflate.decode(open(sys.argv[2], "rb").read()).size == (8192, 8192)
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024)
"""


@pytest.mark.slow
def test_64_megapixels_take_less_than_4_gib(tmp_path):
    for what in ("encode", "decode"):
        done = subprocess.run(
            [sys.executable, "-W", "ignore", "-c", _SCRIPT, what, str(tmp_path / "big.dfl")],
            capture_output=True,
            text=True,
            check=True,
        )
        peak_mib = int(done.stdout)
        print(f"{what}: peak {peak_mib} MiB")
        assert peak_mib < 4096
