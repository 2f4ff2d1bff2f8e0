"""Two evaluators' pods play Pong while everything else dies around them: the bytes do not change."""

import pytest
from cluster_commands import CommandFailed
from product import BROKER, OPERATOR, RELEASED, SYSTEM, Kubevo, digests, experiment, pong


def was_killed_for_memory(pod):
    for status in pod["status"].get("containerStatuses", ()):
        for state in (status["state"], status["lastState"]):
            if state.get("terminated", {}).get("reason") == "OOMKilled":
                return True
    return False


def replaced(kubevo: Kubevo, selector, namespace, before):
    """Wait until other pods than those of before are ready."""

    def is_so():
        pods = kubevo.cluster.pods(selector, namespace)
        ready = [
            pod["metadata"]["uid"]
            for pod in pods
            for each in pod["status"].get("conditions", ())
            if each["type"] == "Ready" and each["status"] == "True"
        ]
        return len(ready) == len(before) and not set(ready) & set(before)

    kubevo.cluster.until(f"other pods for {selector}", is_so, seconds=180)


def uids(pods):
    return [pod["metadata"]["uid"] for pod in pods]


@pytest.mark.timeout(900)
def test_kills_drains_and_deletions_change_no_byte(kubevo: Kubevo, namespace, laptop):
    cluster = kubevo.cluster
    kubevo.apply(experiment("pong", pong(100_000)), namespace)
    kubevo.reach("pong", namespace, 0)

    def next_generation():
        kubevo.reach("pong", namespace, kubevo.generation("pong", namespace) + 1)

    def work_is_held():
        """Wait until two evaluators play, so that what dies next dies at work."""

        def is_so():
            progress = kubevo.get("pong", namespace)["status"]["progress"]
            return progress.get("openEpisodes", 0) and len(kubevo.evaluators("pong", namespace)) > 1

        cluster.until("two evaluators at work", is_so, seconds=120)

    # An evaluator needs more memory than it may have.
    work_is_held()
    victim = kubevo.evaluators("pong", namespace)[0]["metadata"]["name"]
    cluster.exhaust_memory(victim, namespace=namespace)
    cluster.until(
        "an evaluator that was killed for its memory",
        lambda: was_killed_for_memory(cluster.get("pod", victim, namespace=namespace)),
    )
    next_generation()

    # Their node is drained of operator and broker, and evaluators are evicted, under their budget.
    before = {selector: uids(cluster.pods(selector, SYSTEM)) for selector in (OPERATOR, BROKER)}
    work_is_held()
    first, second = kubevo.evaluators("pong", namespace)
    with cluster.drain(RELEASED, namespace=SYSTEM, seconds=180):
        cluster.until(
            "an eviction that the budget lets pass",
            lambda: cluster.evict(first["metadata"]["name"], namespace=namespace) is None,
        )
        with pytest.raises(CommandFailed, match="disruption budget"):
            cluster.evict(second["metadata"]["name"], namespace=namespace)
    for selector, pods in before.items():
        replaced(kubevo, selector, SYSTEM, pods)
    next_generation()

    # The operator goes, at once.
    work_is_held()
    (operator,) = cluster.pods(OPERATOR, SYSTEM)
    cluster.delete_pod(operator["metadata"]["name"], namespace=SYSTEM, at_once=True)
    next_generation()

    # The broker goes, with its pod.
    work_is_held()
    (broker,) = cluster.pods(BROKER, SYSTEM)
    cluster.delete_pod(broker["metadata"]["name"], namespace=SYSTEM, at_once=True)
    next_generation()

    # And an evaluator.
    work_is_held()
    cluster.delete_pod(
        kubevo.evaluators("pong", namespace)[0]["metadata"]["name"],
        namespace=namespace,
        at_once=True,
    )
    # It ends after all of that, and a search here, as long and undisturbed, gives the same bytes.
    status, generations = kubevo.end("pong", namespace)
    assert digests(status) == laptop.digests(experiment("pong", pong(generations)))
    assert status["takeover"] >= 3


def test_the_fleet_grows_with_the_work_shrinks_and_goes(kubevo: Kubevo, namespace):
    cluster = kubevo.cluster
    scaling = {"min": 0, "max": 3, "tasksPerReplica": 4, "scaleDownStabilizationSeconds": 60}
    kubevo.apply(experiment("wave", pong(100_000, scaling=scaling)), namespace)

    def wanted():
        return kubevo.get("wave", namespace)["status"]["evaluators"]["desired"]

    def running():
        return len(kubevo.evaluators("wave", namespace))

    cluster.until("three evaluators", lambda: wanted() == 3 and running() == 3, seconds=120)
    kubevo.patch("wave", namespace, {"scaling": {**scaling, "max": 1}})
    cluster.until("one evaluator", lambda: wanted() == 1 and running() == 1, seconds=180)
    kubevo.patch("wave", namespace, {"scaling": {**scaling, "max": 2}})
    cluster.until("two evaluators", lambda: wanted() == 2 and running() == 2, seconds=120)
    kubevo.patch("wave", namespace, {"suspend": True})
    cluster.until("none", lambda: wanted() == 0 and running() == 0, seconds=120)
    assert kubevo.condition("wave", namespace, "Suspended")["status"] == "True"
