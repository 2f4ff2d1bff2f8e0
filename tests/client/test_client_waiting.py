"""Waiting for a search's end: by events, through a service that goes away, and until a time is over."""

import threading
import time
from itertools import islice

import pytest

from kubevo_client import ExperimentFailed, ServiceUnavailable, WaitTimeout


@pytest.fixture
def make(make_run_in, tmp_path):
    return lambda **changes: make_run_in(tmp_path / "data", "search", **changes)


class Waiting:
    """A wait in a thread, whose looks at the status can be counted."""

    def __init__(self, experiment, **arguments):
        self.experiment, self.found, self.error = experiment, None, None
        self._arguments = arguments
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self):
        try:
            self.found = self.experiment.wait(**self._arguments)
        except Exception as exc:  # noqa: BLE001 - shown by the test
            self.error = exc

    @property
    def is_over(self):
        return not self._thread.is_alive()

    def end(self, seconds=30):
        self._thread.join(seconds)
        assert self.is_over
        if self.error is not None:
            raise self.error
        return self.found


def interrupted(run):
    """Let a run be as if its process had died before its last save."""
    newest = max((run.path / "repeat-0/generations").glob("gen-*.ck"))
    newest.unlink()
    history = run.path / "repeat-0/history.jsonl"
    history.write_text("".join(history.read_text().splitlines(keepends=True)[:-1]))
    (run.path / "repeat-0/tests.jsonl").unlink()


def test_a_finished_search_is_not_waited_for(client):
    experiment = client.experiment("first")
    assert experiment.wait(timeout=0) is experiment
    assert experiment.wait().best().fitness > 0


def test_a_wait_ends_when_the_search_does(make, start_service):
    run = make()
    with run.lock():
        client = start_service(run.path.parents[1]).client()
        waiting = Waiting(client.experiment("search"), timeout=60)
        events = client.experiment("search").events()
        assert next(events).document["state"] == "Running"
        assert not waiting.is_over
    assert waiting.end() is waiting.experiment
    events.close()


def test_a_time_that_is_over_ends_the_wait_and_says_how_far_the_search_is(make, start_service):
    run = make()
    with run.lock():
        client = start_service(run.path.parents[1]).client()
        started = time.monotonic()
        with pytest.raises(WaitTimeout, match=r"still Running \(generation 2 finished\)") as caught:
            client.experiment("search").wait(timeout=1)
        assert 0.9 < time.monotonic() - started < 10
    assert isinstance(caught.value, TimeoutError)


def test_a_wait_survives_a_service_that_is_started_anew(make, start_service):
    run = make()
    with run.lock():
        served = start_service(run.path.parents[1])
        waiting = Waiting(served.client().experiment("search"), timeout=60)
        next(served.client().experiment("search").events())
        served.stop()
    start_service(run.path.parents[1], served.port)
    assert waiting.end(60).status().has_succeeded


def test_a_service_that_was_never_there_is_not_waited_for(make, start_service):
    served = start_service(make().path.parents[1])
    client = served.client()
    served.stop()
    with pytest.raises(ServiceUnavailable):
        client.experiment("search", "local").wait()


def test_a_run_that_was_left_behind_is_told_with_the_way_to_go_on(make, start_service):
    run = make(budget={"maxGenerations": 5})
    interrupted(run)
    experiment = start_service(run.path.parents[1]).client().experiment("search")
    with pytest.raises(ExperimentFailed, match=r"Interrupted.*--resume"):
        experiment.wait()
    with pytest.raises(WaitTimeout):
        experiment.wait(timeout=0.2, check=False)


def test_events_go_on_where_they_were_after_the_service_was_away(make, start_service):
    run = make(budget={"maxGenerations": 5})
    served = start_service(run.path.parents[1])
    events = served.client().experiment("search").events("1")
    seen = [event for event in islice(events, 4) if event.kind != "status"]
    assert [event.document["row"]["generation"] for event in seen] == [2, 3, 4]
    assert seen[-1].id == "4"
    served.stop()
    start_service(run.path.parents[1], served.port)
    again = next(events)
    assert (again.kind, again.id) == ("status", "4")
    events.close()
