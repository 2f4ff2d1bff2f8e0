"""Helm, what it renders, and one API server a session to install into; no node, so no pod starts."""

import asyncio
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE), str(HERE.parent / "cluster")]

from binaries import binaries
from control_plane import ControlPlane
from helm_of_tests import CHART, NAMESPACE, Helm, Rendered

RESTRICTED = "pod-security.kubernetes.io/enforce=restricted"
WARNED = "pod-security.kubernetes.io/warn=restricted"
MONITORING = ("PodMonitor", "ServiceMonitor", "PrometheusRule")


@pytest.fixture(scope="session")
def programs() -> Path:
    return binaries()


@pytest.fixture(scope="session")
def helm(programs: Path, tmp_path_factory: pytest.TempPathFactory) -> Helm:
    return Helm(programs / "helm", tmp_path_factory.mktemp("helm"))


@pytest.fixture(scope="session")
def rendered(helm: Helm) -> Rendered:
    """Return what the default values give."""
    return helm.template()


@pytest.fixture(scope="session")
def everything(helm: Helm) -> Rendered:
    """Return a rendering with every object that the chart can make."""
    values = {
        "priorityClass.create": True,
        "api.ingress": {"enabled": True, "hosts": ["kubevo.example.com"]},
        "api.httpRoute": {"enabled": True, "parentRefs": [{"name": "gateway"}]},
        "metrics.dashboard.enabled": True,
    } | {f"metrics.{kind[0].lower()}{kind[1:]}.enabled": True for kind in MONITORING}
    apis = [f"--api-versions=monitoring.coreos.com/v1/{kind}" for kind in MONITORING]
    return helm.template(*apis, values=values)


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def api_server(
    programs: Path, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[ControlPlane]:
    async with ControlPlane(programs, tmp_path_factory.mktemp("control-plane")) as plane:
        yield plane


@pytest.fixture(scope="session")
def namespaces(api_server: ControlPlane) -> None:
    for name in (NAMESPACE, "team-a", "team-b"):
        api_server.kubectl("create", "namespace", name)
        api_server.kubectl("label", "namespace", name, RESTRICTED, WARNED)


@pytest.fixture(scope="session")
def release(api_server: ControlPlane, namespaces: None, helm: Helm) -> list[str]:
    """Install the chart once; return what every helm command needs."""
    where = ["kubevo", "--kubeconfig", str(api_server.admin), "--namespace", NAMESPACE]
    helm("install", where[0], CHART, *where[1:], "--no-hooks")
    api_server.kubectl(
        "wait", "--for=condition=Established", "crd/experiments.kubevo.dev", "--timeout=30s"
    )
    return where


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Let asynchronous tests here share the loop of the session's servers."""
    for item in items:
        if Path(item.path).parent == HERE and asyncio.iscoroutinefunction(
            getattr(item, "function", None)
        ):
            item.add_marker(pytest.mark.asyncio(loop_scope="session"), append=False)
