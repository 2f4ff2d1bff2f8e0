"""Event streams over a real socket: what they tell, how a client goes on, and how many there may be."""

import http.client
import json
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import pytest
from api_parts import EXPERIMENTS

STREAM = f"{EXPERIMENTS}/test/events"


@contextmanager
def stream(served, path: str, last_id: str | None = None) -> Iterator[http.client.HTTPResponse]:
    connection = http.client.HTTPConnection(served.host, served.port, timeout=20)
    headers = {"Authorization": f"Bearer {served.token}"}
    if last_id is not None:
        headers["Last-Event-ID"] = last_id
    connection.request("GET", path, headers=headers)
    try:
        with connection.getresponse() as answer:
            yield answer
    finally:
        connection.close()


def events(answer: http.client.HTTPResponse) -> Iterator[dict]:
    """Yield the events of a stream; comments have no name."""
    event: dict = {}
    for raw in answer:
        line = raw.decode().rstrip("\n")
        if line:
            name, _, value = line.partition(": ")
            event[name] = value
        elif event:
            if "event" in event:
                yield {**event, "data": json.loads(event["data"])}
            event = {}


def grow(run, generations: int) -> None:
    """Append finished generations to a run's history, as a search does."""
    rows = run.repeat(0).history()
    with (run.path / "repeat-0/history.jsonl").open("a") as file:
        for number in range(len(rows), len(rows) + generations):
            file.write(json.dumps({**rows[-1], "generation": number}) + "\n")


def test_a_stream_tells_the_status_and_each_new_generation(settings, make_run, serve):
    run = make_run()
    with stream(serve(settings.data), STREAM) as answer:
        assert answer.headers["content-type"].startswith("text/event-stream")
        found = events(answer)
        first = next(found)
        assert (first["event"], first["data"]["state"]) == ("status", "Succeeded")
        grow(run, 2)
        told = [next(e for e in found if e["event"] == "generation") for _ in range(2)]
        assert [each["data"]["row"]["generation"] for each in told] == [3, 4]
        assert [each["id"] for each in told] == ["3", "4"]


def test_who_comes_back_misses_nothing(settings, make_run, serve):
    run = make_run()
    served = serve(settings.data)
    grow(run, 5)
    with stream(served, STREAM, last_id="3") as answer:
        rows = [
            e["data"]["row"]
            for _, e in zip(range(5), events(answer), strict=False)
            if "row" in e["data"]
        ]
    assert [row["generation"] for row in rows] == [4, 5, 6, 7]


@pytest.mark.parametrize("last_id", ["", "x", "-2", "1.2", "9" * 40, "1; drop"])
def test_a_place_that_is_none_begins_now(settings, make_run, serve, last_id):
    make_run()
    with stream(serve(settings.data), STREAM, last_id=last_id) as answer:
        assert next(events(answer))["id"] == "2"


def test_the_stream_of_all_tells_what_changes(settings, make_run, serve):
    make_run(name="first")
    served = serve(settings.data)
    with stream(served, "/api/v1/events") as answer:
        assert answer.status == 200
        assert answer.readline().startswith(b": open")
        run = make_run(name="second")
        found = events(answer)
        told = next(found)
        assert (told["event"], told["data"]["name"]) == ("summary", "second")
        (run.path / "OWNER").unlink()
        gone = next(e for e in found if e["event"] == "deleted")
        assert gone["data"] == {"namespace": "local", "name": "second"}
    with stream(served, "/api/v1/events", last_id="another-1") as answer:
        assert next(events(answer))["event"] == "reset"
    with stream(served, "/api/v1/events", last_id=told["id"]) as answer:
        assert next(events(answer))["event"] == "deleted"


def test_one_caller_has_only_so_many_streams(make_run, settings, serve_here):
    make_run()
    with serve_here(settings) as served, ExitStack() as opened:
        for _ in range(settings.api_streams_each):
            assert opened.enter_context(stream(served, STREAM)).status == 200
        with stream(served, STREAM) as answer:
            assert answer.status == 429
            assert answer.headers["retry-after"]
            problem = json.loads(answer.read())
            assert f"{settings.api_streams_each} event streams" in problem["detail"]


def test_who_has_the_directory_to_himself_has_many_streams(make_run, settings, serve):
    make_run()
    served = serve(settings.data)
    with ExitStack() as opened:
        for _ in range(200):
            assert opened.enter_context(stream(served, STREAM)).status == 200


def test_a_stream_that_is_closed_makes_room(settings, make_run, serve):
    make_run()
    served = serve(settings.data)

    def open_streams() -> float:
        connection = http.client.HTTPConnection(served.host, served.port, timeout=5)
        connection.request("GET", "/metrics")
        text = connection.getresponse().read().decode()
        connection.close()
        (line,) = [x for x in text.splitlines() if x.startswith("kubevo_api_streams ")]
        return float(line.split()[1])

    with stream(served, STREAM) as answer:
        next(events(answer))
        assert open_streams() == 1
    for _ in range(200):
        if open_streams() == 0:
            return
    pytest.fail("the stream is still counted")
