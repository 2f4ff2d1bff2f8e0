"""The reference of an Experiment's fields in Markdown, from the schema that the API server has."""

import json
import re
from collections.abc import Iterator, Sequence
from typing import Any

__all__ = ["reference"]

Schema = dict[str, Any]
HEAD = """\
<!-- Generated from kubevo_core.spec by `make crd`; do not edit. -->
# The Experiment, field by field

The same fields, defaults and bounds hold for a file given to `kubevo run` and for a resource given to
`kubectl apply`; `kubevo validate FILE` judges both. Unknown fields are errors. Numbers with a fraction
are texts in quotes. *Fixed* fields cannot be changed, added or removed once the Experiment exists;
*live* ones can at any time.
"""
ROW = "| {} | {} | {} | {} | {} | {} |\n"


def reference(spec: Schema, fixed: Sequence[str]) -> str:
    """Return the whole page; ``fixed`` names the fields of ``spec`` that are immutable."""
    pages = [HEAD]
    for path, block, kind in _blocks("spec", spec, None, fixed):
        pages.append(f"\n## {path}\n\n{_sentence(block)}\n\n")
        pages.append(ROW.format("Field", "Type", "Default", "Bounds", "Changes", "Description"))
        pages.append(ROW.format(*["---"] * 6))
        pages += [
            _row(name, part, block, kind or ("fixed" if name in fixed else "live"))
            for name, part in block["properties"].items()
        ]
        pages += _rules(block)
    return "".join(pages)


def _blocks(
    path: str, block: Schema, kind: str | None, fixed: Sequence[str]
) -> Iterator[tuple[str, Schema, str | None]]:
    yield path, block, kind
    for name, part in block["properties"].items():
        if "properties" in part:
            below = kind or ("fixed" if name in fixed else "live")
            yield from _blocks(f"{path}.{name}", part, below, fixed)


def _row(name: str, part: Schema, block: Schema, kind: str) -> str:
    if name in block.get("required", ()):
        default = "required"
    elif part.get("default") in (None, {}) or "properties" in part:
        default = ""
    else:
        default = f"`{json.dumps(part['default'])}`"
    return ROW.format(
        f"`{name}`", _kind(part), default, _bounds(part), kind, _sentence(part).replace("|", "\\|")
    )


def _kind(part: Schema) -> str:
    if "items" in part:
        return f"list of {_kind(part['items'])}s"
    if part.get("x-kubernetes-int-or-string"):
        return "quantity"
    if "additionalProperties" in part:
        value = _kind(part["additionalProperties"])
        return "map of quantities" if value == "quantity" else f"map of {value}s"
    if part.get("x-kubernetes-preserve-unknown-fields"):
        return "free"
    kind = str(part["type"])
    return {"object": "block", "string": "text", "boolean": "true or false"}.get(kind, kind)


def _bounds(part: Schema) -> str:
    if "enum" in part:
        return ", ".join(f"`{value}`" for value in part["enum"])
    found = []
    if "minimum" in part and "type" in part:
        found.append(f"{part['minimum']} to {part['maximum']}")
    for key, words in (
        ("maxLength", "characters"),
        ("maxItems", "items"),
        ("maxProperties", "entries"),
    ):
        if key in part:
            found.append(f"≤ {part[key]} {words}")
    found += [
        rule["message"].removeprefix("expected ")
        for rule in part.get("x-kubernetes-validations", ())
        if rule["message"].startswith("expected ")
    ]
    inner = part.get("items") or part.get("additionalProperties") or {}
    if "type" in inner and _bounds(inner):
        found.append(f"each {_bounds(inner)}")
    return _escaped("; ".join(found)).replace("|", "\\|")


def _rules(block: Schema) -> list[str]:
    said = [
        rule["message"]
        for rule in block.get("x-kubernetes-validations", ())
        if "oldSelf" not in rule["rule"]
    ]
    if not said:
        return []
    return ["\n", *(f"- {_escaped(message)}\n" for message in said)]


def _sentence(part: Schema) -> str:
    """Return the description without the bounds, which have their own column."""
    said = part.get("description", "").removesuffix(" Cannot be changed later.")
    return _escaped(re.sub(r" \((default [^;()]*)?(; )?([0-9-]+ to [0-9]+)?\)$", "", said))


def _escaped(text: str) -> str:
    return text.replace("<", "&lt;").replace(">", "&gt;")
