"""The way to the REST service: its URL, or a port-forward to its pod; and a token that it takes.

A port-forward is made here, over the Kubernetes API, one for each connection: the client is handed
its socket, so there is no local port that others on this machine could use.
"""

import contextlib
import socket
from typing import Any

from kubernetes.client import CoreV1Api
from kubernetes.client.exceptions import ApiException
from kubernetes.stream import portforward

from kubevo_cli.cluster.kubernetes_api import (
    Cluster,
    ClusterRefused,
    ClusterUnavailable,
    NoCluster,
    NotFound,
    connect,
)
from kubevo_cli.cluster.options import ClusterOptions, ServiceOptions
from kubevo_cli.cluster.pods import ready_pod, refusal
from kubevo_client import Client
from kubevo_core.errors import UserError

__all__ = ["Forwarding", "open_service"]

Document = dict[str, Any]
PORT_NAME, PORT = "api", 8000
AUDIENCE = "kubevo-api"
TOKEN_SECONDS = 3600
OTHERWISE = ", or name the service's URL with --service"


def open_service(cluster: ClusterOptions, service: ServiceOptions) -> tuple[Client, str]:
    """Return a client of the service, and the namespace of names without one.

    Raises:
        UserError: no cluster is known, or the service or the account is not there.
        KubevoError: as `kubevo_cli.cluster.kubernetes_api` says.
    """
    if service.url is not None:
        return _at_url(service.url, cluster, service)
    found = connect(cluster)
    forwarding = Forwarding(found, service.namespace)
    token = service.token or _token(found, service.account)
    # The name is for the Host header and for errors; the pod is reached by the port-forward.
    client = Client(
        f"http://kubevo.{service.namespace}",
        token,
        namespace=found.namespace,
        connect=forwarding.connect,
    )
    return client, found.namespace


def _at_url(url: str, cluster: ClusterOptions, service: ServiceOptions) -> tuple[Client, str]:
    namespace, token = cluster.namespace, service.token
    if token is None:
        try:
            token = _token(connect(cluster), service.account)
        except NoCluster as exc:
            raise UserError(
                f"--service {url}: expected a token in --token or KUBEVO_TOKEN, and there is no "
                f"cluster to ask for one: {exc}"
            ) from exc
    client = Client(url, token, namespace=namespace)
    if namespace is None and client.version()["mode"] == "local":
        namespace = "local"
    elif namespace is None:
        try:
            namespace = connect(cluster).namespace
        except NoCluster:
            namespace = "default"
    return Client(url, token, namespace=namespace), namespace


def _token(cluster: Cluster, account: str) -> str:
    """Return a fresh token of a ServiceAccount for the service's audience."""
    namespace, slash, name = account.rpartition("/")
    namespace = namespace if slash else cluster.namespace
    body = {
        "apiVersion": "authentication.k8s.io/v1",
        "kind": "TokenRequest",
        "spec": {"audiences": [AUDIENCE], "expirationSeconds": TOKEN_SECONDS},
    }
    path = f"/api/v1/namespaces/{namespace}/serviceaccounts/{name}/token"
    try:
        found = cluster.request("POST", path, body=body)
    except NotFound as exc:
        raise UserError(
            f"there is no ServiceAccount {name!r} in the namespace {namespace!r} to call the "
            "service as: give --token or --service-account, or make it:\n"
            f"  kubectl create serviceaccount {name} -n {namespace}\n"
            f"  kubectl create role {name} -n {namespace} --verb=get,list,watch,patch "
            "--resource=experiments.kubevo.dev\n"
            f"  kubectl create rolebinding {name} -n {namespace} --role={name} "
            f"--serviceaccount={namespace}:{name}"
        ) from exc
    except ClusterRefused as exc:
        raise ClusterRefused(
            f"a token to call the service with: {exc}; or give one with --token", exc.status
        ) from exc
    return str(found["status"]["token"])


class Forwarding:
    """Connections to the service's pod; it is looked up anew when the one known is gone."""

    def __init__(self, cluster: Cluster, namespace: str) -> None:
        self._cluster = cluster
        self._namespace = namespace
        self._pod: tuple[str, int] | None = None

    def connect(self, timeout_seconds: float) -> socket.socket:
        """Return a connected socket.

        Raises:
            UserError: there is no such pod.
            KubevoError: it cannot be reached.
        """
        if self._pod is not None:
            # It was there a moment ago; a new one has another name.
            with contextlib.suppress(ClusterUnavailable, NotFound):
                return self._forward(*self._pod, timeout_seconds)
        pod = ready_pod(self._cluster, self._namespace, OTHERWISE)
        self._pod = pod["metadata"]["name"], _port(pod)
        return self._forward(*self._pod, timeout_seconds)

    def _forward(self, pod: str, port: int, timeout_seconds: float) -> socket.socket:
        api = CoreV1Api(self._cluster.client)
        try:
            forward = portforward(
                api.connect_get_namespaced_pod_portforward, pod, self._namespace, ports=str(port)
            )
        except ApiException as exc:
            raise refusal(
                "a port-forward to",
                "pods/portforward",
                pod,
                self._namespace,
                str(exc.reason),
                OTHERWISE,
            ) from exc
        found: socket.socket = forward.socket(port)
        found.settimeout(timeout_seconds)
        return found


def _port(pod: Document) -> int:
    for container in pod["spec"]["containers"]:
        for port in container.get("ports") or ():
            if port.get("name") == PORT_NAME:
                return int(port["containerPort"])
    return PORT
