"""results.json, read again."""

import hashlib
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from difflate.errors import ConfigError, FormatError, VersionError
from difflate.evaluate import measures
from difflate.evaluate.means import Anchor
from difflate.evaluate.records import Record

NAME = "results.json"
VERSION = 1
"""Of what is in results.json; it rises when a reader has to know."""
MAX_BYTES = 1 << 30


@dataclass(frozen=True)
class Results:
    """A report's numbers."""

    records: Sequence[Record]
    protocol: dict[str, Any]
    anchor: Anchor
    digest: str
    """SHA-256 of results.json, by which a report is told from others."""


def read_results(folder: str | Path) -> Results:
    """The numbers of the report in ``folder``.

    Raises ConfigError where there is none, VersionError for one of another version of results.json, FormatError for
    one that is damaged or cut.
    """
    path = Path(folder) / NAME
    try:
        size = path.stat().st_size
        data = path.read_bytes() if size <= MAX_BYTES else b""
    except OSError as error:
        raise ConfigError(
            f"{path}: cannot be read ({error.strerror}); name the folder that `difflate eval --out` wrote"
        ) from error
    if size > MAX_BYTES:
        raise FormatError(f"{path}: has more than {MAX_BYTES >> 30} GiB; it is no report of difflate")
    try:
        content = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise FormatError(f"{path}: is not complete JSON; evaluate again") from error
    if not isinstance(content, dict) or not {"protocol", "means", "records"} <= content.keys():
        raise FormatError(f"{path}: is no report of difflate; name the folder that `difflate eval --out` wrote")
    version = content.get("version", 0)
    if version != VERSION:
        raise VersionError(
            f"{path}: has version {version} of results.json, this difflate reads version {VERSION}; "
            "evaluate again, or use the difflate that wrote it"
        )
    try:
        protocol = content["protocol"]
        bpp_range = protocol["bpp_range"]
        anchor = Anchor(protocol["bd_anchor"], (bpp_range[0], bpp_range[1]) if bpp_range else None)
        records = [_record(item) for item in content["records"]]
    except (TypeError, KeyError, ValueError, IndexError, AttributeError, ConfigError) as error:
        raise FormatError(f"{path}: is damaged; evaluate again") from error
    return Results(records, protocol, anchor, hashlib.sha256(data).hexdigest())


def _record(data: dict[str, Any]) -> Record:
    """What `Record.to_json` made. Raises TypeError and KeyError for other data."""
    kind: measures.Kind = "clips" if "clip" in data else "images"
    frames = data["frames"] if kind == "clips" else None
    data = {**data, "image": data["clip"]} if kind == "clips" else data
    values: dict[str, float | None] = {}
    nets: dict[str, str] = {}
    error = data["error"]
    for measure in measures.measures_for(kind):
        value = data.get(measure.key)
        if value is not None and not isinstance(value, int | float):
            raise TypeError(f"{measure.key} is no number")
        if measure.nets and data.get(measure.net_key):
            nets[measure.key] = data[measure.net_key]
        if error is None and not (measure.optional and value is None):
            # a single frame has no difference to the one before, whatever is infinite otherwise
            infinite = measure.infinite and not (measure.of == "clips" and frames == 1)
            values[measure.key] = math.inf if value is None and infinite else value
    for key in ("image", "codec", "setting"):
        if not isinstance(data[key], str):
            raise TypeError(f"{key} is no text")
    for key in ("width", "height", "bytes"):
        if not (isinstance(data[key], int) and data[key] > 0) and error is None:
            raise TypeError(f"{key} is no size")
    fields = {key: data[key] for key in ("image", "codec", "quality", "setting", "width", "height", "bytes")}
    found = {"values": values, "nets": nets, "error": error, "exit_code": data["exit_code"]}
    return Record(**fields, **found, kind=kind, frames=frames)
