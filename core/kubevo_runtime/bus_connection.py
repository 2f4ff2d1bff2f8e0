"""One connection to NATS that never gives up reconnecting, and repeats what an outage interrupts."""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from random import SystemRandom
from typing import TypeVar

import nats.errors
import structlog
from nats.js import JetStreamContext
from nats.js.errors import (
    APIError,
    NoStreamResponseError,
    NotFoundError,
    ServerError,
    ServiceUnavailableError,
)

from kubevo_core.errors import BusError, BusUnavailable
from kubevo_runtime.bus_security import (
    BrokerClient,
    CredentialsFile,
    is_denial,
    refusal,
    tls_context,
)
from kubevo_runtime.bus_types import BusSettings, QueueMissing, missing_text, require_version

__all__ = ["Connection", "Repair", "now"]

FIRST_PAUSE_SECONDS = 0.05
LONGEST_PAUSE_SECONDS = 2.0
# How long a worker's publish waits for a missing stream: a coordinator makes it again sooner.
MISSING_SECONDS = 30.0

REFUSED = 10077  # by a stream's limits: of a subject, or of the stream
NO_STREAM = 10059
NO_CONSUMER = 10014

T = TypeVar("T")
# Makes what an operation missed since a moment of the loop's clock.
Repair = Callable[[float], Awaitable[None]]
log = structlog.get_logger()


class _Full(Exception):
    """A stream has no room; consumers make some."""


_PASSING = (
    nats.errors.TimeoutError,
    nats.errors.NoRespondersError,
    nats.errors.OutboundBufferLimitError,
    nats.errors.ConnectionReconnectingError,
    NoStreamResponseError,
    ServiceUnavailableError,
    ServerError,
    _Full,
    OSError,
)
_MISSING = (nats.errors.NoRespondersError, NoStreamResponseError, ServiceUnavailableError)


def _is_missing(exc: Exception) -> bool:
    """Tell whether ``exc`` may mean that a stream or consumer is not there."""
    if isinstance(exc, NotFoundError):
        return exc.err_code in (NO_STREAM, NO_CONSUMER)
    if isinstance(exc, ServiceUnavailableError):
        return exc.err_code is None  # nobody listens; with a code, somebody answered
    return isinstance(exc, _MISSING)


class Connection:
    """A client that never gives up reconnecting, and repeats what an outage interrupted."""

    def __init__(self, settings: BusSettings, inbox_prefix: str) -> None:
        self.settings = settings
        self.epoch = 0
        self.client = BrokerClient(requires_tls=settings.requires_tls)
        self.js: JetStreamContext = self.client.jetstream(timeout=settings.request_seconds)
        self._inbox_prefix = inbox_prefix
        self._online = asyncio.Event()
        self._refused = asyncio.Event()
        self._refusal = ""
        self._denial = ""
        self._last_error = ("", 0.0)
        self._started = self._opened = self._closing = False
        self._closer: asyncio.Task[object] | None = None
        self._wakers: set[asyncio.Event] = set()
        self._jitter = SystemRandom()

    @property
    def place(self) -> str:
        """The server's address, without credentials."""
        return self.settings.url.rpartition("@")[2]

    @property
    def is_online(self) -> bool:
        """Whether the server can be asked now."""
        return self._online.is_set()

    async def open(self) -> None:
        """Connect within ``connect_seconds`` and check the server's version."""
        opening = asyncio.ensure_future(self._connect())
        refused = asyncio.ensure_future(self._refused.wait())
        try:
            await asyncio.wait(
                {opening, refused},
                timeout=self.settings.connect_seconds,
                return_when=asyncio.FIRST_COMPLETED,
            )
            if self._refused.is_set():
                raise BusError(
                    f"connecting to the broker at {self.place} as {self.settings.name!r}: "
                    f"{self._refusal}"
                )
            if not opening.done():
                raise self._unavailable("connecting", self.settings.connect_seconds, 0.0)
            opening.result()
        finally:
            self._closing = not opening.done()
            for task in (opening, refused):
                task.cancel()
            await asyncio.gather(opening, refused, return_exceptions=True)
        version = self.client.connected_server_version
        require_version(f"{version.major}.{version.minor}.{version.patch}", self.place)
        self._opened = True

    async def _connect(self) -> None:
        settings = self.settings
        tls = tls_context(settings)
        credentials = CredentialsFile(settings.credentials) if settings.credentials else None
        if credentials is not None:
            credentials.load()
        self._started = True
        try:
            await self.client.connect(
                settings.url,
                name=settings.name,
                token=settings.token,
                user_jwt_cb=credentials.jwt if credentials else None,
                signature_cb=credentials.sign if credentials else None,
                tls=tls,
                inbox_prefix=self._inbox_prefix,
                max_reconnect_attempts=-1,
                reconnect_time_wait=settings.reconnect_wait_seconds,  # type: ignore[arg-type]
                connect_timeout=2,
                ping_interval=5,
                max_outstanding_pings=2,
                error_cb=self._on_error,
                disconnected_cb=self._on_disconnect,
                reconnected_cb=self._on_reconnect,
                closed_cb=self._on_closed,
            )
        except (nats.errors.Error, ValueError) as exc:
            raise BusError(f"cannot connect to {self.place}: {exc}; check the URL") from exc
        if self.client.is_connected:
            self._online.set()
        # Else the server hung up during the last step, which nats-py takes for a connection that
        # was lost: it is trying again.
        await self._online.wait()

    async def close(self) -> None:
        """Close within two seconds; messages that were not flushed by then are repeated anyway."""
        if not self._started:
            return
        if self.client.is_connected:
            with contextlib.suppress(nats.errors.Error, asyncio.TimeoutError, OSError):
                await self.client.flush(1)
        self._closing, self._closer = True, asyncio.current_task()
        with contextlib.suppress(nats.errors.Error, asyncio.TimeoutError, OSError):
            async with asyncio.timeout(1):
                await self.client.close()

    async def _on_error(self, exc: Exception) -> None:
        text = str(exc) or type(exc).__name__
        self._last_error = (text, now())
        if is_denial(exc):
            self._denial = text
            self._wake()
        elif found := refusal(exc, self.settings):
            # While opening, the error says it; later once, though each reconnect meets it again.
            if self._opened and self._refusal != found:
                log.warning("broker_refuses", server=self.place, reason=found)
            self._refusal = found
            self._refused.set()
        log.debug("broker_error", server=self.place, error=text)
        if self._closing and asyncio.current_task() is not self._closer:
            # The client calls this between two attempts to connect. Before Python 3.12 wait_for
            # can swallow a cancellation in the attempt; without this it would go on for ever.
            raise asyncio.CancelledError

    async def _on_disconnect(self) -> None:
        self._online.clear()
        log.debug("broker_disconnected", server=self.place)

    async def _on_reconnect(self) -> None:
        self.epoch += 1
        self._refusal = self._denial = ""  # what was refused before may be granted now
        self._online.set()
        self._wake()
        log.info("broker_reconnected", server=self.place)

    async def _on_closed(self) -> None:
        self._online.set()  # so that nobody waits for ever; every operation fails from now on
        self._wake()

    def _wake(self) -> None:
        for waker in self._wakers:
            waker.set()

    def add_waker(self, waker: asyncio.Event) -> None:
        """Set ``waker`` at each reconnect, when the server has forgotten pull requests."""
        self._wakers.add(waker)

    def drop_waker(self, waker: asyncio.Event) -> None:
        """Leave ``waker`` alone from now on."""
        self._wakers.discard(waker)

    def require_open(self) -> None:
        """Raise when the connection is closed for good, or this user lacks a right that it needs.

        A server that denies something says so beside the request, which just gets no answer.
        """
        if self._denial:
            raise BusError(
                f"the broker at {self.place} denies {self.settings.name!r} a right that it needs "
                f"for Experiment {self.settings.experiment!r}: {self._denial}; use the credentials "
                "that were made for this Experiment"
            )
        if self.client.is_closed:
            raise BusUnavailable(
                f"the connection to the broker at {self.place} is closed"
                f"{': ' + self._last_error[0] if self._last_error[0] else ''}; connect again"
            )

    def _unavailable(self, doing: str, seconds: float, since: float, why: str = "") -> BusError:
        text, when = self._last_error
        latest = self._refusal or (text if when >= since else "")
        reasons = [part for part in (why, latest) if part]
        detail = f" ({'; '.join(dict.fromkeys(reasons))})" if reasons else ""
        return BusUnavailable(
            f"{doing}: the broker at {self.place} gave no answer for {seconds:g} s{detail}; "
            "check that it runs, has JetStream enabled and can be reached, then try again"
        )

    async def call(
        self,
        doing: str,
        attempt: Callable[[], Awaitable[T]],
        repair: Repair | None = None,
    ) -> T:
        """Return what ``attempt`` gives, repeated through outages; ``repair`` makes what it misses.

        Raises:
            BusUnavailable: not within ``give_up_seconds``.
            QueueMissing: nobody repaired a missing stream.
            BusError: the server refused it.
        """
        started = now()
        deadline = started + self.settings.give_up_seconds
        pause = FIRST_PAUSE_SECONDS
        while True:
            missing = False
            try:
                if not self.is_online:
                    async with asyncio.timeout(max(0, deadline - now())):
                        await self._online.wait()
                self.require_open()
                found = await attempt()
            except (TimeoutError, NotFoundError, *_PASSING) as exc:
                missing = _is_missing(exc)
                if isinstance(exc, NotFoundError) and not missing:
                    raise BusError(f"{doing}: refused by {self.place}: {exc}") from exc
                reason: Exception = exc
            except nats.errors.Error as exc:
                self.require_open()
                raise BusError(f"{doing}: refused by {self.place}: {exc}") from exc
            else:
                _raise_if_cancelled()
                return found
            _raise_if_cancelled()
            self.require_open()
            if missing and repair is not None:
                await repair(started)
            elif missing and self.is_online and now() - started > MISSING_SECONDS:
                raise QueueMissing(missing_text(self.settings.experiment, self.place)) from reason
            if now() + pause >= deadline:
                seconds = self.settings.give_up_seconds
                raise self._unavailable(doing, seconds, started, str(reason)) from reason
            await asyncio.sleep(pause * self._jitter.uniform(0.5, 1.0))
            pause = min(2 * pause, LONGEST_PAUSE_SECONDS)

    async def store(
        self,
        subject: str,
        body: bytes,
        repair: Repair | None = None,
    ) -> bool:
        """Publish and wait for the store; False when the subject has a message already."""

        async def attempt() -> bool:
            try:
                await self.js.publish(subject, body)
            except APIError as exc:
                if exc.err_code != REFUSED:
                    raise
                if "per subject" in (exc.description or ""):
                    return False
                raise _Full(f"the stream is full: {exc.description}") from exc
            return True

        return await self.call(f"publishing to {subject}", attempt, repair)


def _raise_if_cancelled() -> None:
    # nats-py waits by wait_for, which before Python 3.12 returns a result that came at the same
    # moment, and forgets that the task was cancelled.
    task = asyncio.current_task()
    if task is not None and task.cancelling():
        raise asyncio.CancelledError


def now() -> float:
    """Return the running loop's time in seconds."""
    return asyncio.get_running_loop().time()
