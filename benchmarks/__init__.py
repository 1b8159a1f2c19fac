"""Ratios of Difflate's speed to that of other programs, measured side by side: `python -m benchmarks`."""
