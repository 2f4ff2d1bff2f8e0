"""What the chart renders, looked at as documents."""

import asyncio
import json
import re
import subprocess

import pytest
import yaml
from helm_of_tests import CHART, NAMESPACE, ROOT, documents

from kubevo_api.settings import ApiSettings
from kubevo_core import spec as specs
from kubevo_operator.monitoring.alerts import rendered as rendered_alerts
from kubevo_operator.settings import OperatorSettings
from kubevo_operator.uninstall import Plan
from kubevo_runtime.broker import find_server

EXAMPLES = sorted((ROOT / "examples/values").glob("*.yaml"))
SELECTING = {f"app.kubernetes.io/{name}" for name in ("name", "instance", "component")}


def containers(rendered):
    for name, pod in rendered.pods():
        for container in pod["spec"]["containers"]:
            yield f"{name}/{container['name']}", container


def variables(container):
    return {row["name"]: row.get("value", "from elsewhere") for row in container["env"]}


def operator(rendered, name="operator"):
    pod = rendered.one("Deployment", "kubevo-operator")["spec"]["template"]["spec"]
    return next(item for item in pod["containers"] if item["name"] == name)


def rules(role):
    return sorted(json.dumps(rule, sort_keys=True) for rule in role["rules"])


def rights(path, index):
    return rules(list(yaml.safe_load_all((ROOT / path).read_text()))[index])


@pytest.mark.parametrize("example", [None, *EXAMPLES], ids=lambda path: path.stem if path else "-")
def test_lint_finds_nothing(helm, example):
    helm("lint", "--strict", CHART, *(["--values", example] if example else []))


def test_the_examples_are_the_ones_that_the_documents_name():
    names = {path.stem for path in EXAMPLES}
    assert names == {"external-nats", "gpu-pool", "ha", "keda", "kueue"}


@pytest.mark.parametrize(
    "path", sorted((ROOT / "examples/cluster").glob("*.yaml")), ids=lambda path: path.stem
)
def test_the_experiments_of_the_examples_are_valid(path):
    specs.parse(yaml.safe_load(path.read_text()), path.name)


def test_the_version_is_the_packages(rendered):
    chart = yaml.safe_load((CHART / "Chart.yaml").read_text())
    project = (ROOT / "pyproject.toml").read_text()
    assert f'version = "{chart["appVersion"]}"' in project
    images = {container["image"] for _, container in containers(rendered)}
    assert images == {f"kubevo-{name}:{chart['appVersion']}" for name in ("operator", "nats")}


def test_every_object_has_the_labels_and_is_selected_by_those_that_never_change(everything):
    for item in everything:
        labels = item["metadata"]["labels"]
        assert labels.keys() >= SELECTING | {"helm.sh/chart", "app.kubernetes.io/managed-by"}
        is_namespaced = "namespace" in item["metadata"]
        assert not is_namespaced or item["metadata"]["namespace"] == NAMESPACE
    for kind in ("Deployment", "StatefulSet", "PodDisruptionBudget"):
        for item in everything.kind(kind):
            assert set(item["spec"]["selector"]["matchLabels"]) == SELECTING
    for item in everything.kind("Service"):
        assert set(item["spec"]["selector"]) == SELECTING


def test_the_command_line_finds_the_operators_pod(rendered):
    pod = rendered.one("Deployment", "kubevo-operator")["spec"]["template"]
    labels = pod["metadata"]["labels"]
    assert labels["app.kubernetes.io/name"] == "kubevo"
    assert labels["app.kubernetes.io/component"] == "operator"
    assert operator(rendered, "api")["ports"] == [{"name": "api", "containerPort": 8000}]


def test_all_pods_fit_the_restricted_level_and_write_only_to_bounded_volumes(everything):
    names = [name for name, _ in everything.pods()]
    assert names == [
        "Deployment/kubevo-operator",
        "StatefulSet/kubevo-nats",
        "Pod/kubevo-test",
        "Job/kubevo-uninstall",
    ]
    for name, pod in everything.pods():
        security = pod["spec"]["securityContext"]
        assert security["runAsNonRoot"] is True, name
        assert security["runAsUser"] == 65532
        assert security["seccompProfile"] == {"type": "RuntimeDefault"}
        assert pod["spec"]["enableServiceLinks"] is False
        for volume in pod["spec"]["volumes"]:
            assert "emptyDir" not in volume or volume["emptyDir"]["sizeLimit"], name
    for name, container in containers(everything):
        assert container["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }, name
        assert "/tmp" in {mount["mountPath"] for mount in container["volumeMounts"]}
        assert container["resources"]["requests"].keys() == {"cpu", "memory"}
        assert "memory" in container["resources"]["limits"]


def test_only_pods_that_ask_the_api_server_have_a_token(everything):
    tokens = {name: pod["spec"]["automountServiceAccountToken"] for name, pod in everything.pods()}
    assert tokens.pop("StatefulSet/kubevo-nats") is False
    assert set(tokens.values()) == {True}


def test_the_settings_are_settings_and_the_programs_take_them(helm, rendered):
    fields = {f"KUBEVO_{name.upper()}" for name in OperatorSettings.__dataclass_fields__}
    api_fields = {f"KUBEVO_{name.upper()}" for name in ApiSettings.__dataclass_fields__}
    variants = [rendered, *(helm.template("--values", path) for path in EXAMPLES)]
    for ways in ({"credentialsSecret.name": "x"}, {"tokenSecret.name": "x"}):
        values = {"nats.enabled": False, "nats.external.url": "nats://a:1,nats://b:2"}
        values |= {f"nats.external.{key}": value for key, value in ways.items()}
        variants.append(helm.template(values=values))
    for variant in variants:
        given = variables(operator(variant))
        assert set(given) <= fields
        found = OperatorSettings.from_environment(given)
        assert found.namespace == "from elsewhere"
        given = variables(operator(variant, "api"))
        assert set(given) <= api_fields
        assert ApiSettings.from_environment(given).api_port == 8000


def test_the_defaults_of_the_chart_are_the_programs(rendered):
    named = {
        "data": OperatorSettings.from_environment(variables(operator(rendered))).data,
        "nats_url": "nats://kubevo-nats.kubevo-system.svc:4222",
        "evaluator_image": "kubevo-evaluator:0.1.0",
    }
    found = OperatorSettings.from_environment(variables(operator(rendered)))
    usual = OperatorSettings(**named)
    differing = {"namespace", "identity", "nats_monitoring", "nats_pods"}
    for name in OperatorSettings.__dataclass_fields__.keys() - differing:
        assert getattr(found, name) == getattr(usual, name), name
    api = ApiSettings.from_environment(variables(operator(rendered, "api")))
    for name in ApiSettings.__dataclass_fields__.keys() - {"data", "api_cache"}:
        assert getattr(api, name) == getattr(ApiSettings(data=api.data), name), name


def test_the_hooks_environment_is_what_the_program_reads(helm):
    rendered = helm.template(values={"watchNamespaces": ["a", "b"]})
    job = rendered.one("Job", "kubevo-uninstall")["spec"]["template"]["spec"]["containers"][0]
    plan = Plan.from_environment(variables(job))
    assert plan.namespaces == ("a", "b")
    assert plan.operator == "kubevo-operator"
    assert {name for _, name in plan.deleted} == {
        "kubevo-operator",
        "kubevo-nats-config",
        "kubevo-nats-keys",
        "kubevo-test",
    }
    settings = OperatorSettings.from_environment(variables(operator(rendered)))
    assert {settings.lease, settings.broker_config, settings.keys_secret} < {
        name for _, name in plan.deleted
    }
    pod = rendered.one("Deployment", "kubevo-operator")["spec"]["template"]["metadata"]["labels"]
    for pair in plan.operator_pods.split(","):
        key, _, value = pair.partition("=")
        assert pod[key] == value


def test_a_broker_whose_volume_stays_keeps_its_keys(helm):
    rendered = helm.template(values={"nats.persistence.whenDeleted": "Retain"})
    job = rendered.one("Job", "kubevo-uninstall")["spec"]["template"]["spec"]["containers"][0]
    names = {name for _, name in Plan.from_environment(variables(job)).deleted}
    assert names == {"kubevo-operator", "kubevo-test"}


def test_the_rights_are_those_of_the_files(rendered):
    assert rules(rendered.one("ClusterRole", "kubevo-operator")) == rights("operator/rbac.yaml", 0)
    assert rules(rendered.one("Role", "kubevo-operator-own")) == rights("operator/rbac.yaml", 1)
    assert rules(rendered.one("ClusterRole", "kubevo-api")) == rights("api/rbac.yaml", 0)
    reviews = rendered.one("ClusterRole", "kubevo-api-reviews")
    assert rules(reviews) == rights("api/rbac.yaml", 1)


def test_with_a_list_of_namespaces_the_rights_are_roles_there_and_nowhere_else(helm):
    rendered = helm.template(values={"watchNamespaces": ["a", NAMESPACE]})
    people = {"kubevo-experiment-viewer", "kubevo-experiment-editor"}
    names = {item["metadata"]["name"] for item in rendered.kind("ClusterRole")}
    assert names == {"kubevo-api-reviews", *people}
    for part, path in (("operator", "operator/rbac.yaml"), ("api", "api/rbac.yaml")):
        roles = [
            item for item in rendered.kind("Role") if item["metadata"]["name"] == f"kubevo-{part}"
        ]
        assert {item["metadata"]["namespace"] for item in roles} == {"a", NAMESPACE}
        assert all(rules(role) == rights(path, 0) for role in roles)
    bindings = [
        (item["metadata"]["namespace"], item["metadata"]["name"])
        for item in rendered.kind("RoleBinding")
    ]
    assert len(bindings) == len(set(bindings))
    for item in rendered.kind("RoleBinding"):
        where = item["metadata"]["namespace"], item["roleRef"]["name"]
        assert where in {
            (role["metadata"]["namespace"], role["metadata"]["name"])
            for role in rendered.kind("Role")
        }


def test_people_get_their_rights_by_the_clusters_own_roles(rendered):
    viewer = rendered.one("ClusterRole", "kubevo-experiment-viewer")
    editor = rendered.one("ClusterRole", "kubevo-experiment-editor")
    prefix = "rbac.authorization.k8s.io/aggregate-to-"
    assert viewer["metadata"]["labels"][f"{prefix}view"] == "true"
    assert f"{prefix}view" not in editor["metadata"]["labels"]
    assert editor["metadata"]["labels"][f"{prefix}edit"] == "true"
    reading = {"get", "list", "watch"}
    assert {verb for rule in viewer["rules"] for verb in rule["verbs"]} == reading
    assert reading < {verb for rule in editor["rules"] for verb in rule["verbs"]}


def test_the_roles_for_people_can_be_bound_without_being_part_of_others(helm):
    apart = helm.template(values={"rbac.aggregate": False})
    for role in ("viewer", "editor"):
        labels = apart.one("ClusterRole", f"kubevo-experiment-{role}")["metadata"]["labels"]
        assert not [label for label in labels if "aggregate" in label]
    none = helm.template(values={"rbac.create": False})
    assert not [item for item in none.kind("ClusterRole") if "experiment" in str(item["metadata"])]


def test_the_definition_is_the_generated_one_and_is_kept(rendered, helm):
    found = rendered.one("CustomResourceDefinition", "experiments.kubevo.dev")
    assert found["spec"] == yaml.safe_load((ROOT / "crds/experiments.yaml").read_text())["spec"]
    assert found["metadata"]["annotations"]["helm.sh/resource-policy"] == "keep"
    assert not helm.template(values={"crds.install": False}).kind("CustomResourceDefinition")
    found = helm.template(values={"crds.keep": False}).kind("CustomResourceDefinition")
    assert "annotations" not in found[0]["metadata"]


def test_the_brokers_configuration_is_one_that_nats_server_takes(rendered, tmp_path):
    text = rendered.one("ConfigMap", "kubevo-nats")["data"]["nats.conf"]
    (tmp_path / "nats.conf").write_text(text.replace("/data", str(tmp_path)))
    (tmp_path / "auth.conf").write_text("authorization { token: x }\n")
    server = asyncio.run(find_server())
    done = subprocess.run(
        [server, "-t", "-c", tmp_path / "nats.conf"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


def test_a_change_of_the_brokers_configuration_restarts_it(helm, rendered):
    def sum_of(documents):
        pod = documents.one("StatefulSet", "kubevo-nats")["spec"]["template"]
        return pod["metadata"]["annotations"]["checksum/config"]

    changed = helm.template(values={"nats.jetstream.maxFileStore": "9Gi"})
    assert sum_of(changed) != sum_of(rendered)
    assert sum_of(helm.template(values={"operator.log.level": "DEBUG"})) == sum_of(rendered)


def test_the_brokers_pod_waits_for_the_file_that_the_operator_makes(rendered):
    pod = rendered.one("StatefulSet", "kubevo-nats")["spec"]["template"]
    volume = next(item for item in pod["spec"]["volumes"] if item["name"] == "config")
    names = [source["configMap"] for source in volume["projected"]["sources"]]
    settings = OperatorSettings.from_environment(variables(operator(rendered)))
    assert names == [{"name": "kubevo-nats"}, {"name": settings.broker_config}]
    key, _, value = settings.nats_pods.partition("=")
    assert pod["metadata"]["labels"][key] == value


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: path.stem)
def test_another_version_keeps_what_cannot_change(helm, tmp_path, example):
    copy = tmp_path / "kubevo"
    subprocess.run(["cp", "-r", CHART, copy], check=True)
    text = (copy / "Chart.yaml").read_text()
    (copy / "Chart.yaml").write_text(re.sub(r"(?m)^((?:appV|v)ersion): .*", r"\1: 9.8.7", text))
    before = helm.template("--values", example)
    after = helm.template("--values", example, values={"operator.image.tag": "new"}, chart=copy)

    def names(documents):
        return sorted((item["kind"], item["metadata"]["name"]) for item in documents)

    assert names(before) == names(after)
    for item in before:
        now = next(
            other
            for other in after.kind(item["kind"])
            if other["metadata"]["name"] == item["metadata"]["name"]
            and other["metadata"].get("namespace") == item["metadata"].get("namespace")
        )
        if item["kind"] in ("Deployment", "StatefulSet", "PodDisruptionBudget"):
            assert now["spec"]["selector"] == item["spec"]["selector"]
        if item["kind"] == "StatefulSet":
            for field in ("serviceName", "volumeClaimTemplates", "podManagementPolicy"):
                assert now["spec"][field] == item["spec"][field]
        if item["kind"] in ("PersistentVolumeClaim", "Service"):
            assert now["spec"] == item["spec"]
        if item["kind"].endswith("Binding"):
            assert now["roleRef"] == item["roleRef"]


def test_the_operators_volume_survives_and_one_replica_ends_before_the_next(rendered, helm):
    claim = rendered.one("PersistentVolumeClaim", "kubevo-data")
    assert claim["metadata"]["annotations"]["helm.sh/resource-policy"] == "keep"
    spec = rendered.one("Deployment", "kubevo-operator")["spec"]
    assert spec["strategy"] == {"type": "Recreate"}
    given = helm.template(values={"operator.persistence.existingClaim": "mine"})
    assert not given.kind("PersistentVolumeClaim")
    volumes = given.one("Deployment", "kubevo-operator")["spec"]["template"]["spec"]["volumes"]
    assert {"name": "data", "persistentVolumeClaim": {"claimName": "mine"}} in volumes


def test_monitors_keep_the_experiments_namespace_and_the_alerts_are_the_files(everything):
    monitor = everything.one("PodMonitor", "kubevo")["spec"]
    assert [each["port"] for each in monitor["podMetricsEndpoints"]] == ["metrics", "api"]
    assert all(each["honorLabels"] for each in monitor["podMetricsEndpoints"])
    assert all(
        each["honorLabels"]
        for each in everything.one("ServiceMonitor", "kubevo")["spec"]["endpoints"]
    )
    rule = everything.one("PrometheusRule", "kubevo")
    assert rule["spec"] == yaml.safe_load(rendered_alerts())
    dashboard = everything.one("ConfigMap", "kubevo-dashboard")
    assert dashboard["metadata"]["labels"]["grafana_dashboard"] == "1"
    text = (CHART / "files/dashboard.json").read_text()
    assert json.loads(dashboard["data"]["kubevo.json"]) == json.loads(text)


def test_kinds_that_the_cluster_lacks_are_left_out(helm):
    rendered = helm.template(values={"metrics.podMonitor.enabled": True})
    assert not rendered.kind("PodMonitor")


def test_every_workload_takes_what_people_add(helm):
    added = {
        "podAnnotations": {"a": "b"},
        "podLabels": {"c": "d"},
        "nodeSelector": {"e": "f"},
        "tolerations": [{"key": "g", "operator": "Exists"}],
        "affinity": {"nodeAffinity": {}},
        "topologySpreadConstraints": [
            {"maxSkew": 1, "topologyKey": "h", "whenUnsatisfiable": "DoNotSchedule"}
        ],
        "extraEnv": [{"name": "I", "value": "j"}],
        "extraVolumes": [{"name": "k", "emptyDir": {}}],
        "extraVolumeMounts": [{"name": "k", "mountPath": "/k"}],
        "extraContainers": [{"name": "l", "image": "m"}],
        "terminationGracePeriodSeconds": 77,
        "resources": {"limits": {"memory": "7Gi"}},
    }
    values = {
        f"{part}.{key}": value for part in ("operator", "nats") for key, value in added.items()
    }
    values |= {"imagePullSecrets": [{"name": "n"}], "priorityClass.name": "o"}
    values |= {"commonLabels": {"p": "q"}, "commonAnnotations": {"r": "s"}}
    rendered = helm.template(values=values)
    for item in rendered:
        assert item["metadata"]["labels"]["p"] == "q"
        assert item["metadata"]["annotations"]["r"] == "s"
    for kind, name in (("Deployment", "kubevo-operator"), ("StatefulSet", "kubevo-nats")):
        pod = rendered.one(kind, name)["spec"]["template"]
        assert pod["metadata"]["annotations"]["a"] == "b"
        assert pod["metadata"]["labels"]["c"] == "d"
        spec = pod["spec"]
        for field in ("nodeSelector", "tolerations", "affinity", "terminationGracePeriodSeconds"):
            assert spec[field] == added[field]
        spread = spec["topologySpreadConstraints"][0]
        assert set(spread["labelSelector"]["matchLabels"]) == SELECTING
        assert spec["imagePullSecrets"] == [{"name": "n"}]
        assert spec["priorityClassName"] == "o"
        first = spec["containers"][0]
        assert {"name": "I", "value": "j"} in first["env"]
        assert {"name": "k", "mountPath": "/k"} in first["volumeMounts"]
        assert {"name": "k", "emptyDir": {}} in spec["volumes"]
        assert spec["containers"][-1]["name"] == "l"
        assert first["resources"]["limits"] == {"memory": "7Gi"}


def test_an_image_is_named_by_registry_tag_or_digest(helm):
    digest = "sha256:" + "0" * 64
    values = {
        "operator.image": {"registry": "r.example.com/", "repository": "x/y", "tag": "t"},
        "nats.image": {"repository": "nats", "tag": "ignored", "digest": digest},
    }
    images = {container["image"] for _, container in containers(helm.template(values=values))}
    assert images == {"r.example.com/x/y:t", f"nats@{digest}"}


def test_the_hooks_leave_nothing_of_themselves_but_the_tests_log(everything):
    hooks = [
        item for item in everything if "helm.sh/hook" in item["metadata"].get("annotations", {})
    ]
    assert {item["metadata"]["annotations"]["helm.sh/hook"] for item in hooks} == {
        "test",
        "pre-delete",
    }
    for item in hooks:
        policy = set(item["metadata"]["annotations"]["helm.sh/hook-delete-policy"].split(","))
        is_log = (item["kind"], item["metadata"]["name"]) == ("Pod", "kubevo-test")
        assert "before-hook-creation" in policy
        assert ("hook-succeeded" in policy) is not is_log


def test_a_long_release_name_still_gives_legal_names(helm):
    name = "a" * 53
    names = [item["metadata"]["name"] for item in documents(helm("template", name, CHART))]
    assert all(len(each) <= 63 for each in names)


def test_a_field_of_the_security_context_is_left_to_a_cluster_that_chooses_it(helm):
    nothing = {
        f"podSecurityContext.{name}": None for name in ("runAsUser", "runAsGroup", "fsGroup")
    }
    for name, pod in helm.template(values=nothing).pods():
        assert pod["spec"]["securityContext"] == {
            "runAsNonRoot": True,
            "fsGroupChangePolicy": "OnRootMismatch",
            "seccompProfile": {"type": "RuntimeDefault"},
        }, name


def test_the_same_values_always_give_the_same_documents(helm):
    command = ("template", "kubevo", CHART, "--namespace", NAMESPACE)
    assert helm(*command) == helm(*command)
