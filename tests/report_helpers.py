"""A small report of real codecs."""

from dataclasses import replace
from pathlib import Path

from difflate.evaluate import Record, evaluate, find_images
from difflate.evaluate.compressai import Overlay
from difflate.evaluate.pictures import PictureFolder
from difflate.evaluate.report import write_report
from fake_codecs import save

CODECS = "jpeg:20..80..20,webp:10..70..20,png"


def small_report(folder: Path, overlays: tuple[Overlay, ...] = ()) -> list[Record]:
    """Writes ``folder / report`` of three images in ``folder / images``; the records."""
    for i, name in enumerate(("a.png", "b</script>.png", "c.png")):
        save(folder / "images" / name.replace("/", "_"), i, 96, 120)
    report = folder / "report"
    pictures = PictureFolder(report)
    records = evaluate(find_images([folder / "images"]), CODECS, pictures=pictures)
    records = [replace(record, peak_memory_bytes=2**30) for record in records]
    write_report(records, report, command="difflate eval images", overlays=overlays, pictures=pictures)
    return records
