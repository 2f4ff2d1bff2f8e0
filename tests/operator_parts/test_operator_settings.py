"""The operator's settings: what the environment may say, and what a wrong one is answered."""

from pathlib import Path

import pytest

from kubevo_core.errors import UserError
from kubevo_operator.settings import _KINDS, OperatorSettings

LEAST = {
    "KUBEVO_NATS_URL": "nats://nats:4222",
    "KUBEVO_DATA": "/data",
    "KUBEVO_EVALUATOR_IMAGE": "kubevo-evaluator:1",
}


def read(**more: str) -> OperatorSettings:
    return OperatorSettings.from_environment({**LEAST, **more})


def test_the_least_is_broker_volume_and_image():
    settings = read()
    assert (settings.nats_url, settings.data) == ("nats://nats:4222", Path("/data"))
    assert settings.namespaces == ()
    assert settings.rules_broker


def test_what_is_missing_is_named_all_at_once():
    with pytest.raises(UserError) as caught:
        OperatorSettings.from_environment({"KUBEVO_DATA": " "})
    for name in LEAST:
        assert f"{name} is missing" in str(caught.value)


def test_every_field_can_be_set():
    assert set(_KINDS) == set(OperatorSettings.__dataclass_fields__)


def test_lists_are_comma_separated():
    assert read(KUBEVO_NAMESPACES="a, b,,").namespaces == ("a", "b")


@pytest.mark.parametrize(
    ("name", "value", "wanted"),
    [
        ("KUBEVO_HTTP_PORT", "eighty", "port from 0 to 65535"),
        ("KUBEVO_HTTP_PORT", "70000", "port from 0 to 65535"),
        ("KUBEVO_NETWORK_POLICIES", "yes", "true or false"),
        ("KUBEVO_STATUS_SECONDS", "-1", "seconds above 0"),
        ("KUBEVO_STATUS_SECONDS", "nan", "seconds above 0"),
        ("KUBEVO_LOG_FORMAT", "xml", "json or console"),
        ("KUBEVO_LOG_LEVEL", "loud", "DEBUG, INFO, WARNING or ERROR"),
    ],
)
def test_a_wrong_value_is_answered_with_what_was_expected(name, value, wanted):
    with pytest.raises(UserError) as caught:
        read(**{name: value})
    assert name in str(caught.value)
    assert wanted in str(caught.value)
    assert repr(value) in str(caught.value)


def test_the_lease_must_outlast_its_renewal():
    with pytest.raises(UserError, match="KUBEVO_RENEW_SECONDS"):
        read(KUBEVO_LEASE_SECONDS="5", KUBEVO_RENEW_SECONDS="6")


@pytest.mark.parametrize("other", ["KUBEVO_NATS_CREDENTIALS", "KUBEVO_NATS_ACCOUNT_SEED"])
def test_two_ways_to_reach_the_broker_are_one_too_many(other):
    with pytest.raises(UserError, match=f"set one of .*{other}"):
        read(**{"KUBEVO_NATS_TOKEN": "secret", other: "/file"})


def test_with_an_accounts_seed_the_users_are_made_here():
    assert read(KUBEVO_NATS_ACCOUNT_SEED="/seed").rules_broker


def test_a_foreign_broker_is_not_ruled_and_its_token_not_shown():
    settings = read(KUBEVO_NATS_TOKEN="hush-hush")
    assert not settings.rules_broker
    assert "hush-hush" not in repr(settings)
