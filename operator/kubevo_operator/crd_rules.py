"""The rules of the spec as the API server's: CEL, with messages that say expected, actual, cure.

The rules and the forms of texts come from the models of `kubevo_core.spec` (``x-rules``, ``pattern``
and ``x-expected`` in their JSON schema); what only the API server can judge, the immutability of
fields, is made here. Messages are built by ``format``: its cost is the template's length, while
``+`` is charged for texts of any length, because that of ``string(1)`` is not known beforehand.
"""

import re
from collections.abc import Sequence
from typing import Any

__all__ = ["MOST_NAME", "form_rule", "immutable_rule", "key_rules", "name_rule", "stated_rule"]

Schema = dict[str, Any]
MOST_NAME = 52
_VALUE = re.compile(r"\{([A-Za-z.]+)\}")


def stated_rule(rule: Schema) -> Schema:
    """Return a rule of a block, from its row in ``x-rules``."""
    said: str = rule["message"]
    values = [rule["computed"].get(name, f"self.{name}") for name in _VALUE.findall(said)]
    found = {"rule": rule["cel"], "message": _without_values(said)}
    if values:
        found["messageExpression"] = _format(_VALUE.sub("%s", said), values)
    if rule["field"]:
        found["fieldPath"] = f".{rule['field']}"
    return found


def form_rule(pattern: str, expected: str) -> Schema:
    """Return the rule that a text has a form."""
    return {
        "rule": f"self.matches({_raw(pattern)})",
        "message": f"expected {expected}",
        "messageExpression": _format(f'expected {expected}, got "%s"', ["self"]),
    }


def key_rules(pattern: str, expected: str, longest: int) -> list[Schema]:
    """Return the rules that the names in a map have a form and are not too long."""
    first_bad = f"self.filter(key, !key.matches({_raw(pattern)}))[0]"
    return [
        {
            "rule": f"self.all(key, key.matches({_raw(pattern)}))",
            "message": f"expected {expected}",
            "messageExpression": _format(f'expected {expected}, got "%s"', [first_bad]),
        },
        {
            "rule": f"self.all(key, key.size() <= {longest})",
            "message": f"expected at most {longest} characters in a name",
        },
    ]


def name_rule() -> Schema:
    """Return the rule on an Experiment's name: children's names are made of it."""
    said = f"metadata.name must have at most {MOST_NAME} characters"
    return {
        "rule": f"self.metadata.name.size() <= {MOST_NAME}",
        "message": said,
        "messageExpression": _format(
            f"{said}, got %s; choose a shorter one", ["self.metadata.name.size()"]
        ),
    }


def immutable_rule(name: str, schema: Schema, *, is_optional: bool) -> Schema:
    """Return the transition rule on the spec that refuses to change, add or remove ``name``."""
    cure = "make a new Experiment, with warmStart to go on from this one's best"
    changes = _changes(name, schema, is_optional=is_optional)
    return {
        "rule": _same(name, is_optional=is_optional),
        "message": f"{name} cannot be changed; {cure}",
        "messageExpression": _format(
            f"{name} cannot be changed: {'%s' * len(changes)}{cure}", changes
        ),
        "fieldPath": f".{name}",
    }


def _same(path: str, *, is_optional: bool) -> str:
    same = f"self.{path} == oldSelf.{path}"
    if not is_optional:
        return same
    return f"has(self.{path}) == has(oldSelf.{path}) && (!has(self.{path}) || {same})"


def _changes(path: str, schema: Schema, *, is_optional: bool) -> list[str]:
    """Return for each part a CEL text: what has changed in it, or nothing."""
    if "properties" in schema and not is_optional:
        required = schema.get("required", ())
        return [
            change
            for name, part in schema["properties"].items()
            for change in _changes(
                f"{path}.{name}",
                part,
                is_optional=name not in required and "default" not in part,
            )
        ]
    said = f"'{path}; '"
    if schema["type"] in ("string", "integer", "boolean") and not is_optional:
        said = _format(f"{path} %s -> %s; ", [f"oldSelf.{path}", f"self.{path}"])
    return [f"({_same(path, is_optional=is_optional)}) ? '' : {said}"]


def _without_values(message: str) -> str:
    said = re.sub(r", (but|got) [^;]*", "", message)
    if "{" in said:
        raise ValueError(f"expected a message whose values follow ', but' or ', got': {message}")
    return said


def _format(template: str, values: Sequence[str]) -> str:
    """Return the CEL text in which each %s of ``template`` is a value."""
    if template.count("%") != len(values):
        raise ValueError(f"expected {len(values)} times %s and no other %, got {template}")
    escaped = template.replace("\\", "\\\\").replace("'", "\\'")
    # All as texts: a list of CEL holds values of one type.
    return f"'{escaped}'.format([{', '.join(f'string({value})' for value in values)}])"


def _raw(pattern: str) -> str:
    if "'" in pattern:
        raise ValueError(f"a pattern must not contain an apostrophe, got {pattern}")
    return f"r'{pattern}'"
