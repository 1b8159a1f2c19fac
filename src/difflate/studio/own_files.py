"""Between browsers and the files of the studio: they can name these alone, and never learn where they lie."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

MAX_BODY_BYTES = 2**20
"""Of a request that is no upload; those of the page are small."""
_TEXTS = (b"text/html", b"application/json", b"text/event-stream")
_SHOWN = b"/studio"
_REFUSED = (403, "only files that were dropped here can be named")
_TOO_LARGE = (413, "the request is too large")


class OwnFiles:
    """An ASGI application around that of gradio, which is mounted, not launched, and then takes any path or address
    that a request names: it copies files from wherever they lie, and fetches what an address leads to.

    Here a request that names another file than one below ``folder`` is refused. In what is answered ``folder`` is
    another name of as many bytes, so that lengths and parts of answers stay as they are; in requests it is put back.
    """

    def __init__(self, app: Any, folder: Path):
        self.app = app
        self.real = os.path.realpath(folder).encode()
        self.shown = _SHOWN.ljust(len(self.real), b"_")

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """See ASGI."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        if not scope["path"].endswith("/upload"):  # which takes what is dropped, of any size
            body = await _whole(receive)
            if body is None or not self._own(body := body.replace(self.shown, self.real)):
                await _refuse(send, *(_TOO_LARGE if body is None else _REFUSED))
                return
            receive = _again(body, receive)
        # what is compressed could not be looked through; programs of the page may be
        packed = scope["path"].startswith("/assets/")
        headers = [pair for pair in scope["headers"] if packed or pair[0] != b"accept-encoding"]
        place = scope["path"].replace(self.shown.decode(), self.real.decode())
        raw = scope.get("raw_path", b"").replace(self.shown, self.real)
        text = False

        async def hidden(message: Any) -> None:
            nonlocal text
            if message["type"] == "http.response.start":
                kind = dict(message.get("headers", ())).get(b"content-type", b"")
                text = kind.startswith(_TEXTS)
            elif text and message["type"] == "http.response.body":
                message = {**message, "body": message.get("body", b"").replace(self.real, self.shown)}
            await send(message)

        await self.app({**scope, "path": place, "raw_path": raw, "headers": headers}, receive, hidden)

    def _own(self, body: bytes) -> bool:
        """Whether all files that the JSON ``body`` names lie in the folder; text that is none names none."""
        try:
            left = [json.loads(body)] if body else []
        except (ValueError, RecursionError):
            return False
        while left:
            part = left.pop()
            if isinstance(part, dict):
                path = part.get("path")
                if isinstance(path, str) and not os.path.realpath(path).startswith(self.real.decode() + os.sep):
                    return False
            if isinstance(part, dict | list):
                left.extend(part.values() if isinstance(part, dict) else part)
        return True


async def _whole(receive: Any) -> bytes | None:
    """The body of a request; None: it is too large."""
    body, more = b"", True
    while more:
        message = await receive()
        if message["type"] != "http.request":
            break
        body, more = body + message.get("body", b""), message.get("more_body", False)
        if len(body) > MAX_BODY_BYTES:
            return None
    return body


def _again(body: bytes, receive: Any) -> Any:
    """What receives ``body`` first, then as ``receive``."""
    given = False

    async def receive_again() -> Any:
        nonlocal given
        if given:
            return await receive()
        given = True
        return {"type": "http.request", "body": body, "more_body": False}

    return receive_again


async def _refuse(send: Any, status: int, text: str) -> None:
    headers = [(b"content-type", b"application/json")]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": json.dumps({"detail": text}).encode()})
