"""The service keeps what its OpenAPI document promises, whatever it is asked (schemathesis)."""

import http.client
import json
import warnings

import pytest
from hypothesis import HealthCheck, Phase, given, settings

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
def schema(served_run):
    loaded = schemathesis.openapi.from_url(
        f"{served_run.url}{DOCUMENT}", headers={"Authorization": f"Bearer {served_run.token}"}
    )
    # An event stream does not end; its own tests read it.
    return loaded.exclude(path_regex="events$")


def test_every_answer_is_as_promised(schema, served_run):
    authorization = {"Authorization": f"Bearer {served_run.token}"}
    count = 0
    for found in schema.get_all_operations():

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
