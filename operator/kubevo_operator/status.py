"""The status of an Experiment: made of everything that is known, and written as seldom as will do.

Pure: time is an argument. What a new operator does not know yet (the best, before it has read its
checkpoint) stays as the last status had it. Numbers with a fraction are texts; a fitness is the very
text of the float, so that two searches can be compared by their status.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

from kubevo_operator.conditions import MAX_CONDITIONS, Condition, Type, clean, merge
from kubevo_operator.evaluators import Evaluators
from kubevo_runtime.progress import FitnessView, Snapshot

__all__ = [
    "MAX_STATUS_BYTES",
    "Ending",
    "Throttle",
    "View",
    "condition_is",
    "document",
    "events_for",
    "has_condition_change",
    "is_over",
    "is_worth_writing",
    "timestamp",
]

Document = dict[str, Any]
MAX_STATUS_BYTES = 16 * 1024
SHORT_MESSAGE_BYTES = 200
# What only an end has, and a search that goes on again has not.
_OF_THE_END = ("completionTime", "reason", "populationDigest", "resultDigest", "finalTest")
# They change at every look; alone they are not worth a patch every few seconds.
_VOLATILE = (
    "etaSeconds",
    "framesPerSecond",
    "generationEpisodes",
    "generationEpisodesPlayed",
    "openEpisodes",
    "runningSeconds",
)


@dataclass(frozen=True)
class Ending:
    """What a finished search gave; digests are empty after a failure that made none."""

    reason: str
    population_digest: str = ""
    result_digest: str = ""
    final_mean: float | None = None
    final_episodes: int = 0


@dataclass(frozen=True)
class View:
    """Everything known about one Experiment at ``now`` (seconds since 1970); None: not known.

    ``generation`` is metadata.generation, ``generations`` the budget's maxGenerations.
    ``conditions`` are what is newly said; the others stay.
    """

    now: float
    generation: int
    takeover: int
    conditions: tuple[Condition, ...] = ()
    snapshot: Snapshot | None = None
    generations: int | None = None
    evaluators: Evaluators | None = None
    selector: str = ""
    checkpoint_path: str = ""
    has_started: bool = False
    is_finished: bool = False
    ending: Ending | None = None


def timestamp(seconds: float) -> str:
    """Return seconds since 1970 as Kubernetes writes a time."""
    return datetime.fromtimestamp(int(seconds), UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def document(view: View, previous: Mapping[str, Any]) -> Document:
    """Return the status that follows ``previous``; always smaller than MAX_STATUS_BYTES."""
    now = timestamp(view.now)
    found: Document = {
        k: v for k, v in previous.items() if view.is_finished or k not in _OF_THE_END
    }
    found["observedGeneration"] = view.generation
    found["takeover"] = view.takeover
    found["conditions"] = merge(
        previous.get("conditions") or (), view.conditions, view.generation, now
    )
    if view.has_started:
        found.setdefault("startTime", now)
    if view.is_finished:
        found.setdefault("completionTime", now)
    if view.snapshot is not None:
        found |= _progress(view, view.snapshot, previous)
    if view.evaluators is not None:
        found["evaluators"] = {
            "desired": view.evaluators.desired,
            "ready": view.evaluators.ready,
            "pods": view.evaluators.pods,
            "selector": view.selector,
        }
    if view.ending is not None:
        found |= _ending(view.ending)
    return _bounded(found)


def is_over(status: Mapping[str, Any]) -> bool:
    """Whether a status says that the search has ended, in success or in failure."""
    return any(condition_is(status, kind, "True") for kind in (Type.SUCCEEDED, Type.FAILED))


def condition_is(status: Mapping[str, Any], kind: Type, value: str) -> bool:
    """Whether a status has a condition with this status."""
    conditions = status.get("conditions") or ()
    return any(item.get("type") == kind and item.get("status") == value for item in conditions)


def is_worth_writing(old: Mapping[str, Any], new: Mapping[str, Any]) -> bool:
    """Whether ``new`` says anything else; speeds, times left and running times alone do not count."""
    return _essence(old) != _essence(new)


def has_condition_change(old: Mapping[str, Any], new: Mapping[str, Any]) -> bool:
    """Whether a condition has another status or reason; another message alone can wait."""
    return _said(old.get("conditions") or ()) != _said(new.get("conditions") or ())


@dataclass(frozen=True)
class Throttle:
    """When a status is written: at once for a condition, else seldom, never without a change.

    ``changed_seconds`` pass between two patches where anything counts, ``refresh_seconds`` where
    only speeds and times have changed.
    """

    changed_seconds: float = 5.0
    refresh_seconds: float = 60.0
    written_at: float = float("-inf")

    def wait_seconds(
        self, old: Mapping[str, Any], new: Mapping[str, Any], now: float
    ) -> float | None:
        """Return how long the patch from ``old``, the last written, to ``new`` waits; None: for ever."""
        if old == new:
            return None
        if has_condition_change(old, new):
            return 0.0
        pause = self.changed_seconds if is_worth_writing(old, new) else self.refresh_seconds
        return max(0.0, self.written_at + pause - now)

    def after(self, now: float) -> "Throttle":
        """Return the throttle after a patch at ``now``."""
        return replace(self, written_at=now)


# What is worth an Event: (type, status) → the Event's kind. The rest is on its way.
_EVENTS: dict[tuple[str, str], str] = {
    (Type.FAILED, "True"): "Warning",
    (Type.SUCCEEDED, "True"): "Normal",
    (Type.READY, "False"): "Warning",
    (Type.RUNNING, "True"): "Normal",
    (Type.RUNNING, "False"): "Warning",
    (Type.EVALUATORS_READY, "False"): "Warning",
    (Type.DEGRADED, "True"): "Warning",
    (Type.SUSPENDED, "True"): "Normal",
}
# False, but as it should be: somebody wanted it, or it takes a moment.
_ORDINARY = frozenset(
    {
        "MaxFrames",
        "MaxGenerations",
        "MaxWallClockSeconds",
        "Resuming",
        "ScaledToZero",
        "Suspended",
        "TargetFitness",
        "WaitingForEvaluators",
    }
)


def events_for(
    old: Sequence[Mapping[str, Any]], new: Sequence[Mapping[str, Any]]
) -> list[tuple[str, str, str]]:
    """Return (Normal or Warning, reason, message) of what a person wants to know, each once.

    Arguments are conditions as a status has them. A reason that several conditions give is one event,
    and one that was given before is none.
    """
    told = {item.get("reason") for item in old if _kind(item) is not None}
    found: dict[str, tuple[str, str, str]] = {}
    for item in sorted(new, key=_event_order):
        kind, reason = _kind(item), item.get("reason", "")
        if kind is not None and reason not in told and reason not in found:
            found[reason] = (kind, reason, item.get("message", ""))
    return list(found.values())


# True, and still not what the person who edited the spec expects.
_ANSWERS = frozenset({"ReplicasIgnored", "ResumeRefused"})


def _kind(item: Mapping[str, Any]) -> str | None:
    if item.get("reason") in _ANSWERS:
        return "Warning"
    kind = _EVENTS.get((item.get("type", ""), item.get("status", "")))
    is_ordinary = kind == "Warning" and item.get("reason") in _ORDINARY
    return None if is_ordinary else kind


def _event_order(item: Mapping[str, Any]) -> int:
    order = [str(kind) for kind, _ in _EVENTS]
    return order.index(item["type"]) if item.get("type") in order else len(order)


def _progress(view: View, snapshot: Snapshot, previous: Mapping[str, Any]) -> Document:
    """Return the blocks that the search itself tells; before it has resumed, the last status does."""
    is_known = snapshot.generation >= 0
    if not is_known and "progress" in previous:
        return {}
    progress: Document = {
        "generation": snapshot.generation if is_known else None,
        "generations": view.generations,
        "frames": snapshot.frames,
        "framesPerSecond": f"{snapshot.frames_per_second:.1f}",
        "evaluations": snapshot.evaluations,
        "failedEvaluations": snapshot.failed,
        "generationEpisodes": sum(repeat.wanted for repeat in snapshot.repeats),
        "generationEpisodesPlayed": sum(repeat.played for repeat in snapshot.repeats),
        "openEpisodes": snapshot.open_tasks,
        "etaSeconds": None if snapshot.eta_seconds is None else round(snapshot.eta_seconds),
        "runningSeconds": f"{snapshot.running_seconds:.1f}",
    }
    found: Document = {"progress": _known(progress)}
    if snapshot.best is not None:
        found["best"] = _fitness(snapshot.best)
    if snapshot.elite is not None:
        elite = _fitness(snapshot.elite)
        found["elite"] = {name: elite[name] for name in ("fitness", "generation")}
    if snapshot.population is not None:
        of = snapshot.population
        stats = {"max": of.max, "mean": of.mean, "median": of.median, "min": of.min}
        texts: Document = {k: None if v is None else repr(float(v)) for k, v in stats.items()}
        found["population"] = _known(texts | {"failed": of.failed})
    if snapshot.checkpoint is not None:
        at = snapshot.checkpoint
        found["checkpoint"] = {
            "generation": at.generation,
            "time": timestamp(at.saved_at),
            "bytes": at.bytes,
        } | ({"path": clean(view.checkpoint_path, 1024)} if view.checkpoint_path else {})
    return found


def _fitness(view: FitnessView) -> Document:
    return {
        "fitness": repr(float(view.fitness)),
        "generation": view.generation,
        "repeat": view.repeat,
        "digest": view.digest,
    }


def _ending(ending: Ending) -> Document:
    found: Document = {
        "reason": clean(ending.reason, 256),
        "populationDigest": ending.population_digest or None,
        "resultDigest": ending.result_digest or None,
    }
    if ending.final_episodes:
        mean = None if ending.final_mean is None else repr(float(ending.final_mean))
        found["finalTest"] = _known({"mean": mean, "episodes": ending.final_episodes})
    return _known(found)


def _known(block: Document) -> Document:
    return {name: value for name, value in block.items() if value is not None}


def _bounded(status: Document) -> Document:
    """Return ``status`` with shorter messages where it would be too large; others' may be long."""
    if _size(status) < MAX_STATUS_BYTES:
        return status
    conditions = [
        item | {"message": clean(str(item.get("message", "")), SHORT_MESSAGE_BYTES)}
        for item in status["conditions"][:MAX_CONDITIONS]
    ]
    return status | {"conditions": conditions}


def _size(status: Document) -> int:
    return len(json.dumps(status, ensure_ascii=False, separators=(",", ":")).encode())


def _essence(status: Mapping[str, Any]) -> Document:
    progress = status.get("progress") or {}
    return dict(status) | {"progress": {k: v for k, v in progress.items() if k not in _VOLATILE}}


def _said(conditions: Sequence[Mapping[str, Any]]) -> list[tuple[Any, Any, Any]]:
    return [(item.get("type"), item.get("status"), item.get("reason")) for item in conditions]
