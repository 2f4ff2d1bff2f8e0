import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kubevo_core import messages, names
from kubevo_core.errors import MessageError
from kubevo_core.evaluation import Demand, Episode, Key
from kubevo_core.genome import Genome, Mutation
from kubevo_core.messages import (
    Context,
    DescribeAnswer,
    Description,
    FailureReport,
    ResultReport,
    task_of,
)
from kubevo_core.seeding import Purpose

digests = st.text("0123456789abcdef", min_size=64, max_size=64)
keys = st.builds(
    Key,
    st.integers(0, 31),
    st.integers(0, 10**7),
    st.sampled_from(Purpose),
    st.integers(0, 10**5),
    digests,
    st.integers(0, 10**4),
)
floats = st.floats(allow_nan=False, allow_infinity=False)
episodes = st.builds(
    Episode,
    keys,
    st.none() | floats,
    st.integers(0, 10**9),
    st.integers(0, 10**9),
    st.none() | st.text(max_size=50),
)
DESCRIPTION = Description("mlp-4-2", "numpy", "4 numbers", "2 actions", {"backend": "numpy"})


def demand(depth, *, mutated=True):
    mutations = tuple(Mutation(4294967295, "0.002") for _ in range(depth - mutated))
    base = Genome("large-dqn-18", 4294967295, mutations)
    mutation = Mutation(4294967295, "0.002") if mutated else None
    digest = (base.child(mutation) if mutation else base).digest
    return Demand(Key(0, depth, Purpose.POPULATION, 999, digest, 0), base, mutation, 4294967295)


@given(episodes, st.text(max_size=20))
def test_a_result_comes_back_bit_for_bit(episode, worker):
    report = ResultReport(episode, worker, "0123456789abcdef", {"play": 0.1})
    assert messages.decode_result(messages.encode_result(report)) == report


@given(
    keys,
    st.integers(0, 2**32 - 1),
    st.none() | st.builds(Mutation, st.integers(0, 99), st.just("0.1")),
)
def test_a_task_comes_back(key, seed, mutation):
    task = messages.Task(key, seed, "mlp-4-2", "ab" * 32, mutation, "c" * 16)
    assert messages.decode_task(messages.encode_task(task)) == task


@given(keys, st.text(max_size=30))
def test_a_failure_report_comes_back(key, text):
    report = FailureReport(key, "ValueError", text, 3, 2, "w")
    assert messages.decode_failure(messages.encode_failure(report)) == report


def test_descriptions_and_contexts_come_back():
    for answer in (DescribeAnswer(DESCRIPTION, None), DescribeAnswer(None, "unknown game")):
        assert messages.decode_describe_answer(messages.encode_describe_answer(answer)) == answer
    context = Context({"id": "CartPole-v1"}, {"network": "mlp"}, 60, DESCRIPTION)
    assert Context.decode(context.encode()) == context
    assert messages.decode_task(messages.encode_describe_task(context.digest)) == context.digest


def test_a_task_keeps_its_size_at_any_lineage_depth():
    sizes = [len(messages.encode_task(task_of(demand(d), "c" * 16))) for d in (1, 10, 100, 1000)]
    assert max(sizes) <= 400
    assert max(sizes) / min(sizes) <= 1.1


def test_generation_zero_travels_as_a_seed_and_everybody_else_by_a_base():
    assert task_of(demand(0, mutated=False), "c").base == 4294967295
    assert task_of(demand(1), "c").base == Genome("large-dqn-18", 4294967295).digest
    elite = demand(3, mutated=False)
    assert task_of(elite, "c").base == elite.base.digest == elite.key.digest


@pytest.mark.parametrize(
    "decode",
    [
        messages.decode_task,
        messages.decode_result,
        messages.decode_failure,
        messages.decode_describe_answer,
        Context.decode,
    ],
)
@pytest.mark.parametrize(
    "body", [b"", b"[]", b"{}", b"null", b"\xff", b'{"v":1,"genome":3}', b'{"v":1}']
)
def test_garbage_is_refused(decode, body):
    with pytest.raises(MessageError, match="cannot be read"):
        decode(body)


@pytest.mark.parametrize("decode", [messages.decode_task, messages.decode_result, Context.decode])
def test_a_newer_version_is_refused_by_name(decode):
    with pytest.raises(MessageError, match="has version 2, this program reads 1"):
        decode(b'{"v":2}')


def test_unknown_fields_are_ignored():
    report = ResultReport(Episode(demand(1).key, 1.5, 1, 4), "w", "c", {})
    document = json.loads(messages.encode_result(report))
    assert messages.decode_result(json.dumps({**document, "new": [1]}).encode()) == report


def test_non_finite_returns_never_travel():
    report = ResultReport(Episode(demand(1).key, float("nan"), 1, 4), "w", "c", {})
    with pytest.raises(ValueError, match="JSON"):
        messages.encode_result(report)


@given(keys, keys)
def test_subjects_tell_episodes_apart(one, other):
    same = names.episode_subject(one) == names.episode_subject(other)
    assert same == (
        one._replace(digest=one.digest[:16]) == other._replace(digest=other.digest[:16])
    )


@pytest.mark.parametrize("name", ["a", "my.run-1", "x" * 52])
def test_broker_names_hold_no_forbidden_character(name):
    identifier = names.experiment_id(name, "1a2b3c4d-5e6f")
    for made in (names.task_stream(identifier), names.bucket(identifier)):
        assert not set(made) & set(".*> /\\")
    assert names.run_folder(name, "1a2b3c4d-5e6f") == f"{name}-1a2b3c4d"
