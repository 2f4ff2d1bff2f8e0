"""Experiments as people read them: rows of tables, lines of progress, ages. Pure; time is an argument."""

from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from kubevo_api.catalogue import Entry
from kubevo_api.models import Summary
from kubevo_api.summaries import actions, summary
from kubevo_cli.output import number

__all__ = ["actions_of", "duration", "fields", "line", "summary_of", "table", "without_noise"]

Document = dict[str, Any]


def summary_of(document: Document) -> Summary:
    """Return what the service would say of a resource."""
    return summary(Entry(document, Path()), has_data=False)


def actions_of(found: Summary) -> list[str]:
    """Return what can be done with an Experiment in its state."""
    return list(actions(found.state))


def without_noise(document: Document) -> Document:
    """Return a resource without what only machines read."""
    metadata = {k: v for k, v in document["metadata"].items() if k != "managedFields"}
    return {**document, "metadata": metadata}


def duration(seconds: float) -> str:
    """Return a time as kubectl writes it, in at most two units: 45s, 3m20s, 2h5m, 4d3h."""
    whole = max(0, int(seconds))
    for size, unit, smaller, of in (
        (86_400, "d", 3600, "h"),
        (3600, "h", 60, "m"),
        (60, "m", 1, "s"),
    ):
        if whole >= size:
            rest = whole % size // smaller
            return f"{whole // size}{unit}" + (f"{rest}{of}" if rest and whole < 10 * size else "")
    return f"{whole}s"


def _age(found: Summary, now: float) -> str:
    if not found.created:
        return "-"
    return duration(now - datetime.fromisoformat(found.created).timestamp())


def _generation(found: Summary) -> str:
    at = "-" if found.generation is None else str(found.generation)
    return at if found.generations is None else f"{at}/{found.generations - 1}"


def _evaluators(found: Summary) -> str:
    fleet = found.evaluators
    return "-" if fleet is None else f"{fleet.ready}/{fleet.desired}"


def _speed(found: Summary) -> str:
    is_running = found.state == "Running" and found.frames_per_second > 0
    return number(float(round(found.frames_per_second))) if is_running else "-"


def _left(found: Summary) -> str:
    if found.state != "Running" or found.eta_seconds is None:
        return "-"
    return duration(found.eta_seconds)


def table(
    found: Sequence[Summary], now: float, *, wide: bool, with_namespace: bool
) -> tuple[list[str], list[list[str]]]:
    """Return the headings and rows of a list; every cell is a text."""
    headings = ["NAMESPACE"] if with_namespace else []
    headings += [
        "NAME",
        "ENVIRONMENT",
        "GENERATION",
        "BEST",
        "ELITE",
        "EVALUATORS",
        "STATUS",
        "AGE",
    ]
    headings += ["NETWORK", "REPEATS", "FRAMES", "FRAMES/S", "LEFT", "REASON"] if wide else []
    rows = []
    for each in found:
        row = [each.namespace] if with_namespace else []
        row += [
            each.name,
            each.environment,
            _generation(each),
            number(each.best.fitness if each.best else None),
            number(each.elite.fitness if each.elite else None),
            _evaluators(each),
            each.state,
            _age(each, now),
        ]
        if wide:
            row += [
                each.network,
                str(each.repeats),
                number(each.frames),
                _speed(each),
                _left(each),
                each.reason or "-",
            ]
        rows.append(row)
    return headings, rows


def fields(found: Summary, now: float) -> dict[str, str]:
    """Return one Experiment as named values."""
    best = found.best
    shown = {
        "name": f"{found.namespace}/{found.name}",
        "status": found.state + (f" ({found.reason})" if found.reason else ""),
        "message": found.message or "-",
        "environment": found.environment,
        "network": found.network,
        "generation": _generation(found),
        "best": "-" if best is None else f"{number(best.fitness)} (generation {best.generation})",
        "elite": number(found.elite.fitness if found.elite else None),
        "frames": number(found.frames),
        "frames/s": _speed(found),
        "time left": _left(found),
        "evaluators": _evaluators(found),
        "age": _age(found, now),
    }
    if found.repeats > 1:
        shown["repeats"] = str(found.repeats)
    if best is not None and best.digest:
        shown["digest"] = best.digest
    return shown


def line(found: Summary, *, with_namespace: bool = False) -> str:
    """Return one Experiment's progress as one line; equal lines mean that nothing happened."""
    name = f"{found.namespace}/{found.name}" if with_namespace else found.name
    parts = [name, found.state]
    if found.generation is not None:
        parts.append(f"generation {_generation(found)}")
    if found.best is not None:
        parts.append(f"best {number(found.best.fitness)}")
    if found.elite is not None:
        parts.append(f"elite {number(found.elite.fitness)}")
    if found.generation is not None:
        parts.append(f"frames {number(found.frames)}")
    if found.state != "Running" and found.message:
        parts.append(found.message)
    return "  ".join(parts)
