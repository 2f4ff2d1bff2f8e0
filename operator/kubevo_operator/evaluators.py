"""What the pods say: how many evaluators there are, and why there are not more.

Pure. `brief` and `brief_deployment` reduce the API server's objects to the few values that `look`
needs, because the operator keeps them for every pod of every Experiment.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from kubevo_operator.conditions import Condition, Reason, Type, clean, sentence

__all__ = ["EVALUATOR", "Evaluators", "brief", "brief_deployment", "is_evaluator", "look"]

Brief = dict[str, Any]
EVALUATOR = "evaluator"
MESSAGE_BYTES = 400
# A container that ended once or twice is started again; more often it is a pattern.
PATIENCE_RESTARTS = 2
UNFIT, REPLACE = 3, 4
_EXITS = {
    UNFIT: "it found itself unfit to evaluate: its libraries, files or numbers",
    REPLACE: "it asked to be replaced: an episode beyond its time, or too little memory",
    137: "it was killed from outside",
}
_WAITING: dict[str, Reason] = {
    "CreateContainerConfigError": Reason.CONTAINER_NOT_CREATED,
    "CreateContainerError": Reason.CONTAINER_NOT_CREATED,
    "RunContainerError": Reason.CONTAINER_NOT_CREATED,
    "StartError": Reason.CONTAINER_NOT_CREATED,
    "ErrImagePull": Reason.IMAGE_PULL_FAILED,
    "ImagePullBackOff": Reason.IMAGE_PULL_FAILED,
    "ErrImageNeverPull": Reason.IMAGE_PULL_FAILED,
    "ImageInspectError": Reason.IMAGE_PULL_FAILED,
    "InvalidImageName": Reason.IMAGE_PULL_FAILED,
    "RegistryUnavailable": Reason.IMAGE_PULL_FAILED,
    "SignatureValidationFailed": Reason.IMAGE_PULL_FAILED,
}
# What a person has to see first, when pods have different problems.
_ORDER = (
    Reason.IMAGE_PULL_FAILED,
    Reason.CONTAINER_NOT_CREATED,
    Reason.OUT_OF_MEMORY,
    Reason.CRASH_LOOPING,
    Reason.QUOTA_EXCEEDED,
    Reason.PODS_FORBIDDEN,
    Reason.UNSCHEDULABLE,
    Reason.QUEUED,
)


@dataclass(frozen=True)
class Evaluators:
    """The evaluators of one Experiment: ``desired`` and ``ready`` in processes, ``pods`` in pods.

    ``problem`` is about EvaluatorsReady where no process is ready, else about Degraded.
    """

    desired: int = 0
    ready: int = 0
    pods: int = 0
    problem: Condition | None = None


def is_evaluator(container: str) -> bool:
    """Whether a container of this name is one of ours: evaluator, evaluator-1 and so on."""
    return container == EVALUATOR or (
        container.startswith(f"{EVALUATOR}-") and container[len(EVALUATOR) + 1 :].isdigit()
    )


def brief(pod: Mapping[str, Any]) -> Brief:
    """Return what `look` needs of a pod."""
    metadata, status = pod.get("metadata") or {}, pod.get("status") or {}
    found: Brief = {
        "name": metadata.get("name", ""),
        "phase": status.get("phase", "Pending"),
        "ready": sum(
            bool(item.get("ready"))
            for item in status.get("containerStatuses") or ()
            if is_evaluator(item.get("name", ""))
        ),
    }
    if metadata.get("deletionTimestamp"):
        found["deleting"] = True
    for item in status.get("conditions") or ():
        if item.get("type") == "PodScheduled" and item.get("status") == "False":
            found["unscheduled"] = (item.get("reason", ""), _short(item.get("message")))
    statuses = [*(status.get("initContainerStatuses") or ())]
    statuses += status.get("containerStatuses") or ()
    troubles = [trouble for item in statuses if (trouble := _container(item))]
    if troubles:
        found["containers"] = troubles
    return found


def brief_deployment(deployment: Mapping[str, Any]) -> Brief:
    """Return what `look` needs of a Deployment, and its metadata.generation to tell drift."""
    metadata, spec = deployment.get("metadata") or {}, deployment.get("spec") or {}
    status = deployment.get("status") or {}
    containers = ((spec.get("template") or {}).get("spec") or {}).get("containers") or ()
    refused = [
        _short(item.get("message"))
        for item in status.get("conditions") or ()
        if item.get("type") == "ReplicaFailure" and item.get("status") == "True"
    ]
    return {
        "generation": metadata.get("generation"),
        "replicas": spec.get("replicas", 1),
        "processes": sum(is_evaluator(item.get("name", "")) for item in containers) or 1,
    } | ({"refused": refused[0]} if refused else {})


def look(deployment: Mapping[str, Any] | None, pods: Sequence[Mapping[str, Any]]) -> Evaluators:
    """Return the evaluators of one Experiment, from the briefs of its Deployment and its pods.

    Pods on their way out and pods that have ended are none: what is wrong with them is over.
    """
    living = [
        pod
        for pod in pods
        if not pod.get("deleting") and pod.get("phase") not in ("Failed", "Succeeded")
    ]
    ready = sum(pod["ready"] for pod in living)
    desired = deployment["replicas"] * deployment["processes"] if deployment else 0
    problems = [problem for pod in living for problem in _problems(pod)]
    if deployment and deployment["replicas"] and "refused" in deployment:
        problems.append(_refusal(deployment["refused"]))
    kind = Type.DEGRADED if ready else Type.EVALUATORS_READY
    return Evaluators(desired, ready, len(living), _worst(problems, kind) if desired else None)


def _container(item: Mapping[str, Any]) -> Brief | None:
    """Return what is wrong with a container, None where nothing is."""
    state = item.get("state") or {}
    waiting, ended = state.get("waiting") or {}, state.get("terminated") or {}
    last = ended or (item.get("lastState") or {}).get("terminated") or {}
    found: Brief = {"name": item.get("name", "")}
    if waiting.get("reason") in _WAITING:
        return found | {"waiting": waiting["reason"], "message": _short(waiting.get("message"))}
    restarts = item.get("restartCount", 0)
    is_looping = waiting.get("reason") == "CrashLoopBackOff" or (
        bool(ended) and restarts >= PATIENCE_RESTARTS
    )
    if not is_looping:
        return None
    return found | {
        "restarts": restarts,
        "exit": last.get("exitCode"),
        "ended": last.get("reason", ""),
        "message": _short(last.get("message")),
    }


def _problems(pod: Mapping[str, Any]) -> Iterable[tuple[Reason, str]]:
    name = pod["name"]
    for item in pod.get("containers") or ():
        where = f"pod {name}, container {item['name']}"
        if "waiting" in item:
            yield _WAITING[item["waiting"]], f"{where}: {item['message'] or item['waiting']}"
        elif item["ended"] == "OOMKilled":
            yield Reason.OUT_OF_MEMORY, f"{where} was out of memory {item['restarts']} times"
        else:
            code = item["exit"]
            why = f" ({_EXITS[code]})" if code in _EXITS else ""
            said = f": {item['message']}" if item["message"] else ""
            text = f"{where} ended {item['restarts']} times, last with exit code {code}{why}{said}"
            yield Reason.CRASH_LOOPING, text
    if "unscheduled" in pod:
        reason, message = pod["unscheduled"]
        is_gated = reason == "SchedulingGated"
        found = Reason.QUEUED if is_gated else Reason.UNSCHEDULABLE
        yield found, f"pod {name}: {message or reason}"


def _refusal(message: str) -> tuple[Reason, str]:
    found = Reason.QUOTA_EXCEEDED if "exceeded quota" in message else Reason.PODS_FORBIDDEN
    return found, message


def _worst(problems: list[tuple[Reason, str]], kind: Type) -> Condition | None:
    if not problems:
        return None
    # Of equals the first by text, so that the message does not change with the order of the pods.
    reason, detail = min(problems, key=lambda problem: (_ORDER.index(problem[0]), problem[1]))
    others = sum(problem[0] == reason for problem in problems) - 1
    more = f" (and {others} more)" if others else ""
    text = sentence(reason, clean(detail) + more)
    return Condition(kind, "True" if kind == Type.DEGRADED else "False", reason, text)


def _short(message: Any) -> str:
    return clean(str(message or ""), MESSAGE_BYTES)
