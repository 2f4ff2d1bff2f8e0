"""``suspend``, ``resume``, ``stop`` and ``extend``: one patch of an Experiment's spec each."""

import math
from collections.abc import Sequence
from decimal import Decimal, InvalidOperation
from typing import Any

from kubevo_cli import output
from kubevo_cli.cluster import views
from kubevo_cli.cluster.kubernetes_api import Cluster, connect
from kubevo_cli.cluster.looking import write_documents
from kubevo_cli.cluster.options import ClusterOptions
from kubevo_core.errors import UserError

__all__ = ["Budget", "extend", "resume", "stop", "suspend"]

Document = dict[str, Any]
Budget = dict[str, str | None]
# Flag -> field of spec.budget.
FIELDS = {
    "--generations": "maxGenerations",
    "--frames": "maxFrames",
    "--seconds": "maxWallClockSeconds",
}
TARGET = "--target"


def suspend(names: Sequence[str], options: ClusterOptions, form: str) -> None:
    """Pause searches; nothing is lost, and the evaluators go.

    Raises:
        UserError: one is not there, or has ended.
        KubevoError: as `kubevo_cli.cluster.kubernetes_api` says, here and below.
    """
    for cluster, found in _each(names, options):
        if found["spec"].get("suspend"):
            _told(found, "is suspended already", form)
            continue
        _require(found, "suspend")
        _told(cluster.patch(found, {"suspend": True}), "suspended", form)


def resume(names: Sequence[str], options: ClusterOptions, form: str) -> None:
    """Let paused searches go on."""
    for cluster, found in _each(names, options):
        if not found["spec"].get("suspend"):
            _told(found, "is not suspended", form)
            continue
        _told(cluster.patch(found, {"suspend": False}), "resumed", form)


def stop(names: Sequence[str], options: ClusterOptions, form: str) -> None:
    """End searches after the generation that runs now, with their final tests.

    The budget becomes what has been searched then, as the service does it.
    """
    for cluster, found in _each(names, options):
        summary = views.summary_of(found)
        if summary.state in ("Succeeded", "Failed"):
            _told(found, f"has ended already ({summary.reason or summary.state})", form)
            continue
        _require(found, "stop")
        last = 2 + (-1 if summary.generation is None else summary.generation)
        limit = (found["spec"].get("budget") or {}).get("maxGenerations")
        if limit is not None:  # asked before, or it is in its final test
            last = min(last, limit)
        changed = cluster.patch(found, {"budget": {"maxGenerations": last}})
        _told(changed, "stops after the generation that runs now", form)


def extend(name: str, budget: Budget, options: ClusterOptions, form: str) -> None:
    """Change a search's budget; a finished one goes on if it is larger.

    ``budget`` has the texts of the flags: a number is the new limit, one with a plus is added.

    Raises:
        UserError: nothing is given, or something that is no number.
    """
    given = {flag: text for flag, text in budget.items() if text is not None}
    if not given:
        raise UserError(
            f"extend {name}: expected at least one of {', '.join([*FIELDS, TARGET])}, such as "
            "--generations 200, or --generations +100 for so many more"
        )
    ((cluster, found),) = _each([name], options)
    old, used = found["spec"].get("budget") or {}, _used(found)
    change: Document = {
        field: _limit(flag, given[flag], old.get(field), used[flag])
        for flag, field in FIELDS.items()
        if flag in given
    }
    if TARGET in given:
        change["targetFitness"] = _target(given[TARGET])
    ended = views.summary_of(found).state in ("Succeeded", "Failed")
    changed = cluster.patch(found, {"budget": change})
    _told(changed, "extended", form)
    if ended and found["spec"].get("resumePolicy") == "Never":
        output.say(f"{name} has ended and stays so: its spec.resumePolicy is Never")


def _used(found: Document) -> dict[str, int]:
    """Return what a search has used of each limit, by flag.

    It may be more than the limit: a stop sets that by a status which is seconds old.
    """
    progress = (found.get("status") or {}).get("progress") or {}
    return {
        "--generations": progress.get("generation", -1) + 1,
        "--frames": progress.get("frames", 0),
        "--seconds": math.ceil(float(progress.get("runningSeconds", 0))),
    }


def _limit(flag: str, text: str, old: int | None, used: int) -> int:
    number = text.removeprefix("+")
    if not (number.isascii() and number.isdecimal() and int(number) > 0):
        raise UserError(f"{flag}: expected a number such as 200, or +100 for more, got {text!r}")
    if not text.startswith("+"):
        return int(number)
    if old is None:
        raise UserError(f"{flag} {text}: there is no such limit yet that it could be added to")
    return max(int(old), used) + int(number)


def _target(text: str) -> str:
    try:
        value = Decimal(text)
    except InvalidOperation:
        value = Decimal("nan")
    if not value.is_finite():
        raise UserError(f"{TARGET}: expected a fitness such as 475, got {text!r}")
    return f"{value:f}"


def _each(names: Sequence[str], options: ClusterOptions) -> list[tuple[Cluster, Document]]:
    """Return the Experiments, all of them before the first is changed."""
    cluster = connect(options)
    wanted = dict.fromkeys(names)
    return [(cluster, cluster.experiment(cluster.namespace, name)) for name in wanted]


def _require(found: Document, action: str) -> None:
    summary = views.summary_of(found)
    if found["metadata"].get("deletionTimestamp"):
        raise UserError(f"{summary.name} is being deleted: there is nothing to {action}")
    possible = views.actions_of(summary)
    if action not in possible:
        raise UserError(
            f"{summary.name} is {summary.state}: expected one that can {action}; what can be done "
            f"with it: {', '.join(possible)}"
        )


def _told(document: Document, what: str, form: str) -> None:
    if form in ("json", "yaml"):
        write_documents(views.without_noise(document), form)
    else:
        output.write(f"experiment.kubevo.dev/{document['metadata']['name']} {what}")
