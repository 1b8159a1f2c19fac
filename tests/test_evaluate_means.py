"""Means over images, BD-rates between codecs, and the plots of both."""

import io
import math
from dataclasses import replace
from typing import Any

import pytest
from matplotlib.figure import Figure

from difflate.errors import ConfigError
from difflate.evaluate.means import Anchor, bd_rates, mean_rows
from difflate.evaluate.plot import line_style, quality_plots
from difflate.evaluate.records import Record
from difflate.evaluate.report import as_json, bd_table, markdown, rate_distortion_png, table

BD_KEYS = ("psnr", "ssim_db", "ms_ssim_db", "ssimulacra2")


def curve(codec: str, factor: float = 1, *, count: int = 6, images: int = 2, net: str | None = None) -> list[Record]:
    """Records of ``count`` settings of a codec that has ``factor`` times the rate of another."""
    return [
        Record(
            image=f"{image}.png",
            codec=codec,
            quality=quality,
            setting=f"{codec}:{quality}",
            values={
                "bpp": factor * (quality**2 / 20 + image / 50),
                "psnr": 25.0 + quality + image,
                "ssim": 1 - 0.2 / quality,
                "ms_ssim": 1 - 0.1 / quality,
                "ssimulacra2": 10.0 * quality,
            }
            | ({"lpips": 0.3 / quality} if net else {}),
            nets={"lpips": net} if net else {},
        )
        for image in range(images)
        for quality in range(1, count + 1)
    ]


def changed(records: list[Record], image: str, quality: float | None = None, **values: float) -> list[Record]:
    """``records`` with other values where image and quality are those."""
    return [
        replace(record, values={**record.values, **values})
        if record.image == image and quality in (None, record.quality)
        else record
        for record in records
    ]


def test_means_are_per_image() -> None:
    first, *_ = mean_rows(curve("jpeg"))
    assert (first["setting"], first["images"], first["failed"], first["lossless"]) == ("jpeg:1", 2, 0, 0)
    assert first["psnr"] == 26.5
    assert first["bpp"] == pytest.approx(0.06)


def test_bd_rate_of_the_means_against_jpeg() -> None:
    records = [*curve("jpeg"), *curve("new", 0.8), *curve("short", count=3)]
    assert bd_rates(records) == {"new": dict.fromkeys(BD_KEYS, pytest.approx(-20))}
    assert bd_rates(curve("new")) == {}


def test_bd_rates_against_any_anchor() -> None:
    records = [*curve("jpeg", net="alex"), *curve("avif", 0.8, net="alex"), *curve("webp", 0.9, net="alex")]
    keys = (*BD_KEYS, "lpips")
    assert bd_rates(records, Anchor("avif")) == {
        "jpeg": dict.fromkeys(keys, pytest.approx(25)),
        "webp": dict.fromkeys(keys, pytest.approx(12.5)),
    }
    assert set(bd_rates(records)) == {"avif", "webp"}
    text = bd_table(records, Anchor("avif", (0.2, 0.8)))
    assert text.startswith("BD-rate against avif, at the qualities it has from 0.2 to 0.8 bpp (negative: fewer bits")
    assert "| codec | PSNR | SSIM | MS-SSIM | SSIMULACRA2 | LPIPS alex |\n" in text
    assert "| webp |" + 5 * " +12.5 % |" + "\n" in text
    assert text in markdown(records, anchor=Anchor("avif", (0.2, 0.8)))
    protocol = as_json(records, anchor=Anchor("avif", (0.2, 0.8)))["protocol"]
    assert (protocol["bd_anchor"], protocol["bpp_range"], protocol["lpips_net"]) == ("avif", [0.2, 0.8], "alex")
    assert bd_table(records, Anchor("none")) == ""


def test_without_lpips_nothing_mentions_it() -> None:
    records = [*curve("jpeg"), *curve("avif", 0.8)]
    assert "LPIPS" not in table(records) + bd_table(records)
    assert set(bd_rates(records)["avif"]) == set(BD_KEYS)


def test_backbones_are_not_mixed() -> None:
    with pytest.raises(ConfigError, match="LPIPS of alex and vgg"):
        mean_rows([*curve("jpeg", net="alex"), *curve("avif", net="vgg")])


def test_curves_of_different_images_are_not_compared() -> None:
    avif = [
        replace(record, values={}, error="damaged") if record.image == "1.png" else record
        for record in curve("avif", 0.8)
    ]
    records = [*curve("jpeg"), *avif]
    assert "not all images have psnr in each setting of jpeg and avif" in str(bd_rates(records)["avif"]["psnr"])
    assert "| avif | – | – | – |" in bd_table(records)


def test_a_curve_without_overlap_has_a_sentence_for_its_bd_rate() -> None:
    far = changed(changed(curve("far"), "0.png", psnr=99), "1.png", psnr=99)
    far = [replace(r, values={**r.values, "psnr": 90.0 + (r.quality or 0)}) for r in far]
    assert "no quality in common" in str(bd_rates([*curve("jpeg"), *far])["far"]["psnr"])
    assert "| far | – |" in markdown([*curve("jpeg"), *far])


# Lossless images


def test_the_mean_psnr_is_that_of_the_images_with_an_error() -> None:
    records = changed(curve("new", images=3), "1.png", 6, psnr=math.inf)
    row = mean_rows(records)[5]
    assert row["psnr"] == ((25 + 6) + (25 + 6 + 2)) / 2
    assert (row["images"], row["lossless"], row["counts"]["psnr"], row["counts"]["bpp"]) == (3, 1, 2, 3)
    text = table(records)
    assert "| new:6 | 3 | 1.820 | 32.00† |" in text
    assert "| new:5 | 3 | 1.270 | 31.00 |" in text
    assert text.endswith("|\n\n† PSNR of the images with an error; restored without one: new:6 (1)\n")
    assert as_json(records)["means"][5]["lossless"] == 1


def test_the_psnr_of_a_lossless_setting_is_infinite() -> None:
    records = changed(curve("new", images=1), "0.png", 6, psnr=math.inf)
    row = mean_rows(records)[5]
    assert (row["psnr"], row["lossless"], row["counts"]["psnr"]) == (math.inf, 1, 1)
    text = table(records)
    assert "| ∞ |" in text
    assert "†" not in text
    assert as_json(records)["means"][5]["psnr"] is None


def test_a_lossless_image_counts_in_no_point_of_a_bd_rate() -> None:
    # the rates of image 1 would spoil it, and so would its qualities below the setting that restores it
    jpeg, new = curve("jpeg", images=3), changed(curve("new", 0.8, images=3), "1.png", bpp=9.0)
    rates = bd_rates([*jpeg, *changed(new, "1.png", 6, psnr=math.inf)])["new"]
    assert rates["psnr"] == pytest.approx(-20)
    assert isinstance(rates["ssimulacra2"], str) or rates["ssimulacra2"] > 0  # of all three images
    lossless = [replace(r, values={**r.values, "psnr": math.inf}) if r.quality == 6 else r for r in new]
    assert "each image has an infinite PSNR in a setting of jpeg and new" in str(
        bd_rates([*jpeg, *lossless])["new"]["psnr"]
    )


# Plots


def test_no_two_codecs_look_alike() -> None:
    styles = [line_style(i) for i in range(96)]
    assert len({(style["color"], style["marker"]) for style in styles}) == 96
    assert len({style["color"] for style in styles[:14]}) == 14
    assert len({str(style["linestyle"]) for style in styles[::14]}) == 5


def test_the_legend_has_the_codecs_in_their_order(monkeypatch: pytest.MonkeyPatch) -> None:
    figures: list[Any] = []
    saved = Figure.savefig

    def savefig(figure: Figure, file: io.BytesIO, **options: Any) -> None:
        figures.append(figure)
        saved(figure, file, **options)

    monkeypatch.setattr(Figure, "savefig", savefig)
    codecs = [f"codec{i}" for i in range(14)]
    points = [(0.1, 30.0), (0.2, 31.0)]
    quality_plots({codec: {"psnr": points[: 1 + i % 2]} for i, codec in enumerate(codecs)}, {"psnr": "PSNR (dB)"})
    assert [text.get_text() for text in figures[0].legends[0].get_texts()] == codecs
    looks = {(line.get_color(), line.get_marker()) for line in figures[0].axes[0].get_lines()}
    assert len(looks) == 14


def test_lossless_settings_are_not_drawn(monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: list[Any] = []
    monkeypatch.setattr("difflate.evaluate.plot.quality_plots", lambda *given: drawn.extend(given))
    records = changed(curve("new", images=2), "1.png", 5, psnr=math.inf)
    records = [r if r.quality != 6 else replace(r, values={**r.values, "psnr": math.inf}) for r in records]
    rate_distortion_png(records)
    assert [db for _, db in drawn[0]["new"]["psnr"]] == [26.5, 27.5, 28.5, 29.5, 30]
    assert drawn[1] == {"psnr": "PSNR (dB)", "ssim": "SSIM", "ms_ssim": "MS-SSIM", "ssimulacra2": "SSIMULACRA2"}
