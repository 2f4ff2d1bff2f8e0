"""The broker's interface: what a coordinator and a worker may ask of it, without any client.

`kubevo_runtime.bus` gives it over NATS, `kubevo_runtime.testing` in memory; one suite of tests
runs over both.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from kubevo_core.errors import BusError, ServerTooOld, UserError

__all__ = [
    "MINIMUM_SERVER",
    "Backlog",
    "BusSettings",
    "CoordinatorBus",
    "HeldTask",
    "QueueMissing",
    "Reader",
    "WorkerBus",
    "missing_text",
    "require_version",
]

# Older servers lose whole streams when they are killed, or strand tasks after a filtered purge.
MINIMUM_SERVER = (2, 10, 23)


class QueueMissing(BusError):
    """The broker answers, but this Experiment has no task queue: deleted, or not made yet."""


@dataclass(frozen=True, kw_only=True)
class BusSettings:
    """Where the broker is, which Experiment to serve, and the limits of its streams.

    ``experiment`` is `names.experiment_id`; ``name`` is what the broker's monitoring shows. Who we
    are is told by a ``token`` or by a ``credentials`` file (a user's JWT and seed), or not at all. A
    ``tls://`` address or a certificate's file forbids any connection without TLS; without ``tls_ca``
    the system's authorities are trusted. The files are read when connecting.

    Raises:
        UserError: the ways exclude each other.
    """

    url: str
    experiment: str
    token: str | None = field(default=None, repr=False)
    credentials: Path | None = None
    tls_ca: Path | None = None
    tls_cert: Path | None = None
    tls_key: Path | None = None
    name: str = "kubevo"
    max_workers: int = 512
    ack_wait_seconds: float = 20.0
    max_deliver: int = 30
    task_bytes: int = 256 << 20
    result_bytes: int = 256 << 20
    failure_bytes: int = 16 << 20
    blob_bytes: int = 256 << 20
    recording_bytes: int = 64 << 20
    recording_seconds: float = 86_400.0
    connect_seconds: float = 10.0
    request_seconds: float = 4.0
    give_up_seconds: float = 300.0
    reconnect_wait_seconds: float = 0.25

    def __post_init__(self) -> None:
        if self.token is not None and self.credentials is not None:
            raise UserError(
                "the broker's credentials: expected a token or a file, got both a token and "
                f"{self.credentials}; leave one out"
            )
        if (self.tls_cert is None) != (self.tls_key is None):
            raise UserError(
                "the client certificate for the broker: expected a certificate and its key, got "
                f"{self.tls_cert or self.tls_key} alone; name both files, or neither"
            )

    @property
    def requires_tls(self) -> bool:
        """Whether nothing may be said to a server that does not encrypt."""
        return self.url.startswith("tls://") or self.tls_ca is not None or self.tls_cert is not None


@dataclass(frozen=True)
class Backlog:
    """Tasks that wait for a worker, and tasks that a worker holds; stranded ones are in neither."""

    pending: int
    held: int


class HeldTask(Protocol):
    """A task on lease. The three answers are hints: none raises, and a lost one costs a replay."""

    @property
    def episode(self) -> str:
        """The episode's name, as in `names.episode_subject`, or ``describe``."""

    @property
    def body(self) -> bytes:
        """The task's bytes."""

    @property
    def deliveries(self) -> int:
        """How often it was handed out, this time included."""

    @property
    def number(self) -> int:
        """Its place among all that the queue ever handed out, also a second time."""

    @property
    def behind(self) -> int:
        """How many tasks, not handed out yet, waited behind it when it was."""

    async def in_progress(self) -> None:
        """Renew the lease for another ``ack_wait_seconds``."""

    async def ack(self) -> None:
        """Take the task off the queue; its result must be stored already."""

    async def nak(self, delay_seconds: float = 0) -> None:
        """Give the task back, to be handed out again after a delay."""


class Reader(Protocol):
    """Reads a stream from its beginning; at least once each message."""

    async def fetch(self, limit: int, timeout_seconds: float) -> list[bytes]:
        """Return up to ``limit`` messages as soon as there is one; empty after the timeout.

        Raises:
            BusUnavailable: the broker did not answer for ``give_up_seconds``.
        """

    async def aclose(self) -> None:
        """Stop reading."""


class CoordinatorBus(Protocol):
    """What the driver of an Experiment may do; every method may raise `BusError`."""

    async def ensure(self) -> None:
        """Make the Experiment's streams, consumer and bucket, or bring their limits up to date."""

    async def publish_task(self, episode: str, body: bytes) -> bool:
        """Queue a task; False when it is queued or held already.

        Raises:
            BusUnavailable: no answer, or no room in the stream, for ``give_up_seconds``.
        """

    async def publish_tasks(self, tasks: Sequence[tuple[str, bytes]]) -> int:
        """Queue many (episode, body) at once; return how many were not there yet."""

    async def put_result(self, episode: str, body: bytes) -> bool:
        """Store a result; False when there is one (perhaps this one, sent before an outage)."""

    def results(self, episode_filter: str) -> Reader:
        """Return a reader of the results that match."""

    def failures(self, episode_filter: str) -> Reader:
        """Return a reader of the failure reports that match."""

    async def result(self, episode: str) -> bytes | None:
        """Return an episode's result, if there is one."""

    async def backlog(self) -> Backlog:
        """Return how much work is queued and held."""

    async def has_room(self) -> bool:
        """Tell whether the results' stream takes another result; evaluators wait while it does not."""

    async def purge_task(self, episode: str) -> int:
        """Take a task off the queue, also from under a worker; return how many went (0 or 1)."""

    async def purge(self, episode_filter: str) -> None:
        """Drop the tasks, results and failure reports that match."""

    async def dead_letters(self, limit: int) -> list[str]:
        """Return episodes whose tasks used up their deliveries; they lie there until purged."""

    async def put_blob(self, key: str, body: bytes) -> None:
        """Store bytes under a key, in place of what is there."""

    async def drop_blob(self, key: str) -> None:
        """Drop a key; fine when there is none."""

    async def blob_keys(self) -> list[str]:
        """Return the keys that have a blob, sorted."""

    async def open_recordings(self) -> None:
        """Make the place where videos wait to be fetched, which `ensure` keeps from then on.

        Apart from `ensure`, because a stream's limit is a claim on the broker's disk, and few
        Experiments record.
        """

    async def recording(self, name: str, size: int) -> bytes | None:
        """Return a video of ``size`` bytes from its parts; None when they are not all there."""

    async def drop_recording(self, name: str) -> None:
        """Drop a video's parts; fine when there are none."""

    async def delete(self) -> None:
        """Remove everything of this Experiment from the broker."""


class WorkerBus(Protocol):
    """What a worker may do; it creates and deletes nothing."""

    async def pull(self, timeout_seconds: float) -> HeldTask | None:
        """Take one task; None when none came in time, also while the broker is down.

        Raises:
            QueueMissing: the queue has not been there for the whole of the timeout.
            BusUnavailable: the connection is closed for good.
        """

    async def pull_ready(self) -> HeldTask | None:
        """Take a task if one lies ready, and never before a worker that waits in `pull`.

        None also when the broker does not answer soon: what is the matter, `pull` finds out.
        """

    async def is_anyone_idle(self) -> bool:
        """Tell whether a worker waits in `pull`; False while the broker does not answer."""

    async def put_result(self, episode: str, body: bytes) -> bool:
        """Store a result; False when there is one (perhaps this one, sent before an outage)."""

    async def put_failure(self, episode: str, body: bytes) -> None:
        """Report a failure."""

    async def put_recording_part(self, name: str, part: int, body: bytes) -> None:
        """Store one part of a video, in place of what is there.

        Raises:
            BusError: among others, after a while, when nobody made the place for videos.
        """

    async def get_blob(self, key: str) -> bytes | None:
        """Return the bytes under a key, if there are any."""


def require_version(version: str, where: str) -> None:
    """Refuse a server that is known to lose work; ``version`` is such as ``2.15.1`` or ``v2.9.10``.

    Raises:
        ServerTooOld: older than ``MINIMUM_SERVER``, or not a version.
    """
    minimum = ".".join(map(str, MINIMUM_SERVER))
    try:
        parsed = tuple(int(part) for part in version.lstrip("v").split("-")[0].split("."))
    except ValueError:
        parsed = ()
    if parsed < MINIMUM_SERVER:
        raise ServerTooOld(
            f"nats-server at {where}: expected {minimum} or newer, found {version or 'no version'}; "
            "older ones lose tasks, so install a newer one (kubevo[local] brings one)"
        )


def missing_text(experiment: str, place: str) -> str:
    """Return what to say when an Experiment has no streams on the broker."""
    return (
        f"the broker at {place} has no streams of Experiment {experiment!r}: it was deleted or "
        "finished, its coordinator has not started, or the broker lost its store; start the "
        "coordinator, which makes them"
    )
