"""Whole commands, from the start of the process to its end, against Pillow doing what cwebp, avifenc and avifdec do."""

import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.timing import Fact, Results, Stopwatch, Timings

ROUNDS_SHARE = 8
"""Starting processes takes seconds: one in so many of the rounds is enough."""
AIM_CPU_S = 1.5
"""CPU time that a command may take beside `import torch` and the codec's own work."""
_WORK = """
import sys, time
import difflate
codec, picture, data = difflate.load(), difflate.open_image(sys.argv[1]), open(sys.argv[2], "rb").read()
for work in (lambda: codec.encode(picture), lambda: codec.decode(data)):
    work()
    begin = time.process_time()
    work()
    print(time.process_time() - begin)
"""
"""Prints the CPU seconds of encoding and of decoding, each the second time."""


def run(image: Path, rounds: int) -> Results:
    """Ratios for the photograph ``image`` and the default codec."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        dfl, png, webp, avif = (folder / f"photo.{suffix}" for suffix in ("dfl", "png", "webp", "avif"))
        commands = {
            "compress": _difflate("compress", image, dfl),
            "decompress": _difflate("decompress", dfl, png),
            "cwebp": _pillow(image, webp, "quality=20, method=4"),
            "dwebp": _pillow(webp, png, ""),
            "avifenc": _pillow(image, avif, "quality=40, speed=6"),
            "avifdec": _pillow(avif, png, ""),
            "import torch": [sys.executable, "-c", "import torch"],
        }
        cpu_s: dict[str, list[float]] = {name: [] for name in commands}
        programs = {name: _process(words, cpu_s[name]) for name, words in commands.items()}
        timings = Timings(programs, max(1, rounds // ROUNDS_SHARE), warm_up=1)
        waiting = os.environ | {"OMP_WAIT_POLICY": "passive"}  # as the commands have it
        words = [sys.executable, "-c", _WORK, str(image), str(dfl)]
        done = subprocess.run(words, check=True, env=waiting, capture_output=True, text=True)
    facts = []
    for verb, work_s in zip(("compress", "decompress"), map(float, done.stdout.split()), strict=True):
        beyond = min(cpu_s[verb]) - min(cpu_s["import torch"]) - work_s
        what = f"difflate {verb}, CPU beside `import torch` and the codec's work, s"
        facts.append(Fact(what, beyond, f"< {AIM_CPU_S}", beyond < AIM_CPU_S))
    rivals = {"compress": ("cwebp", "avifenc", "import torch"), "decompress": ("dwebp", "avifdec", "import torch")}
    rows = [
        timings.row(f"difflate {verb}, whole process", verb, rival) for verb, names in rivals.items() for rival in names
    ]
    return Results(rows, facts)


def _difflate(verb: str, source: Path, target: Path) -> list[str]:
    return [sys.executable, "-m", "difflate", verb, str(source), "-o", str(target), "--force"]


def _pillow(source: Path, target: Path, options: str) -> list[str]:
    code = f"from PIL import Image; Image.open({str(source)!r}).save({str(target)!r}, {options})"
    return [sys.executable, "-c", code]


def _process(words: list[str], cpu_s: list[float]) -> Stopwatch:
    """Runs a command to its end; adds the CPU seconds that it took to ``cpu_s``."""

    def run_once() -> float:
        used = _children_s()
        begin = time.perf_counter()
        subprocess.run(words, check=True, stdout=subprocess.DEVNULL)
        taken = time.perf_counter() - begin
        cpu_s.append(_children_s() - used)
        return taken

    return run_once


def _children_s() -> float:
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime
