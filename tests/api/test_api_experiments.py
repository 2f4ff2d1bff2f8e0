"""The list, one Experiment, who may ask, and conditional answers."""

import shutil

import pytest
import yaml
from api_parts import AUTHORIZED, EXPERIMENTS, TOKEN

from kubevo_core import spec

LIST = "/api/v1/experiments"


def names(answer):
    return [item["name"] for item in answer.json()["items"]]


def test_an_empty_directory_has_no_experiments(client):
    found = client.get(LIST).json()
    assert found == {"items": [], "continue": None, "total": 0}


def test_a_finished_run_is_shown_with_its_results(make_run, get):
    run = make_run()
    found = get("test")
    assert (found["state"], found["reason"]) == ("Succeeded", "maxGenerations")
    assert (found["generation"], found["generations"]) == (2, 3)
    assert found["best"]["fitness"] == pytest.approx(run.repeat(0).history()[-1]["best"]["mean"])
    assert found["finalTest"]["episodes"] == 3
    assert len(found["populationDigest"]) == len(found["resultDigest"]) == 64
    assert found["actions"] == []
    assert found["hasData"]


def test_a_run_that_nobody_works_on_is_interrupted(make_run, get):
    run = make_run(budget={"maxGenerations": 5})
    newest = max((run.path / "repeat-0/generations").glob("gen-*.ck"))
    newest.unlink()  # as if it had died before its last save
    lines = (run.path / "repeat-0/history.jsonl").read_text().splitlines(keepends=True)
    (run.path / "repeat-0/history.jsonl").write_text("".join(lines[:-1]))
    (run.path / "repeat-0/tests.jsonl").unlink()
    found = get("test")
    assert (found["state"], found["generation"]) == ("Interrupted", 3)
    assert "--resume" in found["message"]


def test_a_run_that_a_process_works_on_is_running(make_run, get):
    run = make_run()
    with run.lock():
        assert get("test")["state"] == "Running"
    assert get("test")["state"] == "Succeeded"


def test_a_list_is_filtered_and_paged(make_run, client):
    for name in ("alpha", "beta", "gamma"):
        make_run(name=name)
    first = client.get(LIST, params={"limit": 2})
    assert names(first) == ["alpha", "beta"]
    assert first.json()["total"] == 3
    rest = client.get(LIST, params={"limit": 2, "continue": first.json()["continue"]})
    assert names(rest) == ["gamma"]
    assert rest.json()["continue"] is None
    assert names(client.get(LIST, params={"q": "MM"})) == ["gamma"]
    assert len(names(client.get(LIST, params={"q": "cartpole"}))) == 3
    assert names(client.get(LIST, params={"state": "Running"})) == []
    assert names(client.get(LIST, params={"labelSelector": "a=b"})) == []
    assert names(client.get(LIST, params={"namespace": "elsewhere"})) == []
    game = {"fieldSelector": "spec.environment.id=CartPole-v1,metadata.name!=beta"}
    assert names(client.get(LIST, params=game)) == ["alpha", "gamma"]
    assert names(client.get(LIST, params={"fieldSelector": "spec.policy.network=dqn"})) == []


@pytest.mark.parametrize(
    "query",
    [
        {"limit": 0},
        {"labelSelector": "=="},
        {"fieldSelector": "spec.seed=1"},
        {"fieldSelector": "x"},
        {"continue": "%%%"},
        {"state": "Odd"},
    ],
)
def test_a_wrong_argument_is_named(client, query):
    answer = client.get(LIST, params=query)
    assert answer.status_code == 422
    assert answer.headers["content-type"] == "application/problem+json"
    (name,) = query
    assert name in answer.json()["detail"]


def test_a_damaged_run_hides_no_other(make_run, client, settings):
    make_run(name="well")
    make_run(name="ill")
    shutil.rmtree(next(settings.data.glob("local/ill-*")) / "repeat-0/generations")
    (next(settings.data.glob("local/ill-*")) / "repeat-0/history.jsonl").write_text("{broken\n")
    client.look()
    assert "well" in names(client.get(LIST))


def test_the_spec_can_be_run_again(make_run, client):
    run = make_run()
    answer = client.get(f"{EXPERIMENTS}/test/spec.yaml")
    again = spec.parse(yaml.safe_load(answer.text), "again")
    assert again.spec == spec.parse(run.experiment(), "run").spec


@pytest.mark.parametrize("action", ["suspend", "resume", "stop", "extend"])
def test_a_local_run_says_what_to_do_instead_of_an_action(make_run, client, action):
    make_run()
    body = {"maxGenerations": 9} if action == "extend" else None
    answer = client.post(f"{EXPERIMENTS}/test/{action}", json=body)
    assert answer.status_code == 405
    assert "--resume" in answer.json()["detail"]


@pytest.mark.parametrize("body", [{}, {"maxGenerations": 0}, {"generations": 3}, [1], None])
def test_a_wrong_budget_is_refused(make_run, client, body):
    make_run()
    answer = client.post(f"{EXPERIMENTS}/test/extend", json=body)
    assert answer.status_code == 422


@pytest.mark.parametrize(
    "path",
    [LIST, f"{EXPERIMENTS}/test", f"{EXPERIMENTS}/test/history", f"{EXPERIMENTS}/test/events", "/api/v1/compare?ids=a/b", "/api/v1/version"],
)  # fmt: skip
@pytest.mark.parametrize("token", [None, "wrong", ""])
def test_nobody_without_the_token_sees_anything(make_run, client, path, token):
    make_run()
    client.headers.pop("authorization")
    headers = {} if token is None else {"Authorization": f"Bearer {token}"}
    answer = client.get(path, headers=headers)
    assert answer.status_code == 401
    assert answer.headers["www-authenticate"].startswith("Bearer")
    assert "test" not in answer.json()["detail"]


def test_a_browser_gets_a_cookie_that_reads_and_does_not_write(make_run, client):
    make_run()
    answer = client.post("/api/v1/session")
    assert answer.status_code == 204
    cookie = answer.headers["set-cookie"].lower()
    assert "httponly" in cookie
    assert "samesite=strict" in cookie
    assert TOKEN not in answer.headers["set-cookie"]
    client.headers.pop("authorization")
    assert client.get(f"{EXPERIMENTS}/test").status_code == 200
    assert client.post(f"{EXPERIMENTS}/test/suspend").status_code == 401


@pytest.mark.parametrize(
    "name",
    [
        "missing",
        "..",
        "%2e%2e",
        "..%2f..%2fetc",
        "te%00st",
        "TEST",
        "test%20",
        "a" * 300,
        "test%0a",
    ],
)
def test_a_name_that_is_none_is_never_found(make_run, client, name):
    make_run()
    answer = client.get(f"{EXPERIMENTS}/{name}")
    assert answer.status_code in (404, 422)
    assert answer.headers["content-type"] == "application/problem+json"


def test_who_has_an_answer_is_told_so(make_run, client):
    make_run()
    for path in (LIST, f"{EXPERIMENTS}/test", f"{EXPERIMENTS}/test/history"):
        first = client.get(path)
        again = client.get(path, headers={"If-None-Match": first.headers["etag"]})
        assert again.status_code == 304
        assert again.content == b""
        other = client.get(path, headers={"If-None-Match": '"another"'})
        assert (other.status_code, other.content) == (200, first.content)


def test_every_answer_has_the_headers_that_protect_a_browser(client):
    for path in (LIST, "/api/v1/nothing", "/healthz"):
        headers = client.get(path).headers
        assert headers["x-content-type-options"] == "nosniff"
        assert "default-src 'self'" in headers["content-security-policy"]


def test_health_is_open_and_counts_what_was_asked(make_run, client):
    make_run()
    client.get(f"{EXPERIMENTS}/test")
    client.headers.pop("authorization")
    assert client.get("/healthz").text == "ok"
    assert client.get("/readyz").text == "ok"
    text = client.get("/metrics").text
    route = "/namespaces/{ns}/experiments/{name}"
    assert f'kubevo_api_requests_total{{method="GET",route="{route}",status="200"}} 1.0' in text
    assert "local" not in text


def test_a_large_body_is_refused(client):
    answer = client.post(f"{EXPERIMENTS}/test/extend", content=b"x" * 100_000, headers=AUTHORIZED)
    assert answer.status_code == 413
