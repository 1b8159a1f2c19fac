"""VMAF (Li et al. 2016, Netflix) of clips, by an ffmpeg program that has it: libvmaf, its default model, on luma."""

import json
import os
import shutil
import subprocess
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import IO

import numpy as np

from difflate.errors import ConfigError
from difflate.media.picture import Picture
from difflate.metrics.pairs import planes_of_pair

VMAF_MIN_SIDE_PX = 32
"""Smaller frames libvmaf has no features of."""
_TIMEOUT_S = 60


def vmaf() -> "Callable[[], Vmaf]":
    """What makes a `Vmaf` for each clip. Raises ConfigError if no ffmpeg with libvmaf is here."""
    program = _program()
    return lambda: Vmaf(program)


class Vmaf:
    """VMAF of one clip, 0 to 100, the mean over its frames; see `difflate.metrics.clips.Running`.

    Both clips go to ffmpeg through one pipe, the original above the restored frame, and are made into luma there
    (BT.709, limited range).
    """

    def __init__(self, program: str):
        self._program = program
        self._process: subprocess.Popen[bytes] | None = None
        self._folder: tempfile.TemporaryDirectory[str] | None = None
        self._too_small = False

    def add(self, reference: Picture, restored: Picture) -> None:
        """See `difflate.metrics.clips.Running`. Raises ConfigError if ffmpeg ends early."""
        planes = planes_of_pair(reference, restored)
        height, width = planes[0].shape[1:]
        if min(height, width) < VMAF_MIN_SIDE_PX:
            self._too_small = True
            return
        if self._process is None:
            self._start(width, height)
        rgb = [np.broadcast_to(pixels, (3, height, width)).transpose(1, 2, 0) for pixels in planes]
        try:
            self._stdin().write(np.ascontiguousarray(np.concatenate(rgb)).tobytes())
        except BrokenPipeError:
            self._finish()

    def value(self) -> float | None:
        """See `difflate.metrics.clips.Running`. Raises ConfigError if ffmpeg fails."""
        return None if self._too_small or self._process is None else self._finish()

    def __del__(self) -> None:
        if self._process is not None and self._process.poll() is None:
            self._process.kill()
            self._process.communicate()
        if self._folder is not None:
            self._folder.cleanup()

    def _start(self, width: int, height: int) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="difflate-vmaf-")
        part = f"crop={width}:{height}:0:%d:exact=1,scale=out_color_matrix=bt709:out_range=tv,format=yuv444p"
        graph = (
            f"[0:v]format=gbrp,split[above][below];[above]{part % 0}[reference];[below]{part % height}[restored];"
            "[restored][reference]libvmaf=log_fmt=json:log_path=vmaf.json"
        )
        command = [self._program, "-v", "error", "-f", "rawvideo", "-pixel_format", "rgb24"]
        command += ["-video_size", f"{width}x{2 * height}", "-i", "-", "-lavfi", graph, "-f", "null", "-"]
        # the log by its name alone: a path would have to be escaped
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, cwd=self._folder.name
        )

    def _stdin(self) -> IO[bytes]:
        assert self._process is not None
        assert self._process.stdin is not None
        return self._process.stdin

    def _finish(self) -> float:
        assert self._process is not None
        assert self._folder is not None
        _, said = self._process.communicate()
        try:
            log = json.loads(Path(self._folder.name, "vmaf.json").read_text())
            return float(log["pooled_metrics"]["vmaf"]["mean"])
        except (OSError, ValueError, KeyError) as error:
            lines = said.decode(errors="replace").strip().splitlines() or ["it says nothing"]
            raise ConfigError(f"{self._program} could not measure VMAF ({lines[-1]}); leave it out") from error


def _program() -> str:
    """The first ffmpeg with libvmaf: that of imageio-ffmpeg, or the one on the path. Raises ConfigError."""
    for program in _programs():
        try:
            done = subprocess.run([program, "-v", "error", "-filters"], capture_output=True, timeout=_TIMEOUT_S)
        except (OSError, subprocess.TimeoutExpired):
            continue
        if b" libvmaf " in done.stdout:
            return program
    raise ConfigError("no ffmpeg with libvmaf is here, which VMAF needs; run: pip install 'imageio-ffmpeg>=0.5'")


def _programs() -> list[str]:
    found = [os.environ.get("IMAGEIO_FFMPEG_EXE"), shutil.which("ffmpeg")]
    try:
        import imageio_ffmpeg

        found.insert(1, imageio_ffmpeg.get_ffmpeg_exe())
    except (ImportError, RuntimeError):
        pass
    return [program for program in found if program]
