"""What a person says about where things are, as two values: the cluster, and its service."""

from dataclasses import dataclass
from pathlib import Path

__all__ = ["ClusterOptions", "ServiceOptions"]


@dataclass(frozen=True)
class ClusterOptions:
    """Which cluster and which part of it; None: as the kubeconfig says."""

    namespace: str | None = None
    all_namespaces: bool = False
    context: str | None = None
    kubeconfig: Path | None = None


@dataclass(frozen=True)
class ServiceOptions:
    """How to reach the REST service: by ``url``, or by a port-forward to its pod in ``namespace``.

    Without a ``token`` one is asked for as the ServiceAccount ``account`` (a name, or
    namespace/name).
    """

    url: str | None = None
    token: str | None = None
    namespace: str = "kubevo-system"
    account: str = "kubevo-user"
