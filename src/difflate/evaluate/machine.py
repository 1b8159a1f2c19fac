"""What times and memory depend on beside versions."""

import os
import platform
import sys


def machine() -> str:
    """System, architecture and cores, in words."""
    return f"{platform.system()} on {platform.machine()}, {os.cpu_count()} cores"


def peak_memory_bytes() -> int | None:
    """The most memory that this process has had resident until now; None where the system does not say."""
    try:
        import resource
    except ImportError:
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
