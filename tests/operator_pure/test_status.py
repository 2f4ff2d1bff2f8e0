"""The status: complete, bounded, exact, and written as seldom as will do."""

import itertools
import json
import math
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kubevo_core.generation import Stop
from kubevo_operator import phases
from kubevo_operator.conditions import Condition, Reason, Type
from kubevo_operator.crd_status import status_schema
from kubevo_operator.evaluators import Evaluators
from kubevo_operator.status import (
    MAX_STATUS_BYTES,
    Ending,
    Throttle,
    View,
    document,
    events_for,
    has_condition_change,
    is_over,
    is_worth_writing,
    timestamp,
)
from kubevo_runtime.progress import (
    CheckpointView,
    FitnessView,
    PopulationView,
    RepeatView,
    Snapshot,
)

DIGEST = "ab" * 32


def snapshot(**fields):
    best = FitnessView(1 / 3, 4, 1, DIGEST)
    values = {
        "is_described": True,
        "generation": 5,
        "frames": 10**12,
        "frames_per_second": 1234.567,
        "evaluations": 6000,
        "failed": 3,
        "running_seconds": 61.26,
        "open_tasks": 12,
        "eta_seconds": 99.7,
        "best": best,
        "elite": best,
        "population": PopulationView(500.0, 21.5, 20.0, -0.0, 1),
        "checkpoint": CheckpointView(5, 4096, 1_700_000_000.9),
        "final_test": None,
        "repeats": (RepeatView(0, played=20, wanted=25), RepeatView(1, played=3, wanted=10)),
    }
    return Snapshot(**values | fields)


def view(**fields):
    values = {
        "now": 1_700_000_100.0,
        "generation": 3,
        "takeover": 2,
        "conditions": (Condition(Type.RUNNING, "True", Reason.EVALUATING, "evaluators play"),),
        "snapshot": snapshot(),
        "generations": 100,
        "evaluators": Evaluators(4, 3, 2),
        "selector": "a=b",
        "checkpoint_path": "lab/cartpole-1a2b3c4d",
        "has_started": True,
    }
    return View(**values | fields)


def valid(value, schema, where="status"):
    """Check a value against the part of JSON schema that the status uses."""
    kinds = {"object": dict, "array": list, "string": str, "integer": int}
    assert isinstance(value, kinds[schema["type"]]), where
    if schema["type"] == "object":
        assert set(value) <= set(schema["properties"]), where
        for name, item in value.items():
            valid(item, schema["properties"][name], f"{where}.{name}")
    if schema["type"] == "array":
        assert len(value) <= schema["maxItems"]
        for item in value:
            assert set(schema["items"]["required"]) <= set(item)
            valid(item, schema["items"], f"{where}[]")
    if schema["type"] == "string":
        assert len(value) <= schema.get("maxLength", math.inf), where
        assert value in schema.get("enum", [value]), where


def test_a_status_says_what_is_known():
    found = document(view(), {})
    assert found["observedGeneration"] == 3
    assert found["takeover"] == 2
    assert found["startTime"] == "2023-11-14T22:15:00Z"
    assert found["progress"] == {
        "generation": 5,
        "generations": 100,
        "frames": 10**12,
        "framesPerSecond": "1234.6",
        "evaluations": 6000,
        "failedEvaluations": 3,
        "generationEpisodes": 35,
        "generationEpisodesPlayed": 23,
        "openEpisodes": 12,
        "etaSeconds": 100,
        "runningSeconds": "61.3",
    }
    assert found["best"] == {
        "fitness": "0.3333333333333333",
        "generation": 4,
        "repeat": 1,
        "digest": DIGEST,
    }
    assert found["elite"] == {"fitness": "0.3333333333333333", "generation": 4}
    assert found["population"]["mean"] == "21.5"
    assert found["evaluators"] == {"desired": 4, "ready": 3, "pods": 2, "selector": "a=b"}
    assert found["checkpoint"] == {
        "generation": 5,
        "time": "2023-11-14T22:13:20Z",
        "bytes": 4096,
        "path": "lab/cartpole-1a2b3c4d",
    }
    assert "completionTime" not in found


def test_a_status_fits_its_schema():
    ending = Ending("TargetFitness", DIGEST, DIGEST, 12.5, 30)
    for given_view in (view(), view(is_finished=True, ending=ending), View(0.0, 1, 1)):
        valid(document(given_view, {}), status_schema())


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_a_fitness_is_the_text_of_the_float(value):
    best = FitnessView(value, 0, 0, DIGEST)
    text = document(view(snapshot=snapshot(best=best)), {})["best"]["fitness"]
    assert float(text) == value
    assert text == repr(value)
    assert len(text) <= 32


def test_what_a_new_operator_does_not_know_yet_stays():
    before = document(view(), {})
    fresh = snapshot(
        generation=-1, frames=0, evaluations=0, best=None, elite=None, population=None,
        checkpoint=None,
    )  # fmt: skip
    after = document(view(snapshot=fresh, takeover=3, now=1_700_009_999.0), before)
    assert after == before | {"takeover": 3}
    assert document(view(snapshot=None, evaluators=None), before) == before


def test_before_generation_0_there_is_progress_without_a_generation():
    fresh = snapshot(generation=-1, best=None, elite=None, population=None, checkpoint=None)
    found = document(view(snapshot=fresh), {})
    assert "generation" not in found["progress"]
    assert "best" not in found


def test_an_end_is_latched_and_lost_when_the_search_goes_on():
    ending = Ending("MaxGenerations", DIGEST, "cd" * 32, 480.0, 30)
    ended = document(view(is_finished=True, ending=ending), {})
    assert ended["completionTime"] == "2023-11-14T22:15:00Z"
    assert ended["finalTest"] == {"mean": "480.0", "episodes": 30}
    later = document(view(is_finished=True, now=1_800_000_000.0), ended)
    assert later == ended
    again = document(view(), later)
    assert not {"completionTime", "reason", "resultDigest", "finalTest"} & set(again)
    assert again["startTime"] == ended["startTime"]


@pytest.mark.parametrize("character", ["x", "☃", '"', "\x00", "\n", "😀", "word "])
def test_the_worst_status_is_small(character):
    others = [
        {"type": f"{'t' * 300}{i}", "status": "True", "reason": "r" * 200, "message": "m" * 30_000}
        for i in range(8)
    ]
    huge = 2**53
    worst = view(
        generation=huge,
        takeover=huge,
        conditions=tuple(
            Condition(kind, "Unknown", Reason.WAITING_FOR_EVALUATORS, character * 40_000)
            for kind in Type
        ),
        snapshot=snapshot(
            frames=huge,
            frames_per_second=1e15 / 7,
            best=FitnessView(-1.2345678901234567e-300, huge, 31, DIGEST),
            checkpoint=CheckpointView(huge, huge, 2e9),
        ),
        selector="s" * 1024,
        checkpoint_path="p" * 5000,
        is_finished=True,
        ending=Ending("r" * 900, DIGEST, DIGEST, -1.2345678901234567e-300, huge),
    )
    found = document(worst, {"conditions": others})
    assert len(json.dumps(found, ensure_ascii=False).encode()) < MAX_STATUS_BYTES
    assert {str(kind) for kind in Type} <= {item["type"] for item in found["conditions"]}


@pytest.mark.parametrize("stop", Stop)
def test_every_end_is_over_and_nothing_else_is(stop):
    assert is_over(document(view(conditions=phases.finished(stop)), {}))
    assert not is_over(document(view(conditions=phases.suspended(Evaluators())), {}))
    assert not is_over({})


def test_speeds_alone_are_not_worth_writing():
    old = document(view(), {})
    faster = snapshot(frames_per_second=9.0, running_seconds=70.0, eta_seconds=1.0)
    assert not is_worth_writing(old, document(view(snapshot=faster), old))
    assert is_worth_writing(old, document(view(snapshot=snapshot(frames=1)), old))
    assert is_worth_writing({}, old)


def test_a_status_is_written_at_once_for_a_condition_and_else_seldom():
    old = document(view(), {})
    throttle = Throttle().after(100.0)
    assert throttle.wait_seconds(old, old, 1000.0) is None
    more = document(view(snapshot=snapshot(frames=1)), old)
    assert throttle.wait_seconds(old, more, 101.0) == 4.0
    assert throttle.wait_seconds(old, more, 106.0) == 0.0
    faster = document(view(snapshot=snapshot(frames_per_second=9.0)), old)
    assert throttle.wait_seconds(old, faster, 106.0) == 54.0
    waiting = Condition(Type.RUNNING, "False", Reason.UNSCHEDULABLE, "no room")
    stopped = document(view(conditions=(waiting,)), old)
    assert throttle.wait_seconds(old, stopped, 100.1) == 0.0
    reworded = document(view(conditions=(replace(waiting, message="other"),)), stopped)
    assert not has_condition_change(stopped, reworded)
    assert throttle.wait_seconds(stopped, reworded, 101.0) == 4.0


@given(st.lists(st.tuples(st.floats(0.01, 10), st.integers(0, 3)), max_size=60))
def test_no_two_patches_without_a_condition_are_closer_than_five_seconds(steps):
    throttle, now, last = Throttle(), 0.0, document(view(snapshot=snapshot(frames=0)), {})
    written = []
    for gap, frames in steps:
        now += gap
        new = document(view(snapshot=snapshot(frames=frames)), last)
        if throttle.wait_seconds(last, new, now) == 0.0:
            written.append(now)
            throttle, last = throttle.after(now), new
    assert all(b - a >= 5.0 - 1e-9 for a, b in itertools.pairwise(written))


def conditions_of(*said):
    return document(view(conditions=said), {})["conditions"]


def test_what_a_person_wants_to_know_is_an_event_once():
    unreachable = [
        Condition(kind, status, Reason.BROKER_UNREACHABLE, "no answer")
        for kind, status in (
            (Type.READY, "False"),
            (Type.RUNNING, "False"),
            (Type.SUCCEEDED, "Unknown"),
        )
    ]
    down = conditions_of(*unreachable)
    assert events_for([], down) == [("Warning", "BrokerUnreachable", "no answer")]
    assert events_for(down, down) == []
    up = conditions_of(
        Condition(Type.READY, "True", Reason.ACCEPTED, "ok"),
        Condition(Type.RUNNING, "True", Reason.EVALUATING, "evaluators play"),
    )
    assert events_for(down, up) == [("Normal", "Evaluating", "evaluators play")]
    assert len(events_for(up, down)) == 1


@pytest.mark.parametrize(
    ("said", "kind"),
    [
        (Condition(Type.FAILED, "True", Reason.GENOME_TOO_LONG, "m"), "Warning"),
        (Condition(Type.SUCCEEDED, "True", Reason.TARGET_FITNESS, "m"), "Normal"),
        (Condition(Type.SUSPENDED, "True", Reason.SUSPENDED, "m"), "Normal"),
        (Condition(Type.EVALUATORS_READY, "False", Reason.IMAGE_PULL_FAILED, "m"), "Warning"),
        (Condition(Type.DEGRADED, "True", Reason.CHECKPOINT_SKIPPED, "m"), "Warning"),
        (Condition(Type.READY, "True", Reason.RESUME_REFUSED, "m"), "Warning"),
        (Condition(Type.RUNNING, "False", Reason.WAITING_FOR_EVALUATORS, "m"), None),
        (Condition(Type.EVALUATORS_READY, "False", Reason.SCALED_TO_ZERO, "m"), None),
        (Condition(Type.DEGRADED, "False", Reason.AS_EXPECTED, "m"), None),
        (Condition(Type.CHECKPOINTED, "True", Reason.CHECKPOINT_SAVED, "m"), None),
    ],
)
def test_only_what_matters_is_an_event(said, kind):
    found = events_for([], conditions_of(said))
    assert found == ([(kind, str(said.reason), "m")] if kind else [])


def test_a_time_is_written_as_kubernetes_does():
    assert timestamp(0.9) == "1970-01-01T00:00:00Z"
