"""``--set spec.path=value``: single fields changed on the command line.

A value is YAML (a scalar, or a list or mapping in flow style) unless the spec wants text there:
decimals and everything below ``kwargs`` are taken as typed. ``null`` unsets a field.
"""

import copy
import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

import yaml

from kubevo_core.errors import SpecError

__all__ = ["Assignment", "applied", "parse_assignments", "wants_text"]

ROOTS = ("spec.", "metadata.")
KWARGS = "spec.environment.kwargs."


@dataclass(frozen=True)
class Assignment:
    """One ``path=value``: the dotted path, what was typed, and what that means in YAML."""

    path: str
    typed: str
    value: Any

    @property
    def unsets(self) -> bool:
        """Whether the field is removed."""
        return self.value is None


def parse_assignments(texts: Sequence[str]) -> list[Assignment]:
    """Read the texts of ``--set`` in their order.

    Raises:
        SpecError: not path=value, another root than spec or metadata, or a value that is not YAML.
    """
    return [_assignment(text) for text in texts]


def _assignment(text: str) -> Assignment:
    path, equals, typed = text.partition("=")
    path, typed = path.strip(), typed.strip()
    if not equals or not all(path.split(".")) or not path.startswith(ROOTS):
        raise SpecError(
            f"--set {text[:80]!r}: expected a path that begins with spec. or metadata., and a "
            "value, such as spec.seed=7"
        )
    if path.startswith(KWARGS):
        return Assignment(path, typed, typed)
    try:
        value = yaml.safe_load(typed)
    except (yaml.YAMLError, ValueError, RecursionError) as exc:
        reason = str(exc).splitlines()[0]
        raise SpecError(f"--set {text[:80]!r}: the value is not YAML: {reason}") from exc
    if typed == "":
        value = ""  # an empty text, not YAML's null
    # The spec has no floats: a number with a fraction is a decimal text, exactly as typed.
    return Assignment(path, typed, typed if isinstance(value, float) else value)


def applied(
    document: dict[str, Any], assignments: Sequence[Assignment], texts: Collection[str] = ()
) -> dict[str, Any]:
    """Return a copy of ``document`` after the assignments; those of paths in ``texts`` as typed.

    Raises:
        SpecError: a path leads through something that is not a mapping.
    """
    # YAML aliases share one mapping between several places; a change must reach only its own.
    changed: dict[str, Any] = _unshared(document)
    for assignment in assignments:
        *parents, last = assignment.path.split(".")
        node: Any = changed
        for depth, name in enumerate(parents):
            if node.get(name) is None:
                node[name] = {}
            node = node[name]
            if not isinstance(node, dict):
                where = ".".join(parents[: depth + 1])
                raise SpecError(
                    f"--set {assignment.path}: {where} is {type(node).__name__} "
                    f"{str(node)[:40]!r}, not a mapping; set {where} as a whole"
                )
        if assignment.path in texts:
            node[last] = assignment.typed
        elif assignment.unsets:
            node.pop(last, None)
        else:
            node[last] = copy.deepcopy(assignment.value)
    return changed


def _unshared(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _unshared(item) for key, item in value.items()}
    return [_unshared(item) for item in value] if isinstance(value, list) else value


def wants_text(assignments: Sequence[Assignment], problems: str, source: str) -> set[str]:
    """Return the assigned paths where the spec expects a text but a number or the like was read."""
    lines = problems.splitlines()
    return {
        each.path
        for each in assignments
        if not isinstance(each.value, (str, list, dict))
        and any(
            re.fullmatch(rf"{re.escape(f'{source}: {each.path}')}: expected a text.*", line)
            for line in lines
        )
    }
