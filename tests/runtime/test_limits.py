"""The streams' limits: what a search needs always fits, and small searches claim little."""

from dataclasses import fields
from itertools import pairwise

import pytest

from kubevo_core.messages import FailureReport, encode_failure
from kubevo_runtime.bus import BusSettings
from kubevo_runtime.limits import (
    FAILURE_TEXT_BYTES,
    LONGEST_KEY,
    MOST_BLOB_BYTES,
    MOST_FAILURE_BYTES,
    MOST_TASK_BYTES,
    StreamLimits,
    _result_bytes,
    stream_limits,
)

SMALLEST = 16 << 20


@pytest.fixture
def limits_of(make_experiment):
    def of(repeats=1, **changes) -> StreamLimits:
        block = {"populationSize": 6, "parents": 3, "eliteCandidates": 3, "eliteEpisodes": 2}
        algorithm = {"type": "GeneticAlgorithm", "geneticAlgorithm": {**block, **changes}}
        return stream_limits(make_experiment(repeats=repeats, algorithm=algorithm).spec)

    return of


def test_a_small_search_claims_the_least_of_everything(limits_of):
    assert limits_of() == (SMALLEST, SMALLEST, SMALLEST, SMALLEST)


def test_the_papers_search_claims_less_than_a_hundred_mebibytes(limits_of):
    limits = limits_of(populationSize=1000, parents=20, eliteCandidates=10, eliteEpisodes=30)
    assert sum(limits) < 100 << 20


@pytest.mark.parametrize("repeats", [1, 32])
@pytest.mark.parametrize("population", [1000, 100_000])
@pytest.mark.parametrize("episodes", [1, 2])
def test_results_have_room_for_two_generations_of_failures(
    limits_of, repeats, population, episodes
):
    limits = limits_of(repeats, populationSize=population, episodesPerEvaluation=episodes)
    assert limits.result_bytes >= 2 * repeats * population * episodes * _result_bytes()


@pytest.mark.parametrize("population", [1000, 100_000])
def test_what_can_wait_or_give_way_is_bounded(limits_of, population):
    limits = limits_of(32, populationSize=population, parents=population, eliteEpisodes=100)
    assert limits.task_bytes <= MOST_TASK_BYTES
    assert limits.failure_bytes <= MOST_FAILURE_BYTES
    assert limits.blob_bytes <= MOST_BLOB_BYTES


def test_more_work_never_lowers_a_limit(limits_of):
    sizes = [limits_of(populationSize=size, parents=min(size, 50)) for size in (10, 10**3, 10**5)]
    for smaller, larger in pairwise(sizes):
        assert all(one <= other for one, other in zip(smaller, larger, strict=True))


def test_an_evaluators_longest_failure_fits():
    from kubevo_evaluator.rollout import MESSAGE_LENGTH

    assert MESSAGE_LENGTH + 100 <= FAILURE_TEXT_BYTES
    report = FailureReport(LONGEST_KEY, "E" * 100, "x" * MESSAGE_LENGTH, 2**53, 2**53, "w" * 260)
    assert len(encode_failure(report)) < _result_bytes()


def test_limits_go_into_the_settings_and_nothing_else_changes():
    settings = BusSettings(url="nats://h", experiment="x", token="t")
    changed = StreamLimits(1, 2, 3, 4).applied_to(settings)
    different = {
        field.name
        for field in fields(BusSettings)
        if getattr(changed, field.name) != getattr(settings, field.name)
    }
    assert different == set(StreamLimits._fields)
