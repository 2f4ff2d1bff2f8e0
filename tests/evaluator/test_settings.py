"""A worker's settings from its environment."""

from pathlib import Path

import pytest

from kubevo_core.errors import UserError
from kubevo_evaluator.settings import Settings

NEEDED = {"KUBEVO_NATS_URL": "nats://h:4222", "KUBEVO_EXPERIMENT_ID": "x-1a2b3c4d"}


def test_the_rest_has_defaults():
    settings = Settings.from_environment(NEEDED)
    assert (settings.nats_url, settings.experiment) == ("nats://h:4222", "x-1a2b3c4d")
    assert settings.nats_token is settings.nats_credentials is settings.nats_tls_ca is None
    assert settings.worker


def test_files_are_read_as_paths_and_empty_ones_are_none():
    files = {
        "KUBEVO_NATS_CREDENTIALS": "/a/user.creds",
        "KUBEVO_NATS_TLS_CA": "/a/ca.crt",
        "KUBEVO_NATS_TLS_CERT": "/a/tls.crt",
        "KUBEVO_NATS_TLS_KEY": "/a/tls.key",
    }
    settings = Settings.from_environment({**NEEDED, **files, "KUBEVO_NATS_TOKEN": ""})
    assert settings.nats_credentials == Path("/a/user.creds")
    assert settings.nats_tls_ca == Path("/a/ca.crt")
    assert settings.nats_tls_cert == Path("/a/tls.crt")
    assert settings.nats_tls_key == Path("/a/tls.key")
    assert settings.nats_token is None
    empty = Settings.from_environment({**NEEDED, **dict.fromkeys(files, "")})
    assert empty.nats_credentials is empty.nats_tls_cert is None


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"KUBEVO_NATS_URL": ""}, "needs KUBEVO_NATS_URL in its environment"),
        ({"KUBEVO_NATS_TOKEN": "hidden", "KUBEVO_NATS_CREDENTIALS": "/a"}, "not both"),
        ({"KUBEVO_NATS_TLS_CERT": "/a"}, "KUBEVO_NATS_TLS_KEY belong together"),
        ({"KUBEVO_NATS_TLS_KEY": "/a"}, "KUBEVO_NATS_TLS_KEY belong together"),
        ({"KUBEVO_GRACE_SECONDS": "soon"}, "a worker's settings: .*'soon'"),
    ],
)
def test_what_is_missing_or_contradicts_is_refused(changes, problem):
    with pytest.raises(UserError, match=problem) as refused:
        Settings.from_environment({**NEEDED, **changes})
    assert "hidden" not in str(refused.value)


def test_a_token_is_not_shown():
    settings = Settings.from_environment({**NEEDED, "KUBEVO_NATS_TOKEN": "hidden"})
    assert settings.nats_token == "hidden"
    assert "hidden" not in repr(settings)
