"""The studio as people meet it: the command, its page in headless Chromium, and what it serves over HTTP."""

import json
import os
import re
import signal
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

import difflate
from browser_helpers import browser, wait
from cli_helpers import picture

pytestmark = pytest.mark.browser
SLOW_S = 60
"""For a machine that others use too."""


@pytest.fixture(scope="module")
def studio(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a running studio, which ends as it should."""
    pytest.importorskip("gradio")
    folder = tmp_path_factory.mktemp("studio")
    words = [sys.executable, "-m", "difflate", "studio", "--port", "0", "--upload-mib", "1"]
    environment = {**os.environ, "TMPDIR": str(folder)}
    with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        try:
            found = re.search(r"http://127\.0\.0\.1:\d+/", process.stdout.readline())
            assert found, process.stderr.read()
            wait(lambda: answers(found[0]), SLOW_S)
            yield found[0]
        finally:
            process.send_signal(signal.SIGINT)
            process.wait(SLOW_S)
        assert (process.returncode, process.stderr.read()) == (0, "")
    assert list(folder.iterdir()) == []  # what was dropped is gone


def answers(address: str) -> bool:
    try:
        return fetched(address)[0] == 200
    except urllib.error.URLError:
        return False


def fetched(address: str, **options: Any) -> tuple[int, str, str]:
    """(status, policy, text)."""
    try:
        with urllib.request.urlopen(urllib.request.Request(address, **options)) as answer:
            return answer.status, answer.headers["content-security-policy"], answer.read().decode()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, "", ""


def status(driver: Any, tab: int = 0) -> str:
    return driver.find_elements("css selector", ".status")[tab].get_attribute("textContent").strip()


def drop(driver: Any, place: str, file: Path) -> None:
    wait(lambda: driver.find_elements("css selector", f"{place} input[type=file]"), SLOW_S)[0].send_keys(str(file))
    wait(lambda: driver.find_elements("css selector", f"{place} [aria-label='{file.name}']"), SLOW_S)


def hosts(driver: Any) -> set[str]:
    """Those that the page has asked for anything."""
    asked = set()
    for entry in driver.get_log("performance"):
        message = json.loads(entry["message"])["message"]
        if message["method"] == "Network.requestWillBeSent":
            address = urlsplit(message["params"]["request"]["url"])
            if address.scheme in ("http", "https", "ws", "wss"):
                asked.add(address.netloc)
    return asked


@pytest.mark.parametrize("width", [1280, 390])
def test_a_photograph_is_compressed_compared_and_downloaded(studio: str, width: int, tmp_path: Path) -> None:
    photo = tmp_path / "photo.png"
    picture(size=(160, 96)).save(photo)
    with browser(width, downloads=tmp_path) as driver:
        driver.get(studio)
        drop(driver, "#photo", photo)
        wait(lambda: "160 × 96 px" in status(driver), SLOW_S)
        driver.find_element("css selector", "#diffusion button").click()
        steps = wait(lambda: driver.find_elements("css selector", "#diffusion textarea, #diffusion input"))[0]
        steps.send_keys("3")
        driver.find_element("id", "compress").click()
        wait(lambda: status(driver) == "Done.", SLOW_S)
        rows = [row.text.split() for row in driver.find_elements("css selector", "#results tbody tr")]
        assert [row[0] for row in rows] == ["cdc-small", "jpeg"]
        assert driver.find_elements("css selector", "#strip figure")
        pictures = driver.find_elements("css selector", "#slider img")
        assert len(pictures) == 2
        for shown in pictures:
            wait(lambda shown=shown: shown.get_property("naturalWidth") == 160)
        # the other codec on the right
        before = pictures[1].get_attribute("src")
        driver.find_element("css selector", "#beside input[value=cdc-small]").click()
        wait(lambda: driver.find_elements("css selector", "#slider img")[1].get_attribute("src") != before)
        assert "cdc-small" in driver.find_element("id", "slider").text
        # the file
        link = driver.find_element("css selector", "#files a[download='photo.cdc-small.dfl']")
        driver.execute_script("arguments[0].click()", link)
        file = tmp_path / "photo.cdc-small.dfl"
        wait(file.exists, SLOW_S)
        data = file.read_bytes()
        assert f"{len(data):,}" in rows[0]
        assert difflate.decode(data).size == (160, 96)
        assert driver.execute_script("return document.documentElement.scrollWidth") <= width
        assert hosts(driver) == {urlsplit(studio).netloc}


def test_what_is_no_photograph_is_said_in_a_line(studio: str, tmp_path: Path) -> None:
    wrong = tmp_path / "wrong.jpg"
    wrong.write_text("not a photograph")
    with browser() as driver:
        driver.get(studio)
        drop(driver, "#photo", wrong)
        said = wait(lambda: driver.find_elements("css selector", ".status .wrong"), SLOW_S)[0].text
        assert "not an image format" in said
        assert "/" not in said
        driver.find_element("id", "compress").click()
        wait(lambda: "not an image format" in status(driver), SLOW_S)


def test_a_clip_is_compressed_and_shown(studio: str, tmp_path: Path) -> None:
    pytest.importorskip("av")
    from difflate.media.clip import clip_of
    from difflate.media.picture import as_picture
    from difflate.media.video import write_clip

    frames = [as_picture(picture(size=(64, 48)).rotate(10 * i)) for i in range(6)]
    write_clip(clip_of(frames, 25), tmp_path / "clip.mp4")
    with browser(downloads=tmp_path) as driver:
        driver.get(studio)
        wait(lambda: driver.find_elements("css selector", "button[role=tab]"), SLOW_S)
        tab = next(tab for tab in driver.find_elements("css selector", "button[role=tab]") if tab.text == "Clip")
        tab.click()
        drop(driver, "#clip", tmp_path / "clip.mp4")
        wait(lambda: driver.find_element("id", "clip-compress").is_displayed())
        driver.find_element("id", "clip-compress").click()
        wait(lambda: "6 frames" in driver.find_element("css selector", "body").text, SLOW_S)
        video = wait(lambda: driver.find_elements("css selector", "#clip-restored video"), SLOW_S)[0]
        wait(lambda: video.get_property("videoWidth") == 64, SLOW_S)
        link = driver.find_element("css selector", "#clip-file a[download]")
        driver.execute_script("arguments[0].click()", link)
        file = tmp_path / link.get_attribute("download")
        wait(file.exists, SLOW_S)
        assert len(list(difflate.decode_clip(file).frames)) == 6


def test_noise_becomes_images_on_the_page(studio: str) -> None:
    with browser() as driver:
        driver.get(studio)
        wait(lambda: driver.find_elements("css selector", "button[role=tab]"), SLOW_S)[-1].click()
        wait(lambda: driver.find_element("id", "generate").is_displayed())
        driver.find_element("id", "generate").click()
        wait(lambda: status(driver, -1) == "Done.", SLOW_S)
        image = wait(lambda: driver.find_elements("css selector", "#made img"))[0]
        wait(lambda: image.get_property("naturalWidth") > 64)


def test_the_page_loads_nothing_from_elsewhere_and_gives_nothing_away(studio: str, tmp_path: Path) -> None:
    code, policy, text = fetched(studio)
    assert code == 200
    assert "default-src 'self'" in policy
    own = re.escape(urlsplit(studio).netloc)
    assert not re.search(rf"<(script|link|img|iframe)[^>]+(src|href)=[\"']?(https?:)?//(?!{own})", text)
    for place in (Path.home(), Path(difflate.__file__).parent, Path(sys.prefix)):
        assert str(place) not in text
    # a page of others that has its own name lead to this machine
    assert fetched(studio, headers={"Host": "elsewhere.example"})[0] == 400
    hidden = tmp_path / "hidden.txt"
    hidden.write_text("secret")
    for path in (hidden, Path(difflate.__file__), Path("/etc/passwd")):
        assert fetched(f"{studio}gradio_api/file={path}")[0] in (403, 404)
    assert [uploaded(studio, size) for size in (1000, 2**20 + 1)] == [200, 413]


def uploaded(studio: str, size: int) -> int:
    """The status of sending a file of that size."""
    head = b'--x\r\nContent-Disposition: form-data; name="files"; filename="a.png"\r\n\r\n'
    body = head + b"0" * size + b"\r\n--x--\r\n"
    kind = {"Content-Type": "multipart/form-data; boundary=x"}
    return fetched(f"{studio}gradio_api/upload", data=body, headers=kind, method="POST")[0]


def test_no_file_of_the_machine_can_be_named(studio: str, tmp_path: Path) -> None:
    photo = tmp_path / "photo.png"
    picture(size=(32, 16)).save(photo)
    for path in (str(photo), "http://192.0.2.1/photo.png", "photo.png"):
        named = {"path": path, "meta": {"_type": "gradio.FileData"}}
        body = json.dumps({"data": [named, None], "fn_index": 1, "session_hash": "x"}).encode()
        headers = {"Content-Type": "application/json"}
        assert fetched(f"{studio}gradio_api/queue/join", data=body, headers=headers)[0] == 403
    with browser() as driver:
        driver.get(studio)
        drop(driver, "#photo", photo)
        wait(lambda: "32 × 16 px" in status(driver), SLOW_S)
        shown = wait(lambda: driver.find_elements("css selector", "#slider img"), SLOW_S)[0].get_attribute("src")
        assert "/studio_" in shown
        assert "difflate-studio-" not in driver.page_source
