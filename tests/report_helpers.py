"""A small report of real codecs, and a browser to look at it with."""

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from difflate.evaluate import Record, evaluate, find_images
from difflate.evaluate.compressai import Overlay
from difflate.evaluate.pictures import PictureFolder
from difflate.evaluate.report import write_report
from fake_codecs import save

CODECS = "jpeg:20..80..20,webp:10..70..20,png"
FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
)  # fmt: skip


def small_report(folder: Path, overlays: tuple[Overlay, ...] = ()) -> list[Record]:
    """Writes ``folder / report`` of three images in ``folder / images``; the records."""
    for i, name in enumerate(("a.png", "b</script>.png", "c.png")):
        save(folder / "images" / name.replace("/", "_"), i, 96, 120)
    report = folder / "report"
    pictures = PictureFolder(report)
    records = evaluate(find_images([folder / "images"]), CODECS, pictures=pictures)
    write_report(
        records, report, command="difflate eval images", overlays=overlays, pictures=pictures, peak_memory_bytes=2**30
    )
    return records


@contextmanager
def browser(width: int = 1280, downloads: Path | None = None) -> Iterator[Any]:
    """A driver of headless Chromium. Skips the test where Chromium, its driver or selenium is missing."""
    webdriver = pytest.importorskip("selenium.webdriver")
    chromium, driver_path = shutil.which("chromium"), shutil.which("chromedriver")
    if not chromium or not driver_path:
        pytest.skip("needs chromium and chromedriver: apt-get install chromium chromium-driver")
    options = webdriver.ChromeOptions()
    options.binary_location = chromium
    with tempfile.TemporaryDirectory() as profile:
        for flag in (*FLAGS, f"--user-data-dir={profile}"):
            options.add_argument(flag)
        if downloads is not None:
            options.add_experimental_option("prefs", {"download.default_directory": str(downloads)})
        options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
        driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(driver_path))
        try:
            size = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": False}
            driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
            yield driver
            said = [entry["message"] for entry in driver.get_log("browser") if entry["level"] == "SEVERE"]
            assert [text for text in said if "images/" not in text] == [], said
        finally:
            driver.quit()
