"""Leftovers of Experiments that are gone: their streams, and directories that nobody wants kept.

A deletion never waits for the broker, and one that happens while no operator runs is seen by nobody.
So from time to time what the broker and the volume hold is compared with what the API server knows.
The broker is asked first: an Experiment that is made in between is never taken for gone.
"""

import asyncio
import shutil
from pathlib import Path

import structlog

from kubevo_core import names
from kubevo_core.errors import KubevoError, StoreError
from kubevo_operator.services import Services
from kubevo_operator.status import is_over
from kubevo_runtime.bus import connect_coordinator, experiments_on
from kubevo_runtime.store import find_runs, open_run

__all__ = ["forever", "once"]

EVERY_SECONDS = 600.0

log = structlog.get_logger()


async def forever(services: Services) -> None:
    """Sweep now and then."""
    while True:
        try:
            await once(services)
        except (KubevoError, OSError) as exc:
            log.warning("sweep_failed", error=str(exc) or type(exc).__name__)
        await asyncio.sleep(EVERY_SECONDS)


async def once(services: Services) -> None:
    """Remove what belongs to no Experiment any more.

    Only what is certainly this operator's: the streams of a broker whose users it makes, if it looks
    after all namespaces, and directories on its own volume.
    """
    settings = services.settings
    streams: list[str] = []
    if settings.rules_broker and not settings.namespaces:
        streams = await experiments_on(services.bus_settings("sweep-00000000"))
    directories = await asyncio.to_thread(find_runs, settings.data)
    living = await services.cluster.experiments(settings.namespaces)
    uids = {str(item["metadata"]["uid"]) for item in living}
    # A finished one has left its streams too, if the broker was away at its end.
    known = {
        names.experiment_id(item["metadata"]["name"], item["metadata"]["uid"])
        for item in living
        if not is_over(item.get("status") or {})
    }
    for identifier in sorted(set(streams) - known):
        log.info("streams_swept", experiment_id=identifier)
        async with connect_coordinator(services.bus_settings(identifier)) as bus:
            await bus.delete()
    for path in directories:
        await asyncio.to_thread(_sweep_directory, path, uids, settings.namespaces)


def _sweep_directory(path: Path, uids: set[str], namespaces: tuple[str, ...]) -> None:
    try:
        run = open_run(path)
        wanted = run.experiment().get("spec", {}).get("retention") != "Delete"
    except StoreError:
        return  # damaged: a person's to look at, never ours to remove
    if wanted or run.uid in uids or (namespaces and run.namespace not in namespaces):
        return
    log.info("directory_swept", path=str(path))
    shutil.rmtree(path, ignore_errors=True)
