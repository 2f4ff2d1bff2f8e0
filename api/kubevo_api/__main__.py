"""``python -m kubevo_api``: the composition root on a cluster.

Exit codes: 0 after SIGTERM or SIGINT, 2 for settings that a person must correct.
"""

import asyncio
import os
import sys
import time

import structlog

from kubevo_api.app import create_app
from kubevo_api.cluster import ClusterAccess, ClusterCatalogue
from kubevo_api.kubernetes_api import connect
from kubevo_api.runs import Library
from kubevo_api.serve import assemble, listen, serve_forever
from kubevo_api.settings import ApiSettings
from kubevo_core.errors import UserError
from kubevo_runtime.logs import adopt, configure

WRONG = 2
log = structlog.get_logger()


async def run(settings: ApiSettings) -> None:
    """Serve until told to stop."""
    api = await connect(os.environ.get("KUBECONFIG") or None)
    try:
        library = Library()
        catalogue = ClusterCatalogue(api, settings.data, settings.namespaces)
        access = ClusterAccess(api, settings.api_audience, time.monotonic)
        app = create_app(assemble(settings, catalogue, access, library))
        with listen(settings) as listening:
            port = listening.getsockname()[1]
            await serve_forever(app, settings, listening, lambda: log.info("serving", port=port))
    finally:
        await api.aclose()


def main() -> int:
    """Run the program and return its exit code."""
    try:
        settings = ApiSettings.from_environment()
        configure(settings.log_format, settings.log_level)
        adopt("uvicorn")
        asyncio.run(run(settings))
    except UserError as exc:
        sys.stderr.write(f"kubevo api: {exc}\n")
        return WRONG
    return 0


if __name__ == "__main__":
    sys.exit(main())
