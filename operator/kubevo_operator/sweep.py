"""Leftovers of Experiments that are gone: their streams, and directories that nobody wants kept.

And of runs whose arrival ended half-way, which nothing else would clear before the next one comes.
A deletion never waits for the broker, and one that happens while no operator runs is seen by nobody.
So from time to time what the broker and the volume hold is compared with what the API server knows.
The broker is asked first: an Experiment that is made in between is never taken for gone.
"""

import asyncio
import shutil
from collections.abc import Coroutine
from typing import Any

import structlog

from kubevo_core import names
from kubevo_core.errors import KubevoError, StoreError
from kubevo_operator.directory import RETAIN
from kubevo_operator.services import Services
from kubevo_operator.status import is_over
from kubevo_runtime.arriving import clear_arriving
from kubevo_runtime.bus import connect_coordinator, experiments_on
from kubevo_runtime.store import Run, find_runs, open_run

__all__ = ["forever", "once"]

EVERY_SECONDS = 600.0
AGAIN_SECONDS = 30.0

log = structlog.get_logger()


async def forever(services: Services) -> None:
    """Sweep now and then."""
    while True:
        is_done = await _surviving(services, "sweep", once(services))
        await asyncio.sleep(EVERY_SECONDS if is_done else AGAIN_SECONDS)


async def _surviving(services: Services, what: str, work: Coroutine[Any, Any, None]) -> bool:
    """Do one thing of a sweep; return whether it was done. One that fails keeps no other from it."""
    try:
        await work
    except Exception as exc:  # the loop's edge: a sweep that ends is missed by nobody
        is_expected = isinstance(exc, (KubevoError, OSError))
        text = str(exc) or type(exc).__name__
        log.warning("sweep_failed", what=what, error=text, exc_info=None if is_expected else exc)
        services.own_metrics.faults.labels("sweep").inc()
        return False
    return True


async def once(services: Services) -> None:
    """Remove what belongs to no Experiment any more.

    Only what is certainly this operator's: streams and directories of runs on its own volume; and,
    if it looks after all namespaces, every stream of a broker whose users it makes.
    """
    settings = services.settings
    work = asyncio.to_thread(clear_arriving, settings.data)
    await _surviving(services, "what arrived in part", work)
    directories = await asyncio.to_thread(_directories, services)
    streams = set(await experiments_on(services.bus_settings("sweep-00000000")))
    living = await services.cluster.experiments(settings.namespaces)
    # A finished one has left its streams too, if the broker was away at its end.
    searched = {
        names.experiment_id(item["metadata"]["name"], item["metadata"]["uid"])
        for item in living
        if not is_over(item.get("status") or {})
    }
    ours = set(directories)
    if settings.rules_broker and not settings.namespaces:
        ours |= streams
    left = set()
    for identifier in sorted((ours & streams) - searched):
        if not await _surviving(services, identifier, _delete_streams(services, identifier)):
            left.add(identifier)
    uids = {str(item["metadata"]["uid"]) for item in living}
    for identifier, run in directories.items():
        if run.uid not in uids and identifier not in left:
            removal = asyncio.to_thread(_remove_unwanted, run)
            await _surviving(services, str(run.path), removal)


async def _delete_streams(services: Services, identifier: str) -> None:
    log.info("streams_swept", experiment_id=identifier)
    async with connect_coordinator(services.bus_settings(identifier)) as bus:
        await bus.delete()


def _directories(services: Services) -> dict[str, Run]:
    """Return the runs on the volume that are this operator's to look after, by their broker's id."""
    namespaces = services.settings.namespaces
    found = {}
    for path in find_runs(services.settings.data):
        try:
            run = open_run(path)
        except StoreError:
            continue  # damaged: a person's to look at, never ours to remove
        if not namespaces or run.namespace in namespaces:
            found[names.experiment_id(run.name, run.uid)] = run
    return found


def _remove_unwanted(run: Run) -> None:
    """Remove a run's directory, if its Experiment wanted that."""
    spec = run.experiment().get("spec")
    is_unwanted = isinstance(spec, dict) and spec.get("retention") == "Delete"
    if is_unwanted and not (run.path / RETAIN).exists():
        log.info("directory_swept", path=str(run.path))
        shutil.rmtree(run.path, ignore_errors=True)
