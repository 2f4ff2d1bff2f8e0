"""The Kubernetes API as the operator uses it: plain dicts in and out, one method an intent.

The only module that sends requests, but for kopf's watches. Objects are dicts because the client's
models refuse fields that they do not know; a kind is a row of `KINDS`, so nothing is discovered at
run time and the rights that are needed can be read off here.
"""

import asyncio
import contextlib
import json
from collections.abc import Mapping
from typing import Any
from urllib.parse import quote, urlencode

import aiohttp
import structlog
from kubernetes.aio import config
from kubernetes.aio.client import ApiClient, Configuration
from kubernetes.aio.client.exceptions import ApiException

from kubevo_core.errors import KubevoError

__all__ = ["EXPERIMENT", "ApiRefused", "ApiUnavailable", "Cluster", "Conflict", "Kind", "connect"]

Document = dict[str, Any]
Kind = tuple[str, str]  # apiVersion, kind
MANAGER = "kubevo-operator"
EXPERIMENT: Kind = ("kubevo.dev/v1alpha1", "Experiment")
KINDS: dict[Kind, str] = {
    EXPERIMENT: "experiments",
    ("v1", "Secret"): "secrets",
    ("v1", "ConfigMap"): "configmaps",
    ("v1", "Pod"): "pods",
    ("coordination.k8s.io/v1", "Lease"): "leases",
    ("apps/v1", "Deployment"): "deployments",
    ("policy/v1", "PodDisruptionBudget"): "poddisruptionbudgets",
    ("networking.k8s.io/v1", "NetworkPolicy"): "networkpolicies",
    ("autoscaling/v2", "HorizontalPodAutoscaler"): "horizontalpodautoscalers",
    ("keda.sh/v1alpha1", "ScaledObject"): "scaledobjects",
}
APPLY = "application/apply-patch+yaml"
MERGE = "application/merge-patch+json"
REQUEST_SECONDS = 15.0
UNKNOWN_SECONDS = 2.0

log = structlog.get_logger()


class ApiUnavailable(KubevoError):
    """The API server did not answer, or asks to come back later; a retry may help."""


class ApiRefused(KubevoError):
    """The API server refused a request; ``status`` is HTTP's."""

    def __init__(self, message: str, status: int) -> None:
        super().__init__(message)
        self.status = status


class Conflict(ApiRefused):
    """Somebody else has changed or made the object meanwhile; read it again."""


class Cluster:
    """Requests to one API server; `connect` makes it."""

    def __init__(self, client: ApiClient) -> None:
        self.client = client

    async def aclose(self) -> None:
        """Close the connections."""
        await self.client.close()  # type: ignore[no-untyped-call]

    async def wait_for_experiments(self) -> None:
        """Wait until the API server knows what an Experiment is."""
        while True:
            try:
                found = await self._request("GET", f"/apis/{EXPERIMENT[0]}")
                if any(row["name"] == "experiments" for row in found["resources"]):
                    return
                reason = "no experiments among its resources"
            except (ApiUnavailable, ApiRefused) as exc:
                reason = str(exc)
            log.warning("experiments_unknown", error=reason, cure="apply crds/experiments.yaml")
            await asyncio.sleep(UNKNOWN_SECONDS)

    async def get(self, kind: Kind, namespace: str, name: str) -> Document | None:
        """Return an object; None when there is none."""
        try:
            return await self._request("GET", _path(kind, namespace, name))
        except ApiRefused as exc:
            if exc.status == 404:
                return None
            raise

    async def experiments(self, namespaces: tuple[str, ...]) -> list[Document]:
        """Return the Experiments of some namespaces, or of all."""
        plural, found = KINDS[EXPERIMENT], []
        paths = [_path(EXPERIMENT, namespace) for namespace in namespaces]
        for path in paths or [f"/apis/{EXPERIMENT[0]}/{plural}"]:
            found += (await self._request("GET", path))["items"]
        return found

    async def create(self, document: Document) -> Document:
        """Make an object.

        Raises:
            Conflict: one of this name is there already.
        """
        path = _path(_kind(document), document["metadata"]["namespace"])
        return await self._request("POST", path, document)

    async def replace(self, document: Document) -> Document:
        """Write an object that was read, if nobody has written it since.

        Raises:
            Conflict: somebody has.
        """
        metadata = document["metadata"]
        path = _path(_kind(document), metadata["namespace"], metadata["name"])
        return await self._request("PUT", path, document)

    async def apply(self, document: Document, manager: str = MANAGER) -> Document:
        """Make an object be as ``document`` says, in the fields that it names.

        A field that its only ``manager`` does not name any more is removed; another manager that
        has named it too keeps it as it is.
        """
        metadata = document["metadata"]
        path = _path(_kind(document), metadata["namespace"], metadata["name"])
        return await self._request(
            "PATCH", path, document, APPLY, {"fieldManager": manager, "force": "true"}
        )

    async def merge(
        self, kind: Kind, namespace: str, name: str, change: Document, subresource: str = ""
    ) -> Document:
        """Change some fields of an object: a JSON merge patch, in which null removes.

        Raises:
            Conflict: ``change`` names a resourceVersion, and somebody has written since.
        """
        path = _path(kind, namespace, name) + (f"/{subresource}" if subresource else "")
        return await self._request("PATCH", path, change, MERGE)

    async def selected(self, kind: Kind, namespace: str, selector: str) -> list[Document]:
        """Return the objects of a namespace that have some labels."""
        query = {"labelSelector": selector}
        found = await self._request("GET", _path(kind, namespace), query=query)
        items: list[Document] = found["items"]
        return items

    async def apply_status(self, document: Document) -> Document:
        """Replace what this operator has said in an Experiment's status.

        With a ``resourceVersion`` in its metadata, only if nobody has changed the object since.
        """
        metadata = document["metadata"]
        path = _path(EXPERIMENT, metadata["namespace"], metadata["name"]) + "/status"
        return await self._request(
            "PATCH", path, document, APPLY, {"fieldManager": MANAGER, "force": "true"}
        )

    async def delete(
        self, kind: Kind, namespace: str, name: str, *, uid: str | None = None
    ) -> bool:
        """Delete an object, with ``uid`` only that very one; False when it is not there."""
        body: Document = {"propagationPolicy": "Background"}
        if uid is not None:
            body["preconditions"] = {"uid": uid}
        try:
            await self._request("DELETE", _path(kind, namespace, name), body)
        except Conflict:
            return False  # a namesake that was made since
        except ApiRefused as exc:
            if exc.status == 404:
                return False
            raise
        return True

    async def _request(
        self,
        method: str,
        path: str,
        body: Document | None = None,
        content_type: str = "application/json",
        query: Mapping[str, str] | None = None,
    ) -> Document:
        url = path + (f"?{urlencode(query)}" if query else "")
        headers = {"Accept": "application/json", "Content-Type": content_type}
        try:
            async with asyncio.timeout(REQUEST_SECONDS):
                prepared = await self.client.param_serialize(
                    method, url, header_params=headers, body=body, auth_settings=["BearerToken"]
                )
                answer = await self.client.call_api(*prepared)
                text: bytes = await answer.read()  # type: ignore[no-untyped-call]
        except ApiException as exc:
            raise _refusal(method, path, exc.status, exc.body) from exc
        except (aiohttp.ClientError, TimeoutError, OSError) as exc:
            reason = str(exc) or type(exc).__name__
            raise ApiUnavailable(
                f"{method} {path}: the API server did not answer: {reason}"
            ) from exc
        if answer.status >= 400:
            raise _refusal(method, path, answer.status, text)
        found: Document = json.loads(text)
        return found


async def connect(kubeconfig: str | None = None) -> Cluster:
    """Connect as the pod's service account, or as a kubeconfig file says; close with `aclose`."""
    configuration = Configuration()
    if kubeconfig is None:
        config.load_incluster_config(configuration)  # type: ignore[no-untyped-call]
    else:
        await config.load_kube_config(  # type: ignore[no-untyped-call]
            config_file=kubeconfig, client_configuration=configuration
        )
    return Cluster(ApiClient(configuration))


def _kind(document: Document) -> Kind:
    return document["apiVersion"], document["kind"]


def _path(kind: Kind, namespace: str, name: str | None = None) -> str:
    version, plural = kind[0], KINDS[kind]
    root = f"/apis/{version}" if "/" in version else f"/api/{version}"
    parts = [root, "namespaces", quote(namespace, safe=""), plural]
    if name is not None:
        parts.append(quote(name, safe=""))
    return "/".join(parts)


def _refusal(method: str, path: str, status: int | None, body: Any) -> KubevoError:
    text = body.decode(errors="replace") if isinstance(body, bytes) else str(body or "")
    with contextlib.suppress(ValueError, AttributeError):
        text = json.loads(text).get("message", text)
    message = f"{method} {path}: {status}: {text[:1000]}"
    if status is None or status == 429 or status >= 500:
        return ApiUnavailable(message)
    return Conflict(message, status) if status == 409 else ApiRefused(message, status)
