"""Selectors as kubectl takes them: of labels, ``a=b,c!=d,e,!f,g in (x,y)``, and of fields. Pure."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from kubevo_core.errors import UserError

__all__ = ["Requirement", "fields_of", "matches", "parse_field_selector", "parse_selector"]

# What a field selector may name: as the resource itself offers.
FIELDS = {
    "metadata.name": ("metadata", "name"),
    "metadata.namespace": ("metadata", "namespace"),
    "spec.environment.id": ("spec", "environment", "id"),
    "spec.policy.network": ("spec", "policy", "network"),
}

_KEY = r"(?:[A-Za-z0-9][-A-Za-z0-9.]*/)?[A-Za-z0-9](?:[-A-Za-z0-9_.]*[A-Za-z0-9])?"
_VALUE = r"[A-Za-z0-9](?:[-A-Za-z0-9_.]*[A-Za-z0-9])?"
_PART = re.compile(
    rf"\s*(?:(?P<not>!)\s*)?(?P<key>{_KEY})\s*"
    rf"(?:(?P<op>==|=|!=)\s*(?P<value>{_VALUE})?\s*|"
    rf"\s(?P<set>in|notin)\s*\((?P<values>[^()]*)\)\s*)?(?:,|$)",
    re.ASCII,
)


@dataclass(frozen=True)
class Requirement:
    """One part of a selector: the label must (or must not) be there with one of ``values``.

    ``values`` None: any value.
    """

    key: str
    values: frozenset[str] | None
    wanted: bool


def parse_selector(text: str) -> list[Requirement]:
    """Return the parts of a selector; an empty one has none.

    Raises:
        UserError: it is not one.
    """
    found: list[Requirement] = []
    position = 0
    while position < len(text) and text[position:].strip():
        match = _PART.match(text, position)
        if match is None or (match["not"] and (match["op"] or match["set"])):
            raise UserError(
                f"labelSelector: expected such as team=vision,tier!=test,env in (a,b), got {text!r} "
                f"(at character {position + 1})"
            )
        position = match.end()
        if match["set"]:
            values = frozenset(part.strip() for part in match["values"].split(","))
            found.append(Requirement(match["key"], values, match["set"] == "in"))
        elif match["op"]:
            value = frozenset([match["value"] or ""])
            found.append(Requirement(match["key"], value, match["op"] != "!="))
        else:
            found.append(Requirement(match["key"], None, not match["not"]))
    return found


def matches(selector: list[Requirement], labels: Mapping[str, str]) -> bool:
    """Tell whether labels fit every part; as in Kubernetes, an absent label fits ``!=``."""

    def fits(part: Requirement) -> bool:
        has = part.key in labels and (part.values is None or labels[part.key] in part.values)
        return has == part.wanted

    return all(map(fits, selector))


def parse_field_selector(text: str) -> list[Requirement]:
    """Return the parts of a field selector such as ``spec.environment.id=CartPole-v1``.

    Raises:
        UserError: it is not one, or names another field.
    """
    found = []
    for part in filter(None, (each.strip() for each in text.split(","))):
        name, sign, value = (
            re.split(r"(!=|==|=)", part, maxsplit=1) if "=" in part else (part, "", "")
        )
        if name.strip() not in FIELDS or not sign:
            raise UserError(
                f"fieldSelector: expected FIELD=VALUE or FIELD!=VALUE with one of "
                f"{', '.join(FIELDS)}, got {part!r}"
            )
        values = frozenset([value.strip()])
        found.append(Requirement(name.strip(), values, sign != "!="))
    return found


def fields_of(document: Mapping[str, Any]) -> dict[str, str]:
    """Return the fields of a resource that a selector may name."""
    found = {}
    for name, path in FIELDS.items():
        value: Any = document
        for part in path:
            value = value[part]
        found[name] = str(value)
    return found
