"""Many files, or tar shards of them: on the cores of this machine or on a cluster, and again where it ended."""
