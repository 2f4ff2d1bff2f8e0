"""What pods and Deployments say, from objects as the API server has them."""

import json

import pytest

from kubevo_operator.conditions import Reason, Type
from kubevo_operator.evaluators import (
    Evaluators,
    brief,
    brief_deployment,
    is_evaluator,
    look,
)


def deployment(replicas=2, processes=1, refused=None):
    names = ["evaluator", *(f"evaluator-{i}" for i in range(1, processes)), "logs"]
    conditions = [{"type": "Available", "status": "True", "message": "x"}]
    if refused:
        conditions.append({"type": "ReplicaFailure", "status": "True", "message": refused})
    return brief_deployment(
        {
            "metadata": {"name": "e", "generation": 7, "managedFields": [{}] * 50},
            "spec": {
                "replicas": replicas,
                "template": {"spec": {"containers": [{"name": name} for name in names]}},
            },
            "status": {"replicas": replicas, "conditions": conditions},
        }
    )


def pod(name="p", statuses=(), *, phase="Running", conditions=(), deleting=False):
    metadata = {"name": name, "labels": {"a": "b"}, "managedFields": [{}] * 50}
    if deleting:
        metadata["deletionTimestamp"] = "2026-01-01T00:00:00Z"
    status = {"phase": phase, "containerStatuses": list(statuses), "conditions": list(conditions)}
    return brief({"metadata": metadata, "spec": {"nodeName": "n"}, "status": status})


def container(name="evaluator", *, ready=False, restarts=0, last=None, **state):
    found = {"name": name, "ready": ready, "restartCount": restarts, "state": state}
    return found | ({"lastState": {"terminated": last}} if last else {})


def waiting(reason, message="", **more):
    return container(waiting={"reason": reason, "message": message}, **more)


READY = container(ready=True, running={"startedAt": "x"})


def unscheduled(reason="Unschedulable", message="0/1 nodes are available: 1 Insufficient cpu."):
    return {"type": "PodScheduled", "status": "False", "reason": reason, "message": message}


def test_processes_are_counted_and_pods():
    two = [READY, READY | {"name": "evaluator-1"}, READY | {"name": "logs"}]
    found = look(deployment(3, 2), [pod("a", two), pod("b", two)])
    assert found == Evaluators(desired=6, ready=4, pods=2, problem=None)


def test_nothing_there_is_nothing_wrong():
    assert look(None, []) == Evaluators()


def test_our_containers_are_known_by_name():
    assert [is_evaluator(n) for n in ("evaluator", "evaluator-12", "evaluator-x", "logs")] == [
        True,
        True,
        False,
        False,
    ]


@pytest.mark.parametrize(
    ("status", "reason", "words"),
    [
        (waiting("ImagePullBackOff", 'Back-off pulling "x:1"'), Reason.IMAGE_PULL_FAILED, "x:1"),
        (waiting("ErrImagePull"), Reason.IMAGE_PULL_FAILED, "ErrImagePull"),
        (
            waiting("CreateContainerConfigError", 'secret "s" not found'),
            Reason.CONTAINER_NOT_CREATED,
            'secret "s" not found',
        ),
        (
            waiting("CrashLoopBackOff", restarts=5, last={"exitCode": 3, "message": "no ROM"}),
            Reason.CRASH_LOOPING,
            "exit code 3 (it found itself unfit to evaluate: its libraries, files or numbers): no R",
        ),
        (
            waiting("CrashLoopBackOff", restarts=5, last={"exitCode": 4}),
            Reason.CRASH_LOOPING,
            "asked to be replaced",
        ),
        (
            waiting("CrashLoopBackOff", restarts=2, last={"exitCode": 137, "reason": "OOMKilled"}),
            Reason.OUT_OF_MEMORY,
            "limits.memory",
        ),
        (
            container(restarts=4, terminated={"exitCode": 1, "message": "boom"}),
            Reason.CRASH_LOOPING,
            "boom",
        ),
    ],
)
def test_a_container_says_why_it_does_not_run(status, reason, words):
    problem = look(deployment(), [pod("p-1", [status])]).problem
    assert (problem.type, problem.status) == (Type.EVALUATORS_READY, "False")
    assert problem.reason == reason
    assert words in problem.message
    assert "p-1" in problem.message


def test_starting_is_no_problem():
    starting = [waiting("ContainerCreating"), waiting("PodInitializing")]
    once = container(restarts=0, terminated={"exitCode": 4})
    pods = [pod(str(i), [s], phase="Pending") for i, s in enumerate([*starting, once])]
    assert look(deployment(), pods).problem is None


def test_the_scheduler_says_why_there_is_no_room():
    problem = look(deployment(), [pod(phase="Pending", conditions=[unscheduled()])]).problem
    assert problem.reason == Reason.UNSCHEDULABLE
    assert "Insufficient cpu" in problem.message


def test_a_gated_pod_waits_in_a_queue():
    gate = unscheduled("SchedulingGated", "Scheduling is blocked due to non-empty scheduling gates")
    problem = look(deployment(), [pod(phase="Pending", conditions=[gate])]).problem
    assert problem.reason == Reason.QUEUED


@pytest.mark.parametrize(
    ("message", "reason"),
    [
        ('pods "x" is forbidden: exceeded quota: q, requested: cpu=1', Reason.QUOTA_EXCEEDED),
        ('pods "x" is forbidden: violates PodSecurity "restricted"', Reason.PODS_FORBIDDEN),
    ],
)
def test_the_deployment_says_why_there_are_no_pods(message, reason):
    problem = look(deployment(refused=message), []).problem
    assert problem.reason == reason
    assert message.split(":")[-1] in problem.message
    assert look(deployment(replicas=0, refused=message), []).problem is None


def test_a_problem_beside_ready_evaluators_only_degrades():
    pods = [pod("a", [READY]), pod("b", phase="Pending", conditions=[unscheduled()])]
    found = look(deployment(), pods)
    assert found.ready == 1
    assert (found.problem.type, found.problem.status) == (Type.DEGRADED, "True")


def test_a_pod_on_its_way_out_is_neither_there_nor_a_problem():
    pods = [
        pod("old", [waiting("ImagePullBackOff")], deleting=True),
        pod("evicted", [READY], phase="Failed"),
        pod("new", [READY]),
    ]
    assert look(deployment(), pods) == Evaluators(desired=2, ready=1, pods=1)


def test_the_message_does_not_depend_on_the_order_of_the_pods():
    pods = [pod(f"p-{i}", phase="Pending", conditions=[unscheduled()]) for i in range(5)]
    pods.append(pod("q", [waiting("ErrImagePull")]))
    one, two = look(deployment(6), pods), look(deployment(6), pods[::-1])
    assert one == two
    assert one.problem.reason == Reason.IMAGE_PULL_FAILED
    without = look(deployment(6), pods[:5]).problem
    assert "(and 4 more)" in without.message


def test_a_brief_is_small_and_of_plain_values():
    ready = pod("x" * 60, [READY])
    assert len(json.dumps(ready)) < 200
    bad = [waiting("ErrImagePull", "m" * 50_000)] * 2
    assert len(json.dumps(pod("x" * 60, bad, conditions=[unscheduled(message="y" * 9999)]))) < 2500
    assert deployment() == {"generation": 7, "replicas": 2, "processes": 1}


def test_a_pod_without_a_status_is_on_its_way():
    assert look(deployment(), [brief({"metadata": {"name": "p"}})]).pods == 1
    assert brief({})["phase"] == "Pending"
