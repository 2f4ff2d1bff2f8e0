"""Rights on a cluster, by a catalogue and rules of this process; tests/cluster has a real API server."""

import asyncio
from dataclasses import replace

import pytest
from api_parts import Access, Catalogue, entry
from fastapi.testclient import TestClient
from structlog.testing import capture_logs

from kubevo_api import streams
from kubevo_api.access import Remembered, Unauthenticated
from kubevo_api.app import create_app
from kubevo_api.cluster import ClusterCatalogue
from kubevo_api.context import Context
from kubevo_api.feeds import Feeds
from kubevo_api.runs import Library
from kubevo_api.serve import assemble
from kubevo_api.sessions import SESSION_SECONDS, Sessions
from kubevo_api.streams import while_allowed

SUCCEEDED = {"conditions": [{"type": "Succeeded", "status": "True"}]}


@pytest.fixture
def access():
    found = Access()
    everything = ("get", "list", "watch", "patch")
    found.rights = {"admin": {"": everything, "a": everything}, "bob": {"team": everything}}
    return found


@pytest.fixture
def catalogue(tmp_path):
    return Catalogue()


@pytest.fixture
def client(settings, catalogue, access):
    app = create_app(assemble(settings, catalogue, access, Library()))
    with TestClient(app, headers={"Authorization": "Bearer admin"}) as found:
        yield found


def budget(client, name="one"):
    return client.get(f"/api/v1/namespaces/a/experiments/{name}").json()["spec"]["budget"]


def test_a_stop_that_is_asked_twice_is_one_stop(client, catalogue, tmp_path):
    running = {"progress": {"generation": 4}}
    catalogue.index.put(entry("a", "one", tmp_path, status=running))
    for generation in (4, 5):  # the second is asked when the last generation has ended
        found = catalogue.index.get(("a", "one"))
        status = {"progress": {"generation": generation}}
        catalogue.index.put(replace(found, document={**found.document, "status": status}))
        assert client.post("/api/v1/namespaces/a/experiments/one/stop").status_code == 200
        assert budget(client) == {"maxGenerations": 6}


@pytest.mark.parametrize("action", ["stop", "suspend"])
def test_what_has_ended_is_not_ended_again(client, catalogue, tmp_path, action):
    status = {**SUCCEEDED, "progress": {"generation": 29}}
    catalogue.index.put(entry("a", "one", tmp_path, status=status))
    answer = client.post(f"/api/v1/namespaces/a/experiments/one/{action}")
    assert answer.status_code == 409
    assert "extend" in answer.json()["detail"]
    assert budget(client) == {"maxGenerations": 30}


def test_where_nothing_may_be_seen_there_is_nothing(client, catalogue, tmp_path):
    bob = {"Authorization": "Bearer bob"}
    assert client.get("/api/v1/experiments", headers=bob).json()["items"] == []
    catalogue.index.put(entry("a", "one", tmp_path))
    assert client.get("/api/v1/experiments", headers=bob).json()["items"] == []
    answer = client.get("/api/v1/experiments", params={"namespace": "a"}, headers=bob)
    assert answer.status_code == 403
    catalogue.index.put(entry("team", "two", tmp_path))
    items = client.get("/api/v1/experiments", headers=bob).json()["items"]
    assert [item["name"] for item in items] == ["two"]


def test_a_stream_needs_the_right_to_watch(client, catalogue, access, tmp_path):
    catalogue.index.put(entry("a", "one", tmp_path))
    access.rights["carol"] = {"a": ("get", "list")}
    answer = client.get(
        "/api/v1/namespaces/a/experiments/one/events", headers={"Authorization": "Bearer carol"}
    )
    assert answer.status_code == 403


@pytest.mark.parametrize("answer", [False, Unauthenticated("the token has ended")])
async def test_a_stream_ends_with_the_right(monkeypatch, answer):
    monkeypatch.setattr(streams, "RIGHTS_SECONDS", 0.0)
    answers = iter([True, answer])

    async def events():
        for number in range(9):
            yield b"%d" % number

    async def is_allowed():
        found = next(answers)
        if isinstance(found, Exception):
            raise found
        return found

    assert [event async for event in while_allowed(events(), is_allowed)] == [b"0"]


async def test_who_asks_the_same_at_once_is_answered_by_one_review():
    asked = []
    remembered = Remembered(lambda: 0.0, bool)

    async def ask():
        asked.append(1)
        await asyncio.sleep(0.01)
        return True

    first, *others = (asyncio.create_task(remembered.get("key", ask)) for _ in range(5))
    await asyncio.sleep(0)
    first.cancel()  # whoever asked first goes away
    assert await asyncio.gather(*others) == [True] * 4
    assert len(asked) == 1


class Api:
    """An API server whose watch says something that is no event, once."""

    def __init__(self, strange):
        self._strange = [strange]
        self.lists = 0

    async def request(self, method, path):
        self.lists += 1
        return {"items": [], "metadata": {"resourceVersion": str(self.lists)}}

    async def watch(self, path, version):
        if self._strange:
            yield self._strange.pop()
        await asyncio.Event().wait()


@pytest.mark.parametrize("strange", ["x", {"type": "MODIFIED", "object": {"metadata": {}}}])
async def test_what_is_no_event_is_followed_by_a_new_list(monkeypatch, tmp_path, strange):
    monkeypatch.setattr("kubevo_api.cluster.AGAIN_SECONDS", 0.01)
    api = Api(strange)
    with capture_logs() as logs:
        async with ClusterCatalogue(api, tmp_path, ()) as catalogue, asyncio.timeout(10):
            while api.lists < 2:  # noqa: ASYNC110 - the loop under test tells nobody
                await asyncio.sleep(0.01)
            assert catalogue.is_ready
    assert [entry["event"] for entry in logs] == ["experiments_not_understood"]


async def test_a_status_that_cannot_be_shown_ends_no_stream(catalogue, tmp_path):
    catalogue.index.put(entry("a", "one", tmp_path))
    feeds = Feeds(catalogue, Library(), Context.summarise)
    events = feeds.events(catalogue.index.get(("a", "one")), None)
    async with asyncio.timeout(20):
        while b"event: status" not in await anext(events):
            pass
        with capture_logs() as logs:
            catalogue.index.put(entry("a", "one", tmp_path, status={"best": {"fitness": "1"}}))
            while not logs:  # noqa: ASYNC110 - a log has nobody to wake
                await asyncio.sleep(0.01)
        good = {"progress": {"generation": 7}}
        catalogue.index.put(entry("a", "one", tmp_path, status=good))
        while b'"generation":7' not in await anext(events):
            pass
    await events.aclose()


def test_a_session_ends_by_itself():
    now = [0.0]
    sessions = Sessions(lambda: now[0])
    one = sessions.begin("secret")
    assert sessions.token(one) == "secret"
    assert sessions.token("other") is None
    now[0] = SESSION_SECONDS + 1.0
    assert sessions.token(one) is None
