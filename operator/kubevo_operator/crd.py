"""The custom resource definition, generated from the models that `kubevo validate` judges by.

``python -m kubevo_operator.crd`` prints it (``make crd`` writes crds/experiments.yaml), with
``--markdown`` the reference of its fields. The API server needs a structural schema: references
are inlined, null is dropped, forms and rules become CEL.
"""

import sys
from collections.abc import Sequence
from typing import Any

import yaml

from kubevo_core.spec import API_VERSION, IMMUTABLE, ExperimentSpec
from kubevo_operator.crd_markdown import reference
from kubevo_operator.crd_rules import (
    form_rule,
    immutable_rule,
    key_rules,
    name_rule,
    stated_rule,
)
from kubevo_operator.crd_status import COLUMNS, SELECTABLE, SUBRESOURCES, status_schema

__all__ = ["document", "main", "manifest", "spec_schema"]

Schema = dict[str, Any]
GROUP, VERSION = API_VERSION.split("/")
HEADER = "# Generated from kubevo_core.spec by `make crd`; do not edit.\n"
KEPT = ("type", "enum", "minimum", "maximum", "minLength", "maxLength", "maxItems", "maxProperties")


def document() -> Schema:
    """Return the CustomResourceDefinition ``experiments.kubevo.dev``."""
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": f"experiments.{GROUP}"},
        "spec": {
            "group": GROUP,
            "scope": "Namespaced",
            "names": {
                "kind": "Experiment",
                "listKind": "ExperimentList",
                "plural": "experiments",
                "singular": "experiment",
                "shortNames": ["evo"],
                "categories": ["all"],
            },
            "versions": [
                {
                    "name": VERSION,
                    "served": True,
                    "storage": True,
                    "additionalPrinterColumns": COLUMNS,
                    "selectableFields": SELECTABLE,
                    "subresources": SUBRESOURCES,
                    "schema": {"openAPIV3Schema": _root()},
                }
            ],
        },
    }


def manifest() -> str:
    """Return the definition as YAML, as it is in crds/experiments.yaml."""
    text = yaml.dump(document(), Dumper=_Dumper, sort_keys=False, width=100, allow_unicode=True)
    return HEADER + text


def spec_schema() -> Schema:
    """Return the structural schema of ``spec``."""
    found = ExperimentSpec.model_json_schema(by_alias=True)
    schema = _structural(found, found["$defs"])
    required = schema["required"]
    for name in IMMUTABLE:
        part = schema["properties"][name]
        part["description"] += " Cannot be changed later."
        is_optional = name not in required and "default" not in part
        schema["x-kubernetes-validations"].append(
            immutable_rule(name, part, is_optional=is_optional)
        )
    return schema


def main(arguments: Sequence[str]) -> int:
    """Print the definition, or with ``--markdown`` the reference; 2 for anything else."""
    if list(arguments) not in ([], ["--markdown"]):
        sys.stderr.write("usage: python -m kubevo_operator.crd [--markdown]\n")
        return 2
    sys.stdout.write(reference(spec_schema(), IMMUTABLE) if arguments else manifest())
    return 0


def _root() -> Schema:
    return {
        "description": "One search for a policy that plays a game, by evolution.",
        "type": "object",
        "required": ["spec"],
        "properties": {
            "apiVersion": {"type": "string", "description": f"{API_VERSION}."},
            "kind": {"type": "string", "description": "Experiment."},
            "metadata": {"type": "object"},
            "spec": spec_schema(),
            "status": status_schema(),
        },
        "x-kubernetes-validations": [name_rule()],
    }


def _structural(schema: Schema, blocks: Schema) -> Schema:
    """Return one node of pydantic's JSON schema in the form that the API server takes."""
    schema = _resolved(schema, blocks)
    if schema.get("x-int-or-string"):
        return _quantity(schema)
    found: Schema = {}
    if "description" in schema:
        found["description"] = _described(schema)
    found |= {key: schema[key] for key in KEPT if key in schema}
    if "const" in schema:
        found["enum"] = [schema["const"]]
    if found["type"] == "integer":
        found["format"] = "int64"
    if schema.get("default") is not None:
        found["default"] = schema["default"]
    rules = [stated_rule(rule) for rule in schema.get("x-rules", ())]
    if "pattern" in schema:
        rules.append(form_rule(schema["pattern"], schema["x-expected"]))
    if found["type"] == "array":
        found["x-kubernetes-list-type"] = "atomic"
        found["items"] = _structural(schema["items"], blocks)
    if found["type"] == "object":
        rules += _object(schema, found, blocks)
    if rules:
        found["x-kubernetes-validations"] = rules
    return found


def _object(schema: Schema, found: Schema, blocks: Schema) -> list[Schema]:
    """Fill in what is inside a block or a map; return the rules on a map's names."""
    names = schema.get("propertyNames", {})
    if "properties" in schema:
        found["properties"] = {
            name: _field(name, part, schema, blocks) for name, part in schema["properties"].items()
        }
        if "required" in schema:
            found["required"] = schema["required"]
        return []
    if "enum" in names:
        value = _structural(schema["additionalProperties"], blocks)
        found["properties"] = {
            name: {"description": f"{name.capitalize()} of each pod."} | value
            for name in names["enum"]
        }
        return []
    if schema.get("additionalProperties") is True:
        found["x-kubernetes-preserve-unknown-fields"] = True
        return []
    patterns = schema.get("patternProperties", {})
    if len(patterns) != 1:
        raise ValueError(f"expected a block, or a map whose names have a form, got {schema}")
    ((pattern, value),) = patterns.items()
    found["additionalProperties"] = _structural(value, blocks)
    return key_rules(pattern, names["x-expected"], names["maxLength"])


def _field(name: str, part: Schema, block: Schema, blocks: Schema) -> Schema:
    found = _structural(part, blocks)
    is_block = "properties" in found and "anyOf" not in part
    if is_block and name not in block.get("required", ()) and "default" not in found:
        # In full, because the API server judges a default by the block's rules as it is written.
        parts = found["properties"].items()
        found["default"] = {key: inner["default"] for key, inner in parts if "default" in inner}
    return found


def _resolved(schema: Schema, blocks: Schema) -> Schema:
    """Follow a reference and drop null; what the field says of itself comes before its block."""
    own = {key: value for key, value in schema.items() if key not in ("anyOf", "$ref")}
    if "anyOf" in schema:
        options = [option for option in schema["anyOf"] if option.get("type") != "null"]
        if len(options) != 1:
            raise ValueError(f"expected one type or null, got {schema}")
        return _resolved({**options[0], **own}, blocks)
    if "$ref" not in schema:
        return schema
    block = blocks[schema["$ref"].rpartition("/")[2]]
    merged = {**block, **own}
    said, general = own.get("description", ""), block["description"]
    merged["description"] = general if general.startswith(said.rstrip(".")) else f"{said} {general}"
    return merged


def _described(schema: Schema) -> str:
    said: str = schema["description"]
    bounds = []
    default = schema.get("default")
    if default not in (None, {}, []) and "default" not in said.lower():
        bounds.append(f"default {str(default).lower() if isinstance(default, bool) else default}")
    if "minimum" in schema:
        bounds.append(f"{schema['minimum']} to {schema['maximum']}")
    return f"{said} ({'; '.join(bounds)})" if bounds else said


def _quantity(schema: Schema) -> Schema:
    return {
        "anyOf": [{"type": "integer"}, {"type": "string"}],
        "x-kubernetes-int-or-string": True,
        "minimum": 0,
        "maximum": 10**15 - 1,
        "maxLength": schema["maxLength"],
        "pattern": schema["pattern"],
    }


class _Dumper(yaml.SafeDumper):
    """Writes equal parts out in full: an alias would save bytes and cost a reader's patience."""

    def ignore_aliases(self, data: Any) -> bool:  # noqa: ARG002 - yaml's signature
        """Say that nothing is shared."""
        return True


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
