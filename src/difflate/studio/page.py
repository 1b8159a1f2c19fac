"""The page of the studio, in gradio; what it does stands in `photographs`, `clips` and `generators`."""

from __future__ import annotations

import base64
import html
import io
import itertools
import json
import logging
import math
import shutil
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from difflate import DEFAULT_CODEC
from difflate.errors import ConfigError, DifflateError
from difflate.extras import require
from difflate.limits import Limits
from difflate.media.picture import Picture, from_tensor, open_image, to_pil
from difflate.media.video import CLIP_SUFFIXES, write_clip
from difflate.studio.clips import MAX_FRAMES, ClipOutcome, Progress, clip_codecs, clips_work, compress_clip
from difflate.studio.errors import told
from difflate.studio.generators import MAX_IMAGES, draw, generators
from difflate.studio.photographs import Moment, Outcome, Refusal, Wish, compress, picture_codecs

log = logging.getLogger(__name__)

_BPP, _QUALITY, _DEFAULT = "bits per pixel", "quality", "each codec's own"
_FIRST_CODECS = (DEFAULT_CODEC, "jpeg")
_FIRST_CLIP_CODEC = "diffae-video-small"
_MOMENTS = 12
"""Of a photograph's diffusion that stay to be seen; of more steps every other one goes."""
_MOMENT_PX, _THUMBNAIL_PX = 1024, 256
_EVERY_S = 0.3
"""How often a page is told how far a clip is."""
_STORED_S = 3600
"""How long files of a page that was left are kept."""
CSS = """
.gradio-container { max-width: 1280px !important; width: 100%; margin: 0 auto; }
.gradio-container .main { width: 100%; padding: 1rem !important; }
.gradio-container .column { min-width: min(320px, 100%) !important; }
#results table { border-collapse: collapse; width: 100%; margin: 0; font-variant-numeric: tabular-nums; }
#results :is(table, thead, tbody, tr, th, td) { border: 0 !important; }
#results tbody tr { border-top: 1px solid var(--border-color-primary) !important; }
#results :is(th, td) { padding: .4rem .5rem; text-align: right; vertical-align: top; }
#results :is(th, td):first-child { text-align: left; padding-left: 0; }
#results small { display: block; opacity: .75; }
#results .wrong, .status .wrong { color: #b91c1c; }
.dark :is(#results, .status) .wrong { color: #fca5a5; }
#strip div { display: flex; gap: .5rem; overflow-x: auto; }
#strip figure { margin: 0; flex: 0 0 auto; }
#strip img { height: 128px; width: auto; border-radius: 4px; }
#strip figcaption { font-size: .8rem; opacity: .75; }
#files .label-clear-button { display: none; }
@media (max-width: 640px) { #results .time { display: none; } }
footer { display: none !important; }
"""


@dataclass(frozen=True)
class Settings:
    """What the owner of a studio decides."""

    folder: Path
    """For files of those who visit."""
    limits: Limits
    device: str = "cpu"


def build(settings: Settings) -> Any:
    """The page as gradio's Blocks. Raises ConfigError where gradio is not installed."""
    gr = require("gradio", "studio")
    # one at a time: each takes all cores
    alone: dict[str, Any] = {"concurrency_limit": 1, "concurrency_id": "work", "api_visibility": "private"}
    with gr.Blocks(title="Difflate studio", analytics_enabled=False, delete_cache=(600, _STORED_S)) as page:
        gr.Markdown("# Difflate studio\nWhat learned and classical codecs make of your photographs.")
        with gr.Tab("Photograph"):
            _photograph_tab(gr, settings, alone)
        if clips_work():
            with gr.Tab("Clip"):
                _clip_tab(gr, settings, alone)
        with gr.Tab("Generate"):
            _generator_tab(gr, settings, alone)
    return page


def theme() -> Any:
    """Of fonts that are there."""
    gr = require("gradio", "studio")
    return gr.themes.Default(font=["system-ui", "sans-serif"], font_mono=["ui-monospace", "monospace"])


def _photograph_tab(gr: Any, settings: Settings, alone: dict[str, Any]) -> None:
    codecs = picture_codecs()
    with gr.Row():
        with gr.Column(scale=1, min_width=320):
            source = gr.File(label="Photograph", type="filepath", height=120, elem_id="photo")
            chosen = gr.Dropdown(
                codecs, value=[name for name in _FIRST_CODECS if name in codecs], multiselect=True, label="Codecs",
                elem_id="codecs",
            )  # fmt: skip
            rate = gr.Radio([_BPP, _QUALITY, _DEFAULT], value=_BPP, label="Rate")
            bpp = gr.Slider(0.05, 3, value=0.4, step=0.05, label="at most, bits per pixel")
            quality = gr.Textbox(label="each codec's own number, as -q", placeholder="its default", visible=False)
            steps, seed = _diffusion_settings(gr)
            with gr.Row():
                go = gr.Button("Compress", variant="primary", min_width=120, elem_id="compress")
                stop = gr.Button("Stop", min_width=80)
        with gr.Column(scale=2, min_width=320):
            status = gr.HTML(_said("Drop a photograph, choose codecs, press Compress."), elem_classes="status")
            slider = gr.ImageSlider(
                label="Original and restored", type="filepath", image_mode=None, interactive=False, max_height=560,
                buttons=["fullscreen"], elem_id="slider",
            )  # fmt: skip
            strip = gr.HTML(elem_id="strip")
            beside = gr.Radio([], label="On the right", visible=False, elem_id="beside")
            table = gr.HTML(elem_id="results")
            files = gr.File(label="Files", file_count="multiple", visible=False, interactive=False, elem_id="files")
    run = gr.State(None, time_to_live=_STORED_S, delete_callback=_forget)

    def show_rate(kind: str) -> list[Any]:
        return [gr.Slider(visible=kind == _BPP), gr.Textbox(visible=kind == _QUALITY)]

    def cleared() -> dict[Any, Any]:
        return {
            run: None,
            slider: gr.ImageSlider(None, label="Original and restored"),
            table: "",
            strip: "",
            beside: gr.Radio(choices=[], visible=False),
            files: gr.File(None, visible=False),
        }

    def show(path: str | None, before: _Run | None) -> dict[Any, Any]:
        _forget(before)
        if path is None:
            return {**cleared(), status: _said("Drop a photograph, choose codecs, press Compress.")}
        try:
            picture = _opened(path, settings.limits)
        except Exception as error:
            return {**cleared(), status: _wrong(error)}
        mine = _Run.new(settings.folder)
        file = mine.image(picture, "original.png")
        size = f"{picture.width} × {picture.height} px, a file of {Path(path).stat().st_size:,} bytes"
        said = _said("; ".join([size, *picture.notes]))
        return {**cleared(), run: mine, slider: (file, file), status: said}

    def work(
        path: str | None, codecs: list[str], kind: str, bpp_value: float, quality_text: str, steps_text: str,
        seed_text: str, before: _Run | None,
    ) -> Iterator[dict[Any, Any]]:  # fmt: skip
        _forget(before)
        if path is None:
            yield {status: _wrong("There is no photograph yet; drop one first.")}
            return
        mine = _Run.new(settings.folder)
        rows: list[Outcome | Refusal] = []
        moments: list[tuple[str, str]] = []  # thumbnails and captions
        try:
            picture = _opened(path, settings.limits)
            original = mine.image(picture, "original.png")
            wish = Wish(
                bpp=bpp_value if kind == _BPP else None,
                quality=number("quality", quality_text) if kind == _QUALITY else None,
                steps=whole("steps", steps_text),
                seed=whole("seed", seed_text),
            )
            now = _said(f"{', '.join(codecs)} …")
            yield {**cleared(), run: mine, slider: (original, original), status: now}
            for event in compress(picture, Path(path).name, codecs, wish, settings.limits, settings.device):
                if isinstance(event, Moment):
                    caption = f"{event.codec}, step {event.step + 1}"
                    moments = _evenly([*moments, (_thumbnail(event), caption)])
                    now = gr.ImageSlider((original, mine.moment(event)), label=_label(caption))
                    yield {slider: now, strip: strip_of(moments), status: _said(caption)}
                    continue
                rows.append(event)
                changed: dict[Any, Any] = {table: results_table(rows)}
                if isinstance(event, Outcome):
                    mine.restored[event.codec] = mine.image(event.restored, f"restored.{event.codec}.png")
                    mine.written.append(mine.file(event.data, event.name))
                    changed |= {
                        beside: gr.Radio(choices=list(mine.restored), value=event.codec, visible=True),
                        files: gr.File(mine.written, visible=True),
                        slider: gr.ImageSlider((original, mine.restored[event.codec]), label=_label(event.codec)),
                        run: mine,
                    }
                yield changed
            yield {status: _said("Done.")}
        except Exception as error:
            yield {status: _wrong(error)}

    def switch(name: str | None, mine: _Run | None) -> Any:
        if mine is None or name not in mine.restored:
            return gr.skip()
        return gr.ImageSlider((str(mine.folder / "original.png"), mine.restored[name]), label=_label(name))

    rate.change(show_rate, rate, [bpp, quality], api_visibility="private", show_progress="hidden")
    outputs = [status, slider, beside, table, files, strip, run]
    source.change(show, [source, run], outputs, **alone, show_progress="hidden")
    _say_it_waits(go.click, status)
    going = go.click(
        work, [source, chosen, rate, bpp, quality, steps, seed, run],
        outputs, **alone, show_progress="hidden",
    )  # fmt: skip
    beside.input(switch, [beside, run], slider, api_visibility="private", show_progress="hidden")
    stop.click(lambda: _said("Stopped."), None, status, cancels=[going], api_visibility="private")


def _clip_tab(gr: Any, settings: Settings, alone: dict[str, Any]) -> None:
    codecs = clip_codecs()
    with gr.Row():
        with gr.Column(scale=1, min_width=320):
            source = gr.File(
                label=f"Clip, up to {MAX_FRAMES} frames", type="filepath", height=120, elem_id="clip",
                file_types=sorted(CLIP_SUFFIXES),
            )  # fmt: skip
            first = _FIRST_CLIP_CODEC if _FIRST_CLIP_CODEC in codecs else "hyperprior-small"
            codec = gr.Dropdown(codecs, value=first, label="Codec", elem_id="clip-codec")
            quality = gr.Textbox(label="Quality, the codec's own number as -q", placeholder="its default")
            steps, seed = _diffusion_settings(gr)
            with gr.Row():
                go = gr.Button("Compress", variant="primary", min_width=120, elem_id="clip-compress")
                stop = gr.Button("Stop", min_width=80)
        with gr.Column(scale=2, min_width=320):
            status = gr.HTML(_said("Drop a short clip, choose a codec, press Compress."), elem_classes="status")
            with gr.Row():
                original = gr.Video(label="Original", interactive=False, buttons=[], elem_id="clip-original")
                restored = gr.Video(label="Restored", interactive=False, buttons=[], elem_id="clip-restored")
            files = gr.File(label="File", visible=False, interactive=False, elem_id="clip-file")
    run = gr.State(None, time_to_live=_STORED_S, delete_callback=_forget)

    def shown(mine: _Run, outcome: ClipOutcome) -> dict[Any, Any]:
        # browsers show these, whatever the codec of the clip that was dropped
        videos = [mine.folder / "original.mp4", mine.folder / "restored.mp4"]
        for clip, target in zip((outcome.original, outcome.restored), videos, strict=True):
            write_clip(clip, target)
        return {
            run: mine,
            original: str(videos[0]),
            restored: str(videos[1]),
            status: _said(clip_facts(outcome)),
            files: gr.File(mine.file(outcome.data, outcome.name), visible=True),
        }

    def work(
        path: str | None, name: str, quality_text: str, steps_text: str, seed_text: str, before: _Run | None,
    ) -> Iterator[dict[Any, Any]]:  # fmt: skip
        _forget(before)
        if path is None:
            yield {status: _wrong("There is no clip yet; drop one first.")}
            return
        yield {status: _said(f"{name} …"), original: None, restored: None, files: gr.File(None, visible=False)}
        mine, said = _Run.new(settings.folder), 0.0
        try:
            for event in compress_clip(
                Path(path).read_bytes(),
                Path(path).name,
                name,
                settings.limits,
                quality=number("quality", quality_text),
                steps=whole("steps", steps_text),
                seed=whole("seed", seed_text),
                device=settings.device,
            ):
                if isinstance(event, Progress):
                    if time.monotonic() - said > _EVERY_S:
                        yield {status: _said(f"{name}: {event.what}, frame {event.frames}")}
                        said = time.monotonic()
                    continue
                yield shown(mine, event)
        except Exception as error:
            yield {status: _wrong(error)}

    _say_it_waits(go.click, status)
    going = go.click(
        work, [source, codec, quality, steps, seed, run], [status, original, restored, files, run], **alone,
        show_progress="hidden",
    )  # fmt: skip
    stop.click(lambda: _said("Stopped."), None, status, cancels=[going], api_visibility="private")


def _generator_tab(gr: Any, settings: Settings, alone: dict[str, Any]) -> None:
    names = generators()
    with gr.Row():
        with gr.Column(scale=1, min_width=320):
            model = gr.Dropdown(names, value=names[0] if names else None, label="Generator")
            count = gr.Slider(1, MAX_IMAGES, value=4, step=1, label="Images")
            steps = gr.Textbox(label="Steps", placeholder="the model's own")
            seed = gr.Textbox("0", label="Seed")
            with gr.Row():
                go = gr.Button("Generate", variant="primary", min_width=120, elem_id="generate")
                stop = gr.Button("Stop", min_width=80)
        with gr.Column(scale=2, min_width=320):
            status = gr.HTML(_said("Press Generate, and see noise become images."), elem_classes="status")
            made = gr.Image(
                label="Images", format="png", type="filepath", interactive=False, buttons=["download", "fullscreen"],
                elem_id="made",
            )  # fmt: skip

    def work(name: str, count: float, steps_text: str, seed_text: str) -> Iterator[dict[Any, Any]]:
        try:
            yield {status: _said("…")}
            steps, seed = whole("steps", steps_text), whole("seed", seed_text) or 0
            for drawn in draw(name, int(count), seed=seed, steps=steps, device=settings.device):
                words = f"time {drawn.t:.2f} of the diffusion; the images are at 0" if drawn.t else "Done."
                yield {made: to_pil(from_tensor(drawn.grid)), status: _said(words)}
        except Exception as error:
            yield {status: _wrong(error)}

    _say_it_waits(go.click, status)
    going = go.click(work, [model, count, steps, seed], [made, status], **alone, show_progress="hidden")
    stop.click(lambda: _said("Stopped."), None, status, cancels=[going], api_visibility="private")


def _say_it_waits(event: Any, status: Any) -> None:
    """What a browser says itself, at once; the work says more when its turn has come."""
    event(None, None, status, js=f"() => {json.dumps(_said('Waiting for its turn …'))}", api_visibility="private")


def _diffusion_settings(gr: Any) -> tuple[Any, Any]:
    """Inputs for steps and seed. Of text: of a number gradio makes 0 where it is empty."""
    with gr.Accordion("Diffusion", open=False, elem_id="diffusion"), gr.Row():
        steps = gr.Textbox(label="Steps", placeholder="the model's own", min_width=120)
        seed = gr.Textbox(label="Seed", placeholder="0", min_width=120)
    return steps, seed


def results_table(rows: Sequence[Outcome | Refusal]) -> str:
    """The HTML of what codecs made of a photograph."""
    return f"<table>{_HEAD}<tbody>{''.join(map(_row, rows))}</tbody></table>"


_HEAD = (
    "<thead><tr><th scope=col>Codec</th><th scope=col>Bytes</th><th scope=col>bpp</th><th scope=col>PSNR</th>"
    "<th scope=col class=time>Encoded</th><th scope=col class=time>Decoded</th></tr></thead>"
)


def _row(row: Outcome | Refusal) -> str:
    name = html.escape(row.codec)
    if isinstance(row, Refusal):
        return f"<tr><td colspan=6>{name}<small class=wrong>{html.escape(row.message)}</small></td></tr>"
    quality = "∞" if math.isinf(row.psnr) else f"{row.psnr:.2f} dB"
    cells = "".join(f"<td>{cell}</td>" for cell in (f"{len(row.data):,}", f"{row.bpp:.3f}", quality))
    times = "".join(f"<td class=time>{seconds:.1f} s</td>" for seconds in (row.encode_s, row.decode_s))
    return f"<tr><td>{name}<small>{html.escape('; '.join(row.notes))}</small></td>{cells}{times}</tr>"


def strip_of(moments: Sequence[tuple[str, str]]) -> str:
    """The HTML of steps of diffusion side by side, of (data URL, caption) each."""
    figures = (
        f'<figure><img src="{url}" alt=""><figcaption>{html.escape(caption)}</figcaption></figure>'
        for url, caption in moments
    )
    return f"<div tabindex=0 aria-label='Steps of diffusion'>{''.join(figures)}</div>"


def clip_facts(outcome: ClipOutcome) -> str:
    """One line on a file of a clip."""
    return (
        f"{len(outcome.data):,} bytes: {outcome.frames} frames, {outcome.bpp:.4f} bpp, {outcome.kbit_s:.1f} kbit/s, "
        f"PSNR {outcome.psnr:.2f} dB, encoded in {outcome.encode_s:.1f} s, decoded in {outcome.decode_s:.1f} s"
    )


@dataclass
class _Run:
    """The files of one press of a button."""

    folder: Path
    restored: dict[str, str] = field(default_factory=dict)
    """Codec to the path of what it restored."""
    written: list[str] = field(default_factory=list)
    """Paths of the codecs' files."""
    numbers: Iterator[int] = field(default_factory=itertools.count)

    @classmethod
    def new(cls, below: Path) -> _Run:
        return cls(Path(tempfile.mkdtemp(dir=below)))

    def image(self, picture: Picture, name: str) -> str:
        """The path of a PNG file with the exact colours, without alpha, which the measures do not see either."""
        path = self.folder / name
        to_pil(Picture(picture.pixels)).save(path, compress_level=1)
        return str(path)

    def moment(self, moment: Moment) -> str:
        """The path of a JPEG file."""
        path = self.folder / f"step{next(self.numbers)}.jpg"
        path.write_bytes(_jpeg(moment, _MOMENT_PX, 90))
        return str(path)

    def file(self, data: bytes, name: str) -> str:
        path = self.folder / name
        path.write_bytes(data)
        return str(path)


def _jpeg(moment: Moment, side_px: int, quality: int) -> bytes:
    """Scaled to a longer side of at most ``side_px``."""
    image, file = to_pil(Picture(moment.pixels)), io.BytesIO()
    image.thumbnail((side_px, side_px))
    image.save(file, "JPEG", quality=quality)
    return file.getvalue()


def _thumbnail(moment: Moment) -> str:
    """A data URL."""
    return "data:image/jpeg;base64," + base64.b64encode(_jpeg(moment, _THUMBNAIL_PX, 85)).decode()


def _forget(run: _Run | None) -> None:
    if run is not None:
        shutil.rmtree(run.folder, ignore_errors=True)


def _opened(path: str, limits: Limits) -> Picture:
    """The picture in a file that was dropped, which errors do not name. Raises DifflateError."""
    return open_image(Path(path).read_bytes(), limits=limits)


def _evenly(moments: list[tuple[str, str]]) -> list[tuple[str, str]]:
    """At most `_MOMENTS` of them: every other one is left out when there are more, the last never."""
    return moments if len(moments) <= _MOMENTS else moments[:-1:2] + moments[-1:]


def number(name: str, text: str | None) -> float | None:
    """What ``text`` of the setting ``name`` says; None where it is empty. Raises ConfigError."""
    text = (text or "").strip()  # None where it was never shown
    try:
        return float(text) if text else None
    except ValueError as error:
        raise ConfigError(f"{name} (={text[:20]}) must be a number, or empty") from error


def whole(name: str, text: str | None) -> int | None:
    """The same of a whole number."""
    text = (text or "").strip()
    try:
        return int(text) if text else None
    except ValueError as error:
        raise ConfigError(f"{name} (={text[:20]}) must be a whole number, or empty") from error


def _label(codec: str) -> str:
    return f"Left: the original · right: {codec}"


def _said(text: str) -> str:
    return f"<p role=status>{html.escape(text)}</p>"


def _wrong(error: Exception | str) -> str:
    """The line of an error; one that nobody expected goes to the terminal whole."""
    if isinstance(error, str):
        message = error
    else:
        message = told(error)
        if not isinstance(error, DifflateError):
            log.error("the studio: unexpected %s", type(error).__name__, exc_info=error)
    return f"<p role=alert class=wrong>{html.escape(message)}</p>"
