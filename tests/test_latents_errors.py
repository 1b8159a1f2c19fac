"""Folders that are no latent data sets, and shards that are damaged, are told."""

import dataclasses
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

from difflate.data.crops import collate
from difflate.data.latents import Latents, shard_name
from difflate.errors import ConfigError, FormatError, VersionError
from latent_helpers import CODEC, HEADER, OTHER, hand_made


def _truncated(folder: Path) -> None:
    path = hand_made(folder / shard_name(0), [0, 1, 2])
    path.write_bytes(path.read_bytes()[:-5])


def _two(folder: Path, **changes: Any) -> None:
    header = dataclasses.replace(HEADER, **{k: v for k, v in changes.items() if k != "numbers"})
    hand_made(folder / shard_name(0), [0, 1], shards=2)
    hand_made(folder / shard_name(1), changes.get("numbers", [2, 3]), header, shards=2)


def _changed(**changes: Any) -> Callable[[Path], object]:
    return lambda folder: hand_made(folder / shard_name(0), [0, 1, 2], **changes)


U16 = np.zeros((3, 2, 2, 2), np.uint16)


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (shutil.rmtree, ConfigError, "no such file or folder"),
        (lambda p: None, ConfigError, "no latents in this folder; write them with difflate latents"),
        (lambda p: (p / shard_name(0)).write_text("Dear Sir\n" * 9), FormatError, "is damaged, or no shard of latents"),
        (lambda p: (p / shard_name(0)).write_bytes(b""), FormatError, "is damaged, or no shard of latents"),
        (lambda p: (p / shard_name(0)).mkdir(), FormatError, "is damaged, or no shard of latents"),
        (_truncated, FormatError, "is damaged, or no shard of latents"),
        (lambda p: save_file({"x": U16}, str(p / shard_name(0))), FormatError, "is no shard of latents"),
        (_changed(format="pt"), FormatError, "is no shard of latents"),
        (_changed(version="2"), VersionError, r"version \(=2\) is unknown; update difflate"),
        (_changed(codebook_sizes="[1000, 2"), FormatError, "is damaged"),
        (_changed(codebook_sizes="[1000, 70000]"), FormatError, "numbers from 2 to 65536"),
        (_changed(codebook_sizes='["a"]'), FormatError, "numbers from 2 to 65536"),
        (_changed(codebook_sizes="[]"), FormatError, "numbers from 2 to 65536"),
        (_changed(codebook_sizes="[1000, 2, 2]"), FormatError, r"latents must be U16 of \(N, 3, h, h\)"),
        (_changed(codebook_sizes="[200, 2]"), FormatError, r"latents must be U8 of"),
        (_changed(fingerprint="../secret"), FormatError, "64 hexadecimal digits"),
        (_changed(image_px="17"), FormatError, "2 sites are no side of 17 px"),
        (_changed(image_px="-16"), FormatError, "must be from 1 to"),
        (_changed(images="1" + 40 * "0"), FormatError, "must be from 1 to"),
        (_changed(images="many"), FormatError, "is damaged"),
        (_changed(images="2"), FormatError, "numbers must rise from 0 to below 2"),
        (_changed(latents=None), FormatError, "latents must be"),
        (_changed(latents=U16[:, :, :1]), FormatError, "latents must be"),
        (_changed(latents=U16[0]), FormatError, "latents must be"),
        (_changed(mirrored=U16[:2]), FormatError, "mirrored must be U16"),
        (_changed(numbers=None), FormatError, "numbers must be I64"),
        (_changed(numbers=np.arange(3, dtype=np.int32)), FormatError, "numbers must be I64"),
        (_changed(numbers=np.arange(4)), FormatError, "numbers must be I64"),
        (_changed(numbers=np.array([0, 2, 1])), FormatError, "numbers must rise"),
        (_changed(numbers=np.array([-1, 0, 1])), FormatError, "numbers must rise"),
        (_changed(shards="2"), ConfigError, "has 1 of 2 shards"),
        (lambda p: _two(p, codec=OTHER), ConfigError, f"is of {OTHER} .* but .* of {CODEC}"),
        (lambda p: _two(p, fingerprint=64 * "b"), ConfigError, r"\(bbbbbbbb\), 16 px, but .* \(aaaaaaaa\), 16 px"),
        (lambda p: _two(p, image_px=64), ConfigError, "64 px, but .* 16 px"),
        (lambda p: _two(p, images=13), ConfigError, "is of another run than"),
        (lambda p: _two(p, numbers=[1, 2]), ConfigError, "two shards have the same image"),
        (lambda p: hand_made(p / shard_name(0), []), ConfigError, "has no latents"),
    ],
)
def test_a_folder_that_is_not_what_it_should_be(
    make: Callable[[Path], object], error: type[Exception], message: str, tmp_path: Path
) -> None:
    folder = tmp_path / "shards"
    folder.mkdir()
    make(folder)
    with pytest.raises(error, match=message) as raised:
        Latents.open([folder])
    assert str(raised.value).startswith(str(folder))
    assert "\n" not in str(raised.value)


def test_the_same_latents_are_named_once(tmp_path: Path) -> None:
    path = hand_made(tmp_path / shard_name(0), [0])
    for sources in ([tmp_path, tmp_path], [tmp_path, path], [path, path]):
        with pytest.raises(ConfigError, match="is named twice"):
            Latents.open(sources)
    with pytest.raises(ConfigError, match="there are no latents"):
        Latents.open([])


def test_indices_outside_of_their_codebook(tmp_path: Path) -> None:
    latents = U16.copy()
    latents[1, 1, 0, 1] = 2
    hand_made(tmp_path / shard_name(0), [0, 1, 2], latents=latents, mirrored=None)
    data = Latents.open([tmp_path], augment=False)
    with pytest.raises(FormatError, match="an index of row 1 is outside of its codebook"):
        data.read(1)
    batch = collate([data[n] for n in range(3)])
    assert (batch.numbers.tolist(), batch.dropped) == ([0, 2], 1)
    assert "outside of its codebook" in batch.skipped[0]
