"""`CoordinatorBus` over NATS JetStream: makes the streams, publishes work, reads what comes back."""

import asyncio
import contextlib
import json
from collections.abc import Sequence
from typing import Any

from nats.js import api
from nats.js.errors import APIError, NotFoundError

from kubevo_core import names
from kubevo_core.errors import BrokerFull
from kubevo_runtime.bus_connection import Connection, now
from kubevo_runtime.bus_pull import StreamReader
from kubevo_runtime.bus_types import Backlog, Reader
from kubevo_runtime.bus_worker import blob_stream, blob_subject
from kubevo_runtime.limits import RESULT_BYTES

__all__ = ["NatsCoordinator"]

# The priority classes that have a consumer; tasks of another class are never published.
CLASSES = (0,)
PUBLISHERS = 64
REPAIR_PAUSE_SECONDS = 2.0
# All parts lie there when they are asked for: a wait means that some are gone.
RECORDING_FETCH = 16
RECORDING_WAIT_SECONDS = 2.0

NO_MESSAGE = 10037
OTHER_CONFIGURATION = 10058
# The account's limits, then the server's: resources, memory, storage.
NO_RESOURCES = (10002, 10023, 10028, 10047)


class NatsCoordinator:
    """`CoordinatorBus` over NATS."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._js = connection.js
        self._experiment = connection.settings.experiment
        self._tasks = names.task_stream(self._experiment)
        self._results = names.result_stream(self._experiment)
        self._failures = names.failure_stream(self._experiment)
        self._bucket = names.bucket(self._experiment)
        self._recordings = names.recording_stream(self._experiment)
        self._has_recordings = False
        self._blobs: dict[str, bytes] = {}
        self._bucket_made: object = None
        self._repair_lock = asyncio.Lock()
        self._repaired = float("-inf")

    async def ensure(self) -> None:
        """Make what is not there, and bring limits up to date."""
        await self._connection.call(f"making the streams of {self._experiment}", self._make_all)

    async def _repair(self, since: float) -> None:
        """Make what is missing, once for all callers that missed it since then."""
        async with self._repair_lock:
            if self._repaired < since or now() - self._repaired > REPAIR_PAUSE_SECONDS:
                await self.ensure()
                self._repaired = now()

    async def _make_all(self) -> None:
        settings = self._connection.settings
        once = {
            "discard": api.DiscardPolicy.NEW,
            "max_msgs_per_subject": 1,
            "discard_new_per_subject": True,
        }
        await self._make_stream(
            self._tasks,
            [names.consumer_filter(self._experiment, priority) for priority in CLASSES],
            settings.task_bytes,
            retention=api.RetentionPolicy.WORK_QUEUE,
            **once,
        )
        await self._make_stream(
            self._results,
            [names.result_subject(self._experiment, ">")],
            settings.result_bytes,
            **once,
        )
        await self._make_stream(
            self._failures,
            [names.failure_subject(self._experiment, ">"), self._given_up],
            settings.failure_bytes,
            discard=api.DiscardPolicy.OLD,
        )
        await self._make_consumer()
        await self._make_bucket()
        if self._has_recordings:
            await self._make_recordings()

    async def _make_stream(
        self, name: str, subjects: list[str], max_bytes: int, **rules: Any
    ) -> None:
        config = api.StreamConfig(
            name=name,
            subjects=subjects,
            max_bytes=max_bytes,
            storage=api.StorageType.FILE,
            **{"retention": api.RetentionPolicy.LIMITS, **rules},
        )
        try:
            try:
                await self._js.add_stream(config)
            except APIError as exc:
                if exc.err_code != OTHER_CONFIGURATION:
                    raise
                await self._js.update_stream(config)  # other limits; refuses what cannot change
        except APIError as exc:
            if exc.err_code not in NO_RESOURCES:
                raise
            raise BrokerFull(
                f"the broker at {self._connection.place} has no room for the stream {name} of "
                f"{max_bytes:,} bytes: {exc.description}; give it more storage, or remove "
                "Experiments that are not needed"
            ) from exc

    async def _make_consumer(self) -> None:
        settings = self._connection.settings
        await self._js.add_consumer(
            self._tasks,
            name=names.CONSUMER,
            durable_name=names.CONSUMER,
            filter_subject=names.consumer_filter(self._experiment),
            ack_wait=settings.ack_wait_seconds,
            max_deliver=settings.max_deliver,
            max_ack_pending=-1,  # bounded by the pulls: a worker holds two tasks at most
            max_waiting=2 * settings.max_workers,
        )

    async def _make_bucket(self) -> None:
        await self._make_stream(
            blob_stream(self._bucket),
            [blob_subject(self._bucket, ">")],
            self._connection.settings.blob_bytes,
            discard=api.DiscardPolicy.NEW,
            max_msgs_per_subject=1,
            allow_direct=True,
            allow_rollup_hdrs=True,
            deny_delete=True,
        )
        info = await self._js.stream_info(blob_stream(self._bucket))
        if self._bucket_made not in (None, info.created):
            for key, body in self._blobs.items():
                await self._js.publish(blob_subject(self._bucket, key), body)
        self._bucket_made = info.created

    async def _make_recordings(self) -> None:
        settings = self._connection.settings
        # The oldest go, so that a worker never waits for room that nobody makes.
        await self._make_stream(
            self._recordings,
            [names.recording_subject(self._experiment, "*", "*")],
            settings.recording_bytes,
            discard=api.DiscardPolicy.OLD,
            max_msgs_per_subject=1,
            max_age=settings.recording_seconds,
        )

    async def publish_task(self, episode: str, body: bytes) -> bool:
        """Queue a task; False when it is queued or held already."""
        subject = names.task_subject(self._experiment, episode)
        return await self._connection.store(subject, body, self._repair)

    async def publish_tasks(self, tasks: Sequence[tuple[str, bytes]]) -> int:
        """Queue tasks, a bounded number of them at once; return how many were new."""
        waiting = iter(tasks)

        async def publish_some() -> int:
            return sum([await self.publish_task(*task) for task in waiting])

        publishers = [
            asyncio.ensure_future(publish_some()) for _ in range(min(PUBLISHERS, len(tasks)))
        ]
        try:
            return sum(await asyncio.gather(*publishers))
        finally:
            for publisher in publishers:
                publisher.cancel()
            await asyncio.gather(*publishers, return_exceptions=True)

    async def put_result(self, episode: str, body: bytes) -> bool:
        """Store a result; False when there is one."""
        subject = names.result_subject(self._experiment, episode)
        return await self._connection.store(subject, body, self._repair)

    def results(self, episode_filter: str) -> Reader:
        """Return a reader of the results that match."""
        subject = names.result_subject(self._experiment, episode_filter)
        return StreamReader(self._connection, self._results, subject, self._repair)

    def failures(self, episode_filter: str) -> Reader:
        """Return a reader of the failure reports that match."""
        subject = names.failure_subject(self._experiment, episode_filter)
        return StreamReader(self._connection, self._failures, subject, self._repair)

    async def result(self, episode: str) -> bytes | None:
        """Return an episode's result, if there is one."""
        subject = names.result_subject(self._experiment, episode)
        message = await self._message(self._results, subject=subject)
        return None if message is None else message.data or b""

    async def _message(self, stream: str, **which: Any) -> api.RawStreamMsg | None:
        async def attempt() -> api.RawStreamMsg | None:
            try:
                return await self._js.get_msg(stream, **which)
            except NotFoundError as exc:
                if exc.err_code == NO_MESSAGE:
                    return None
                raise

        return await self._connection.call(f"reading {stream}", attempt, self._repair)

    async def backlog(self) -> Backlog:
        """Return the consumer's counts."""
        info = await self._consumer()
        return Backlog(info.num_pending or 0, info.num_ack_pending or 0)

    async def _consumer(self) -> api.ConsumerInfo:
        async def attempt() -> api.ConsumerInfo:
            info: api.ConsumerInfo = await self._js.consumer_info(self._tasks, names.CONSUMER)
            return info

        return await self._connection.call("asking for the backlog", attempt, self._repair)

    async def has_room(self) -> bool:
        """Tell whether the results' stream takes another result."""

        async def attempt() -> bool:
            info = await self._js.stream_info(self._results)
            most = info.config.max_bytes or -1  # the server's word for no limit
            return bool(most < 0 or info.state.bytes + RESULT_BYTES <= most)

        return await self._connection.call("asking for room", attempt, self._repair)

    async def purge_task(self, episode: str) -> int:
        """Take a task off the queue; return how many went."""
        return await self._purge(self._tasks, names.task_subject(self._experiment, episode))

    async def purge(self, episode_filter: str) -> None:
        """Drop the tasks of every class, results and failure reports that match."""
        for priority in CLASSES:
            subject = names.task_subject(self._experiment, episode_filter, priority)
            await self._purge(self._tasks, subject)
        await self._purge(self._results, names.result_subject(self._experiment, episode_filter))
        await self._purge(self._failures, names.failure_subject(self._experiment, episode_filter))

    async def _purge(self, stream: str, subject: str, before: int | None = None) -> int:
        """Remove the messages of a subject (those before a sequence) and return their number."""
        request = {"filter": subject} if before is None else {"filter": subject, "seq": before}

        async def attempt() -> int:
            # Not js.purge_stream, which does not tell the number.
            answer = await self._connection.client.request(
                f"$JS.API.STREAM.PURGE.{stream}",
                json.dumps(request).encode(),
                timeout=self._connection.settings.request_seconds,
            )
            document = json.loads(answer.data)
            if "error" in document:
                APIError.from_error(document["error"])
            return int(document["purged"])

        return await self._connection.call(f"purging {stream}", attempt, self._repair)

    @property
    def _given_up(self) -> str:
        """The subject on which the server says once that a task used up its deliveries."""
        return f"$JS.EVENT.ADVISORY.CONSUMER.MAX_DELIVERIES.{self._tasks}.{names.CONSUMER}"

    async def dead_letters(self, limit: int) -> list[str]:
        """Return what the server said it gave up, kept in F, and is still there.

        So a coordinator that starts later learns it too. What was said while F was not there is
        found when no task is held: whatever lies before the consumer's position is then stranded.
        """
        info = await self._consumer()
        found: dict[str, None] = {}
        note = await self._message(self._failures, subject=self._given_up, seq=1, next=True)
        while note is not None and len(found) < limit:
            sequence = int(json.loads(note.data or b"{}")["stream_seq"])
            task = await self._message(self._tasks, seq=sequence)
            if task is not None:
                found[self._episode(task)] = None
            elif not found:  # it has been dealt with
                await self._purge(self._failures, self._given_up, (note.seq or 0) + 1)
            after = (note.seq or 0) + 1
            note = await self._message(self._failures, subject=self._given_up, seq=after, next=True)
        if not info.num_ack_pending and info.delivered is not None:
            await self._add_stranded(found, info.delivered.stream_seq, limit)
        return list(found)

    async def _add_stranded(self, found: dict[str, None], position: int, limit: int) -> None:
        subject, after = names.consumer_filter(self._experiment), 1
        while len(found) < limit and after <= position:
            task = await self._message(self._tasks, subject=subject, seq=after, next=True)
            if task is None or (task.seq or 0) > position:
                return
            found[self._episode(task)] = None
            after = (task.seq or 0) + 1

    def _episode(self, task: api.RawStreamMsg) -> str:
        return (task.subject or "").removeprefix(names.task_subject(self._experiment, ""))

    async def put_blob(self, key: str, body: bytes) -> None:
        """Store bytes under a key, and remember them for a broker that lost its store."""
        await self._connection.store(blob_subject(self._bucket, key), body, self._repair)
        self._blobs[key] = body

    async def drop_blob(self, key: str) -> None:
        """Drop a key."""
        # A purge and not the bucket's own delete, which leaves a marker behind for ever.
        self._blobs.pop(key, None)
        await self._purge(blob_stream(self._bucket), blob_subject(self._bucket, key))

    async def blob_keys(self) -> list[str]:
        """Return the keys that have a blob, sorted."""

        async def attempt() -> list[str]:
            info = await self._js.stream_info(blob_stream(self._bucket), subjects_filter=">")
            prefix = blob_subject(self._bucket, "")
            return sorted(subject.removeprefix(prefix) for subject in info.state.subjects or {})

        return await self._connection.call("listing the bucket", attempt, self._repair)

    async def open_recordings(self) -> None:
        """Make the stream of videos, and make it again whenever the broker lost it."""
        self._has_recordings = True
        await self._connection.call(f"making {self._recordings}", self._make_recordings)

    async def recording(self, name: str, size: int) -> bytes | None:
        """Return a video from its parts; None when they are not all there."""
        subject = names.recording_subject(self._experiment, name, "*")
        reader = StreamReader(self._connection, self._recordings, subject, self._repair)
        body = bytearray()
        try:
            while len(body) < size:
                parts = await reader.fetch(RECORDING_FETCH, RECORDING_WAIT_SECONDS)
                if not parts:
                    return None
                for part in parts:
                    body += part
        finally:
            await reader.aclose()
        return bytes(body) if len(body) == size else None

    async def drop_recording(self, name: str) -> None:
        """Drop a video's parts."""
        subject = names.recording_subject(self._experiment, name, "*")
        await self._purge(self._recordings, subject)

    async def delete(self) -> None:
        """Remove the streams and the bucket."""
        self._blobs.clear()
        self._has_recordings = False
        for stream in (
            self._tasks,
            self._results,
            self._failures,
            blob_stream(self._bucket),
            self._recordings,
        ):

            async def attempt(stream: str = stream) -> None:
                with contextlib.suppress(NotFoundError):
                    await self._js.delete_stream(stream)

            await self._connection.call(f"deleting {stream}", attempt)
