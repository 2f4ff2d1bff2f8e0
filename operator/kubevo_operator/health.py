"""Whether this process is alive and ready, and its HTTP port for probes and Prometheus.

kopf's own probe says only that its HTTP task runs. This one fails when something stopped that a
restart would mend: the Lease was not looked at, or an Experiment is not what kopf's watch has shown
of it (``watchdog``). A stuck event loop cannot answer at all.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager

from aiohttp import web
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_LATEST

from kubevo_core.errors import UserError

__all__ = ["Health", "serve"]

WATCH_SECONDS = 90.0  # kopf renews a silent watch after 70 s
LAG_SECONDS = 0.25


class Health:
    """The signs of life; ``clock`` is a monotonic clock in seconds."""

    def __init__(self, clock: Callable[[], float], lease_stale_seconds: float) -> None:
        self._clock = clock
        self._lease_stale = lease_stale_seconds
        self._looked = clock()
        self._expected: dict[str, float] = {}
        self._shown: dict[str, str] = {}
        self.leads = False
        self.is_ready = False
        self.loop_lag_seconds = 0.0

    def lease_looked(self, is_held_by_another: bool) -> None:
        """Note that the API server has answered about the Lease; a standby is ready by that."""
        self._looked = self._clock()
        if is_held_by_another and not self.leads:
            self.is_ready = True

    def begins_to_lead(self) -> None:
        """Note that this process leads; it is ready when its watches are."""
        self.leads, self.is_ready = True, False

    def seen(self, uid: str, version: str) -> None:
        """Note that the watch has shown an object in some version."""
        self._shown[uid] = version
        self._expected.pop(uid, None)

    def gone(self, uid: str) -> None:
        """Note that the watch has shown the end of an object."""
        self._shown.pop(uid, None)
        self._expected.pop(uid, None)

    def compare(self, versions: Mapping[str, str]) -> None:
        """Note the version of every object there is: what the watch has not shown, it must show."""
        for uid in self._expected.keys() - versions.keys():
            del self._expected[uid]
        for uid, version in versions.items():
            if self._shown.get(uid) == version:
                self._expected.pop(uid, None)
            else:
                self._expected.setdefault(uid, self._clock())

    def problems(self) -> list[str]:
        """Return what only a restart would mend, in words; empty when all is well."""
        now, found = self._clock(), []
        if now - self._looked > self._lease_stale:
            found.append(f"no answer about the Lease for {now - self._looked:.0f} s")
        oldest = min(self._expected.values(), default=now)
        if now - oldest > WATCH_SECONDS:
            found.append(f"the watch of Experiments has been silent for {now - oldest:.0f} s")
        return found

    async def measure_lag(self) -> None:
        """Keep ``loop_lag_seconds`` up to date, for ever."""
        while True:
            before = self._clock()
            await asyncio.sleep(LAG_SECONDS)
            late = max(0.0, self._clock() - before - LAG_SECONDS)
            self.loop_lag_seconds = max(late, 0.9 * self.loop_lag_seconds)


@asynccontextmanager
async def serve(
    health: Health, registry: CollectorRegistry, address: str, port: int
) -> AsyncIterator[int]:
    """Serve /healthz, /readyz and /metrics; yield the port.

    Raises:
        UserError: the port is taken or not ours to take.
    """

    async def healthz(_: web.Request) -> web.Response:
        found = health.problems()
        return web.Response(status=503 if found else 200, text="\n".join(found) or "ok")

    async def readyz(_: web.Request) -> web.Response:
        return web.Response(
            status=200 if health.is_ready else 503, text="ok" if health.is_ready else "starting"
        )

    async def metrics(_: web.Request) -> web.Response:
        body = generate_latest(registry)
        return web.Response(body=body, headers={"Content-Type": CONTENT_TYPE_LATEST})

    app = web.Application()
    app.add_routes(
        [
            web.get("/healthz", healthz),
            web.get("/readyz", readyz),
            web.get("/metrics", metrics),
        ]
    )
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    try:
        site = web.TCPSite(runner, address, port)
        try:
            await site.start()
        except OSError as exc:
            raise UserError(
                f"cannot listen on {address}:{port}: {exc.strerror or exc}; choose another "
                "KUBEVO_HTTP_PORT"
            ) from exc
        lag = asyncio.create_task(health.measure_lag())
        yield int(runner.addresses[0][1])
        lag.cancel()
    finally:
        await runner.cleanup()
