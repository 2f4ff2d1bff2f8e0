"""Conditions: what an Experiment's status says about it, and what an error makes it say.

Pure. ``python -m kubevo_operator.conditions`` prints ``docs/reference-conditions.md``.
"""

import errno
import re
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Literal

from kubevo_core import errors
from kubevo_operator.reasons import EXPLAINED, Reason

__all__ = [
    "MAX_CONDITIONS",
    "MAX_MESSAGE_BYTES",
    "MEANINGS",
    "Condition",
    "Failure",
    "Reason",
    "Type",
    "clean",
    "failure_of",
    "markdown",
    "merge",
    "sentence",
]

MAX_CONDITIONS = 16
MAX_MESSAGE_BYTES = 1024
Status = Literal["True", "False", "Unknown"]


class Type(StrEnum):
    """What a condition is about."""

    READY = "Ready"
    RUNNING = "Running"
    SUSPENDED = "Suspended"
    CHECKPOINTED = "Checkpointed"
    EVALUATORS_READY = "EvaluatorsReady"
    DEGRADED = "Degraded"
    SUCCEEDED = "Succeeded"
    FAILED = "Failed"


MEANINGS: dict[Type, str] = {
    Type.READY: "The spec is accepted and nothing needs a person. False: the reason says what does.",
    Type.RUNNING: "The search is driven and at least one evaluator is ready.",
    Type.SUSPENDED: "`spec.suspend` is obeyed: no evaluator is wanted, everything is kept.",
    Type.CHECKPOINTED: "A finished generation is durable.",
    Type.EVALUATORS_READY: "At least one evaluator process is ready.",
    Type.DEGRADED: "The search goes on, and something is wrong all the same.",
    Type.SUCCEEDED: "The summary, shown in the column Status: Unknown while the search is under way "
    "or waits, True after its budget or target, False after a failure for good.",
    Type.FAILED: "The search has ended without a usable result and does not go on by itself.",
}


@dataclass(frozen=True)
class Condition:
    """One statement; ``message`` is a sentence for a person, with the next action."""

    type: Type
    status: Status
    reason: Reason
    message: str


def clean(message: str, limit: int = MAX_MESSAGE_BYTES) -> str:
    """Return ``message`` without control characters, in at most ``limit`` bytes of UTF-8.

    A longer one is cut after a word and ends in an ellipsis.
    """
    text = re.sub(
        r"[^\S\n]+", " ", re.sub(r"[\x00-\x09\x0b-\x1f\x7f-\x9f\ud800-\udfff]", " ", message)
    )
    text = text.strip()
    encoded = text.encode()
    if len(encoded) <= limit:
        return text
    cut = encoded[: limit - 3].decode(errors="ignore")
    words = cut.rsplit(None, 1)
    # One long word (a digest, a path) is worth more cut than left out.
    if len(words) == 2 and len(words[1]) < 40:
        cut = words[0]
    return cut.rstrip() + "…"


def merge(
    existing: Sequence[Mapping[str, Any]],
    new: Iterable[Condition],
    generation: int,
    now: str,
) -> list[dict[str, Any]]:
    """Return the conditions that a status shows after ``new`` was said at ``now`` (RFC 3339).

    ``lastTransitionTime`` changes with the status alone. The order stays; new types come last, in
    the order of `Type`. Types that nobody said anything about stay as they are, also others'.
    """
    said = {condition.type: condition for condition in new}
    found = [dict(item) for item in existing]
    known = {item.get("type") for item in found}
    found += [{"type": str(kind)} for kind in Type if kind in said and kind not in known]
    merged = []
    for item in found:
        condition = said.get(item["type"])
        if condition is None:
            merged.append(item)
            continue
        since = item.get("lastTransitionTime", now)
        merged.append(
            {
                "type": str(condition.type),
                "status": condition.status,
                "observedGeneration": generation,
                "lastTransitionTime": since if item.get("status") == condition.status else now,
                "reason": str(condition.reason),
                "message": clean(condition.message),
            }
        )
    ours = sum(item["type"] in _OURS for item in merged)
    room = MAX_CONDITIONS - ours
    kept = []
    for item in merged:
        if item["type"] not in _OURS:
            room -= 1
            if room < 0:
                continue
        kept.append(item)
    return kept


_OURS = frozenset(str(kind) for kind in Type)


@dataclass(frozen=True)
class Failure:
    """What an error means for an Experiment.

    ``is_final``: it has failed for good. Otherwise it is tried again after ``retry_after_seconds``,
    or, where that is None, when its spec changes.
    """

    conditions: tuple[Condition, ...]
    is_final: bool
    retry_after_seconds: float | None


@dataclass(frozen=True)
class _Rule:
    reason: Reason
    retry_after_seconds: float | None = None


# The most special class that fits decides: errors.py draws the tree.
_RULES: dict[type[BaseException], _Rule] = {
    errors.SpecError: _Rule(Reason.SPEC_INVALID),
    errors.EnvironmentRefused: _Rule(Reason.ENVIRONMENT_REFUSED),
    errors.WarmStartRefused: _Rule(Reason.WARM_START_REFUSED, 60.0),
    errors.UserError: _Rule(Reason.INPUT_REFUSED),
    errors.MessageError: _Rule(Reason.MESSAGE_UNREADABLE, 60.0),
    errors.CheckpointVersionError: _Rule(Reason.CHECKPOINT_TOO_NEW, 300.0),
    errors.FormatError: _Rule(Reason.CHECKPOINT_DAMAGED, 60.0),
    errors.RunInUse: _Rule(Reason.RUN_IN_USE, 5.0),
    errors.RunMismatch: _Rule(Reason.RUN_MISMATCH, 60.0),
    errors.StoreFull: _Rule(Reason.VOLUME_FULL, 30.0),
    errors.Fenced: _Rule(Reason.TAKEN_OVER),
    errors.StoreError: _Rule(Reason.VOLUME_UNAVAILABLE, 10.0),
    errors.BusUnavailable: _Rule(Reason.BROKER_UNREACHABLE, 2.0),
    errors.BrokerFull: _Rule(Reason.BROKER_FULL, 10.0),
    errors.ServerTooOld: _Rule(Reason.BROKER_TOO_OLD, 60.0),
    errors.BusError: _Rule(Reason.BROKER_REFUSED, 10.0),
    errors.Poisoned: _Rule(Reason.POISONED),
    errors.RunStopped: _Rule(Reason.WORKERS_FAILING, 30.0),
    errors.WorkerUnfit: _Rule(Reason.CRASH_LOOPING, 30.0),
    errors.IllegalTransition: _Rule(Reason.INTERNAL_ERROR, 60.0),
    errors.KubevoError: _Rule(Reason.TEMPORARY_FAILURE, 2.0),
    OSError: _Rule(Reason.VOLUME_UNAVAILABLE, 10.0),
}
_FULL = (errno.ENOSPC, errno.EDQUOT)
# Errors of the outside that a driven search survives: they never say that it does not run.
_BESIDE = (
    Reason.KEDA_MISSING,
    Reason.OBJECT_REFUSED,
    Reason.PODS_FORBIDDEN,
    Reason.QUOTA_EXCEEDED,
    Reason.RIGHTS_MISSING,
    Reason.TEMPORARY_FAILURE,
)


def failure_of(exc: BaseException) -> Failure:
    """Return what an error says about the Experiment that it came from.

    An error that carries the API server's answer as ``status`` (an HTTP code) is about a child. None
    of them ends an Experiment for good: that is said only by a search that has stopped, in `phases`.
    """
    http = getattr(exc, "status", None)
    text = str(exc) or type(exc).__name__
    if isinstance(exc, errors.KubevoError) and isinstance(http, int):
        rule = _refused(http, text)
    elif isinstance(exc, OSError) and exc.errno in _FULL:
        rule = _RULES[errors.StoreFull]
    else:
        fallback = _Rule(Reason.INTERNAL_ERROR, 60.0)
        rule = next((_RULES[kind] for kind in type(exc).__mro__ if kind in _RULES), fallback)
    # Our own errors name the next action themselves.
    is_ours = isinstance(exc, errors.KubevoError) and http is None
    message = clean(text) if is_ours else sentence(rule.reason, text)
    said: tuple[Condition, ...]
    if rule.reason in _BESIDE:
        said = (Condition(Type.DEGRADED, "True", rule.reason, message),)
    elif rule.reason == Reason.SPEC_INVALID:
        # A search may go on with the spec that it had, and a finished one stays finished.
        said = (Condition(Type.READY, "False", rule.reason, message),)
    else:
        said = (
            Condition(Type.READY, "False", rule.reason, message),
            Condition(Type.RUNNING, "False", rule.reason, message),
            Condition(Type.SUCCEEDED, "Unknown", rule.reason, message),
        )
    return Failure(said, is_final=False, retry_after_seconds=rule.retry_after_seconds)


def sentence(reason: Reason, detail: str) -> str:
    """Return ``detail`` with the next action after it, both whole: a long detail is cut."""
    cure = EXPLAINED[reason].cure.replace("`", "")
    room = MAX_MESSAGE_BYTES - len(cure.encode()) - 2
    return f"{clean(detail, room).rstrip(' .;')}. {cure}" if cure else clean(detail)


def _refused(status: int, message: str) -> _Rule:
    if status == 404 and "/scaledobjects/" in message:
        return _Rule(Reason.KEDA_MISSING, 60.0)
    if status == 403 and "exceeded quota" in message:
        return _Rule(Reason.QUOTA_EXCEEDED, 30.0)
    if status in (401, 403):
        return _Rule(Reason.RIGHTS_MISSING, 30.0)
    if status in (400, 422):
        return _Rule(Reason.OBJECT_REFUSED, 60.0)
    return _Rule(Reason.TEMPORARY_FAILURE, 5.0)


def markdown() -> str:
    """Return the reference of conditions and reasons."""
    lines = [
        "# Conditions",
        "",
        "Written by `python -m kubevo_operator.conditions` from `kubevo_operator/reasons.py`; a test",
        "fails when it is stale.",
        "",
        "`kubectl describe evo NAME` shows the conditions, the column Status the reason of",
        "Succeeded; `kubectl wait --for=condition=Succeeded evo/NAME` waits for the end.",
        "",
        "| Condition | True means |",
        "|---|---|",
        *(f"| {kind} | {meaning} |" for kind, meaning in MEANINGS.items()),
        "",
        "# Reasons",
    ]
    for group in dict.fromkeys(explained.group for explained in EXPLAINED.values()):
        lines += ["", f"## {group}", "", "| Reason | What it means | What to do |", "|---|---|---|"]
        lines += [
            f"| {reason} | {explained.meaning} | {explained.cure or 'Nothing.'} |"
            for reason, explained in EXPLAINED.items()
            if explained.group == group
        ]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    sys.stdout.write(markdown())
