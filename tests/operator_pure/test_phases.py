"""What each phase of an Experiment's life says, and that no phase leaves another's words standing."""

import pytest

from kubevo_core.generation import Stop
from kubevo_operator import phases
from kubevo_operator.conditions import Condition, Reason, Type, sentence
from kubevo_operator.evaluators import Evaluators

NOBODY = Evaluators(desired=2)
SOMEBODY = Evaluators(desired=2, ready=1, pods=2)
PULLING = Evaluators(
    2, 0, 2, Condition(Type.EVALUATORS_READY, "False", Reason.IMAGE_PULL_FAILED, "no image")
)
PARTLY = Evaluators(2, 1, 2, Condition(Type.DEGRADED, "True", Reason.UNSCHEDULABLE, "no room"))


def table(said):
    found = {condition.type: (condition.status, condition.reason) for condition in said}
    assert len(found) == len(said), "a type is said twice"
    return found


def test_a_search_runs_when_somebody_plays(spec_of):
    said = table(phases.searching(spec_of(), SOMEBODY, is_described=True))
    assert said[Type.RUNNING] == ("True", Reason.EVALUATING)
    assert said[Type.SUCCEEDED] == ("Unknown", Reason.EVALUATING)
    assert said[Type.READY] == ("True", Reason.ACCEPTED)
    assert said[Type.DEGRADED] == ("False", Reason.AS_EXPECTED)
    said = table(phases.searching(spec_of(), SOMEBODY, is_described=False))
    assert said[Type.RUNNING] == ("True", Reason.DESCRIBING)


@pytest.mark.parametrize(
    ("evaluators", "reason"),
    [
        (NOBODY, Reason.WAITING_FOR_EVALUATORS),
        (Evaluators(), Reason.WAITING_FOR_EVALUATORS),
        (PULLING, Reason.IMAGE_PULL_FAILED),
    ],
)
def test_a_search_without_evaluators_says_why_it_does_not_run(evaluators, reason, spec_of):
    said = table(phases.searching(spec_of(), evaluators, is_described=True))
    assert said[Type.RUNNING] == ("False", reason)
    assert said[Type.SUCCEEDED] == ("Unknown", reason)
    assert said[Type.EVALUATORS_READY][0] == "False"


def test_fixed_at_zero_says_what_to_do(spec_of):
    spec = spec_of(scaling={"mode": "Fixed"})
    said = phases.searching(spec, Evaluators(), is_described=True)
    assert any("kubectl scale" in condition.message for condition in said)


def test_a_part_of_the_fleet_that_cannot_start_degrades(spec_of):
    said = table(phases.searching(spec_of(), PARTLY, is_described=True))
    assert said[Type.DEGRADED] == ("True", Reason.UNSCHEDULABLE)
    assert said[Type.RUNNING][0] == "True"


@pytest.mark.parametrize("stop", Stop)
def test_an_end_is_either_success_or_failure(stop):
    said = table(phases.finished(stop))
    ends = (said[Type.SUCCEEDED][0], said[Type.FAILED][0])
    failed = stop in (Stop.ALL_EVALUATIONS_FAILED, Stop.GENOME_TOO_LONG)
    assert ends == (("False", "True") if failed else ("True", "False"))
    assert said[Type.SUCCEEDED][1] == phases.reason_of(stop)
    assert said[Type.RUNNING][0] == "False"


def test_every_phase_says_the_same_types(spec_of):
    phases_said = [
        phases.searching(spec_of(), SOMEBODY, is_described=True),
        phases.suspended(Evaluators()),
        phases.finished(Stop.TARGET_FITNESS),
    ]
    kinds = [set(table(said)) for said in phases_said]
    assert kinds[0] == kinds[1] == kinds[2] == set(Type) - {Type.CHECKPOINTED}


def test_replicas_outside_fixed_are_said_to_be_ignored(spec_of):
    spec = spec_of(scaling={"mode": "KEDA", "replicas": 4})
    ready = phases.resuming(spec)[0]
    assert (ready.status, ready.reason) == ("True", Reason.REPLICAS_IGNORED)
    assert "4" in ready.message
    assert "KEDA" in ready.message
    fixed = phases.resuming(spec_of(scaling={"mode": "Fixed", "replicas": 4}))[0]
    assert fixed.reason == Reason.ACCEPTED


def test_a_finished_experiment_says_why_an_edit_changes_nothing(spec_of):
    [never] = phases.resume_refused(spec_of(resumePolicy="Never"))
    [small] = phases.resume_refused(spec_of())
    assert "Never" in never.message
    assert "budget" in small.message
    assert never.reason == small.reason == Reason.RESUME_REFUSED


def test_checkpoints_are_spoken_of():
    assert table(phases.checkpointed(is_saved=True))[Type.CHECKPOINTED][0] == "True"
    assert table(phases.checkpointed(is_saved=False))[Type.CHECKPOINTED][0] == "False"
    [said] = phases.skipped(("gen-0000003.ck",))
    assert "gen-0000003.ck" in said.message
    assert said.type == Type.DEGRADED


def test_a_sentence_has_one_full_stop():
    assert ".." not in sentence(Reason.QUOTA_EXCEEDED, "the quota is used up.")
