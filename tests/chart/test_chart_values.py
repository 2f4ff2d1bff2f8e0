"""The values: described, held by the schema, and refused with their path when they are wrong."""

import json
import runpy

import pytest
import yaml
from helm_of_tests import CHART, ROOT

generate = runpy.run_path(str(ROOT / "charts/generate.py"))
VALUES = (CHART / "values.yaml").read_text()
SCHEMA = json.loads((CHART / "values.schema.json").read_text())
# Objects whose keys are a person's, or Kubernetes'.
FREE = {"strings", "resources", "affinity"}


def leaves(value, path=()):
    if isinstance(value, dict) and value and ".".join(path) in OWNED:
        for name, item in value.items():
            yield from leaves(item, (*path, name))
    else:
        yield ".".join(path)


def owned(schema, path=()):
    """Yield the paths of the objects whose fields are the chart's."""
    if "properties" in schema:
        yield ".".join(path)
        for name, part in schema["properties"].items():
            yield from owned(part, (*path, name))


OWNED = set(owned(SCHEMA))


def part(path):
    found = SCHEMA
    for name in path.split("."):
        found = found["properties"][name]
    return found


@pytest.mark.parametrize("name", sorted(generate["files"](ROOT)))
def test_a_generated_file_of_the_chart_is_current(name):
    text = generate["files"](ROOT)[name]()
    assert (ROOT / name).read_text() == text, "stale: run make chart"


def test_every_value_has_a_description_and_a_place_in_the_schema():
    described = {value.path: value.description for value in generate["values"](VALUES)}
    assert set(described) == set(leaves(yaml.safe_load(VALUES)))
    for path, description in described.items():
        assert part(path)["description"] == description
        assert description.endswith("."), path


def test_the_schema_has_no_value_that_the_chart_has_not():
    def paths(schema, path=()):
        if "properties" in schema:
            for name, item in schema["properties"].items():
                yield from paths(item, (*path, name))
        else:
            yield ".".join(path)

    assert set(paths(SCHEMA)) - {"global"} == set(leaves(yaml.safe_load(VALUES)))


def test_every_object_of_ours_refuses_unknown_fields():
    for path in OWNED:
        found = part(path) if path else SCHEMA
        assert found["additionalProperties"] is False, path


def test_every_definition_is_used():
    text = json.dumps(SCHEMA)
    for name in SCHEMA["definitions"]:
        assert f'"#/definitions/{name}"' in text


@pytest.mark.parametrize(
    ("value", "path"),
    [
        ("operator.replica=2", "/operator"),
        ("operator.replicas=0", "/operator/replicas"),
        ("operator.replicas=two", "/operator/replicas"),
        ("operator.image.pullPolicy=always", "/operator/image/pullPolicy"),
        ("operator.image.digest=sha256:12", "/operator/image/digest"),
        ("operator.log.level=LOUD", "/operator/log/level"),
        ("operator.persistence.size=lots", "/operator/persistence/size"),
        ("operator.persistence.accessModes[0]=ReadOnlyMany", "/operator/persistence/accessModes/0"),
        ("operator.resources.limits.memory=1 Gi", "/operator/resources/limits/memory"),
        ("operator.resources.limit.memory=1Gi", "/operator/resources"),
        ("operator.statusSeconds=-1", "/operator/statusSeconds"),
        ("operator.tolerations.key=x", "/operator/tolerations"),
        ("api.service.port=70000", "/api/service/port"),
        ("api.service.type=External", "/api/service/type"),
        ("evaluator.ackWaitSeconds=0", "/evaluator/ackWaitSeconds"),
        ("nats.jetstream.maxFileStore=8 GB", "/nats/jetstream/maxFileStore"),
        ("nats.persistence.whenDeleted=Keep", "/nats/persistence/whenDeleted"),
        ("nats.external.url=nats://user:password@host:4222", "/nats/external/url"),
        ("nats.external.url=host:4222", "/nats/external/url"),
        ("watchNamespaces[0]=Team_A", "/watchNamespaces/0"),
        ("networkPolicy.apiServer.ports[0]=0", "/networkPolicy/apiServer/ports/0"),
        ("metrics.podMonitor.interval=often", "/metrics/podMonitor/interval"),
        ("tests.timeoutSeconds=1", "/tests/timeoutSeconds"),
        ("priorityClass.value=2000000001", "/priorityClass/value"),
        ("nonsense=1", "'nonsense'"),
    ],
)
def test_a_wrong_value_is_refused_with_its_path(helm, value, path):
    done = helm.run("template", "kubevo", CHART, "--set", value)
    assert done.returncode != 0
    assert path in done.stderr


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (["operator.replicas=2"], "operator.replicas: expected 1, or operator.persistence.access"),
        (["nats.enabled=false"], "nats.external.url: expected the broker's address"),
        (["nats.external.url=nats://x"], "nats.external.url: expected nothing while nats.enabled"),
        (
            ["nats.enabled=false", "nats.external.url=nats://x"],
            "nats.external: expected the name of one of credentialsSecret, tokenSecret, account",
        ),
        (["operator.lease.renewSeconds=20"], "operator.lease: expected retrySeconds < renewSecon"),
        (["tests.namespace=x", "watchNamespaces={a}"], "tests.namespace: expected one of watchN"),
        (["api.enabled=false", "api.ingress.enabled=true"], "api.ingress.enabled: expected api.en"),
        (["api.httpRoute.enabled=true"], "api.httpRoute: expected api.enabled and the Gateways"),
    ],
)
def test_values_that_do_not_fit_together_are_refused_with_what_would(helm, values, message):
    arguments = [part for value in values for part in ("--set", value)]
    done = helm.run("template", "kubevo", CHART, *arguments)
    assert done.returncode != 0
    assert message in done.stderr
