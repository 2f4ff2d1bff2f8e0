"""The programs of the chart's hooks: what they refuse before they do anything."""

import pytest

from kubevo_core import spec as specs
from kubevo_core.errors import UserError
from kubevo_operator import smoke
from kubevo_operator.uninstall import Plan

LEAST = {
    "KUBEVO_NAMESPACE": "kubevo-system",
    "KUBEVO_OPERATOR": "kubevo-operator",
    "KUBEVO_OPERATOR_PODS": "app=kubevo",
}


def test_the_least_plan_deletes_nothing_and_looks_everywhere():
    plan = Plan.from_environment(LEAST)
    assert plan.deleted == ()
    assert plan.namespaces == ()
    assert plan.patience_seconds == 60


@pytest.mark.parametrize("missing", sorted(LEAST))
def test_what_is_missing_is_named(missing):
    with pytest.raises(UserError, match=f"^{missing}: expected"):
        Plan.from_environment({**LEAST, missing: ""})


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        (
            "KUBEVO_DELETED",
            "Namespace/x",
            "a kind of ConfigMap, Lease, Pod, Secret, got 'Namespace/x'",
        ),
        ("KUBEVO_DELETED", "Secret/", "got 'Secret/'"),
        ("KUBEVO_PATIENCE_SECONDS", "soon", "whole seconds, got 'soon'"),
    ],
)
def test_a_wrong_plan_is_refused(name, value, message):
    with pytest.raises(UserError, match=message):
        Plan.from_environment({**LEAST, name: value})


def test_the_smoke_tests_experiment_is_valid_and_leaves_no_directory():
    document = smoke.document("x", "y")
    specs.parse(document, "smoke")
    assert document["spec"]["retention"] == "Delete"


@pytest.mark.parametrize("where", ["", "name", "/", "a/b/c"])
def test_the_smoke_test_must_be_told_where(monkeypatch, capsys, where):
    monkeypatch.setenv("KUBEVO_SMOKE_EXPERIMENT", where)
    assert smoke.main() == smoke.WRONG
    assert "KUBEVO_SMOKE_EXPERIMENT=NAMESPACE/NAME" in capsys.readouterr().err
