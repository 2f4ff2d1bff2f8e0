"""Conditions: how they are merged, what an error says, and that every reason is explained."""

import errno
import importlib
import inspect
import pkgutil
import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import kubevo_operator
from kubevo_core import errors
from kubevo_core.errors import KubevoError
from kubevo_operator import conditions
from kubevo_operator.conditions import Condition, Reason, Type, clean, failure_of, merge
from kubevo_operator.reasons import EXPLAINED

ROOT = Path(__file__).parent.parent.parent
CORE = [kind for _, kind in inspect.getmembers(errors, inspect.isclass)]


class Refused(KubevoError):
    """As the API server's client raises it: with the answer's code."""

    def __init__(self, message, status):
        super().__init__(message)
        self.status = status


def running(status, reason=Reason.EVALUATING, message="m"):
    return Condition(Type.RUNNING, status, reason, message)


def test_the_time_changes_with_the_status_alone():
    first = merge([], [running("False", Reason.RESUMING)], 1, "t1")
    second = merge(first, [running("False", Reason.UNSCHEDULABLE, "no room")], 2, "t2")
    third = merge(second, [running("True")], 2, "t3")
    assert [item[0]["lastTransitionTime"] for item in (first, second, third)] == ["t1", "t1", "t3"]
    assert second[0]["reason"] == "Unschedulable"
    assert second[0]["observedGeneration"] == 2


def test_the_order_stays_and_new_types_come_last():
    before = merge(
        [], [running("True"), Condition(Type.READY, "True", Reason.ACCEPTED, "")], 1, "t"
    )
    assert [item["type"] for item in before] == ["Ready", "Running"]
    after = merge(before[::-1], [Condition(Type.DEGRADED, "False", Reason.AS_EXPECTED, "")], 1, "t")
    assert [item["type"] for item in after] == ["Running", "Ready", "Degraded"]


def test_conditions_of_others_and_those_not_spoken_of_stay_as_they_are():
    others = {"type": "acme.com/Billed", "status": "True", "reason": "Paid", "message": "x"}
    ready = merge([], [Condition(Type.READY, "True", Reason.ACCEPTED, "ok")], 1, "t1")
    found = merge([others, *ready], [running("True")], 2, "t2")
    assert found[:2] == [others, *ready]


def test_there_are_never_more_than_the_schema_allows():
    others = [{"type": f"x{i}", "status": "True"} for i in range(30)]
    said = [Condition(kind, "True", Reason.ACCEPTED, "") for kind in Type]
    found = merge(others, said, 1, "t")
    assert len(found) == conditions.MAX_CONDITIONS
    assert {str(kind) for kind in Type} <= {item["type"] for item in found}


@given(st.text(max_size=5000), st.integers(10, 2000))
def test_a_message_is_cut_cleanly(text, limit):
    found = clean(text, limit)
    assert len(found.encode()) <= limit
    assert not re.search(r"[\x00-\x09\x0b-\x1f]", found)
    assert clean(found, limit) == found


def test_a_long_message_ends_after_a_word():
    assert clean("one two three four", 12) == "one two…"
    assert clean("x" * 100, 12) == "x" * 9 + "…"


@pytest.mark.parametrize("kind", CORE)
def test_every_error_of_ours_has_a_reason_and_stays_resumable(kind):
    failure = failure_of(kind("what happened; what to do"))
    assert failure.conditions
    assert not failure.is_final
    assert failure.conditions[0].message == "what happened; what to do"
    if kind is not KubevoError:
        assert failure.conditions[0].reason != Reason.TEMPORARY_FAILURE


@pytest.mark.parametrize(
    ("exc", "reason"),
    [
        (errors.StoreFull("x"), Reason.VOLUME_FULL),
        (OSError(errno.ENOSPC, "no space"), Reason.VOLUME_FULL),
        (OSError(errno.EIO, "bad disk"), Reason.VOLUME_UNAVAILABLE),
        (errors.BusUnavailable("x"), Reason.BROKER_UNREACHABLE),
        (errors.EnvironmentRefused("x"), Reason.ENVIRONMENT_REFUSED),
        (errors.WarmStartRefused("x"), Reason.WARM_START_REFUSED),
        (errors.CheckpointCorrupt("x"), Reason.CHECKPOINT_DAMAGED),
        (errors.CheckpointVersionError("x"), Reason.CHECKPOINT_TOO_NEW),
        (errors.Poisoned("x"), Reason.POISONED),
        (errors.GenomeError("x"), Reason.INPUT_REFUSED),
        (RuntimeError("x"), Reason.INTERNAL_ERROR),
        (Refused("PATCH /apis/keda.sh/v1alpha1/…/scaledobjects/x: 404", 404), Reason.KEDA_MISSING),
        (Refused('pods "x" is forbidden: exceeded quota: q', 403), Reason.QUOTA_EXCEEDED),
        (Refused("PATCH …/deployments/x: 403: forbidden", 403), Reason.RIGHTS_MISSING),
        (Refused("PATCH …/deployments/x: 422: invalid", 422), Reason.OBJECT_REFUSED),
        (Refused("PATCH …: 409", 409), Reason.TEMPORARY_FAILURE),
    ],
)
def test_an_error_is_told_by_its_reason(exc, reason):
    assert {said.reason for said in failure_of(exc).conditions} == {reason}


def test_what_waits_for_a_person_is_not_tried_in_vain():
    for exc in (errors.SpecError("x"), errors.EnvironmentRefused("x"), errors.Poisoned("x")):
        assert failure_of(exc).retry_after_seconds is None
    for exc in (errors.BusUnavailable("x"), errors.StoreFull("x"), errors.WarmStartRefused("x")):
        assert failure_of(exc).retry_after_seconds


def test_an_invalid_edit_never_says_that_a_search_does_not_run():
    assert {said.type for said in failure_of(errors.SpecError("x")).conditions} == {Type.READY}
    refused = failure_of(Refused("422", 422)).conditions
    assert {said.type for said in refused} == {Type.DEGRADED}


def test_the_next_action_survives_a_long_message():
    [said] = failure_of(Refused("x " * 2000, 422)).conditions
    assert said.message.endswith("usually in evaluator.podTemplate or resources.")
    assert len(said.message.encode()) <= conditions.MAX_MESSAGE_BYTES


def test_every_reason_is_explained_and_every_value_is_one_word():
    assert set(EXPLAINED) == set(Reason)
    for reason, explained in EXPLAINED.items():
        assert re.fullmatch(r"[A-Z][A-Za-z]+", reason)
        assert explained.meaning.endswith(".")
        assert not explained.cure or explained.cure.endswith((".", "?"))


def test_every_reason_is_given_by_something():
    folder = Path(kubevo_operator.__file__).parent
    texts = [p.read_text() for p in folder.glob("*.py") if p.name != "reasons.py"]
    assert {r.name for r in Reason if not any(f"Reason.{r.name}" in t for t in texts)} == set()


def test_the_reference_is_what_the_table_says():
    file = ROOT / "docs" / "reference-conditions.md"
    assert file.read_text() == conditions.markdown(), (
        "stale: python -m kubevo_operator.conditions > docs/reference-conditions.md"
    )


def test_the_pure_parts_import_neither_kopf_nor_kubernetes():
    pure = ["conditions", "defaults", "evaluators", "manifests", "phases", "scaling", "status"]
    names = {module.name for module in pkgutil.iter_modules(kubevo_operator.__path__)}
    assert set(pure) <= names
    for name in pure:
        source = inspect.getsource(importlib.import_module(f"kubevo_operator.{name}"))
        assert not re.search(
            r"^(import|from) (kopf|kubernetes|aiohttp|time|asyncio)", source, re.MULTILINE
        )
