"""One cluster a session and a namespace a test; the cluster of KUBECONFIG, else one node brought up here.

A cluster that was up before (`make cluster`) is used and stays; one that the session brought up is taken
away at its end, unless KUBEVO_KEEP_CLUSTER is set. What stays is left without what the tests have made.
"""

import os
import signal
import sys
from collections.abc import Iterator
from contextlib import closing
from importlib.metadata import version
from pathlib import Path
from typing import NamedTuple

import pytest

sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parents[1] / "cluster")]

import local_cluster
from cluster_access import Cluster
from layout import the_layout
from product import IMAGES, SYSTEM, Kubevo, Laptop, quick_start
from release import found_before, refuse_a_used_cluster, take_away

SECONDS = 600
NOT_ASKED = (
    "KUBECONFIG={} is not the cluster that these tests bring up. They install kubevo in it, drain "
    "nodes and label the namespace `default`, so nothing was touched; if that cluster is for tests, "
    "set KUBEVO_E2E_CLUSTER=yes, else unset KUBECONFIG"
)
FAILED = pytest.StashKey[bool]()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark every test here, and give it the time that pods take on a busy machine."""
    for item in items:
        if Path(__file__).parent in Path(item.path).parents:
            item.add_marker(pytest.mark.e2e)
            if item.get_closest_marker("timeout") is None:
                item.add_marker(pytest.mark.timeout(SECONDS))
    # In any order, but what takes the release away comes after what uses it.
    items.sort(key=lambda item: item.get_closest_marker("uninstalls") is not None)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]):
    """Remember a failure for the fixture that tells its story."""
    report = yield
    item.stash[FAILED] = item.stash.get(FAILED, False) or report.failed
    return report


@pytest.fixture(scope="session")
def tidy_end() -> Iterator[None]:
    """End by SIGTERM as by Ctrl-C: fixtures are torn down, and with them the cluster."""
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    yield
    signal.signal(signal.SIGTERM, before)


@pytest.fixture(scope="session")
def cluster(tidy_end: None, request: pytest.FixtureRequest) -> Iterator[Cluster]:
    """Return the cluster that the tests use."""
    layout, given = the_layout(), os.environ.get("KUBECONFIG")
    if given and Path(given) != layout.admin:
        if os.environ.get("KUBEVO_E2E_CLUSTER") != "yes":
            pytest.exit(NOT_ASKED.format(given), returncode=1)
        with closing(Cluster(Path(given), None)) as theirs:
            refuse_a_used_cluster(theirs)
            yield theirs
        return
    keeps = bool(os.environ.get("KUBEVO_KEEP_CLUSTER"))
    capture = request.config.pluginmanager.getplugin("capturemanager")
    try:
        with capture.global_and_fixture_disabled():
            print(file=sys.stderr)
            was_up = local_cluster.up_for_a_session(layout)
    except SystemExit as exc:
        pytest.exit(str(exc), returncode=1)
    with closing(Cluster(layout.admin, layout, stays=was_up or keeps)) as ours:
        yield ours
    # A person's `make cluster` beside us has made it theirs.
    if local_cluster.is_sessions(layout):
        if keeps:
            local_cluster.keep(layout)
        else:
            local_cluster.down(layout)


@pytest.fixture(scope="session")
def busybox(cluster: Cluster) -> str:
    """Return the name of an image with a shell, httpd and wget."""
    return cluster.busybox()


@pytest.fixture
def namespace(cluster: Cluster, request: pytest.FixtureRequest) -> Iterator[str]:
    """Return a namespace that takes restricted pods only; a failed test's story is printed."""
    name = f"e2e-{os.urandom(4).hex()}"
    labels = {"pod-security.kubernetes.io/enforce": "restricted"}
    metadata = {"name": name, "labels": labels}
    cluster.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": metadata})
    cluster.until(
        "the namespace's account",
        lambda: cluster.get("serviceaccount", "default", namespace=name),
    )
    yield name
    if request.node.stash.get(FAILED, False):
        print(cluster.story(name))
    cluster.kubectl("delete", "namespace", name, "--wait=false")


class Installed(NamedTuple):
    """The release of the session, and how long its installation took."""

    kubevo: Kubevo
    seconds: float


@pytest.fixture(scope="session")
def installed(cluster: Cluster) -> Iterator[Installed]:
    """Install kubevo by the README's first command, its images present; what stays gets rid of it."""
    if cluster.layout is not None:
        cluster.load_image(*(f"{name}:{version('kubevo')}" for name in IMAGES))
    kubevo = Kubevo(cluster)
    if kubevo.is_installed():  # on our own node alone: another cluster with a release was refused
        kubevo.uninstall()
    before = found_before(cluster)
    try:
        try:
            seconds = kubevo.install(command=quick_start()[0])
        except BaseException:
            print(cluster.story(SYSTEM))
            raise
        yield Installed(kubevo, seconds)
    finally:
        if cluster.stays:
            take_away(kubevo, before)


@pytest.fixture
def kubevo(installed: Installed, request: pytest.FixtureRequest) -> Iterator[Kubevo]:
    """Return the installed product; a failed test's story is printed."""
    yield installed.kubevo
    if request.node.stash.get(FAILED, False):
        print(installed.kubevo.cluster.story(SYSTEM))


@pytest.fixture
def laptop(cluster: Cluster, tmp_path: Path) -> Laptop:
    """Return the `kubevo` command on this machine."""
    return Laptop(tmp_path, cluster.kubeconfig)
