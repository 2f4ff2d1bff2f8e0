"""The one word for an Experiment's state, from the conditions that each phase says."""

import re

import pytest
from prometheus_client import CollectorRegistry

from kubevo_core import errors
from kubevo_core.generation import Stop
from kubevo_operator import phases
from kubevo_operator.conditions import failure_of, merge
from kubevo_operator.evaluators import Evaluators
from kubevo_operator.health import Health
from kubevo_operator.metrics import FAULTS, OperatorMetrics, state_of

NOW = "2026-01-01T00:00:00Z"
READY, NONE = Evaluators(desired=2, ready=2, pods=1), Evaluators(desired=2)


@pytest.fixture
def spec(make_experiment):
    return make_experiment().spec


def state(*said):
    """Return the state of a status to which each phase was said in turn."""
    shown = []
    for conditions in said:
        shown = merge(shown, conditions, 1, NOW)
    return state_of(shown)


def test_nothing_said_yet_is_waiting():
    assert state_of([]) == "waiting"


def test_a_search_runs_with_evaluators_and_waits_without(spec):
    assert state(phases.resuming(spec)) == "waiting"
    assert state(phases.searching(spec, READY, is_described=True)) == "running"
    assert state(phases.searching(spec, READY, is_described=False)) == "running"
    assert state(phases.searching(spec, NONE, is_described=True)) == "waiting"


def test_a_suspended_search_is_suspended_although_it_is_ready(spec):
    running = phases.searching(spec, READY, is_described=True)
    assert state(running, phases.suspended(READY)) == "suspended"
    assert state(running, phases.suspended(NONE), running) == "running"


def test_every_end_is_succeeded_or_failed():
    for stop in Stop:
        expected = "failed" if stop in phases.FAILURES else "succeeded"
        assert state(phases.finished(stop)) == expected


@pytest.mark.parametrize(
    "error",
    [
        errors.BusUnavailable("gone"),
        errors.Poisoned("bad"),
        errors.StoreFull("full"),
        errors.EnvironmentRefused("no"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_an_error_that_ends_the_drive_blocks(spec, error):
    running = phases.searching(spec, READY, is_described=True)
    assert state(running, failure_of(error).conditions) == "blocked"


def test_a_refused_edit_of_a_running_search_blocks_nothing(spec):
    running = phases.searching(spec, READY, is_described=True)
    assert state(running, failure_of(errors.SpecError("no")).conditions) == "running"
    assert state(failure_of(errors.SpecError("no")).conditions) == "blocked"


def test_a_replica_leads_once_its_watches_are_set_up():
    registry, health = CollectorRegistry(), Health(lambda: 0.0, 30)
    OperatorMetrics(registry, health)

    def leading():
        return registry.get_sample_value("kubevo_operator_leading")

    health.lease_looked(is_held_by_another=True)
    assert (health.is_ready, leading()) == (True, 0), "it stands by"
    health.begins_to_lead()
    assert leading() == 0
    health.is_ready = True
    assert leading() == 1


def test_every_fault_of_the_operator_is_explained_and_counted_from_zero(root):
    registry = CollectorRegistry()
    OperatorMetrics(registry, Health(lambda: 0.0, 30))
    sources = (root / "operator").rglob("*.py")
    used = {k for p in sources for k in re.findall(r"faults\.labels\(\"(\w+)\"", p.read_text())}
    assert used == set(FAULTS)
    for kind in FAULTS:
        assert registry.get_sample_value("kubevo_operator_faults_total", {"kind": kind}) == 0
