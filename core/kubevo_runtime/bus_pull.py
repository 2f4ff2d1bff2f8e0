"""Pulling from a consumer so that no timeout, cancellation or reconnect loses a message."""

import asyncio
import contextlib
import json
import secrets
from collections import deque
from typing import Any

import nats.errors
from nats.aio.msg import Msg
from nats.js import api

from kubevo_runtime.bus_connection import Connection, Repair, now

__all__ = ["ConsumerGone", "Inbox", "StreamReader"]

# An answer to a pull request that ran out comes this late at most, or the connection is in trouble.
GRACE_SECONDS = 0.5
FORGET_READER_SECONDS = 60.0
REFUSED_PAUSE_SECONDS = 0.25


class ConsumerGone(Exception):
    """Nobody answers pull requests for this consumer."""


class Inbox:
    """Pull requests on one consumer; what is delivered waits in a queue, so no wait loses any.

    With ``settle`` a wait that comes to nothing ends by the server's word that the request ran
    out: were it left open, a task could arrive while the worker does something else.
    """

    def __init__(self, connection: Connection, stream: str, consumer: str, *, settle: bool) -> None:
        self._connection = connection
        self._next = f"$JS.API.CONSUMER.MSG.NEXT.{stream}.{consumer}"
        self._inbox = connection.client.new_inbox()
        self._messages: deque[Msg] = deque()
        self._wake = asyncio.Event()
        self._settle_seconds = GRACE_SECONDS if settle else 0.0
        self._requests = 0
        self._wanted = 0
        self._refused = False
        self._given_up = False
        self._until = 0.0
        self._epoch = connection.epoch
        self._subscription: Any = None

    async def open(self) -> None:
        """Listen for what the consumer delivers here."""
        self._connection.add_waker(self._wake)
        self._subscription = await self._connection.client.subscribe(
            f"{self._inbox}.*", cb=self._on_message
        )

    async def close(self) -> list[Msg]:
        """Stop, and return the messages that nobody took."""
        self._connection.drop_waker(self._wake)
        if self._subscription is not None:
            with contextlib.suppress(nats.errors.Error, OSError):
                await self._subscription.unsubscribe()
        return [message for message in self._messages if not _status(message)]

    async def _on_message(self, message: Msg) -> None:
        if self._given_up and not _status(message):
            with contextlib.suppress(nats.errors.Error, OSError):
                await message.nak()  # nobody waits for it here
            return
        self._messages.append(message)
        self._wake.set()

    async def next(self, batch: int, seconds: float) -> Msg | None:
        """Return a message, or None after ``seconds``.

        Raises:
            ConsumerGone: the consumer is not there (any more).
        """
        deadline = now() + seconds
        while True:
            self._wake.clear()  # before looking, so that nothing comes unseen between the two
            while self._messages:
                message = self._messages.popleft()
                if self._accept(message):
                    return message
            self._connection.require_open()
            remaining = deadline - now()
            if remaining <= 0 and (self._wanted == 0 or remaining <= -self._settle_seconds):
                return None
            if self._connection.is_online and remaining > 0 and not self._is_asking():
                if self._refused:
                    self._refused = False
                    await asyncio.sleep(min(remaining, REFUSED_PAUSE_SECONDS))
                    continue
                await self._ask(batch, remaining)
            with contextlib.suppress(asyncio.TimeoutError):
                # Not wait_for: before Python 3.12 it can swallow a cancellation.
                async with asyncio.timeout(remaining + self._settle_seconds):
                    await self._wake.wait()

    async def ready(self, seconds: float) -> Msg | None:
        """Return a message that lies ready, or None as soon as the server says that none does.

        The server answers such a request at once, from what those who wait in `next` have left.
        """
        deadline = now() + seconds
        if self._connection.is_online and not self._messages:
            await self._ask(1, seconds, is_patient=False)
        while True:
            self._wake.clear()
            while self._messages:
                message = self._messages.popleft()
                if self._accept(message):
                    return message
            remaining = deadline - now()
            if remaining <= 0:
                self._given_up, self._wanted = True, 0  # the answer may be lost, or come late
            if remaining <= 0 or not self._is_asking():
                return None
            with contextlib.suppress(asyncio.TimeoutError):
                async with asyncio.timeout(remaining):
                    await self._wake.wait()

    def drain(self, limit: int) -> list[Msg]:
        """Return what has arrived already."""
        taken: list[Msg] = []
        while self._messages and len(taken) < limit:
            if _status(self._messages[0]):
                break
            message = self._messages.popleft()
            self._accept(message)
            taken.append(message)
        return taken

    def _is_asking(self) -> bool:
        if self._epoch != self._connection.epoch or now() > self._until + GRACE_SECONDS:
            return False
        return self._wanted > 0

    async def _ask(self, batch: int, seconds: float, *, is_patient: bool = True) -> None:
        self._requests += 1
        self._given_up = False
        self._wanted = batch
        self._until = now() + seconds
        self._epoch = self._connection.epoch
        how = {"expires": max(1, int(seconds * 1e9))} if is_patient else {"no_wait": True}
        request = json.dumps({"batch": batch, **how})
        with contextlib.suppress(nats.errors.Error, OSError):
            await self._connection.client.publish(
                self._next, request.encode(), reply=f"{self._inbox}.{self._requests}"
            )

    def _accept(self, message: Msg) -> bool:
        """Return whether it is a message to hand out; take note of a status."""
        status = _status(message)
        if not status:
            self._wanted = max(0, self._wanted - 1)
            return True
        if message.subject != f"{self._inbox}.{self._requests}":
            return False  # about an earlier request
        self._wanted = 0
        description = (message.headers or {}).get("Description", "")
        if status == "503" or "Consumer Deleted" in description:
            raise ConsumerGone(description)
        self._refused = status not in ("404", "408")  # too many wait already, say
        return False


def _status(message: Msg) -> str | None:
    # An answer without a stream's subject is about the request; stored messages have a reply.
    headers = message.headers
    return headers.get("Status") if headers and not message.data else None


class StreamReader:
    """An ephemeral consumer, made again after whatever was last seen whenever it is in doubt.

    Nothing is acknowledged: the consumer counts its deliveries, and a gap in the count, or a
    reconnect, makes a new one start after the last message seen.
    """

    def __init__(
        self,
        connection: Connection,
        stream: str,
        subject: str,
        repair: Repair,
    ) -> None:
        self._connection = connection
        self._stream = stream
        self._subject = subject
        self._repair = repair
        self._inbox: Inbox | None = None
        self._epoch = 0
        self._store: object = None
        self._last = 0
        self._count = 0

    async def fetch(self, limit: int, timeout_seconds: float) -> list[bytes]:
        """Return up to ``limit`` messages as soon as there is one; empty after the timeout."""
        deadline = now() + timeout_seconds
        while True:
            inbox = self._inbox
            if inbox is None or self._epoch != self._connection.epoch:
                inbox = await self._reopen()
            try:
                first = await inbox.next(limit, deadline - now())
            except ConsumerGone:
                await self.aclose()
                if now() >= deadline:
                    return []
                continue
            if first is None:
                if self._epoch == self._connection.epoch or now() >= deadline:
                    return []
                continue
            bodies = []
            for message in (first, *inbox.drain(limit - 1)):
                sequence = message.metadata.sequence
                if sequence.consumer != self._count + 1:
                    await self.aclose()  # something got lost on the way: read again from there
                    break
                self._count, self._last = sequence.consumer, sequence.stream
                bodies.append(message.data)
            if bodies:
                return bodies

    async def _reopen(self) -> Inbox:
        await self.aclose()
        connection = self._connection
        name = f"reader-{secrets.token_hex(8)}"

        async def attempt() -> None:
            info = await connection.js.stream_info(self._stream)
            if info.created != self._store:  # a new store counts from one again
                self._store, self._last = info.created, 0
            policy = api.DeliverPolicy
            await connection.js.add_consumer(
                self._stream,
                name=name,
                filter_subject=self._subject,
                ack_policy=api.AckPolicy.NONE,
                deliver_policy=policy.BY_START_SEQUENCE if self._last else policy.ALL,
                opt_start_seq=self._last + 1 if self._last else None,
                inactive_threshold=FORGET_READER_SECONDS,
                mem_storage=True,
            )

        epoch = connection.epoch
        await connection.call(f"reading {self._stream}", attempt, self._repair)
        inbox = Inbox(connection, self._stream, name, settle=False)
        await inbox.open()
        self._inbox, self._epoch, self._count = inbox, epoch, 0
        return inbox

    async def aclose(self) -> None:
        """Stop reading; the broker forgets the consumer after a while."""
        if self._inbox is not None:
            inbox, self._inbox = self._inbox, None
            await inbox.close()
