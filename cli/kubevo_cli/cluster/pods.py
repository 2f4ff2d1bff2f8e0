"""The pod of kubevo itself, and a command in it."""

import time
from collections.abc import Iterable
from typing import Any, NamedTuple

import yaml
from kubernetes.client import CoreV1Api
from kubernetes.client.exceptions import ApiException
from kubernetes.stream import stream
from kubernetes.stream.ws_client import ERROR_CHANNEL, STDIN_CHANNEL
from websocket import WebSocketException

from kubevo_cli.cluster.kubernetes_api import (
    Cluster,
    ClusterRefused,
    ClusterUnavailable,
    NotFound,
)

__all__ = ["Ended", "execute", "ready_pod", "refusal"]

Document = dict[str, Any]
LABELS = "app.kubernetes.io/name=kubevo,app.kubernetes.io/component=operator"
CONTAINER = "operator"
CHUNK = 64 * 1024
SILENCE_SECONDS = 120.0


class Ended(NamedTuple):
    """What a command in a pod gave; ``code`` None: it did not say."""

    code: int | None
    out: str
    err: str


def ready_pod(cluster: Cluster, namespace: str, otherwise: str = "") -> Document:
    """Return the pod of the operator and the service, one that is ready.

    ``otherwise`` is what errors name as a way without it.

    Raises:
        NotFound: there is none.
        KubevoError: as `kubevo_cli.cluster.kubernetes_api` says.
    """
    path = f"/api/v1/namespaces/{namespace}/pods"
    pods = cluster.request("GET", path, query={"labelSelector": LABELS})["items"]
    ready = sorted((pod for pod in pods if _is_ready(pod)), key=lambda p: p["metadata"]["name"])
    if not ready:
        there = f"{len(pods)} that are not ready" if pods else "none"
        raise NotFound(
            f"the service's pod: expected one that is ready in the namespace {namespace!r} (labels "
            f"{LABELS}), found {there}; name another namespace with --service-namespace{otherwise}"
        )
    found: Document = ready[0]
    return found


def _is_ready(pod: Document) -> bool:
    conditions = pod.get("status", {}).get("conditions") or ()
    is_ready = any(each["type"] == "Ready" and each["status"] == "True" for each in conditions)
    return is_ready and "deletionTimestamp" not in pod["metadata"]


def execute(
    cluster: Cluster, namespace: str, pod: Document, command: list[str], pieces: Iterable[bytes]
) -> Ended:
    """Run a command in the operator's container with ``pieces`` as its stdin, and wait for its end.

    Raises:
        ClusterRefused: it is not allowed.
        NotFound: the pod is gone.
        ClusterUnavailable: the connection ended before the command did.
    """
    name = pod["metadata"]["name"]
    try:
        client: Any = stream(
            CoreV1Api(cluster.client).connect_get_namespaced_pod_exec,
            name,
            namespace,
            container=CONTAINER,
            command=command,
            stdin=True,
            stdout=True,
            stderr=True,
            tty=False,
            binary=True,
            _preload_content=False,
        )
    except ApiException as exc:
        raise refusal("a command in", "pods/exec", name, namespace, str(exc.reason)) from exc
    try:
        _send(client, pieces)
        _wait(client)
        out, err = client.read_stdout() or b"", client.read_stderr() or b""
        return Ended(_code(client), out.decode(errors="replace"), err.decode(errors="replace"))
    except (WebSocketException, OSError) as exc:
        raise ClusterUnavailable(
            f"the connection to the pod {name} ended: {exc or type(exc).__name__}; try again"
        ) from exc
    finally:
        client.sock.shutdown()  # `close` leaves the socket of a connection that broke


def _send(client: Any, pieces: Iterable[bytes]) -> None:
    for piece in pieces:
        for start in range(0, len(piece), CHUNK):
            client.update(timeout=0)  # a command that has ended takes nothing more
            if not client.is_open():
                return
            client.write_stdin(piece[start : start + CHUNK])
    client.close_channel(STDIN_CHANNEL)


def _wait(client: Any) -> None:
    deadline = time.monotonic() + SILENCE_SECONDS
    while client.is_open():
        client.update(timeout=1)
        if time.monotonic() > deadline:
            raise TimeoutError(f"the command said nothing for {SILENCE_SECONDS:.0f} s")


def _code(client: Any) -> int | None:
    """Return the exit code from the last message, as Kubernetes gives it."""
    status = yaml.safe_load(client.read_channel(ERROR_CHANNEL) or b"null")
    if not isinstance(status, dict):
        return None
    if status.get("status") == "Success":
        return 0
    for cause in (status.get("details") or {}).get("causes") or ():
        if cause.get("reason") == "ExitCode":
            return int(cause["message"])
    return None


def refusal(
    what: str, right: str, pod: str, namespace: str, reason: str, otherwise: str = ""
) -> Exception:
    """Return the error of ``what`` a pod was asked for and refused, by the client's ``reason``.

    ``right`` is the resource that it needs, ``otherwise`` a way without it.
    """
    where = f"the pod {pod} in the namespace {namespace!r}"
    if "403" in reason:
        return ClusterRefused(
            f"{what} {where} is not allowed: expected the verbs create and get on {right} there; "
            f"ask for them{otherwise}",
            403,
        )
    if "404" in reason:
        return NotFound(f"{where} is gone: try again")
    return ClusterUnavailable(
        f"{what} {where} failed: {' '.join(reason.split())[:300]}; try again{otherwise}"
    )
