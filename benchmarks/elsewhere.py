"""A program at work in another environment, one round at a time."""

import subprocess
import tempfile
from contextlib import AbstractContextManager
from pathlib import Path

import numpy as np


class Elsewhere(AbstractContextManager):
    """A script of this folder, run by another Python, that answers each line on stdin with a number on stdout."""

    def __init__(self, python: str, script: str, **arrays: np.ndarray | float):
        """``arrays``: what the script finds in the .npz file that is its argument."""
        self._script, self._folder = script, tempfile.TemporaryDirectory()
        file = Path(self._folder.name) / "work.npz"
        np.savez(file, **{name: np.asarray(array) for name, array in arrays.items()})
        # the warnings of its packages say nothing about its speed
        command = [python, "-W", "ignore", str(Path(__file__).with_name(script)), str(file)]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def ask(self, question: str) -> float:
        """Its answer: for instance the seconds of one round."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        try:
            self._process.stdin.write(question + "\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            raise SystemExit(self._failure()) from None
        answer = self._process.stdout.readline()
        if not answer:
            raise SystemExit(self._failure())
        return float(answer)

    def _failure(self) -> str:
        return f"the environment given by --compressai cannot run benchmarks/{self._script}"

    def __exit__(self, *_: object) -> None:
        self._process.communicate()
        self._folder.cleanup()
