"""The API server's own verdicts: the table of specs, immutability, defaults, and what kubectl shows.

The same table drives `kubevo validate` in tests/operator_resource.
"""

import json
import runpy
import ssl
import urllib.error
import urllib.request
from pathlib import Path

import pytest
import yaml

from kubevo_core.spec import IMMUTABLE, parse

ROOT = Path(__file__).parents[2]
TABLE = runpy.run_path(str(ROOT / "tests/operator_resource/specs.py"))
CASES, changed, minimal = TABLE["CASES"], TABLE["changed"], TABLE["minimal"]
EXPERIMENTS = "/apis/kubevo.dev/v1alpha1/namespaces/{}/experiments"
MERGE = "application/merge-patch+json"
STRICT = "fieldValidation=Strict"
DRY = f"?dryRun=All&{STRICT}"
STATUS = {
    "observedGeneration": 1,
    "takeover": 2,
    "conditions": [
        {
            "type": "Succeeded",
            "status": "True",
            "observedGeneration": 1,
            "lastTransitionTime": "2026-01-02T03:04:05Z",
            "reason": "TargetReached",
            "message": "The elite's mean is 500.",
        }
    ],
    "startTime": "2026-01-02T03:04:05Z",
    "completionTime": "2026-01-02T03:05:05Z",
    "progress": {
        "generation": 3,
        "generations": 10,
        "frames": 6_000_000_000,
        "framesPerSecond": "1234.5",
        "evaluations": 450,
        "failedEvaluations": 1,
        "etaSeconds": 60,
        "runningSeconds": "12.5",
    },
    "best": {"fitness": "500", "generation": 3, "repeat": 0, "digest": "a" * 64},
    "elite": {"fitness": "499.5", "generation": 3},
    "population": {"max": "500", "mean": "1.5", "median": "1", "min": "-1e-9", "failed": 1},
    "evaluators": {"desired": 4, "ready": 4, "pods": 2, "selector": "kubevo.dev/experiment=x"},
    "checkpoint": {
        "generation": 3,
        "time": "2026-01-02T03:05:05Z",
        "bytes": 1234,
        "path": "a/b/gen-3.ck",
    },
    "populationDigest": "b" * 64,
    "resultDigest": "c" * 64,
    "finalTest": {"mean": "498.25", "episodes": 30},
    "reason": "TargetReached",
}


class Api:
    """Requests to the API server as its administrator: plain dicts in and out."""

    def __init__(self, kubeconfig):
        config = yaml.safe_load(Path(kubeconfig).read_text())
        self._server = config["clusters"][0]["cluster"]["server"]
        self._token = config["users"][0]["user"]["token"]
        # A server on the loopback with a certificate that it made itself.
        self._tls = ssl._create_unverified_context()

    def request(self, method, path, body=None, content_type="application/json"):
        request = urllib.request.Request(
            self._server + path,
            method=method,
            data=None if body is None else json.dumps(body).encode(),
            headers={"Authorization": f"Bearer {self._token}", "Content-Type": content_type},
        )
        try:
            with urllib.request.urlopen(request, context=self._tls, timeout=30) as answer:
                return answer.status, json.load(answer)
        except urllib.error.HTTPError as exc:
            with exc:
                return exc.code, json.load(exc)


@pytest.fixture(scope="session")
def api(control_plane):
    return Api(control_plane.admin)


@pytest.fixture
def create(api, namespace):
    """Make Experiments in the test's namespace; return their paths."""

    def make(document, name="table"):
        document = changed(document, {"metadata.name": name})
        path = EXPERIMENTS.format(namespace)
        status, answer = api.request("POST", f"{path}?{STRICT}", document)
        assert status == 201, answer
        return f"{path}/{name}"

    return make


def present(value):
    if isinstance(value, dict):
        return {key: present(item) for key, item in value.items() if item is not None}
    return value


def ours(document):
    """Return what kubevo makes of a spec, as the API server would store it."""
    return present(parse(document, "x").document()["spec"])


def comparable(spec):
    resources = spec["evaluator"]["resources"]
    amounts = {
        kind: {name: str(amount) for name, amount in part.items()}
        for kind, part in resources.items()
    }
    return {**spec, "evaluator": {**spec["evaluator"], "resources": amounts}}


def nested(path, value):
    """Return the merge patch that sets one dotted path."""
    for name in reversed(path.split(".")):
        value = {name: value}
    return value


def fixed_part(document):
    return {name: document["spec"].get(name) for name in IMMUTABLE}


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_the_api_server_gives_the_tables_verdict(api, case):
    path = EXPERIMENTS.format("default") + DRY
    status, answer = api.request("POST", path, case.document())
    if case.is_good:
        assert status == 201, answer["message"]
        assert present(comparable(answer["spec"])) == ours(case.document())
    else:
        assert status in (400, 422), answer
        assert case.server in answer["message"]


@pytest.mark.parametrize(("path", "old", "new"), TABLE["FIXED"], ids=str)
def test_a_fixed_field_cannot_be_changed_added_or_removed(api, create, path, old, new):
    context = {"spec.warmStart": {"experiment": "a"}} if path.startswith("spec.warmStart") else {}
    with_it = changed(changed(minimal(), context), {path: old})
    without = changed(minimal(), {} if path == "spec.warmStart" else context)
    field = path.split(".")[1]

    target = create(with_it)
    status, answer = api.request("PATCH", target + DRY, nested(path, new), MERGE)
    assert status == 422
    assert f"{field} cannot be changed: {field}" in answer["message"]
    assert "make a new Experiment" in answer["message"]

    before = fixed_part(api.request("GET", target)[1])
    for value in (None, new):  # remove, then add
        api.request("PATCH", f"{target}?{STRICT}", nested(path, value), MERGE)
        assert fixed_part(api.request("GET", target)[1]) == before
    assert api.request("PATCH", f"{target}?{STRICT}", nested(path, old), MERGE)[0] == 200

    if path not in ("spec.environment", "spec.environment.id", "spec.policy.network"):
        target = create(without, "without")
        status, answer = api.request("PATCH", target + DRY, nested(path, new), MERGE)
        assert status == 422
        assert f"{field} cannot be changed" in answer["message"]


def test_a_whole_block_cannot_be_removed(api, create):
    document = changed(
        minimal(),
        {
            "spec.environment": {"id": "ALE/Pong-v5", "atari": {"frameSkip": 3}},
            "spec.policy.network": "dqn",
            "spec.warmStart": {"uid": "0f8fad5b"},
        },
    )
    target = create(document)
    for path in ("spec", "spec.environment", "spec.policy", "spec.algorithm", "spec.warmStart"):
        assert api.request("PATCH", target + DRY, nested(path, None), MERGE)[0] == 422, path
    for atari in (None, {"frameSkip": None}, {"maxNoops": 3}):
        patch = nested("spec.environment.atari", atari)
        status, answer = api.request("PATCH", target + DRY, patch, MERGE)
        assert status == 422
        assert "environment cannot be changed: environment.atari; make" in answer["message"]


def test_a_refusal_lists_what_would_change(api, create):
    target = create(minimal())
    block = {"populationSize": 100, "eliteCandidates": 5}
    patch = nested("spec.algorithm.geneticAlgorithm", block)
    _, answer = api.request("PATCH", target + DRY, patch, MERGE)
    assert "algorithm.geneticAlgorithm.populationSize 1000 -> 100; " in answer["message"]
    assert "algorithm.geneticAlgorithm.eliteCandidates 10 -> 5; make" in answer["message"]


@pytest.mark.parametrize(("path", "value"), TABLE["LIVE"], ids=str)
def test_a_live_field_can_be_changed_and_taken_back(api, create, path, value):
    target = create(minimal())
    before = api.request("GET", target)[1]["spec"]
    status, answer = api.request("PATCH", f"{target}?{STRICT}", nested(path, value), MERGE)
    assert status == 200, answer
    changed_back = {**api.request("GET", target)[1], "spec": before}
    status, answer = api.request("PUT", f"{target}?{STRICT}", changed_back)
    assert status == 200, answer
    assert answer["spec"] == before


def test_a_full_status_is_taken(api, create):
    target = create(minimal())
    status, answer = api.request("PATCH", f"{target}/status?{STRICT}", {"status": STATUS}, MERGE)
    assert status == 200, answer
    assert answer["status"] == STATUS
    misspelt = {"status": {"progress": {"generatoin": 1}}}
    status, answer = api.request("PATCH", f"{target}/status?{STRICT}", misspelt, MERGE)
    assert status == 422 or "unknown field" in answer["message"]


def test_kubectl_shows_explains_scales_and_selects(control_plane, api, namespace, create):
    target = create(minimal(), "a.search")
    api.request("PATCH", f"{target}/status", {"status": STATUS}, MERGE)

    def kubectl(*arguments):
        return control_plane.kubectl("--namespace", namespace, *arguments)

    header, row = kubectl("get", "evo").splitlines()
    wanted = "NAME ENVIRONMENT GENERATION BEST ELITE EVALUATORS STATUS AGE"
    assert " ".join(header.split()) == wanted
    assert row.split()[:7] == ["a.search", "CartPole-v1", "3", "500", "499.5", "4", "TargetReached"]
    assert "FRAMES" in kubectl("get", "experiments", "--output", "wide")
    assert "a.search" in kubectl("get", "all")
    assert "search algorithm" in kubectl("explain", "evo.spec.algorithm")
    explained = " ".join(kubectl("explain", "evo.spec.algorithm.geneticAlgorithm").split())
    assert "Individuals a generation (N). (default 1000; 2 to 100000)" in explained
    kubectl("scale", "evo/a.search", "--replicas", "3")
    assert api.request("GET", target)[1]["spec"]["scaling"]["replicas"] == 3
    scale = api.request("GET", f"{target}/scale")[1]
    assert scale["status"] == {"replicas": 2, "selector": "kubevo.dev/experiment=x"}
    chosen = ("get", "evo", "--output", "name", "--field-selector")
    assert "a.search" in kubectl(*chosen, "spec.environment.id=CartPole-v1")
    assert kubectl(*chosen, "spec.policy.network=dqn").strip() == ""


def test_plain_apply_takes_the_definition_and_the_examples(control_plane, namespace):
    definition = str(ROOT / "crds/experiments.yaml")
    assert "experiments.kubevo.dev" in control_plane.kubectl("apply", "--filename", definition)
    done = control_plane.kubectl(
        "--namespace", namespace, "apply", "--filename", str(ROOT / "examples")
    )
    assert done.count(" created") == len(list((ROOT / "examples").glob("*.yaml")))
