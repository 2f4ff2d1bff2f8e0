"""``kubevo serve``: the service for a directory of runs on this machine, for its owner alone.

It listens on loopback. The token is made once, into a file that only its owner can read; the URL
carries it in its fragment, which browsers never send.
"""

import asyncio
import os
import secrets
import socket
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import uvicorn
from fastapi import FastAPI

from kubevo_api.access import Access, LocalAccess
from kubevo_api.app import create_app
from kubevo_api.catalogue import Catalogue
from kubevo_api.context import Context
from kubevo_api.downloads import Exports
from kubevo_api.feeds import Feeds
from kubevo_api.local import LocalCatalogue
from kubevo_api.metrics import Metrics
from kubevo_api.protocol import timed_protocol
from kubevo_api.runs import Library
from kubevo_api.sessions import Sessions
from kubevo_api.settings import ApiSettings
from kubevo_api.streams import StreamLimits
from kubevo_core.errors import UserError

__all__ = ["assemble", "listen", "serve_directory", "serve_forever"]

TOKEN_FILE = "api-token"  # noqa: S105 - a name
LOOPBACK = "127.0.0.1"
# An event stream never ends by itself.
GOODBYE_SECONDS = 3


def serve_directory(directory: Path, port: int, ready: Callable[[str], None]) -> None:
    """Serve the runs in ``directory`` until interrupted; ``ready`` is told the URL to open.

    Raises:
        UserError: there is no such directory, or the port is taken.
    """
    if not directory.is_dir():
        raise UserError(
            f"{directory}: expected a directory with runs (kubevo run --data), found "
            f"{'a file' if directory.exists() else 'nothing there'}"
        )
    token = _token(directory / TOKEN_FILE)
    with tempfile.TemporaryDirectory(prefix="kubevo-api-") as cache:
        settings = ApiSettings(
            data=directory,
            api_address=LOOPBACK,
            api_port=port,
            api_cache=Path(cache),
            # All have the one token: there is nobody to protect from somebody else.
            api_streams_each=ApiSettings.api_streams,
        )
        library = Library()
        context = assemble(
            settings, LocalCatalogue(directory, library), LocalAccess(token), library
        )
        with listen(settings) as listening:
            place = f"http://{LOOPBACK}:{listening.getsockname()[1]}"
            with suppress(KeyboardInterrupt):
                asyncio.run(
                    serve_forever(
                        create_app(context),
                        settings,
                        listening,
                        lambda: ready(f"{place}/#token={token}"),
                    )
                )


def assemble(
    settings: ApiSettings, catalogue: Catalogue, access: Access, library: Library
) -> Context:
    """Put the parts of a service together."""
    metrics = Metrics()
    return Context(
        settings=settings,
        catalogue=catalogue,
        access=access,
        library=library,
        exports=Exports(
            settings.api_cache, settings.api_cache_bytes, settings.api_exports, metrics
        ),
        feeds=Feeds(catalogue, library, Context.summarise),
        sessions=Sessions(),
        streams=StreamLimits(settings.api_streams, settings.api_streams_each, metrics),
        metrics=metrics,
    )


def listen(settings: ApiSettings) -> socket.socket:
    """Open the port.

    Raises:
        UserError: it is taken, or not ours to take.
    """
    try:
        found = socket.create_server((settings.api_address, settings.api_port), backlog=1024)
        # asyncio sets this only for sockets that it makes; without it every answer waits 40 ms.
        found.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    except OSError as exc:
        raise UserError(
            f"cannot listen at {settings.api_address}:{settings.api_port}: {exc.strerror or exc}; "
            "choose another port (0: any free one)"
        ) from exc
    return found


async def serve_forever(
    app: FastAPI, settings: ApiSettings, listening: socket.socket, ready: Callable[[], None]
) -> None:
    """Answer requests until SIGINT or SIGTERM."""
    server = _Server(
        uvicorn.Config(
            app,
            http=timed_protocol(settings.api_request_seconds, settings.api_stall_seconds),
            ws="none",
            log_config=None,
            access_log=False,
            server_header=False,
            limit_concurrency=settings.api_connections,
            timeout_graceful_shutdown=GOODBYE_SECONDS,
            h11_max_incomplete_event_size=16 * 1024,
        ),
        ready,
    )
    await server.serve(sockets=[listening])


class _Server(uvicorn.Server):
    """uvicorn's server, which says when it answers."""

    def __init__(self, config: uvicorn.Config, ready: Callable[[], None]) -> None:
        super().__init__(config)
        self._ready = ready

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Begin to answer."""
        await super().startup(sockets=sockets)
        if self.started:
            self._ready()


def _token(file: Path) -> str:
    """Return the token of a directory, made where there is none."""
    try:
        # Exclusive: two servers that start at once agree on one token.
        handle = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    except FileExistsError:
        return _known_token(file)
    except OSError as exc:
        raise UserError(
            f"{file} cannot be made: {exc.strerror}; the directory must be writable"
        ) from exc
    token = secrets.token_urlsafe(32)
    with os.fdopen(handle, "w") as stream:
        stream.write(token + "\n")
    return token


def _known_token(file: Path) -> str:
    deadline = time.monotonic() + 1
    while True:
        status = file.stat()
        if status.st_mode & 0o077:
            raise UserError(
                f"{file} can be read by others: chmod 600 it, or remove it for a new token"
            )
        token = file.read_text().strip()
        if len(token) >= 32:
            return token
        if time.monotonic() > deadline:  # not just being written
            raise UserError(f"{file} holds no token: remove it for a new one")
        time.sleep(0.01)
