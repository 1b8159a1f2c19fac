"""The studio without a browser: what it does with photographs, clips and generators, and what it lets out."""

import asyncio
import json
import socket
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import difflate
from cli_helpers import Run, picture
from difflate.errors import ConfigError, LimitExceeded, ModelError
from difflate.limits import DEFAULT_LIMITS, Limits
from difflate.media.picture import Picture, as_picture
from difflate.studio import clips, generators, photographs, watching
from difflate.studio.errors import told
from difflate.studio.own_files import MAX_BODY_BYTES, OwnFiles
from difflate.studio.photographs import Moment, Outcome, Refusal, Wish, compress
from difflate.studio.watching import Canvas, Stopped, streamed

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture
def every_step(monkeypatch: pytest.MonkeyPatch) -> None:
    """None is left out because it came too soon."""
    monkeypatch.setattr(watching, "_EVERY_S", 0)


def test_what_is_told_comes_in_order_and_an_error_last() -> None:
    def work(tell: Callable[[int], None]) -> None:
        for number in range(3):
            tell(number)
        raise ConfigError("no more")

    stream = streamed(work)
    assert [next(stream) for _ in range(3)] == [0, 1, 2]
    with pytest.raises(ConfigError, match="no more"):
        next(stream)


def test_work_that_nobody_listens_to_ends() -> None:
    go, ended = threading.Event(), threading.Event()

    def work(tell: Callable[[int], None]) -> None:
        tell(0)
        go.wait(10)
        try:
            tell(1)
        except Stopped:
            ended.set()
            raise

    stream = streamed(work)
    assert next(stream) == 0
    stream.close()  # type: ignore[attr-defined]
    go.set()
    assert ended.wait(10)


@pytest.mark.parametrize("name", ["cdc-small", "diffae-small"])
def test_steps_are_watched_in_every_tile(name: str) -> None:
    codec, made = difflate.load(name), as_picture(picture(size=(680, 24)))
    data, seen = codec.encode(made, tile_px=656), []
    plain = codec.decode(data, steps=2, tile_px=656)

    def watch(step: int, top: int, left: int, image: torch.Tensor) -> None:
        seen.append((step, top, left))
        assert image.shape[0] == 3
        assert image.shape[1] >= 24

    watched = codec.decode(data, steps=2, tile_px=656, watch=watch)
    np.testing.assert_array_equal(plain.pixels, watched.pixels)
    assert [step for step, *_ in seen] == [0, 1, 0, 1]
    assert seen[0][1:] == (0, 0)
    assert seen[2][1] == 0 < seen[2][2] < 680
    assert seen[0][1:] == seen[1][1:]


def test_the_last_step_is_the_image(every_step: None) -> None:
    photo = as_picture(picture(size=(96, 64)))
    happened = list(compress(photo, "a/b.png", ["cdc-small"], Wish(steps=3, seed=7), DEFAULT_LIMITS))
    *moments, outcome = happened
    assert isinstance(outcome, Outcome)
    assert [moment.step for moment in moments if isinstance(moment, Moment)] == [0, 1, 2]
    assert isinstance(moments[-1], Moment)
    # differs by the blending of a single tile at most, which rounds once more
    assert np.abs(moments[-1].pixels.astype(int) - outcome.restored.pixels).max() <= 1
    assert np.any(moments[0].pixels != moments[-1].pixels)
    assert outcome.name == "b.cdc-small.dfl"
    # anybody who reads the file gets the same image: steps and seed stand in it
    np.testing.assert_array_equal(np.asarray(difflate.decode(outcome.data)).transpose(2, 0, 1), outcome.restored.pixels)


def test_each_codec_has_an_outcome_or_says_why_not() -> None:
    photo = as_picture(picture(size=(96, 64)))
    names = ["jpeg", "opq-32-8-8", "png", "nothing"]
    rows = list(compress(photo, "photo.png", names, Wish(bpp=1.5, steps=4), DEFAULT_LIMITS))
    assert [row.codec for row in rows] == names
    jpeg, opq, png, nothing = rows
    assert isinstance(jpeg, Outcome)
    assert jpeg.bpp == 8 * len(jpeg.data) / (96 * 64) <= 1.5
    assert jpeg.notes[0].startswith("quality ")
    assert isinstance(opq, Outcome)
    assert opq.notes == ("has one quality only",)
    assert isinstance(png, Outcome)
    assert png.psnr == float("inf")
    assert isinstance(nothing, Refusal)
    assert "unknown" in nothing.message
    [refused] = compress(photo, "photo.png", ["jpeg"], Wish(quality=101), DEFAULT_LIMITS)
    assert isinstance(refused, Refusal)
    assert "from 1 to 100" in refused.message
    [refused] = compress(photo, "photo.png", ["jpeg"], Wish(), Limits(pixels=100))
    assert isinstance(refused, Refusal)
    assert "Python" not in refused.message
    with pytest.raises(ConfigError, match="no codec"):
        compress(photo, "photo.png", [], Wish(), DEFAULT_LIMITS)


def test_a_canvas_is_grey_where_no_tile_has_come(every_step: None) -> None:
    shown: list[np.ndarray] = []
    canvas = Canvas(3, 5, lambda step, pixels: shown.append(pixels))
    canvas(0, 0, 2, torch.ones(3, 4, 4))
    canvas(0, 0, 0, -torch.ones(3, 4, 2))
    assert shown[0][0].tolist() == [[128, 128, 255, 255, 255]] * 3
    assert shown[1][0].tolist() == [[0, 0, 255, 255, 255]] * 3


def test_errors_name_no_folder() -> None:
    assert told(ModelError("/home/me/models/x: config.json is missing")) == "x: config.json is missing"
    assert told(ConfigError("choose from 1/2 or a/b (='/var/lib/thing')")) == "choose from 1/2 or a/b (='thing')"
    assert told(ConfigError("image data: the file is empty")) == "the file is empty"
    assert "/secret" not in told(OSError("/secret/place"))
    with pytest.raises(LimitExceeded) as limit:
        Limits(pixels=1).check_size(2, 2)
    assert told(limit.value).startswith("image is 2x2 px, above the limit of 1 pixels")
    assert "Python" not in told(limit.value)


def test_codecs_of_clips_alone_are_not_offered_for_photographs() -> None:
    names = photographs.picture_codecs()
    assert {"cdc-small", "diffae-small", "jpeg"} <= set(names)
    assert not any("video" in name for name in names)
    assert "avc" in clips.clip_codecs()


def test_a_clip_is_coded_and_measured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("av")
    from difflate.media.clip import clip_of
    from difflate.media.video import write_clip

    write_clip(clip_of([as_picture(picture(size=(64, 48))) for _ in range(5)], 25), tmp_path / "c.mkv")
    data = (tmp_path / "c.mkv").read_bytes()
    *progress, outcome = clips.compress_clip(data, "c.mkv", "hyperprior-small", DEFAULT_LIMITS, quality=40, steps=3)
    assert [(step.what, step.frames) for step in progress if isinstance(step, clips.Progress)] == [
        (what, number) for what in ("encoding", "decoding") for number in range(1, 6)
    ]
    assert isinstance(outcome, clips.ClipOutcome)
    assert (outcome.frames, outcome.name) == (5, "c.hyperprior-small.dfl")
    assert outcome.bpp == 8 * len(outcome.data) / (5 * 64 * 48)
    assert outcome.kbit_s == pytest.approx(8 * len(outcome.data) * 5 / 1000)
    assert 20 < outcome.psnr < 60
    assert len(list(difflate.decode_clip(outcome.data).frames)) == 5
    monkeypatch.setattr(clips, "MAX_FRAMES", 4)
    with pytest.raises(LimitExceeded):
        list(clips.compress_clip(data, "c.mkv", "hyperprior-small", DEFAULT_LIMITS))


def test_noise_becomes_images() -> None:
    [name] = generators.generators()
    drawn = list(generators.draw(name, 2, steps=2, seed=3))
    assert drawn[-1].t == 0
    assert len(drawn) == 2
    assert drawn[0].grid.shape == drawn[-1].grid.shape
    with pytest.raises(ConfigError, match="from 1 to 16"):
        generators.draw(name, 17)


# The command


def test_a_port_that_is_taken_is_one_line(run: Run) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        code, _, err = run("studio", "--port", str(port))
    told = f"difflate: port {port} is taken; choose another with --port, or 0 for any that is free\n"
    assert (code, err) == (2, told)
    code, _, err = run("studio", "--port", "70000")
    assert (code, err.count("\n")) == (2, 1)
    code, _, err = run("studio", "--megapixels", "0")
    assert code == 2
    assert "--megapixels" in err


def test_without_gradio_the_extra_is_named(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("GRADIO_TEMP_DIR", "GRADIO_ANALYTICS_ENABLED", "HF_HUB_DISABLE_TELEMETRY"):
        monkeypatch.setenv(name, "")  # as it was, afterwards
    monkeypatch.setitem(sys.modules, "gradio", None)
    code, out, err = run("studio", "--port", "0")
    assert (code, out, err) == (2, b"", "difflate: gradio is not installed; run: pip install 'difflate[studio]'\n")


def test_an_outcome_is_shown_as_text_whatever_its_names_are() -> None:
    from difflate.studio.page import results_table

    photo = Picture(np.zeros((1, 2, 2), np.uint8))
    rows = [Outcome("<b>", "f", b"12345", photo, 10.0, 30.0, 0.1, 0.2, ("&",)), Refusal("c", "<script>")]
    table = results_table(rows)
    assert "&lt;b&gt;" in table
    assert "&lt;script&gt;" in table
    assert ">5<" in table


def test_a_field_is_a_number_or_empty() -> None:
    from difflate.studio.page import number, whole

    assert (whole("steps", " 3 "), whole("steps", ""), whole("steps", None)) == (3, None, None)
    assert (number("quality", "1.5"), number("quality", " ")) == (1.5, None)
    for read, text in ((whole, "1.5"), (whole, "x"), (number, "x" * 99)):
        with pytest.raises(ConfigError, match="number, or empty") as error:
            read("seed", text)
        assert len(str(error.value)) < 80


def asked(app: OwnFiles, path: str, body: bytes = b"") -> tuple[int, bytes]:
    """Status and body of what the application answers."""
    sent: list[dict] = []

    async def receive() -> dict:
        return {"type": "http.request", "body": body}

    async def send(message: dict) -> None:
        sent.append(message)

    asyncio.run(app({"type": "http", "path": path, "headers": [(b"accept-encoding", b"gzip")]}, receive, send))
    return sent[0]["status"], b"".join(message.get("body", b"") for message in sent)


def test_browsers_name_the_studios_own_files_alone_and_learn_no_folder(tmp_path: Path) -> None:
    heard: list[tuple[str, bytes]] = []

    async def inner(scope: dict, receive: Any, send: Any) -> None:
        assert scope["headers"] == []
        heard.append((scope["path"], (await receive())["body"]))
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/html")]})
        await send({"type": "http.response.body", "body": f"in {tmp_path}/a.png".encode()})

    app = OwnFiles(inner, tmp_path)
    shown = app.shown.decode()
    status, answer = asked(app, f"/file={shown}/a.png", json.dumps([{"path": f"{shown}/a.png"}]).encode())
    assert (status, answer) == (200, f"in {shown}/a.png".encode())
    assert heard.pop() == (f"/file={tmp_path}/a.png", json.dumps([{"path": f"{tmp_path}/a.png"}]).encode())
    for path in ("/etc/passwd", "a.png", "", f"{shown}/../a.png", str(tmp_path), "http://a.example/b.png"):
        assert asked(app, "/queue/join", json.dumps({"data": [[{"path": path}]]}).encode())[0] == 403
    assert asked(app, "/queue/join", b"[" * 100_000)[0] == 403
    assert asked(app, "/queue/join", b" " * (MAX_BODY_BYTES + 1))[0] == 413
    assert asked(app, "/upload", b"{}" * MAX_BODY_BYTES)[0] == 200
    assert len(heard) == 1
