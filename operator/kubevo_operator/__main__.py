"""``python -m kubevo_operator``: the composition root. Reads settings, waits to lead, and operates.

Exit codes: 0 after SIGTERM or SIGINT, 1 for what a restart may mend (a lost Lease, a fence), 2 for
settings that a person must correct.
"""

import asyncio
import os
import shutil
import signal
import sys
import time
from collections.abc import Callable, Coroutine
from contextlib import AsyncExitStack
from pathlib import Path
from tempfile import TemporaryDirectory

import structlog
from prometheus_client import CollectorRegistry

from kubevo_core.errors import UserError
from kubevo_operator import broker_keys, sweep, watchdog
from kubevo_operator.cluster import Cluster, connect
from kubevo_operator.defaults import Defaults
from kubevo_operator.election import LeadershipLost, lead
from kubevo_operator.handlers import EXITING_SECONDS, operate
from kubevo_operator.health import Health, serve
from kubevo_operator.metrics import OperatorMetrics
from kubevo_operator.nats_accounts import AccountKeys, coordinator_credentials
from kubevo_operator.services import Services
from kubevo_operator.settings import OperatorSettings
from kubevo_runtime.exposition import Metrics
from kubevo_runtime.logs import adopt, configure

LOST, WRONG = 1, 2
log = structlog.get_logger()


async def run(settings: OperatorSettings) -> int:
    """Operate until told to stop and return the exit code; a lost Lease or a fence ends at once."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    registry = CollectorRegistry()
    health = Health(time.monotonic, 2 * settings.lease_seconds)

    async with AsyncExitStack() as stack:
        port = await stack.enter_async_context(
            serve(health, registry, settings.http_address, settings.http_port)
        )
        log.info("serving", port=port, identity=settings.identity)
        cluster = await connect(os.environ.get("KUBECONFIG") or None)
        stack.push_async_callback(cluster.aclose)
        secrets = Path(stack.enter_context(TemporaryDirectory(prefix="kubevo-")))

        def fatal(exc: BaseException) -> None:
            # Somebody else works on already: whatever a tidy end would still write is wrong.
            log.error("must_end", error=str(exc))
            shutil.rmtree(secrets, ignore_errors=True)
            os._exit(LOST)

        async def work() -> None:
            health.begins_to_lead()
            if await _unless(stop, cluster.wait_for_experiments()):
                return
            keys = await broker_keys.keys_of(cluster, settings)
            services = _services(settings, cluster, keys, health, registry, secrets, fatal)
            beside = [
                asyncio.create_task(each)
                for each in (sweep.forever(services), watchdog.forever(services))
            ]
            try:
                await operate(services, stop)
            finally:
                for each in beside:
                    each.cancel()

        try:
            await _until(stop, lead(cluster, settings, work, health.lease_looked, stop))
        except LeadershipLost as exc:
            fatal(exc)
    return 0


async def _unless(stop: asyncio.Event, waiting: Coroutine[None, None, None]) -> bool:
    """Wait for ``waiting``; return whether ``stop`` came first."""
    task, stopping = asyncio.create_task(waiting), asyncio.create_task(stop.wait())
    try:
        await asyncio.wait({task, stopping}, return_when=asyncio.FIRST_COMPLETED)
        if task.done():
            task.result()
        return not task.done()
    finally:
        for each in (task, stopping):
            each.cancel()
        await asyncio.gather(task, stopping, return_exceptions=True)


async def _until(stop: asyncio.Event, leading: Coroutine[None, None, None]) -> None:
    """Lead until told to stop; then whoever works has some seconds to leave things resumable."""
    task = asyncio.create_task(leading)
    stopping = asyncio.create_task(stop.wait())
    try:
        await asyncio.wait({task, stopping}, return_when=asyncio.FIRST_COMPLETED)
        if not task.done():
            await asyncio.wait({task}, timeout=EXITING_SECONDS)
        if task.done():
            task.result()
    finally:
        for each in (task, stopping):
            each.cancel()
        await asyncio.gather(task, stopping, return_exceptions=True)


def _services(
    settings: OperatorSettings,
    cluster: Cluster,
    keys: AccountKeys | None,
    health: Health,
    registry: CollectorRegistry,
    secrets: Path,
    fatal: Callable[[BaseException], None],
) -> Services:
    credentials = settings.nats_credentials
    if keys is not None:
        credentials = secrets / "coordinator.creds"
        credentials.touch(mode=0o600)
        credentials.write_text(coordinator_credentials(keys))
    foreign = settings.nats_credentials.read_text() if settings.nats_credentials else ""
    return Services(
        cluster=cluster,
        settings=settings,
        defaults=Defaults.of(
            settings,
            keys.account if keys is not None else None,
            settings.nats_tls_ca.read_text() if settings.nats_tls_ca is not None else "",
        ),
        keys=keys,
        coordinator_credentials=credentials,
        foreign_credentials=foreign,
        metrics=Metrics(registry),
        own_metrics=OperatorMetrics(registry, health),
        health=health,
        clock=time.monotonic,
        fatal=fatal,
    )


def main() -> int:
    """Run the program and return its exit code."""
    try:
        settings = OperatorSettings.from_environment()
        configure(settings.log_format, settings.log_level)
        adopt("kopf")
        return asyncio.run(run(settings))
    except UserError as exc:
        sys.stderr.write(f"kubevo operator: {exc}\n")
        return WRONG


if __name__ == "__main__":
    sys.exit(main())
