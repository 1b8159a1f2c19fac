"""A photograph of 12 megapixels through whole commands: seconds, memory and bytes, beside other formats.

None of that size is at hand, so it is put together: a grid of photographs of a folder, each enlarged to fill its cell.
Enlarged pictures have less fine detail than a camera's, so the bits per pixel here are low; times hardly depend on it.
"""

import subprocess
import sys
import tempfile
from itertools import cycle, islice
from pathlib import Path

from PIL import Image, ImageOps

from benchmarks.timing import Fact, Results, Stopwatch, Timings

WIDTH_PX, HEIGHT_PX = 4000, 3000
CELLS = 4
"""In either direction: 1000 x 750 pixels each."""
ROUNDS_SHARE = 41
CODECS = {"hyperprior-small": [], "cdc-small": [], "webp": ["-q", "35"], "avif": ["-q", "46"], "jxl": ["-q", "6"]}
"""Codecs and options of `difflate compress`; the last three, of Pillow and libjxl, at about the first two's rate."""
RIVALS = ("webp", "avif", "jxl")
_MEASURE = """
import resource, subprocess, sys, time
begin = time.perf_counter()
subprocess.run(sys.argv[1:], check=True, stdout=subprocess.DEVNULL)
print(time.perf_counter() - begin, resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)
"""
"""In a process of its own, since a child counts the memory of the one that starts it, and this one has torch."""
_SUFFIXES = {".jpg", ".jpeg", ".png"}


def run(photos: Path, rounds: int) -> Results:
    """Ratios of the times of commands, and what each takes, for a picture of the photographs in ``photos``."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        image = folder / "large.png"
        large_photo(photos).save(image, compress_level=1)
        peak_mb: dict[str, float] = {}
        programs, files = {}, {}
        for codec, options in CODECS.items():
            files[codec] = folder / f"{codec}.{codec if codec in RIVALS else 'dfl'}"
            words = {
                "compress": [str(image), "-o", str(files[codec]), "--codec", codec, *options],
                "decompress": [str(files[codec]), "-o", str(folder / "restored.bmp")],
            }
            for verb, rest in words.items():
                programs[f"{codec} {verb}"] = _command(f"{codec} {verb}", [verb, *rest], peak_mb)
        words = [str(files["cdc-small"]), "-o", str(folder / "restored.bmp"), "--steps", "1"]
        programs["cdc-small decompress --steps 1"] = _command(
            "cdc-small decompress --steps 1", ["decompress", *words], peak_mb
        )
        timings = Timings(programs, max(1, rounds // ROUNDS_SHARE), warm_up=0)
        sizes = {codec: path.stat().st_size for codec, path in files.items()}
    rows = [
        timings.row(f"{codec}, {verb} 12 megapixels, whole process", f"{codec} {verb}", f"{rival} {verb}")
        for codec in CODECS
        if codec not in RIVALS
        for verb in ("compress", "decompress")
        for rival in RIVALS
    ]
    facts = [
        fact
        for program in programs
        for fact in (
            Fact(f"{program}, 12 megapixels, s", timings.ms(program) / 1e3),
            Fact(f"{program}, 12 megapixels, largest memory, MB", peak_mb[program]),
        )
    ]
    facts += [
        Fact(f"{codec}, 12 megapixels, bits per pixel", 8 * size / (WIDTH_PX * HEIGHT_PX))
        for codec, size in sizes.items()
    ]
    return Results(rows, facts)


def large_photo(photos: Path) -> Image.Image:
    """4000 x 3000 pixels: a grid of the photographs in ``photos``, as many as there are, again and again mirrored."""
    paths = sorted(path for path in photos.iterdir() if path.suffix.lower() in _SUFFIXES)
    if not paths:
        raise SystemExit(
            f"photos ({photos}) has no {', '.join(sorted(_SUFFIXES))}; name a folder that has with --photos"
        )
    size = WIDTH_PX // CELLS, HEIGHT_PX // CELLS
    whole = Image.new("RGB", (WIDTH_PX, HEIGHT_PX))
    for number, path in enumerate(islice(cycle(paths), CELLS**2)):
        with Image.open(path) as image:
            cell = ImageOps.fit(image.convert("RGB"), size, Image.Resampling.BICUBIC)
        if number // len(paths) % 2:
            cell = ImageOps.mirror(cell)
        whole.paste(cell, (number % CELLS * size[0], number // CELLS * size[1]))
    return whole


def _command(name: str, words: list[str], peak_mb: dict[str, float]) -> Stopwatch:
    """Runs a command of difflate to its end; notes the largest memory that it took."""
    command = [sys.executable, "-c", _MEASURE, sys.executable, "-m", "difflate", *words, "--force"]

    def run_once() -> float:
        done = subprocess.run(command, check=True, capture_output=True, text=True)
        seconds, largest = (float(word) for word in done.stdout.split())
        unit = 1e6 if sys.platform == "darwin" else 1e6 / 1024  # of ru_maxrss: bytes there, KiB elsewhere
        peak_mb[name] = max(peak_mb.get(name, 0.0), largest / unit)
        return seconds

    return run_once
