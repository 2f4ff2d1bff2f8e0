"""The service keeps what its OpenAPI document promises, whatever it is asked (schemathesis)."""

import http.client
import json
import warnings

import pytest
from api_parts import TOKEN, Access, Catalogue, entry
from hypothesis import HealthCheck, Phase, given, settings

from kubevo_api.settings import ApiSettings

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # what its own dependencies say when they are imported
    import schemathesis
    from schemathesis.specs.openapi.checks import positive_data_acceptance

EXAMPLES = 25
# What a schema cannot say: a selector's grammar, a page's token, which generations there are.
BEYOND = [positive_data_acceptance]
DOCUMENT = "/api/v1/openapi.json"


@pytest.fixture(scope="module")
def served_run(serve_once, tmp_path_factory, make_run_in):
    """Serve a finished run called ``a`` in ``local``, so that some guesses are right."""
    root = tmp_path_factory.mktemp("contract")
    make_run_in(root / "data", "a", repeats=2)
    return serve_once(root / "data")


@pytest.fixture(scope="module")
def served_cluster(serve_here, tmp_path_factory, make_run_in):
    """Serve the same run, and one that goes on, as a cluster's, to one who may do everything in ``a``."""
    root = tmp_path_factory.mktemp("contract-of-a-cluster")
    run = make_run_in(root / "data", "a", repeats=2)
    catalogue, access = Catalogue(), Access()
    catalogue.index.put(entry("a", "a", run.path, status={"progress": {"generation": 2}}))
    catalogue.index.put(entry("b", "b", run.path))
    access.rights = {TOKEN: {"a": ("get", "list", "watch", "patch")}}
    places = ApiSettings(data=root / "data", api_cache=root / "cache")
    with serve_here(places, catalogue, access) as served:
        yield served


@pytest.mark.parametrize("mode", ["local", "cluster"])
def test_every_answer_is_as_promised(request, mode):
    served = request.getfixturevalue("served_run" if mode == "local" else "served_cluster")
    authorization = {"Authorization": f"Bearer {served.token}"}
    schema = schemathesis.openapi.from_url(f"{served.url}{DOCUMENT}", headers=authorization)
    count = 0
    # An event stream does not end; its own tests read it.
    for found in schema.exclude(path_regex="events$").get_all_operations():

        @settings(
            max_examples=EXAMPLES,
            deadline=None,
            phases=[Phase.explicit, Phase.generate],
            derandomize=True,
            database=None,
            suppress_health_check=list(HealthCheck),
        )
        @given(case=found.ok().as_strategy())
        def check(case):
            case.call_and_validate(headers=authorization, excluded_checks=BEYOND)

        check()
        count += 1
    assert count > 25


def test_every_operation_says_what_it_answers(served_run):
    connection = http.client.HTTPConnection(served_run.host, served_run.port, timeout=10)
    connection.request("GET", DOCUMENT)
    document = json.loads(connection.getresponse().read())
    connection.close()
    operations = [
        (path, operation)
        for path, methods in document["paths"].items()
        for operation in methods.values()
    ]
    assert len(operations) > 25
    for path, operation in operations:
        assert operation["summary"], path
        if path.startswith("/api/"):
            assert "401" in operation["responses"], path
            assert operation["security"], path
    assert "Problem" in document["components"]["schemas"]
