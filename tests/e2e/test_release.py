"""The release's own life: upgraded in the middle of a search, uninstalled, and installed again."""

import re
import shutil
import subprocess
from importlib.metadata import version

import pytest
from docker_daemon import docker_environment
from product import (
    CHART,
    IMAGES,
    SYSTEM,
    Kubevo,
    cartpole,
    digests,
    experiment,
)

NEXT = "0.0.0-next"


@pytest.mark.uninstalls
def test_an_upgrade_in_the_middle_changes_no_byte(kubevo: Kubevo, namespace, laptop, tmp_path):
    if kubevo.cluster.layout is None:
        pytest.skip("another tag of the images is needed in the cluster")
    next_images = [f"{name}:{NEXT}" for name in IMAGES]
    with docker_environment() as environment:

        def docker(*arguments):
            subprocess.run(["docker", *arguments], env=environment, check=True)

        for name, image in zip(IMAGES, next_images, strict=True):
            docker("tag", f"{name}:{version('kubevo')}", image)
        try:
            kubevo.cluster.load_image(*next_images)
        finally:
            docker("rmi", "--no-prune", *next_images)
    chart = tmp_path / "kubevo"
    shutil.copytree(CHART, chart)
    text = (chart / "Chart.yaml").read_text()
    text = re.sub(r"(?m)^(version|appVersion):.*$", rf"\1: {NEXT}", text)
    (chart / "Chart.yaml").write_text(text)

    kubevo.apply(experiment("steady", cartpole(100_000, scaling={"max": 1})), namespace)
    kubevo.reach("steady", namespace, 2)
    kubevo.upgrade(chart)
    images = {
        container["image"].rpartition(":")[2]
        for pod in kubevo.cluster.get("pods", namespace=SYSTEM)["items"]
        for container in pod["spec"]["containers"]
        if pod["status"]["phase"] == "Running"
    }
    assert images == {NEXT}
    status, generations = kubevo.end("steady", namespace)
    assert digests(status) == laptop.digests(experiment("steady", cartpole(generations)))
    kubevo.upgrade(CHART)


@pytest.mark.uninstalls
def test_what_retention_keeps_outlives_an_uninstall_and_is_adopted(
    kubevo: Kubevo, namespace, laptop
):
    cluster = kubevo.cluster
    source = experiment("source", cartpole(3))
    kubevo.apply(source, namespace)
    kubevo.succeeded("source", namespace)
    kubevo.apply(experiment("half", cartpole(100_000, scaling={"max": 1})), namespace)
    kubevo.reach("half", namespace, 1)

    kubevo.uninstall()
    assert not kubevo.is_installed()
    left = cluster.kubectl(
        "get", "all,secret,configmap,pvc,pdb,networkpolicy,serviceaccount,role,rolebinding,lease",
        "--output=name", namespace=SYSTEM,
    ).split()  # fmt: skip
    expected = {
        "persistentvolumeclaim/kubevo-data",  # the runs
        "configmap/kube-root-ca.crt",
        "serviceaccount/default",
    }
    assert set(left) == expected
    roles = cluster.kubectl("get", "clusterrole,clusterrolebinding", "--output=name").split()
    assert not [name for name in roles if "kubevo" in name]
    assert not cluster.pods("kubevo.dev/experiment", namespace)
    # Nothing is stuck: without an operator an Experiment can be deleted, and its run stays.
    cluster.kubectl("delete", "evo", "source", "--timeout=60s", namespace=namespace)

    print(f"installed again in {kubevo.install():.1f} s")
    # What was kept goes on where it was, to the bytes of a search that never stopped.
    status, generations = kubevo.end("half", namespace, suspend=False)
    assert digests(status) == laptop.digests(experiment("half", cartpole(generations)))
    # And the run of an Experiment that is gone is started from, as it is here.
    heir = experiment("heir", cartpole(2, warmStart={"experiment": "source"}))
    kubevo.apply(heir, namespace)
    status = kubevo.succeeded("heir", namespace)
    laptop.digests(source, data="both")
    assert digests(status) == laptop.digests(heir, data="both")
    assert digests(status) != laptop.digests(experiment("alone", cartpole(2)))
