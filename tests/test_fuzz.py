"""Mutated .dfl files: the same picture or a difflate exception, nothing else."""

import dataclasses
import zlib

import numpy as np
import pytest

import difflate
from difflate.errors import DifflateError
from difflate.format.container import read_dfl, write_dfl
from difflate.limits import Limits
from difflate.media.picture import Picture

SMALL = Limits(pixels=2**14)
"""So that a file which asks for a large image, which is legal, does not make the test slow."""


def originals() -> list[bytes]:
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (3, 21, 34), dtype=np.uint8)
    alpha = rng.integers(0, 256, (21, 34), dtype=np.uint8)
    codec = difflate.load("eopq-32-8-8")
    pictures = [Picture(pixels), Picture(pixels[:1], alpha, exif=b"II*\0"), Picture(pixels[:, :1, :1])]
    return [codec.encode(p, fixed_rate=f) for p in pictures for f in (False, True)]  # type: ignore[call-arg]


def mutate(data: bytes, rng: np.random.Generator) -> bytes:
    out = bytearray(data)
    kind = rng.integers(5)
    if kind == 0:
        out[rng.integers(len(out))] ^= 1 << rng.integers(8)
    elif kind == 1:
        for _ in range(rng.integers(1, 8)):
            out[rng.integers(len(out))] = rng.integers(256)
    elif kind == 2:
        del out[rng.integers(len(out)) :]
    elif kind == 3:
        at = rng.integers(len(out))
        out[at:at] = rng.bytes(rng.integers(1, 9))
    else:
        at = rng.integers(len(out))
        del out[at : at + rng.integers(1, 9)]
    return bytes(out)


def with_valid_checksum(data: bytes) -> bytes:
    """As someone would forge it: what the checksum guards is reached."""
    return data[:-4] + zlib.crc32(data[:-4]).to_bytes(4, "little")


def fuzz(count: int, seed: int) -> None:
    files = originals()
    pictures = [difflate.decode(f).tobytes() for f in files]
    rng = np.random.default_rng(seed)
    outcomes = {"same": 0, "error": 0, "other": 0}
    for i in range(count):
        which = rng.integers(len(files))
        data = mutate(files[which], rng)
        forged = i % 2 == 1
        if forged:
            data = with_valid_checksum(data)
        try:
            restored = difflate.decode(data, limits=SMALL)
        except DifflateError:
            outcomes["error"] += 1
            continue
        same = restored.tobytes() == pictures[which]
        outcomes["same" if same else "other"] += 1
        # a forged checksum may stand over another size or metadata, never over other symbols than were promised
        assert same or forged, f"mutation {i} decoded to something else"
    assert outcomes["error"] > 0.9 * count


def test_two_thousand_mutations():
    fuzz(2000, seed=1)


@pytest.mark.slow
def test_a_hundred_thousand_mutations():
    fuzz(100_000, seed=2)


def test_a_payload_of_garbage_behind_right_checksums_is_told():
    """What only the checksum of the symbols can notice."""
    rng = np.random.default_rng(3)
    file = read_dfl(originals()[0])
    for _ in range(100):
        payload = rng.bytes(int(rng.integers(0, 100)))
        with pytest.raises(DifflateError):
            difflate.decode(write_dfl(dataclasses.replace(file, sections=((1, payload),))))
