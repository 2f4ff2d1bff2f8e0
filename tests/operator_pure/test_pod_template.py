"""What a person may add to the pods, and what stays the operator's."""

import pytest

from kubevo_operator import manifests


@pytest.fixture
def pod(owner, spec_of, defaults):
    def pod(spec, processes=1):
        evaluator = {"podTemplate": {"spec": spec}, "processesPerPod": processes}
        made = manifests.children(owner, spec_of(evaluator=evaluator), {}, defaults, 1, "creds")
        [deployment] = [child for child in made if child["kind"] == "Deployment"]
        return deployment["spec"]["template"]["spec"]

    return pod


def test_where_pods_run_is_the_persons_choice(pod):
    added = {
        "nodeSelector": {"disk": "ssd"},
        "tolerations": [{"key": "spot", "operator": "Exists"}],
        "affinity": {"podAntiAffinity": {}},
        "priorityClassName": "low",
        "runtimeClassName": "gvisor",
    }
    assert added.items() <= pod(added).items()


def test_variables_of_a_person_come_beside_ours_which_win(pod):
    env = [{"name": "OMP", "value": "1"}, {"name": "KUBEVO_NATS_URL", "value": "nats://elsewhere"}]
    made = pod({"containers": [{"name": "evaluator", "env": env}]})
    found = {item["name"]: item.get("value") for item in made["containers"][0]["env"]}
    assert found["OMP"] == "1"
    assert found["KUBEVO_NATS_URL"] == "nats://broker:4222"


def test_volumes_of_a_person_come_beside_ours_which_win(pod):
    volumes = [
        {"name": "roms", "configMap": {"name": "roms"}},
        {"name": "kubevo-nats", "emptyDir": {}},
    ]
    mounts = [{"name": "roms", "mountPath": "/roms"}, {"name": "roms", "mountPath": "/tmp"}]
    made = pod({"volumes": volumes, "containers": [{"name": "evaluator", "volumeMounts": mounts}]})
    found = {volume["name"]: volume for volume in made["volumes"]}
    assert "configMap" in found["roms"]
    assert "secret" in found["kubevo-nats"]
    mounted = {item["mountPath"]: item["name"] for item in made["containers"][0]["volumeMounts"]}
    assert mounted["/roms"] == "roms"
    assert mounted["/tmp"] == "kubevo-tmp"


def test_one_word_about_the_evaluator_is_about_each_process(pod):
    made = pod({"containers": [{"name": "evaluator", "imagePullPolicy": "Always"}]}, processes=3)
    assert [c["imagePullPolicy"] for c in made["containers"]] == ["Always"] * 3
    assert [c["name"] for c in made["containers"]] == ["evaluator", "evaluator-1", "evaluator-2"]


def test_a_sidecar_is_added_and_cannot_pose_as_an_evaluator(pod):
    sidecars = [{"name": "logs", "image": "logs:1"}, {"name": "evaluator-7", "image": "x"}]
    made = pod({"containers": sidecars, "initContainers": [{"name": "fetch", "image": "f"}]})
    assert [c["name"] for c in made["containers"]] == ["evaluator", "logs"]
    assert made["initContainers"] == [{"name": "fetch", "image": "f"}]


def test_null_removes_a_default(pod):
    assert "topologySpreadConstraints" not in pod({"topologySpreadConstraints": None})


def test_what_is_no_pod_spec_is_left_to_the_api_servers_answer(pod):
    assert pod({"containers": "many"})["containers"] == "many"
    assert pod({"volumes": 3})["volumes"][0]["name"] == "kubevo-tmp"
    assert pod({"containers": [3]})["containers"][1] == 3
    assert pod({"containers": [{"name": "evaluator", "env": "x"}]})["containers"][0]["env"]


def test_the_spec_itself_is_never_changed(owner, spec_of, defaults):
    spec = spec_of(evaluator={"podTemplate": {"spec": {"containers": [{"name": "logs"}]}}})
    before = spec.document()
    for child in manifests.children(owner, spec, {}, defaults, 1, "creds"):
        if child["kind"] == "Deployment":
            child["spec"]["template"]["spec"]["containers"][1]["image"] = "changed"
    assert spec.document() == before
