"""From a resource to what a person is shown of it: pure, the same for a cluster and a directory."""

from collections.abc import Mapping
from typing import Any

from kubevo_api.catalogue import Entry
from kubevo_api.models import (
    Action,
    Detail,
    Elite,
    Evaluators,
    FinalTest,
    FitnessOf,
    State,
    Summary,
)

__all__ = ["actions", "detail", "state", "summary"]

Document = Mapping[str, Any]


def summary(entry: Entry, *, has_data: bool) -> Summary:
    """Return an Experiment as a list shows it."""
    return Summary(**_fields(entry, has_data))


def detail(
    entry: Entry, *, has_data: bool, interval: tuple[float, float] | None, can_change: bool
) -> Detail:
    """Return an Experiment as its own page shows it; ``interval`` is its final test's."""
    status: Document = entry.document.get("status") or {}
    tested = status.get("finalTest") or {}
    final = None
    if tested.get("mean") is not None:
        final = FinalTest(
            mean=float(tested["mean"]), ci95=interval, episodes=int(tested["episodes"])
        )
    fields = _fields(entry, has_data)
    return Detail(
        **fields,
        spec=entry.document["spec"],
        status=dict(status),
        final_test=final,
        population_digest=status.get("populationDigest"),
        result_digest=status.get("resultDigest"),
        actions=actions(fields["state"]) if can_change else [],
    )


def actions(found: State) -> list[Action]:
    """Return what can be done with an Experiment in a state."""
    if found == "Suspended":
        return ["resume", "extend"]
    if found in ("Succeeded", "Failed"):
        return ["extend"]
    return ["suspend", "stop", "extend"]


def _fields(entry: Entry, has_data: bool) -> dict[str, Any]:
    metadata: Document = entry.document["metadata"]
    spec: Document = entry.document["spec"]
    status: Document = entry.document.get("status") or {}
    progress: Document = status.get("progress") or {}
    evaluators: Document = status.get("evaluators") or {}
    shown, reason, message = state(entry.document)
    best, elite = status.get("best"), status.get("elite")
    return {
        "namespace": metadata["namespace"],
        "name": metadata["name"],
        "uid": metadata["uid"],
        "created": metadata.get("creationTimestamp"),
        "labels": metadata.get("labels") or {},
        "environment": spec["environment"]["id"],
        "network": spec["policy"]["network"],
        "state": shown,
        "reason": reason,
        "message": message,
        "repeats": spec.get("repeats", 1),
        "generation": progress.get("generation"),
        "generations": progress.get(
            "generations", (spec.get("budget") or {}).get("maxGenerations")
        ),
        "frames": progress.get("frames", 0),
        "frames_per_second": float(progress.get("framesPerSecond", 0)),
        "eta_seconds": progress.get("etaSeconds"),
        "best": FitnessOf(**{**best, "fitness": float(best["fitness"])}) if best else None,
        "elite": Elite(fitness=float(elite["fitness"]), generation=elite["generation"])
        if elite
        else None,
        "evaluators": Evaluators(
            desired=evaluators.get("desired", 0), ready=evaluators.get("ready", 0)
        )
        if evaluators
        else None,
        "start_time": status.get("startTime"),
        "completion_time": status.get("completionTime"),
        "updated": (status.get("checkpoint") or {}).get("time"),
        "has_data": has_data,
    }


def state(document: Document) -> tuple[State, str, str]:
    """Return an Experiment's state with the reason and the message of the condition that says so."""
    conditions = {
        item["type"]: item for item in (document.get("status") or {}).get("conditions") or []
    }
    for kind, status, meant in _STATES:
        item = conditions.get(kind)
        if item is not None and item.get("status") == status:
            is_left = meant == "Pending" and item.get("reason") in _INTERRUPTED
            found: State = "Interrupted" if is_left else meant
            told = conditions.get("Degraded", {}) if found == "Running" else {}
            said = told if told.get("status") == "True" else item
            return found, said.get("reason", ""), said.get("message", "")
    return "Pending", "", ""


# The first condition that is so decides.
_STATES: tuple[tuple[str, str, State], ...] = (
    ("Succeeded", "True", "Succeeded"),
    ("Failed", "True", "Failed"),
    ("Suspended", "True", "Suspended"),
    ("Ready", "False", "Waiting"),
    ("Running", "True", "Running"),
    ("EvaluatorsReady", "False", "Waiting"),
    ("Running", "False", "Pending"),
)
# What a directory says of a run that nobody works on.
_INTERRUPTED = ("Interrupted", "NotStarted")
