"""The custom resource definition and its reference: fresh, bounded, and of one mind with the models.

What the API server itself says of it is in tests/cluster/test_verdicts.py, with the same table.
"""

import json
import runpy
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from kubevo_core.errors import SpecError
from kubevo_core.spec import IMMUTABLE, parse
from kubevo_operator import crd

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
TABLE = runpy.run_path(str(HERE / "specs.py"))
CASES = TABLE["CASES"]


def nodes(schema, path="spec"):
    yield path, schema
    for name, part in schema.get("properties", {}).items():
        yield from nodes(part, f"{path}.{name}")
    for key in ("items", "additionalProperties"):
        if key in schema:
            yield from nodes(schema[key], f"{path}[]")


def root_schema():
    (version,) = crd.document()["spec"]["versions"]
    return version["schema"]["openAPIV3Schema"]


def defaulted(schema, value):
    """Fill in defaults as the API server does."""
    if isinstance(value, dict) and "properties" in schema:
        found = dict(value)
        for name, part in schema["properties"].items():
            if found.get(name) is None and "default" in part:
                found[name] = part["default"]
            if found.get(name) is not None:
                found[name] = defaulted(part, found[name])
        return found
    return value


def present(value):
    """Drop what is null: the API server has no such thing."""
    if isinstance(value, dict):
        return {key: present(item) for key, item in value.items() if item is not None}
    return value


def problem(case):
    """Return the one line about a bad case."""
    with pytest.raises(SpecError) as caught:
        parse(case.document(), "x.yaml")
    (line,) = str(caught.value).splitlines()
    assert line.startswith("x.yaml: ")
    return line


def printed(*arguments):
    done = subprocess.run(
        [sys.executable, "-m", "kubevo_operator.crd", *arguments],
        check=False,
        capture_output=True,
        text=True,
    )
    return done.returncode, done.stdout


def test_the_definition_in_crds_is_fresh():
    assert printed() == (0, (ROOT / "crds/experiments.yaml").read_text()), "run: make crd"


def test_the_reference_in_docs_is_fresh():
    page = (ROOT / "docs/reference-experiment.md").read_text()
    assert printed("--markdown") == (0, page), "run: make crd"


def test_an_unknown_argument_is_refused():
    assert printed("--html") == (2, "")


def test_the_definition_fits_kubectl_apply():
    assert len(crd.manifest().encode()) < 200_000
    as_an_annotation = json.dumps(crd.document(), separators=(",", ":"))
    assert len(as_an_annotation) < 200_000


def test_the_manifest_is_the_document():
    assert yaml.safe_load(crd.manifest()) == crd.document()
    assert "&id" not in crd.manifest()


@pytest.mark.parametrize(("path", "node"), list(nodes(root_schema(), "")), ids=str)
def test_every_part_is_structural_and_bounded(path, node):
    if node.get("x-kubernetes-int-or-string"):
        assert {"maxLength", "pattern", "minimum"} <= set(node)
        return
    assert set(node) <= {
        *("type", "format", "description", "default", "enum", "required", "properties", "items"),
        *("minimum", "maximum", "minLength", "maxLength", "maxItems", "maxProperties"),
        *("additionalProperties", "x-kubernetes-validations", "x-kubernetes-list-type"),
        *("x-kubernetes-list-map-keys", "x-kubernetes-preserve-unknown-fields"),
    }
    is_free = path == ".spec.evaluator.podTemplate.spec"
    assert node.get("x-kubernetes-preserve-unknown-fields", False) == is_free
    if path.startswith(".spec") or (path.startswith(".status") and node["type"] != "integer"):
        assert_bounded(path, node)
    if not path.endswith("[]") and path not in ("", ".metadata"):
        assert node["description"].endswith((".", ")"))


def assert_bounded(path, node):
    bounds = {
        "integer": {"minimum", "maximum"},
        "string": {"maxLength"},
        "array": {"maxItems", "x-kubernetes-list-type"},
    }
    if "enum" not in node and node.get("format") != "date-time":
        assert bounds.get(node["type"], set()) <= set(node), path
    if "additionalProperties" in node:
        assert "maxProperties" in node


@pytest.mark.parametrize("case", [c for c in CASES if c.is_good], ids=lambda case: case.name)
def test_both_fill_in_the_same_defaults(case):
    document = case.document()
    ours = present(parse(document, "x").document()["spec"])
    theirs = present(defaulted(crd.spec_schema(), document["spec"]))
    resources = theirs["evaluator"].get("resources", {})
    theirs["evaluator"]["resources"] = {
        kind: {name: str(amount) for name, amount in amounts.items()}
        for kind, amounts in resources.items()
    }
    assert ours == theirs


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_validate_gives_the_tables_verdict(case):
    if case.is_good:
        found = parse(case.document(), "x.yaml").document()
        assert parse(found, "again").document() == found
    else:
        assert case.says in problem(case)


@pytest.mark.parametrize("name", ["resources", "more parents than individuals"])
def test_the_command_gives_the_tables_verdict(name, tmp_path):
    (case,) = (case for case in CASES if case.name == name)
    path = tmp_path / "experiment.yaml"
    path.write_text(yaml.safe_dump(case.document()))
    done = subprocess.run(
        [sys.executable, "-m", "kubevo_cli", "validate", str(path)],
        check=False,
        capture_output=True,
        text=True,
    )
    assert done.returncode == (0 if case.is_good else 2), done.stderr
    assert case.says in done.stderr


def test_the_table_has_a_case_for_every_bound_and_rule():
    schema = crd.spec_schema()
    numbers = {
        path
        for path, node in nodes(schema)
        if node.get("type") == "integer" and not path.endswith("[]")
    }
    assert numbers == set(TABLE["BOUNDS"])
    said = [problem(case) for case in CASES if not case.is_good]
    for path, node in nodes(schema):
        for rule in node.get("x-kubernetes-validations", ()):
            if "oldSelf" not in rule["rule"]:
                words = rule["message"].split(";")[0].removesuffix(" in a name")
                assert any(words in text for text in said), (path, words)


def test_names_in_the_table_are_its_own():
    assert len({case.name for case in CASES}) == len(CASES) > 60


def test_every_fixed_field_has_its_rule_and_its_case():
    rules = [
        rule for rule in crd.spec_schema()["x-kubernetes-validations"] if "oldSelf" in rule["rule"]
    ]
    assert [rule["fieldPath"] for rule in rules] == [f".{name}" for name in IMMUTABLE]
    cases = {path.split(".")[1] for path, _, _ in TABLE["FIXED"]}
    assert cases == set(IMMUTABLE)


def test_columns_and_scale_name_fields_that_are_there():
    (version,) = crd.document()["spec"]["versions"]
    known = {path for path, _ in nodes(root_schema(), "")}
    scale = version["subresources"]["scale"].values()
    columns = [column["jsonPath"] for column in version["additionalPrinterColumns"]]
    selectable = [field["jsonPath"] for field in version["selectableFields"]]
    for path in [*scale, *columns, *selectable]:
        if not path.startswith((".metadata.", ".status.conditions[")):
            assert path in known


@pytest.mark.parametrize("path", sorted((ROOT / "examples").glob("*.yaml")), ids=lambda p: p.name)
def test_every_example_is_an_experiment(path):
    assert parse(yaml.safe_load(path.read_text()), path.name)
