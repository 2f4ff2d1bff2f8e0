"""Whether kopf's watch of Experiments still shows what there is.

A watch can fall silent without an error. So now and then the Experiments are listed: one that is
another than the watch has shown must be shown before the next look or two, else the process is no
longer alive (``health``) and is started anew. With nothing to look after, too: a new Experiment that
nobody sees is the first sign.
"""

import asyncio

import structlog

from kubevo_core.errors import KubevoError
from kubevo_operator.services import Services

__all__ = ["forever", "once"]

# Below the time after which `health` gives up: a second look takes back what was only a moment's.
EVERY_SECONDS = 45.0

log = structlog.get_logger()


async def forever(services: Services) -> None:
    """Look now and then."""
    while True:
        await asyncio.sleep(EVERY_SECONDS)
        try:
            await once(services)
        except KubevoError as exc:  # the Lease's own limit says what follows from that
            log.warning("watch_not_checked", error=str(exc))


async def once(services: Services) -> None:
    """Compare what there is with what the watch has shown."""
    living = await services.cluster.experiments(services.settings.namespaces)
    versions = {
        str(item["metadata"]["uid"]): str(item["metadata"]["resourceVersion"]) for item in living
    }
    services.health.compare(versions)
