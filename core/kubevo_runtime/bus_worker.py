"""`WorkerBus` over NATS JetStream: takes tasks, answers for them, stores results; makes nothing."""

import asyncio
from collections.abc import Awaitable

import nats.errors
import structlog
from nats.aio.msg import Msg
from nats.js.errors import NotFoundError

from kubevo_core import names
from kubevo_runtime.bus_connection import Connection, now
from kubevo_runtime.bus_pull import ConsumerGone, Inbox
from kubevo_runtime.bus_types import HeldTask, QueueMissing, missing_text

__all__ = ["NatsWorker", "blob_stream", "blob_subject"]

MISSING_PAUSE_SECONDS = 0.25
MISSING_BUCKET_SECONDS = 1.0
# What only helps is not waited for in an outage.
HINT_SECONDS = 1.0

log = structlog.get_logger()


def blob_stream(bucket: str) -> str:
    """Return the stream behind a bucket."""
    return f"KV_{bucket}"  # NATS's own naming: other tools see an ordinary key-value bucket


def blob_subject(bucket: str, key: str) -> str:
    """Return the subject of a key."""
    return f"$KV.{bucket}.{key}"


class _Held:
    """`HeldTask` over NATS."""

    def __init__(self, message: Msg, episode: str) -> None:
        self._message = message
        self.episode = episode
        self.body = message.data
        metadata = message.metadata
        self.deliveries = metadata.num_delivered
        self.number = metadata.sequence.consumer
        self.behind = metadata.num_pending

    async def in_progress(self) -> None:
        """Renew the lease."""
        await self._answer("in_progress", self._message.in_progress())

    async def ack(self) -> None:
        """Take the task off the queue."""
        await self._answer("ack", self._message.ack())

    async def nak(self, delay_seconds: float = 0) -> None:
        """Give the task back."""
        await self._answer("nak", self._message.nak(delay_seconds or None))

    async def _answer(self, what: str, sending: Awaitable[None]) -> None:
        try:
            await sending
        except (nats.errors.Error, OSError) as exc:
            log.debug("lease_answer_lost", answer=what, episode=self.episode, error=str(exc))


class NatsWorker:
    """`WorkerBus` over NATS."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._experiment = connection.settings.experiment
        self._stream = names.task_stream(self._experiment)
        self._bucket = names.bucket(self._experiment)
        self._inbox = Inbox(connection, self._stream, names.CONSUMER, settle=True)
        self._opened = False

    async def pull(self, timeout_seconds: float) -> HeldTask | None:
        """Take one task; None when none came in time."""
        await self._open()
        deadline = now() + timeout_seconds
        gone = False
        while True:
            try:
                message = await self._inbox.next(1, deadline - now())
            except ConsumerGone:
                gone = True
                await asyncio.sleep(max(0, min(MISSING_PAUSE_SECONDS, deadline - now())))
                if now() < deadline:
                    continue
                message = None
            if message is not None:
                return self._held(message)
            if gone and await self._is_missing():
                raise QueueMissing(missing_text(self._experiment, self._connection.place))
            return None

    async def pull_ready(self) -> HeldTask | None:
        """Take a task if one lies ready."""
        await self._open()
        try:
            message = await self._inbox.ready(HINT_SECONDS)
        except ConsumerGone:
            return None
        return None if message is None else self._held(message)

    async def is_anyone_idle(self) -> bool:
        """Tell whether a worker waits in `pull`."""
        js = self._connection.js
        try:
            info = await js.consumer_info(self._stream, names.CONSUMER, HINT_SECONDS)
        except (nats.errors.Error, OSError):
            return False
        return bool(info.num_waiting)

    async def _open(self) -> None:
        if not self._opened:
            self._opened = True
            await self._inbox.open()

    async def _is_missing(self) -> bool:
        """Ask the server, since nobody answers pull requests while it recovers, either."""
        try:
            await self._connection.js.consumer_info(self._stream, names.CONSUMER)
        except NotFoundError:
            return True
        except (nats.errors.Error, OSError):
            return False
        return False

    def _held(self, message: Msg) -> _Held:
        prefix = names.task_subject(self._experiment, "")
        return _Held(message, message.subject.removeprefix(prefix))

    async def aclose(self) -> None:
        """Stop pulling; give back what arrived after the last pull."""
        for message in await self._inbox.close():
            await self._held(message).nak()

    async def put_result(self, episode: str, body: bytes) -> bool:
        """Store a result; False when there is one."""
        return await self._connection.store(names.result_subject(self._experiment, episode), body)

    async def put_failure(self, episode: str, body: bytes) -> None:
        """Report a failure."""
        await self._connection.store(names.failure_subject(self._experiment, episode), body)

    async def put_recording_part(self, name: str, part: int, body: bytes) -> None:
        """Store one part of a video."""
        subject = names.recording_subject(self._experiment, name, str(part))
        await self._connection.store(subject, body)

    async def get_blob(self, key: str) -> bytes | None:
        """Return the bytes under a key, if there are any."""
        started = now()

        async def attempt() -> bytes | None:
            try:
                message = await self._connection.js.get_msg(
                    blob_stream(self._bucket),
                    subject=blob_subject(self._bucket, key),
                    direct=True,
                )
            except NotFoundError:
                return None
            except nats.errors.NoRespondersError:
                # No bucket, so nothing under the key; or a server that has just come back.
                if now() - started < MISSING_BUCKET_SECONDS:
                    raise
                return None
            return message.data or b""

        return await self._connection.call(f"reading blob {key}", attempt)
