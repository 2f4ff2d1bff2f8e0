"""Experiments as tables and lines, budgets from flags, and which argument is local."""

import pytest

from kubevo_cli.cluster import views
from kubevo_cli.cluster.best import is_local
from kubevo_cli.cluster.changing import _limit, _target, _used
from kubevo_cli.cluster.results import file_for
from kubevo_client import History
from kubevo_core.errors import UserError

NOW = 1_767_225_600.0  # 2026-01-01T00:00:00Z


def condition(kind, status="True", reason="", message=""):
    return {"type": kind, "status": status, "reason": reason, "message": message}


def resource(name="cart", conditions=(), **status):
    return {
        "metadata": {
            "name": name,
            "namespace": "team",
            "uid": "u",
            "creationTimestamp": "2025-12-31T23:00:00Z",
            "managedFields": [{}],
        },
        "spec": {
            "environment": {"id": "CartPole-v1"},
            "policy": {"network": "mlp"},
            "budget": {"maxGenerations": 100},
        },
        "status": {"conditions": list(conditions), **status},
    }


RUNNING = resource(
    conditions=[condition("Running", reason="Searching", message="it searches")],
    progress={
        "generation": 12,
        "generations": 100,
        "frames": 123456,
        "framesPerSecond": "51234.5",
        "etaSeconds": 3725,
    },
    best={"fitness": "487.2", "generation": 11, "repeat": 0, "digest": "a" * 64},
    elite={"fitness": "480.0", "generation": 12},
    evaluators={"desired": 4, "ready": 2},
)


def cells(document, **options):
    arguments = {"wide": False, "with_namespace": False, **options}
    headings, rows = views.table([views.summary_of(document)], NOW, **arguments)
    return dict(zip(headings, rows[0], strict=True))


def test_a_row_tells_how_far_a_search_is_and_how_good():
    assert cells(RUNNING) == {
        "NAME": "cart",
        "ENVIRONMENT": "CartPole-v1",
        "GENERATION": "12/99",
        "BEST": "487.2",
        "ELITE": "480",
        "EVALUATORS": "2/4",
        "STATUS": "Running",
        "AGE": "1h",
    }


def test_a_wide_row_tells_speed_and_time_left_of_a_running_search_only():
    wide = cells(RUNNING, wide=True)
    assert (wide["FRAMES/S"], wide["LEFT"]) == ("51,234", "1h2m")
    done = {**RUNNING["status"], "conditions": [condition("Succeeded", reason="targetFitness")]}
    wide = cells({**RUNNING, "status": done}, wide=True)
    assert (wide["FRAMES/S"], wide["LEFT"], wide["REASON"]) == ("-", "-", "targetFitness")


def test_the_namespace_comes_first_where_there_are_several():
    assert next(iter(cells(RUNNING, with_namespace=True))) == "NAMESPACE"


def test_an_experiment_that_nobody_has_looked_at_yet_is_shown():
    new = resource()
    assert cells(new)["STATUS"] == "Pending"
    assert views.line(views.summary_of(new)) == "cart  Pending"
    assert views.fields(views.summary_of(new), NOW)["best"] == "-"


def test_a_line_says_why_a_search_does_not_run():
    waiting = resource(conditions=[condition("Ready", "False", "NoRoom", "the volume is full")])
    assert views.line(views.summary_of(waiting), with_namespace=True) == (
        "team/cart  Waiting  the volume is full"
    )


def test_what_only_machines_read_is_left_out():
    shown = views.without_noise(RUNNING)
    assert "managedFields" not in shown["metadata"]
    assert "managedFields" in RUNNING["metadata"]


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (-1, "0s"),
        (59.9, "59s"),
        (60, "1m"),
        (200, "3m20s"),
        (3599, "59m"),
        (7500, "2h5m"),
        (90_000, "1d1h"),
        (40 * 86_400, "40d"),
    ],
)
def test_a_time_is_told_in_at_most_two_units(seconds, text):
    assert views.duration(seconds) == text


@pytest.mark.parametrize(
    ("text", "old", "used", "found"),
    [("200", 100, 10, 200), ("+20", 100, 10, 120), ("+20", 100, 105, 125), ("50", None, 0, 50)],
)
def test_a_limit_is_a_number_or_so_many_more_than_limit_and_use(text, old, used, found):
    assert _limit("--generations", text, old, used) == found


@pytest.mark.parametrize("text", ["0", "+0", "-5", "1.5", "", "+", "many", "٣"])
def test_a_limit_that_is_no_number_is_refused(text):
    with pytest.raises(UserError, match="expected a number such as 200"):
        _limit("--frames", text, 1, 1)


def test_more_of_a_limit_that_there_is_not_is_refused():
    with pytest.raises(UserError, match="there is no such limit yet"):
        _limit("--frames", "+5", None, 100)


def test_what_was_used_counts_the_first_generation():
    assert _used(RUNNING)["--generations"] == 13
    assert _used(resource()) == {"--generations": 0, "--frames": 0, "--seconds": 0}


def test_a_target_becomes_a_plain_decimal():
    assert [_target(text) for text in ("475", "-1.50", "1e3")] == ["475", "-1.50", "1000"]
    for text in ("nan", "inf", "high", ""):
        with pytest.raises(UserError, match="expected a fitness such as 475"):
            _target(text)


def test_what_is_there_or_written_as_a_path_is_local(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "cart").mkdir()
    assert [is_local(text) for text in ("cart", "./other", "a/b", ".", "..")] == [True] * 5
    assert not is_local("other")


def test_a_file_is_told_from_a_form_by_its_ending():
    assert [file_for(form) for form in ("text", "wide", "json", "yaml")] == [None] * 4
    assert str(file_for("models/x.onnx")) == "models/x.onnx"
    assert file_for(".json.py") is not None


def test_a_data_frame_without_pandas_says_what_to_install(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "pandas", None)
    with pytest.raises(UserError, match="pip install pandas"):
        History(0, 1, {"generation": [0]}).to_pandas()
