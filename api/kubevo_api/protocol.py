"""The server's protocol, with the limits that uvicorn lacks.

A request must have arrived whole within a time: uvicorn limits only the pause between two requests,
so that a client which sends a byte now and then would keep its connection, and the memory behind it,
for ever. So would one that takes nothing of its answer: it is cut off. And a head that is too large
is answered with 431.
"""

import asyncio
import sys
from functools import partial
from http import HTTPStatus
from typing import Any

import h11
import structlog
from uvicorn.protocols.http.h11_impl import H11Protocol

__all__ = ["TimedProtocol", "timed_protocol"]

log = structlog.get_logger()


class TimedProtocol(H11Protocol):
    """uvicorn's protocol; each request has ``request_seconds`` to arrive.

    A client that takes too little of its answer for ``stall_seconds`` is let go.
    """

    def __init__(
        self, *arguments: Any, request_seconds: float, stall_seconds: float, **named: Any
    ) -> None:
        super().__init__(*arguments, **named)
        self._seconds = request_seconds
        self._stall_seconds = stall_seconds
        self._deadline: asyncio.TimerHandle | None = None
        self._stalled: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Begin to wait for the first request."""
        super().connection_made(transport)
        self._arm()

    def data_received(self, data: bytes) -> None:
        """Take a part of a request."""
        if self._deadline is None and self.conn.their_state is h11.IDLE:
            self._arm()
        super().data_received(data)
        if self.conn.their_state not in (h11.IDLE, h11.SEND_BODY):
            self._disarm()

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the connection."""
        self._disarm()
        self._taken()
        super().connection_lost(exc)

    def pause_writing(self) -> None:
        """Begin to wait for a client whose buffer is full."""
        super().pause_writing()
        self._stalled = self.loop.call_later(self._stall_seconds, self._let_go)

    def resume_writing(self) -> None:
        """Go on: the client has taken what there was."""
        self._taken()
        super().resume_writing()

    def send_400_response(self, msg: str) -> None:
        """Refuse what is no request; ``msg`` is uvicorn's."""
        # The caller does not pass its error on, which says what the status should be.
        hint = getattr(sys.exc_info()[1], "error_status_hint", 400)
        status = HTTPStatus(hint if hint in (400, 431) else 400)
        body = (
            f'{{"type":"about:blank","title":"{status.phrase}","status":{status},"detail":"{msg}"}}'
        )
        headers = [
            (b"content-type", b"application/problem+json"),
            (b"content-length", str(len(body)).encode()),
            (b"connection", b"close"),
        ]
        if self.conn.our_state in (h11.IDLE, h11.SEND_RESPONSE):
            for event in (
                h11.Response(status_code=status, headers=headers, reason=status.phrase.encode()),
                h11.Data(data=body.encode()),
                h11.EndOfMessage(),
            ):
                self.transport.write(self.conn.send(event) or b"")
        self.transport.close()

    def _arm(self) -> None:
        self._deadline = self.loop.call_later(self._seconds, self._expire)

    def _disarm(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    def _expire(self) -> None:
        self._deadline = None
        if not self.transport.is_closing():
            log.info("request_too_slow", seconds=self._seconds)
            self.transport.close()

    def _taken(self) -> None:
        if self._stalled is not None:
            self._stalled.cancel()
            self._stalled = None

    def _let_go(self) -> None:
        self._stalled = None
        log.info("client_stalled", seconds=self._stall_seconds)
        # Closing would wait for the client to take the rest.
        self.transport.abort()


def timed_protocol(request_seconds: float, stall_seconds: float) -> Any:
    """Return what uvicorn makes a connection's protocol with."""
    return partial(TimedProtocol, request_seconds=request_seconds, stall_seconds=stall_seconds)
