"""Label selectors."""

import pytest

from kubevo_api.labels import matches, parse_selector
from kubevo_core.errors import UserError

LABELS = {"team": "vision", "kubevo.dev/tier": "gold", "empty": ""}


@pytest.mark.parametrize(
    ("text", "fits"),
    [
        ("", True),
        ("team=vision", True),
        ("team==vision", True),
        ("team=sound", False),
        ("team!=sound", True),
        ("team!=vision", False),
        ("other!=x", True),
        ("team", True),
        ("other", False),
        ("!other", True),
        ("!team", False),
        ("kubevo.dev/tier=gold,team=vision", True),
        ("kubevo.dev/tier=gold,team=sound", False),
        ("team in (sound, vision)", True),
        ("team notin (sound)", True),
        ("team notin (sound,vision)", False),
        ("empty=", True),
    ],
)
def test_a_selector_means_what_kubectl_means_by_it(text, fits):
    assert matches(parse_selector(text), LABELS) is fits


@pytest.mark.parametrize("text", ["=x", "a=b=c", "a in x", "!a=b", "a b", ",", "a=$", "ä=b"])
def test_what_is_no_selector_is_refused_with_an_example(text):
    with pytest.raises(UserError, match="expected such as"):
        parse_selector(text)
