"""One replica works: a Lease, under the rules of the client library's election.

The library decides; the lock is ours, because the library's own sends a request that its own models
refuse. It has patience with an API server that does not answer, ends a leader that sees another
holder at once (it may have been frozen), and gives the Lease up at a clean end, so that a successor
need not wait for it to run out.
"""

import asyncio
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from typing import Any

import structlog
from kubernetes.aio.client.exceptions import ApiException
from kubernetes.aio.leaderelection.electionconfig import Config
from kubernetes.aio.leaderelection.leaderelection import LeaderElection
from kubernetes.aio.leaderelection.leaderelectionrecord import LeaderElectionRecord
from kubernetes.aio.leaderelection.resourcelock.baselock import BaseLock

from kubevo_core.errors import KubevoError
from kubevo_operator.cluster import ApiRefused, ApiUnavailable, Cluster
from kubevo_operator.settings import OperatorSettings

__all__ = ["LeadershipLost", "lead"]

LEASE = ("coordination.k8s.io/v1", "Lease")
NOT_FOUND = '{"code": 404}'

log = structlog.get_logger()


class LeadershipLost(KubevoError):
    """Another replica leads now, or may; this process must end without touching anything."""


async def lead(
    cluster: Cluster,
    settings: OperatorSettings,
    work: Callable[[], Awaitable[None]],
    looked: Callable[[bool], None],
    stop: asyncio.Event,
) -> None:
    """Wait to be elected or for ``stop``, then ``work`` while leading; it must obey ``stop`` itself.

    ``looked`` is called at each answer about the Lease, with whether another replica holds it.

    Raises:
        LeadershipLost: the Lease could not be renewed, or somebody else holds it.
    """
    lock = _Lock(cluster, settings, looked)
    working: list[asyncio.Future[Any]] = []

    async def started() -> None:
        lock.leads = True
        log.info("leading", identity=settings.identity)
        task = asyncio.ensure_future(work())
        working.append(task)
        await asyncio.wait({task})

    config = Config(
        lock,
        lease_duration=settings.lease_seconds,
        renew_deadline=settings.renew_seconds,
        retry_period=settings.retry_seconds,
        onstarted_leading=started,
        onstopped_leading=_nothing,
    )
    election = asyncio.create_task(LeaderElection(config).run())
    stopping = asyncio.create_task(stop.wait())
    is_lost = False
    try:
        while not election.done():
            waiting: set[asyncio.Future[Any]] = {election, *(working or [stopping])}
            await asyncio.wait(
                waiting, timeout=settings.retry_seconds, return_when=asyncio.FIRST_COMPLETED
            )
            if working and working[0].done():
                working[0].result()
                return
            if stop.is_set() and not working:
                return
        is_lost = True
        election.result()
        raise LeadershipLost(
            f"the Lease {settings.lease} could not be renewed for {settings.renew_seconds:g} s"
        )
    finally:
        for task in (election, stopping):
            task.cancel()
        await asyncio.gather(election, stopping, return_exceptions=True)
        if lock.leads and not is_lost:
            await lock.give_up()


async def _nothing() -> None:
    pass


class _Lock(BaseLock):
    """The Lease as the library's election wants to see it."""

    def __init__(
        self, cluster: Cluster, settings: OperatorSettings, looked: Callable[[bool], None]
    ) -> None:
        super().__init__(settings.lease, settings.namespace, settings.identity)
        self.leads = False
        self._cluster = cluster
        self._looked = looked
        # A renewal reads and writes; one that starts at the deadline ends before the Lease does.
        self._seconds = (settings.lease_seconds - settings.renew_seconds) / 2
        self._seen: dict[str, Any] = {}

    async def get(
        self, name: str, namespace: str
    ) -> tuple[bool, LeaderElectionRecord] | tuple[bool, Exception] | tuple[bool, None]:
        """Return (True, what the Lease says) or (False, why it could not be read)."""
        try:
            async with asyncio.timeout(self._seconds):
                found = await self._cluster.get(LEASE, namespace, name)
        except (ApiUnavailable, ApiRefused, TimeoutError) as exc:
            return False, ApiException(status=0, reason=str(exc) or type(exc).__name__)
        spec = (found or {}).get("spec") or {}
        holder = spec.get("holderIdentity") or None
        self._looked(holder not in (None, self.identity))
        if found is None:
            missing = ApiException(status=404, reason="Not Found")
            missing.body = NOT_FOUND
            return False, missing
        self._seen = found
        if self.leads and holder != self.identity:
            raise LeadershipLost(
                f"{holder or 'nobody'} holds the Lease {name} now; this process was frozen or cut "
                "off, and ends"
            )
        return True, LeaderElectionRecord(
            holder,
            str(spec.get("leaseDurationSeconds")),
            spec.get("acquireTime"),
            spec.get("renewTime"),
        )

    async def create(
        self, name: str, namespace: str, election_record: LeaderElectionRecord
    ) -> bool:
        """Make the Lease; False when somebody was faster or it could not be made."""
        metadata = {"name": name, "namespace": namespace}
        document = {"apiVersion": LEASE[0], "kind": LEASE[1], "metadata": metadata}
        return await self._write(
            self._cluster.create, {**document, "spec": _spec(election_record, {})}
        )

    async def update(
        self,
        name: str,  # noqa: ARG002 - the library's signature; what was read names the Lease
        namespace: str,  # noqa: ARG002
        updated_record: LeaderElectionRecord,
    ) -> bool:
        """Write the Lease, only if nobody has since it was read; False otherwise."""
        spec = _spec(updated_record, self._seen.get("spec") or {})
        return await self._write(self._cluster.replace, {**self._seen, "spec": spec})

    async def _write(
        self, write: Callable[[dict[str, Any]], Awaitable[dict[str, Any]]], lease: dict[str, Any]
    ) -> bool:
        try:
            async with asyncio.timeout(self._seconds):
                await write(lease)
        except (ApiUnavailable, ApiRefused, TimeoutError) as exc:
            log.warning("lease_not_written", error=str(exc) or type(exc).__name__)
            return False
        self._looked(False)
        return True

    async def give_up(self) -> None:
        """Leave the Lease without a holder, if it is still ours."""
        try:
            found, record = await self.get(self.name, self.namespace)
        except LeadershipLost:
            return
        if found and isinstance(record, LeaderElectionRecord):
            spec = {**self._seen["spec"], "holderIdentity": "", "leaseDurationSeconds": 1}
            await self._write(self._cluster.replace, {**self._seen, "spec": spec})


def _spec(record: LeaderElectionRecord, old: dict[str, Any]) -> dict[str, Any]:
    """Return what the Lease says under ``record``; the times are ours, not the library's local ones."""
    now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
    is_same = old.get("holderIdentity") == record.holder_identity
    changes = int(old.get("leaseTransitions") or 0)
    return {
        "holderIdentity": record.holder_identity,
        "leaseDurationSeconds": max(1, round(float(record.lease_duration or 1))),
        "acquireTime": old.get("acquireTime", now) if is_same else now,
        "renewTime": now,
        "leaseTransitions": changes if is_same else changes + 1,
    }
