"""HTTP to one service: JSON, files and event streams, each request on a connection of its own.

Everything goes through ``connect``, which gives a connected socket: a TCP connection, or one end of
a port-forward. So there is no local port that others on the machine could use.
"""

import http.client
import json
import os
import secrets
import socket
import ssl
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode, urlsplit

from kubevo_client import streams
from kubevo_client.errors import (
    AccessRefused,
    NotThere,
    RequestRefused,
    ServiceError,
    ServiceUnavailable,
)
from kubevo_client.streams import Event
from kubevo_core.errors import UserError

__all__ = ["Connect", "Transport", "path_of"]

Connect = Callable[[float], socket.socket]
Query = Mapping[str, str | int | None]
MOST_ERROR_BYTES = 64 * 1024
MOST_JSON_BYTES = 256 * 1024**2
CHUNK = 256 * 1024
# The service sends a comment every fifteen seconds where nothing happens.
STREAM_SILENCE_SECONDS = 60.0
KINDS: dict[int, type[ServiceError]] = {
    401: AccessRefused,
    403: AccessRefused,
    404: NotThere,
    410: NotThere,
    429: ServiceUnavailable,
    502: ServiceUnavailable,
    503: ServiceUnavailable,
    504: ServiceUnavailable,
}


def path_of(*parts: str | int) -> str:
    """Return a path below the API's root, each part escaped."""
    return "/".join(["/api/v1", *(quote(str(part), safe="") for part in parts)])


@dataclass(frozen=True)
class Transport:
    """How to reach a service: ``token`` is asked for at every request, so that it may change.

    ``where`` is what errors call the service; ``connect`` None: TCP to the URL's host.
    """

    url: str
    token: Callable[[], str | None]
    timeout_seconds: float = 30.0
    connect: Connect | None = None
    ca_file: str | None = None

    def __post_init__(self) -> None:
        parts = urlsplit(self.url)
        try:
            _ = parts.port
            is_good = parts.scheme in ("http", "https") and bool(parts.hostname)
        except ValueError:
            is_good = False
        if not is_good or parts.query or parts.fragment:
            raise UserError(
                f"the service's URL: expected such as http://127.0.0.1:8000, got {self.url!r}"
            )

    def get(self, path: str, query: Query | None = None) -> dict[str, Any]:
        """Return the JSON object at a path.

        Raises:
            ServiceError: as the tree in `kubevo_client.errors` says.
        """
        with self._answer("GET", path, query) as (answer, _):
            return self._json(path, answer)

    def post(self, path: str, body: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """Send a JSON object and return the answer's.

        Raises:
            ServiceError: as the tree in `kubevo_client.errors` says.
        """
        with self._answer("POST", path, None, body=dict(body or {})) as (answer, _):
            return self._json(path, answer)

    def download(self, path: str, query: Query | None, target: Path) -> int:
        """Write what is at a path to a file, whole or not at all, and return its bytes.

        Raises:
            ServiceError: as the tree in `kubevo_client.errors` says.
            OSError: the file cannot be written; what was there before still is.
        """
        beside = target.with_name(f".{target.name}.{secrets.token_hex(4)}")
        done = 0
        try:
            with self._answer("GET", path, query) as (answer, _):
                wanted = answer.length
                with beside.open("xb") as file:
                    while block := self._read(answer, CHUNK):
                        done += file.write(block)
                    file.flush()
                    os.fsync(file.fileno())
            if wanted is not None and done != wanted:
                raise ServiceUnavailable(
                    f"{path}: expected {wanted} bytes, the connection ended after {done}; try again"
                )
            beside.replace(target)
        finally:
            with suppress(OSError):
                beside.unlink()
        return done

    def events(
        self, path: str, last_id: str | None = None, deadline: float | None = None
    ) -> Iterator[Event]:
        """Yield the events of a stream until it ends, or until ``deadline`` (of time.monotonic).

        Raises:
            ServiceError: as the tree in `kubevo_client.errors` says.
        """
        headers = {"Accept": "text/event-stream"}
        if last_id is not None:
            headers["Last-Event-ID"] = last_id
        with self._answer("GET", path, None, headers=headers) as (answer, connection):
            yield from streams.parse(self._lines(answer, connection, deadline), last_id)

    def _lines(
        self, answer: http.client.HTTPResponse, connection: "_Connection", deadline: float | None
    ) -> Iterator[str]:
        while True:
            left = STREAM_SILENCE_SECONDS
            if deadline is not None:
                left = min(left, deadline - time.monotonic())
            if left <= 0:
                return
            connection.limit(left)
            try:
                with self._guarded():
                    line = answer.readline(MOST_JSON_BYTES)
            except ServiceUnavailable:
                if deadline is not None and time.monotonic() >= deadline:
                    return
                raise
            if not line:
                return
            yield line.decode("utf-8", "replace")

    @contextmanager
    def _answer(
        self,
        method: str,
        path: str,
        query: Query | None,
        *,
        body: dict[str, Any] | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> Iterator[tuple[http.client.HTTPResponse, "_Connection"]]:
        """Give the answer of one request, only a good one, and its connection."""
        known = {name: value for name, value in (query or {}).items() if value is not None}
        target = urlsplit(self.url).path.rstrip("/") + path
        if known:
            target += f"?{urlencode(known)}"
        sent = {"Accept": "application/json", **self._authorization(), **(headers or {})}
        payload = None if body is None else json.dumps(body, allow_nan=False).encode()
        if payload is not None:
            sent["Content-Type"] = "application/json"
        connection = _Connection(self)
        answer = None
        try:
            with self._guarded():
                connection.request(method, target, payload, sent)
                answer = connection.getresponse()
            if answer.status != 200:
                raise _refusal(answer.status, path, self._read(answer, MOST_ERROR_BYTES), self.url)
            yield answer, connection
        finally:
            if answer is not None:
                answer.close()  # one that ends with its connection holds the socket alone
            connection.close()

    def _read(self, answer: http.client.HTTPResponse, most: int) -> bytes:
        with self._guarded():
            return answer.read(most)

    @contextmanager
    def _guarded(self) -> Iterator[None]:
        """Let the errors of a connection be the service's; files are never used inside."""
        try:
            yield
        except ssl.SSLError as exc:
            raise ServiceError(
                f"the service at {self.url} is not trusted: {exc.reason or exc}; name its "
                "certificate authority with ca_file, or in SSL_CERT_FILE"
            ) from exc
        except (http.client.HTTPException, OSError) as exc:
            reason = getattr(exc, "strerror", None) or str(exc) or type(exc).__name__
            raise ServiceUnavailable(
                f"the service at {self.url} does not answer: {reason}; check the URL, and that it "
                "runs"
            ) from exc

    def _authorization(self) -> dict[str, str]:
        token = self.token()
        if not token:
            return {}
        if not token.isascii() or not token.isprintable() or " " in token:
            raise UserError("the token has characters that no token has; is it a file's name?")
        return {"Authorization": f"Bearer {token}"}

    def _json(self, path: str, answer: http.client.HTTPResponse) -> dict[str, Any]:
        text = self._read(answer, MOST_JSON_BYTES)
        try:
            found = json.loads(text)
        except ValueError:
            found = None
        if not isinstance(found, dict):
            raise ServiceError(
                f"{self.url}{path}: expected a JSON object, got {text[:60]!r}; is this the URL of a "
                "kubevo service?"
            )
        return found


class _Connection(http.client.HTTPConnection):
    """A connection over whatever the transport connects by."""

    def __init__(self, transport: Transport) -> None:
        parts = urlsplit(transport.url)
        port = parts.port or (443 if parts.scheme == "https" else 80)
        super().__init__(str(parts.hostname), port, timeout=transport.timeout_seconds)
        self._transport = transport
        self._is_tls = parts.scheme == "https"
        self._opened: socket.socket | None = None

    def connect(self) -> None:
        """Open the socket."""
        transport = self._transport
        if transport.connect is not None:
            self.sock = transport.connect(transport.timeout_seconds)
        else:
            super().connect()
            if self._is_tls:
                context = ssl.create_default_context(cafile=transport.ca_file)
                self.sock = context.wrap_socket(self.sock, server_hostname=self.host)
        # An answer that ends with its connection takes ``sock`` away.
        self._opened = self.sock

    def limit(self, seconds: float) -> None:
        """Let a read that takes longer fail."""
        if self._opened is not None:
            self._opened.settimeout(seconds)


def _refusal(status: int, path: str, body: bytes, url: str) -> ServiceError:
    detail = ""
    with suppress(ValueError, AttributeError):
        detail = str(json.loads(body).get("detail", ""))
    if detail in ("", http.client.responses.get(status)):  # nobody of ours said it
        detail = f"{url}{path} answered {status} {http.client.responses.get(status, '')}".rstrip()
        if status == 404:
            detail += "; is this the URL of a kubevo service?"
    kind = KINDS.get(status)
    if kind is None:
        kind = RequestRefused if 400 <= status < 500 else ServiceError
    return kind(detail, status)
