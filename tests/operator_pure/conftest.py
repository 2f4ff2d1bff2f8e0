"""Builders for the operator's pure parts: an Experiment's spec, an owner, what all share."""

from collections.abc import Callable
from typing import Any

import pytest

from kubevo_core import spec as specs
from kubevo_core.spec import ExperimentSpec
from kubevo_operator.manifests import Defaults, Owner

OWNER = Owner("lab", "cartpole", "1a2b3c4d-0000-4000-8000-000000000000")


def make_spec(**blocks: Any) -> ExperimentSpec:
    """Return a small valid spec with some of its blocks as given."""
    document = {
        "environment": {"id": "CartPole-v1"},
        "policy": {"network": "mlp"},
        "algorithm": {"geneticAlgorithm": {}},
        "budget": {"maxGenerations": 3},
    }
    return specs.parse(
        {
            "apiVersion": specs.API_VERSION,
            "kind": "Experiment",
            "metadata": {"name": OWNER.name},
            "spec": document | blocks,
        },
        "test",
    ).spec


@pytest.fixture
def spec_of() -> Callable[..., ExperimentSpec]:
    return make_spec


@pytest.fixture
def owner() -> Owner:
    return OWNER


@pytest.fixture
def defaults() -> Defaults:
    return Defaults(image="registry.test/evaluator:1", nats_url="nats://broker:4222")
