"""Label selectors as kubectl takes them: ``a=b,c!=d,e,!f,g in (x,y),h notin (z)``. Pure."""

import re
from collections.abc import Mapping
from dataclasses import dataclass

from kubevo_core.errors import UserError

__all__ = ["Requirement", "matches", "parse_selector"]

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
