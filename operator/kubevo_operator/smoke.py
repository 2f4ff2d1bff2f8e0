"""``python -m kubevo_operator.smoke``: run a tiny Experiment and wait for its end.

The chart's ``helm test``: it shows that the operator, the broker, the evaluators' image and the volume
work together. The Experiment is made anew each time and deleted in the end, also when it failed.

Exit codes: 0 it succeeded, 1 it did not, 2 for settings that are wrong.
"""

import asyncio
import os
import signal
import sys
import time
from typing import Any

import aiohttp

from kubevo_core.errors import KubevoError, UserError
from kubevo_operator.cluster import EXPERIMENT, Cluster, connect

__all__ = ["document", "main", "smoke"]

Document = dict[str, Any]
FAILED, WRONG = 1, 2
LOOK_SECONDS = 1.0
ANSWER_SECONDS = 10.0


class NotWell(KubevoError):
    """The installation does not do what it is for; the message says how far it came."""


def document(namespace: str, name: str) -> Document:
    """Return the Experiment: two generations of short CartPole episodes, in one small pod."""
    return {
        "apiVersion": EXPERIMENT[0],
        "kind": EXPERIMENT[1],
        "metadata": {"name": name, "namespace": namespace},
        "spec": {
            "seed": 1,
            "environment": {"id": "CartPole-v1", "maxEpisodeSteps": 50},
            "policy": {"network": "mlp", "hiddenLayers": [8], "backend": "numpy"},
            "algorithm": {
                "type": "GeneticAlgorithm",
                "geneticAlgorithm": {
                    "populationSize": 10,
                    "parents": 4,
                    "mutationPower": "0.05",
                    "eliteCandidates": 3,
                    "eliteEpisodes": 3,
                    "testEpisodes": 3,
                },
            },
            "budget": {"maxGenerations": 2},
            "scaling": {"max": 1},
            "evaluator": {
                "resources": {
                    "requests": {"cpu": "100m", "memory": "256Mi"},
                    "limits": {"memory": "512Mi"},
                }
            },
            "retention": "Delete",
        },
    }


async def smoke(cluster: Cluster, namespace: str, name: str, seconds: float) -> Document:
    """Run the Experiment and return its last status.

    Raises:
        NotWell: it failed, or did not end in time.
    """
    end = time.monotonic() + seconds
    await _remove(cluster, namespace, name, end)
    await cluster.create(document(namespace, name))
    status: Document = {}
    shown, conditions = "", {}
    try:
        while time.monotonic() < end:
            found = await cluster.get(EXPERIMENT, namespace, name)
            status = (found or {}).get("status") or {}
            conditions = {row["type"]: row for row in status.get("conditions") or []}
            succeeded = conditions.get("Succeeded", {})
            said = f"{succeeded.get('reason', 'Unseen')}: {succeeded.get('message', '')}"
            if said != shown:
                sys.stdout.write(f"{namespace}/{name} {said}\n")
                sys.stdout.flush()
                shown = said
            if succeeded.get("status") == "True":
                return status
            if succeeded.get("status") == "False":
                raise NotWell(f"expected {namespace}/{name} to succeed, got {said}")
            await asyncio.sleep(LOOK_SECONDS)
    finally:
        await cluster.delete(EXPERIMENT, namespace, name)
    words = [f"{row['type']}={row['status']} {row['reason']}" for row in conditions.values()]
    raise NotWell(
        f"expected {namespace}/{name} to succeed within {seconds:g} s, and it is at: "
        f"{'; '.join(words) or 'no condition; is the operator running?'}"
    )


async def _remove(cluster: Cluster, namespace: str, name: str, end: float) -> None:
    while await cluster.get(EXPERIMENT, namespace, name) is not None:
        await cluster.delete(EXPERIMENT, namespace, name)
        if time.monotonic() > end:
            raise NotWell(
                f"expected an earlier {namespace}/{name} to go when it is deleted, and it stays: "
                "is the operator running?"
            )
        await asyncio.sleep(LOOK_SECONDS)


async def _service_answers(url: str) -> None:
    """Check that the REST service is there and knows the Experiments."""
    timeout = aiohttp.ClientTimeout(total=ANSWER_SECONDS)
    try:
        async with (
            aiohttp.ClientSession(timeout=timeout) as session,
            session.get(f"{url}/readyz") as answer,
        ):
            status = answer.status
    except (aiohttp.ClientError, TimeoutError) as exc:
        raise NotWell(f"expected {url}/readyz to answer: {exc or type(exc).__name__}") from exc
    if status != 200:
        raise NotWell(f"expected 200 from {url}/readyz, got {status}")


async def _run(where: str, seconds: float, service: str) -> None:
    namespace, _, name = where.partition("/")
    task = asyncio.current_task()
    assert task is not None
    # The kubelet's way to end it: what it has made goes all the same.
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
    cluster = await connect(os.environ.get("KUBECONFIG") or None)
    try:
        if service:
            await _service_answers(service)
        status = await smoke(cluster, namespace, name, seconds)
    finally:
        await cluster.aclose()
    sys.stdout.write(f"{where} succeeded; resultDigest {status.get('resultDigest')}\n")


def main() -> int:
    """Run the program and return its exit code."""
    try:
        where = os.environ.get("KUBEVO_SMOKE_EXPERIMENT", "")
        seconds = os.environ.get("KUBEVO_SMOKE_SECONDS", "240")
        if where.count("/") != 1 or not where.strip("/") or not seconds.isdecimal():
            raise UserError(
                "expected KUBEVO_SMOKE_EXPERIMENT=NAMESPACE/NAME and whole KUBEVO_SMOKE_SECONDS, "
                f"got {where!r} and {seconds!r}"
            )
        asyncio.run(_run(where, float(seconds), os.environ.get("KUBEVO_SMOKE_SERVICE", "")))
    except asyncio.CancelledError:
        sys.stderr.write("kubevo smoke: ended before the Experiment was\n")
        return FAILED
    except UserError as exc:
        sys.stderr.write(f"kubevo smoke: {exc}\n")
        return WRONG
    except KubevoError as exc:
        sys.stderr.write(f"kubevo smoke: {exc}\n")
        return FAILED
    return 0


if __name__ == "__main__":
    sys.exit(main())
