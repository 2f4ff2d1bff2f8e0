"""One control plane, one kubelet and one broker a session; a namespace and operators of its own a test."""

import asyncio
import contextlib
import json
import os
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio
import yaml

sys.path.insert(0, str(Path(__file__).parent))

from binaries import binaries
from broker_process import BrokerProcess
from control_plane import ControlPlane, GivenCluster
from kubelet import INHERITED, ProcessKubelet
from site_of_tests import IMAGE, Site

ROOT = Path(__file__).parents[2]
CRD = ROOT / "crds/experiments.yaml"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Let every asynchronous test here share the loop of the session's servers."""
    here = Path(__file__).parent
    for item in items:
        if Path(item.path).parent == here and asyncio.iscoroutinefunction(
            getattr(item, "function", None)
        ):
            item.add_marker(pytest.mark.asyncio(loop_scope="session"), append=False)


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def control_plane(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[GivenCluster]:
    folder = tmp_path_factory.mktemp("control-plane")
    given = os.environ.get("KUBEVO_TEST_KUBECONFIG")
    if given and "PYTEST_XDIST_WORKER" in os.environ:
        pytest.fail("two of our kubelets would fight over one cluster's pods: run without -n")
    cluster = (
        GivenCluster(Path(given), folder)
        if given
        else ControlPlane(await asyncio.to_thread(binaries), folder)
    )
    async with cluster as plane:
        plane.define(CRD)
        yield plane


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def broker(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[BrokerProcess]:
    async with BrokerProcess(tmp_path_factory.mktemp("broker")) as found:
        yield found


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def kubelet(
    control_plane: GivenCluster, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[ProcessKubelet]:
    images = {IMAGE: [sys.executable, "-m", "kubevo_evaluator"]}
    folder = tmp_path_factory.mktemp("pods")
    async with ProcessKubelet(control_plane.admin, folder, images, INHERITED) as found:
        yield found


@pytest_asyncio.fixture(loop_scope="session")
async def namespace(control_plane: GivenCluster) -> AsyncIterator[str]:
    name = f"test-{os.urandom(4).hex()}"
    control_plane.kubectl("create", "namespace", name)
    yield name
    with contextlib.suppress(RuntimeError):  # a test may have deleted it
        control_plane.kubectl("delete", "namespace", name, "--wait=false")


@pytest_asyncio.fixture(loop_scope="session")
async def site(
    control_plane: GivenCluster,
    kubelet: ProcessKubelet,
    broker: BrokerProcess,
    namespace: str,
    tmp_path: Path,
) -> AsyncIterator[Site]:
    found = Site(control_plane, kubelet, broker, namespace, tmp_path)
    await asyncio.to_thread(found.install)
    yield found
    await found.close()


@pytest.fixture(scope="session")
def local(tmp_path_factory: pytest.TempPathFactory):
    """Return what `kubevo run` gives for a document, once for each."""
    known: dict[str, dict] = {}

    def run(document: dict) -> dict:
        text = json.dumps(document["spec"], sort_keys=True)
        if text not in known:
            folder = tmp_path_factory.mktemp("local")
            (folder / "x.yaml").write_text(yaml.safe_dump(document))
            command = [sys.executable, "-m", "kubevo_cli", "run", "x.yaml", "--output", "json"]
            command += ["--workers", "1"]
            done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
            assert done.returncode == 0, done.stderr
            known[text] = json.loads(done.stdout)
        return known[text]

    return run
