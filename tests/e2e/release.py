"""What a cluster had of kubevo before the tests, and how it gets that state back.

On a cluster that is not ours a release, or anything that a release has left, ends the session before it
has begun: the tests install, upgrade and uninstall the one of that name.
"""

from typing import NamedTuple

import pytest
from cluster_access import Cluster
from product import SYSTEM, Kubevo

DEFINITION = "customresourcedefinition/experiments.kubevo.dev"
DATA = "persistentvolumeclaim/kubevo-data"


class Found(NamedTuple):
    """What was there before the installation."""

    namespace: bool
    definition: bool
    data: bool


def found_before(cluster: Cluster) -> Found:
    """Return what is there now."""

    def is_there(what: str, namespace: str = "") -> bool:
        options = ("--ignore-not-found", "--output=name")
        return bool(cluster.kubectl("get", what, *options, namespace=namespace).strip())

    return Found(is_there(f"namespace/{SYSTEM}"), is_there(DEFINITION), is_there(DATA, SYSTEM))


def refuse_a_used_cluster(cluster: Cluster) -> None:
    """End the session where somebody has kubevo in a cluster that is not ours."""
    listed = cluster.helm("list", "--all", "--all-namespaces", "--short").split()
    before = found_before(cluster)
    used = ["a release kubevo"] if "kubevo" in listed else []
    used += [DEFINITION] if before.definition else []
    used += [f"{DATA} in {SYSTEM}"] if before.data else []
    if used:
        pytest.exit(
            f"KUBECONFIG's cluster has {', '.join(used)}, which these tests would upgrade, uninstall "
            "and delete; nothing was touched. Use a cluster without kubevo, or, if all of it is from an "
            "earlier test session, uninstall it and delete what is left",
            returncode=1,
        )


def take_away(kubevo: Kubevo, before: Found) -> None:
    """Uninstall the release and delete what came with it and was not there before."""
    kubectl = kubevo.cluster.kubectl
    if kubevo.is_installed():
        kubevo.uninstall()
    if not before.namespace:
        kubectl("delete", "namespace", SYSTEM, "--ignore-not-found")
    elif not before.data:
        kubectl("delete", DATA, "--ignore-not-found", namespace=SYSTEM)
    if not before.definition:
        kubectl("delete", DEFINITION, "--ignore-not-found")
