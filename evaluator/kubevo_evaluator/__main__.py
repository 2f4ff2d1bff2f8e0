"""``python -m kubevo_evaluator``: one worker process. Settings come from the environment.

Exit codes: 0 told to stop, 3 unfit to evaluate, 4 wants to be replaced, 1 anything else.
"""

import asyncio
import os
import signal
import sys

# One evaluation per core: a BLAS with threads would fight its neighbours, and the number of its
# threads changes the last bits. Must be set before numpy is imported.
for _name in ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(_name, "1")

import structlog

from kubevo_core.errors import KubevoError, WorkerUnfit
from kubevo_evaluator.settings import Settings
from kubevo_evaluator.worker import Recycle, Worker
from kubevo_runtime.bus import BusSettings, connect_worker
from kubevo_runtime.logs import configure

UNFIT = 3
REPLACE = 4

log = structlog.get_logger()


async def _run(settings: Settings) -> int:
    stopping = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopping.set)
    connection = BusSettings(
        url=settings.nats_url,
        experiment=settings.experiment,
        token=settings.nats_token,
        credentials=settings.nats_credentials,
        tls_ca=settings.nats_tls_ca,
        tls_cert=settings.nats_tls_cert,
        tls_key=settings.nats_tls_key,
        name=settings.worker,
        ack_wait_seconds=settings.ack_wait_seconds,
    )
    async with connect_worker(connection) as bus:
        try:
            await Worker(settings, bus, stopping).run()
        except Recycle as exc:
            log.info("worker_ends", reason=str(exc))
            return 0 if stopping.is_set() else REPLACE
        except WorkerUnfit as exc:
            log.error("worker_unfit", reason=str(exc))
            return UNFIT
    return 0


def main() -> int:
    """Run the worker and return its exit code."""
    configure("json")
    try:
        settings = Settings.from_environment()
        structlog.contextvars.bind_contextvars(worker=settings.worker)
        return asyncio.run(_run(settings))
    except KubevoError as exc:
        log.error("worker_failed", reason=str(exc))
    except Exception as exc:
        # Not left to the interpreter, which would wait for an episode that plays in its thread.
        log.error("worker_crashed", reason=f"{type(exc).__name__}: {exc}", exc_info=True)
    return 1


if __name__ == "__main__":
    code = main()
    # An episode that was given up may still be playing in its thread: do not wait for it.
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)
