"""The studio's page over HTTP: one socket, one folder for files that goes when it ends, and no way out to a network."""

from __future__ import annotations

import errno
import os
import socket
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from difflate.errors import ConfigError
from difflate.extras import require
from difflate.limits import Limits

LOOPBACK = ("127.0.0.1", "localhost")
_POLICY = "; ".join(
    (
        "default-src 'self'",
        "script-src 'self' 'unsafe-inline' 'unsafe-eval' blob:",
        "style-src 'self' 'unsafe-inline'",
        "img-src 'self' data: blob:",
        "media-src 'self' data: blob:",
        "font-src 'self' data:",
        "connect-src 'self' data: blob:",
        "worker-src 'self' blob:",
        "object-src 'none'",
        "base-uri 'self'",
        "form-action 'self'",
        "frame-ancestors 'self'",
    )
)
"""What browsers may load: nothing from elsewhere, whatever gradio's pages name."""


def serve(host: str, port: int, limits: Limits, upload_bytes: int, device: str, ready: Callable[[str], None]) -> None:
    """Serves the studio until it is interrupted. ``ready`` is given its address when it can be opened.

    Raises ConfigError where gradio is not installed, and for a host or port that cannot be had.
    """
    with listening(host, port) as listener, tempfile.TemporaryDirectory(prefix="difflate-studio-") as folder:
        folder = os.path.realpath(folder)
        _before_gradio_is_imported(folder)
        require("gradio", "studio")
        uvicorn = require("uvicorn", "studio")
        app = application(Path(folder), limits, upload_bytes, device, loopback_only=host in LOOPBACK)
        # pages that are open wait for news: their connections never end by themselves
        config = uvicorn.Config(app, log_level="warning", access_log=False, timeout_graceful_shutdown=1)
        shown = f"[{host}]" if ":" in host else host
        ready(f"http://{shown}:{listener.getsockname()[1]}/")
        uvicorn.Server(config).run(sockets=[listener])


def application(folder: Path, limits: Limits, upload_bytes: int, device: str, loopback_only: bool) -> Any:
    """The ASGI application. ``folder``: for files of visitors. ``loopback_only``: refuses requests for other names than
    this machine's, which pages of others can make browsers send."""
    gr = require("gradio", "studio")
    from fastapi import FastAPI  # pyright: ignore[reportMissingImports]
    from starlette.middleware.trustedhost import TrustedHostMiddleware  # pyright: ignore[reportMissingImports]

    from difflate.studio.own_files import OwnFiles
    from difflate.studio.page import CSS, Settings, build, theme

    app = FastAPI(openapi_url=None)
    app.add_middleware(OwnFiles, folder=folder)
    app.add_middleware(_Headers)
    if loopback_only:
        app.add_middleware(TrustedHostMiddleware, allowed_hosts=list(LOOPBACK))
    page = build(Settings(folder, limits, device))
    return gr.mount_gradio_app(
        app, page, path="/", footer_links=[], show_error=False, max_file_size=upload_bytes, ssr_mode=False,
        enable_monitoring=False, pwa=False, mcp_server=False, theme=theme(), css=CSS,
    )  # fmt: skip


def listening(host: str, port: int) -> socket.socket:
    """A socket that listens there, at a free port if ``port`` is 0. Raises ConfigError."""
    if not 0 <= port <= 65535:
        raise ConfigError(f"port (={port}) must be from 0 to 65535")
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        return socket.create_server((host, port), family=family)
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            raise ConfigError(f"port {port} is taken; choose another with --port, or 0 for any that is free") from error
        reason = error.strerror or error
        raise ConfigError(f"{host}:{port} cannot be served ({reason}); choose another --host or --port") from error


def _before_gradio_is_imported(folder: str) -> None:
    """It reads these then."""
    os.environ["GRADIO_TEMP_DIR"] = folder
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
    os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"


class _Headers:
    """Adds the policy to all answers."""

    def __init__(self, app: Any):
        self.app = app

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        async def with_policy(message: Any) -> None:
            if message["type"] == "http.response.start":
                headers = [
                    (b"content-security-policy", _POLICY.encode()), (b"x-content-type-options", b"nosniff"),
                    (b"referrer-policy", b"no-referrer"),
                ]  # fmt: skip
                message = {**message, "headers": [*message.get("headers", ()), *headers]}
            await send(message)

        await self.app(scope, receive, with_policy)
