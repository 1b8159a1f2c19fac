"""The report and the study in headless Chromium."""

import json
from pathlib import Path
from typing import Any

import pytest

from browser_helpers import browser, wait
from difflate.cli.main import main
from difflate.evaluate.compressai import Overlay
from fake_codecs import save
from report_helpers import small_report

pytestmark = pytest.mark.browser

OVERLAY = Overlay("VTM", "reference", "vtm.json", {"bpp": (0.5, 1.0, 2.0, 3.0), "psnr": (30.0, 33.0, 36.0, 39.0)})


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("report")
    small_report(folder, (OVERLAY,))
    return folder / "report"


def texts(driver: Any, selector: str) -> list[str]:
    return [found.text for found in driver.find_elements("css selector", selector)]


def pixel(driver: Any, x: float) -> list[int]:
    """The canvas' pixel at half its height and that part of its width."""
    return driver.execute_script(
        "const c = document.getElementById('canvas');"
        "return [...c.getContext('2d').getImageData(Math.floor(c.width * arguments[0]), c.height >> 1, 1, 1).data]",
        x,
    )


def test_the_page_alone_is_a_report(report: Path, tmp_path: Path) -> None:
    from selenium.webdriver.common.keys import Keys

    page = tmp_path / "alone.html"
    page.write_bytes((report / "report.html").read_bytes())
    with browser() as driver:
        driver.get(page.as_uri())
        # the pictures that are in the page, since there are no others beside it
        note = wait(lambda: "re-encoded" in driver.find_element("id", "view-note").text)
        assert note
        assert not driver.find_element("id", "exact").is_selected()
        # curves, codecs that are shown and not
        assert len(driver.find_elements("css selector", "#charts .chart")) == 4
        lines = "#charts .chart:first-child g.curve"
        assert len(driver.find_elements("css selector", lines)) == 3
        driver.find_elements("css selector", "#legend button")[0].click()
        assert len(driver.find_elements("css selector", lines)) == 2
        chart = driver.find_element("css selector", "#charts .chart:first-child svg")
        chart.send_keys(Keys.ARROW_RIGHT)
        assert texts(driver, "#charts .chart:first-child .tip b") == ["webp:10"]
        tip = driver.find_element("css selector", "#charts .chart:first-child .tip").rect
        mark = driver.find_element("css selector", "#charts .chart:first-child g.curve .mark").rect
        assert abs(tip["y"] - mark["y"]) < 30  # beside what it is of
        assert abs(tip["x"] - mark["x"]) < 30
        places = [driver.execute_script(f"return document.querySelector('{lines} .mark').getAttribute('transform')")]
        driver.find_element("css selector", "#scale input[value=linear]").click()
        places.append(
            driver.execute_script(f"return document.querySelector('{lines} .mark').getAttribute('transform')")
        )
        assert places[0] != places[1]
        # the divider, by keys
        driver.execute_script("document.querySelector('#zoom input[value=\"2\"]').click()")
        divider = driver.find_element("id", "divider")
        before = pixel(driver, 0.6)
        divider.send_keys(Keys.END)
        assert divider.get_attribute("value") == "1000"
        assert "100 % left" in (divider.get_attribute("aria-valuetext") or "")
        left = pixel(driver, 0.6)
        divider.send_keys(Keys.HOME)
        assert pixel(driver, 0.6) == before != left
        # a table
        head = driver.find_element("css selector", "#settings-table th:nth-child(4)")
        head.find_element("css selector", "button").click()
        column = "#settings-table tbody tr :nth-child(4)"
        assert head.get_attribute("aria-sort") == "descending"
        sizes = [float(text.replace("∞", "inf")) for text in texts(driver, column)]
        assert sizes == sorted(sizes, reverse=True)
        head.find_element("css selector", "button").click()
        assert head.get_attribute("aria-sort") == "ascending"
        assert [float(text.replace("∞", "inf")) for text in texts(driver, column)] == sizes[::-1]
        # the worst image first, of another measure too
        assert len(driver.find_elements("css selector", "#worst a")) == 3
        values = [float(text.split(" dB")[0]) for text in texts(driver, "#worst small")]
        assert values == sorted(values)
        driver.find_elements("css selector", "#worst a")[2].click()
        name = texts(driver, "#worst a[aria-current] span")[0].splitlines()[0]
        assert driver.find_element("id", "viewer-title").text == name
        assert "+" in texts(driver, "#bd-table tbody td")[1] + texts(driver, "#bd-table tbody td")[2]


def test_exact_pixels_are_those_of_the_folder_beside_the_page(report: Path) -> None:
    with browser() as driver:
        driver.get((report / "report.html").as_uri())
        wait(lambda: "Exact pixels" in driver.find_element("id", "view-note").text)
        assert driver.find_element("id", "exact").is_selected()


@pytest.mark.parametrize("name", ["report.html", "study.html"])
def test_nothing_reaches_beyond_the_width_of_a_phone(name: str, report: Path) -> None:
    if not (report / "study.html").exists():
        assert main(["study", str(report), "--tolerance", "50"]) == 0
    with browser(390) as driver:
        driver.get((report / name).as_uri())
        if name == "study.html":
            driver.find_element("id", "begin").click()
            wait(lambda: driver.find_element("id", "left").is_displayed())
        assert driver.execute_script("return document.documentElement.scrollWidth") <= 390


def test_a_report_of_one_file_with_a_long_name(tmp_path: Path, run: Any) -> None:
    name = f"{'long' * 50}.png"
    save(tmp_path / "images" / name, 0, 20, 300)
    assert run("eval", tmp_path / "images", "--codecs", "jpeg:50", "--out", tmp_path / "report")[0] == 0
    with browser(390) as driver:
        driver.get((tmp_path / "report" / "report.html").as_uri())
        wait(lambda: "Exact pixels" in driver.find_element("id", "view-note").text)
        assert driver.execute_script("return document.documentElement.scrollWidth") <= 390
        assert "1 image, 1 codec, 1 setting;" in driver.find_element("id", "summary").text
        axis = [text for text in texts(driver, "#charts .chart:first-child text[text-anchor=middle]") if text]
        assert len(axis) > 2  # numbers, besides the unit
        assert driver.find_element("id", "canvas").size["height"] >= 90  # though the image is flat
        assert "No two codecs" in driver.find_element("id", "bd-table").text


def test_a_study_is_answered_and_scored(report: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from selenium.webdriver.common.keys import Keys

    page = tmp_path / "study.html"
    assert main(["study", str(report), "--tolerance", "50", "-o", str(page), "--original"]) == 0
    assert "3 pairs" in capsys.readouterr().out
    with browser(downloads=tmp_path) as driver:
        driver.get(page.as_uri())
        driver.find_element("id", "begin").click()
        body = driver.find_element("css selector", "body")
        for i, key in enumerate((Keys.ARROW_LEFT, Keys.ARROW_RIGHT, Keys.ARROW_LEFT)):
            wait(lambda i=i: driver.execute_script("return shownAt !== null") and f"{i + 1} of 3" in body.text)
            shown = driver.find_element("id", "left").get_attribute("src")
            driver.execute_script("original(true)")
            assert driver.find_element("id", "left").get_attribute("src") != shown
            driver.execute_script("original(false)")
            body.send_keys(key)
        wait(lambda: driver.find_element("id", "save").is_displayed())
        driver.find_element("id", "save").click()
        wait(lambda: (tmp_path / "answers.json").exists())
    answers = json.loads((tmp_path / "answers.json").read_text())
    assert [answer["chosen"] for answer in answers["answers"]] == ["left", "right", "left"]
    assert main(["study", "--score", str(tmp_path / "answers.json"), "--report", str(report), "--json"]) == 0
    score = json.loads(capsys.readouterr().out)
    assert (score["question"], score["answers"], score["left_share"]) == ("closer", 3, 2 / 3)
    by_hand = sum(answer[answer["chosen"]]["codec"] == "jpeg" for answer in answers["answers"])
    [preference] = score["preferences"]
    assert preference["chosen"] == (by_hand if preference["codec"] == "jpeg" else 3 - by_hand)
