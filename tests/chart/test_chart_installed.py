"""The chart on a real API server: installed, upgraded, uninstalled, and what its hooks do there.

There is no node. The pods of the Deployment are made, in a namespace that enforces the restricted level,
and wait for ever; those of other kinds are offered to the API server.
"""

import asyncio
import contextlib
import json
import subprocess
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio
import yaml
from control_plane import ControlPlane
from helm_of_tests import CHART, NAMESPACE, ROOT, Helm, Rendered

from kubevo_operator.cluster import EXPERIMENT, Cluster, connect
from kubevo_operator.handlers import FINALIZER
from kubevo_operator.smoke import NotWell, smoke
from kubevo_operator.uninstall import Plan, uninstall

EXAMPLES = sorted((ROOT / "examples/values").glob("*.yaml"))


@pytest_asyncio.fixture(loop_scope="session")
async def cluster(api_server: ControlPlane):
    found = await connect(str(api_server.admin))
    yield found
    await found.aclose()


def get(plane: ControlPlane, *arguments: str) -> dict:
    return json.loads(plane.kubectl("get", "-o", "json", *arguments))


def offered(plane: ControlPlane, documents: list[dict], *arguments: str) -> str:
    """Have the API server judge documents; return what kubectl says, its warnings too."""
    command = [plane._kubectl, f"--kubeconfig={plane.admin}", "apply", "--dry-run=server"]
    text = yaml.safe_dump_all(documents)
    done = subprocess.run(
        [*command, *arguments, "-f", "-"], input=text, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stderr


def experiment(name: str, namespace: str = NAMESPACE) -> dict:
    document = yaml.safe_load((ROOT / "examples/cartpole.yaml").read_text())
    document["metadata"] = {"name": name, "namespace": namespace, "finalizers": [FINALIZER]}
    return document


@pytest.mark.parametrize("example", [None, *EXAMPLES], ids=lambda path: path.stem if path else "-")
def test_the_api_server_takes_every_document_and_warns_of_nothing(
    api_server, release, helm, example
):
    # Where the release is not: what cannot be changed would stand in the way.
    arguments = ["--namespace", "team-b", *(["--values", example] if example else [])]
    # Pods have their own test.
    rendered = [item for item in helm.template(*arguments) if item["kind"] != "Pod"]
    assert "Warning" not in offered(api_server, rendered, "--server-side", "--force-conflicts")


def test_every_pod_is_admitted_where_the_restricted_level_is_enforced(
    api_server, release, everything: Rendered
):
    for name, pod in everything.pods():
        spec = {**pod["spec"], "serviceAccountName": "default"}
        spec.pop("priorityClassName", None)
        if name == "StatefulSet/kubevo-nats":  # its controller would add the claim
            spec["volumes"] = [*spec["volumes"], {"name": "data", "emptyDir": {}}]
        metadata = {"name": "offered", "namespace": NAMESPACE, "labels": pod["metadata"]["labels"]}
        document = {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec}
        assert "PodSecurity" not in offered(api_server, [document]), name


def test_the_operators_pod_is_made(api_server, release):
    api_server.kubectl(
        "wait", "--for=create", "pod", "-l", "app.kubernetes.io/component=operator",
        "-n", NAMESPACE, "--timeout=30s",
    )  # fmt: skip


def test_the_notes_give_commands_that_name_what_is_there(helm, release, api_server):
    notes = helm("get", "notes", *release)
    assert f"kubectl apply -n {NAMESPACE} -f examples/cartpole.yaml" in notes
    assert f"kubectl wait -n {NAMESPACE} --for=condition=Succeeded evo/cartpole" in notes
    port = get(api_server, "service", "kubevo-api", "-n", NAMESPACE)["spec"]["ports"][0]["port"]
    assert f"kubectl port-forward -n {NAMESPACE} svc/kubevo-api 8000:{port}" in notes
    for line in (line.strip() for line in notes.splitlines()):
        if line.startswith(("kubectl create", "kubectl apply")) and "token" not in line:
            api_server.kubectl(*line.split()[1:], "--dry-run=server")
    api_server.kubectl("create", "serviceaccount", "kubevo-user", "-n", NAMESPACE)
    binding = next(line for line in notes.splitlines() if "rolebinding" in line)
    api_server.kubectl(*binding.split()[1:])
    token = next(line for line in notes.splitlines() if "create token" in line)
    assert api_server.kubectl(*token.split()[1:]).count(".") == 2


def test_the_notes_say_what_could_not_be_made(helm, release):
    values = ["--set", "metrics.podMonitor.enabled=true", "--dry-run=server", "--no-hooks"]
    said = helm("upgrade", release[0], CHART, *release[1:], *values)
    assert "NOT MADE: metrics.podMonitor is enabled, but this cluster has no PodMonitor" in said
    assert "\nkind: PodMonitor" not in said


def test_a_release_is_far_from_the_size_that_a_secret_may_have(api_server, release):
    secrets = get(api_server, "secret", "-n", NAMESPACE, "-l", "owner=helm")["items"]
    assert max(len(item["data"]["release"]) for item in secrets) < 2**18


def test_a_viewer_reads_and_does_not_write_and_an_editor_does_both(api_server, release):
    for role in ("viewer", "editor"):
        api_server.kubectl(
            "create", "clusterrolebinding", role, f"--clusterrole=kubevo-experiment-{role}",
            f"--user={role}",
        )  # fmt: skip

    def may(user: str, verb: str, resource: str = "experiments.kubevo.dev") -> bool:
        try:
            api_server.kubectl("auth", "can-i", verb, resource, f"--as={user}", "-n", "team-a")
        except RuntimeError:
            return False
        return True

    assert may("viewer", "list")
    assert not may("viewer", "create")
    assert not may("viewer", "patch")
    assert may("editor", "watch")
    assert may("editor", "create")
    assert may("editor", "delete")
    assert not may("editor", "get", "secrets")


def test_an_upgrade_with_another_version_changes_images_and_keeps_the_volume(
    api_server, release, helm, tmp_path
):
    before = get(api_server, "pvc", "kubevo-data", "-n", NAMESPACE)["metadata"]["uid"]
    subprocess.run(["cp", "-r", CHART, tmp_path / "kubevo"], check=True)
    chart = tmp_path / "kubevo/Chart.yaml"
    chart.write_text(chart.read_text().replace("ersion: 0.1.0", "ersion: 0.2.0"))
    helm("upgrade", release[0], chart.parent, *release[1:], "--no-hooks")
    deployment = get(api_server, "deployment", "kubevo-operator", "-n", NAMESPACE)
    images = {each["image"] for each in deployment["spec"]["template"]["spec"]["containers"]}
    assert images == {"kubevo-operator:0.2.0"}
    assert get(api_server, "pvc", "kubevo-data", "-n", NAMESPACE)["metadata"]["uid"] == before
    helm("rollback", *release, "--no-hooks")


async def test_the_smoke_test_waits_for_the_end_and_cleans_up(api_server, release, cluster):
    async def operate() -> None:
        while True:
            found = await cluster.get(EXPERIMENT, "team-a", "smoke")
            if found is not None:
                condition = {
                    "type": "Succeeded",
                    "status": "True",
                    "reason": "MaxGenerations",
                    "message": "done",
                    "lastTransitionTime": "2026-01-02T03:04:05Z",
                }
                change = {"status": {"conditions": [condition], "resultDigest": "c" * 64}}
                await cluster.merge(EXPERIMENT, "team-a", "smoke", change, "status")
                return
            await asyncio.sleep(0.05)

    task = asyncio.create_task(operate())
    status = await smoke(cluster, "team-a", "smoke", 30)
    await task
    assert status["resultDigest"] == "c" * 64
    assert await cluster.get(EXPERIMENT, "team-a", "smoke") is None


async def test_the_smoke_test_fails_where_no_operator_runs(release, cluster):
    with pytest.raises(NotWell, match="is the operator running"):
        await smoke(cluster, "team-a", "alone", 1)
    assert await cluster.get(EXPERIMENT, "team-a", "alone") is None


@contextlib.asynccontextmanager
async def as_hook(plane: ControlPlane, helm: Helm, name: str) -> AsyncIterator[Cluster]:
    """Connect as a hook's account with its rights, which come and go as Helm has it."""
    made = [
        item
        for item in helm.template()
        if item["metadata"]["name"] in (name, f"{name}-own") and item["kind"] not in ("Job", "Pod")
    ]
    text = yaml.safe_dump_all(made)
    plane.kubectl("create", "-f", "-", stdin=text)
    hook = await connect(str(plane.service_account(NAMESPACE, name)))
    try:
        yield hook
    finally:
        await hook.aclose()
        plane.kubectl("delete", "-f", "-", stdin=text)


def hook_environment(helm: Helm, kind: str, name: str) -> dict[str, str]:
    pod = dict(helm.template().pods())[f"{kind}/{name}"]
    rows = pod["spec"]["containers"][0]["env"]
    return {row["name"]: row.get("value", NAMESPACE) for row in rows}


async def test_the_smoke_test_has_the_rights_that_it_needs_and_no_others(api_server, release, helm):
    where = hook_environment(helm, "Pod", "kubevo-test")["KUBEVO_SMOKE_EXPERIMENT"]
    namespace, _, name = where.partition("/")
    async with as_hook(api_server, helm, "kubevo-test") as hook:
        with pytest.raises(NotWell, match="within 1 s"):
            await smoke(hook, namespace, name, 1)
    verbs = {verb for _, _, verb in api_server.requests(f"{NAMESPACE}:kubevo-test")}
    assert verbs == {"get", "create", "delete"}


async def test_an_uninstall_leaves_nothing_stuck_and_a_reinstall_finds_what_was_kept(
    api_server, release, helm, cluster
):
    kubectl = api_server.kubectl
    documents = [experiment("one"), experiment("two", "team-a"), experiment("over", "team-a")]
    kubectl("apply", "-f", "-", stdin=yaml.safe_dump_all(documents))
    over = {
        "type": "Succeeded",
        "status": "True",
        "reason": "MaxGenerations",
        "message": "done",
        "lastTransitionTime": "2026-01-02T03:04:05Z",
    }
    status = {"status": {"conditions": [over], "completionTime": "2026-01-02T03:04:05Z"}}
    await cluster.merge(EXPERIMENT, "team-a", "over", status, "status")
    kubectl("create", "secret", "generic", "kubevo-nats-keys", "-n", NAMESPACE)
    kubectl("create", "configmap", "kubevo-nats-config", "-n", NAMESPACE)
    environment = hook_environment(helm, "Job", "kubevo-uninstall")
    plan = Plan.from_environment({**environment, "KUBEVO_PATIENCE_SECONDS": "1"})

    async with as_hook(api_server, helm, "kubevo-uninstall") as hook:
        await uninstall(hook, plan)
        await uninstall(hook, plan)  # a hook whose pod died begins again

    found = get(api_server, "evo", "-A")["items"]
    suspended = {item["metadata"]["name"]: item["spec"]["suspend"] for item in found}
    assert suspended == {"one": True, "two": True, "over": False}
    assert not any(item["metadata"].get("finalizers") for item in found)
    assert (
        get(api_server, "deployment", "kubevo-operator", "-n", NAMESPACE)["spec"]["replicas"] == 0
    )
    assert not get(api_server, "pods", "-n", NAMESPACE)["items"]
    assert "kubevo-nats-keys" not in kubectl("get", "secret", "-n", NAMESPACE, "-o", "name")
    assert "kubevo-nats-config" not in kubectl("get", "configmap", "-n", NAMESPACE, "-o", "name")

    claim = get(api_server, "pvc", "kubevo-data", "-n", NAMESPACE)["metadata"]["uid"]
    said = helm("uninstall", *release, "--no-hooks")
    assert "kept due to the resource policy" in said
    for kind in ("deployment", "statefulset", "service", "role", "networkpolicy", "pdb"):
        assert not kubectl("get", kind, "-n", NAMESPACE, "-o", "name"), kind
    assert len(get(api_server, "evo", "-A")["items"]) == 3

    helm("install", release[0], CHART, *release[1:], "--no-hooks")
    assert get(api_server, "pvc", "kubevo-data", "-n", NAMESPACE)["metadata"]["uid"] == claim
    kubectl("delete", "evo", "--all", "-A", "--timeout=10s")
