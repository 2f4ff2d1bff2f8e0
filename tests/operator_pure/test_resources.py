"""Quantities, and a pod's resources shared out among its processes."""

from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kubevo_core.spec import Evaluator
from kubevo_operator.resources import processes_per_pod, quantity, shares


def evaluator(**fields):
    return Evaluator.model_validate(fields)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("2", 2),
        ("500m", Fraction(1, 2)),
        ("1.5", Fraction(3, 2)),
        ("1Gi", 2**30),
        ("1.5Gi", 3 * 2**29),
        ("1k", 1000),
        ("1G", 10**9),
        ("1E", 10**18),
        ("1E3", 1000),
        ("2e3", 2000),
        ("100n", Fraction(1, 10**7)),
    ],
)
def test_a_quantity_is_read_exactly(text, value):
    assert quantity(text) == value


@pytest.mark.parametrize(
    ("fields", "processes"),
    [
        ({}, 1),
        ({"resources": {"limits": {"cpu": "4"}}}, 4),
        ({"resources": {"limits": {"cpu": "3900m"}}}, 3),
        ({"resources": {"limits": {"cpu": "500m"}}}, 1),
        ({"resources": {"requests": {"cpu": "8"}}}, 1),
        ({"resources": {"limits": {"cpu": "4"}}, "processesPerPod": 2}, 2),
    ],
)
def test_a_pod_has_a_process_for_each_whole_cpu_of_its_limit(fields, processes):
    assert processes_per_pod(evaluator(**fields)) == processes


def test_without_a_word_each_process_has_the_default():
    made = shares(evaluator(), 3)
    assert made[2] == {"requests": {"cpu": "1", "memory": "512Mi"}, "limits": {"memory": "1Gi"}}


def test_one_process_has_what_the_spec_says_verbatim():
    resources = {"requests": {"cpu": "0.5"}, "limits": {"nvidia.com/gpu": "1"}}
    assert shares(evaluator(resources=resources), 1) == [resources]


def test_a_device_that_cannot_be_divided_goes_to_the_first():
    resources = {"limits": {"nvidia.com/gpu": "1", "cpu": "2"}}
    assert shares(evaluator(resources=resources), 2) == [
        {"limits": {"nvidia.com/gpu": "1", "cpu": "1000m"}},
        {"limits": {"cpu": "1000m"}},
    ]


@given(milli=st.integers(1, 200_000), mebi=st.integers(1, 10**6), processes=st.integers(1, 64))
def test_the_shares_add_up_to_the_pod(milli, mebi, processes):
    resources = {"requests": {"cpu": f"{milli}m", "memory": f"{mebi}Mi"}}
    made = [
        share.get("requests", {}) for share in shares(evaluator(resources=resources), processes)
    ]
    assert sum(quantity(r.get("cpu", "0")) for r in made) == Fraction(milli, 1000)
    assert sum(quantity(r.get("memory", "0")) for r in made) == mebi * 2**20
