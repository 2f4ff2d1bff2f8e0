"""When a recording is due, what is asked for, and what an answer may say."""

import json

import pytest

from kubevo_core import names
from kubevo_core.errors import MessageError
from kubevo_core.genome import Genome
from kubevo_core.messages import decode_task, encode_task, task_of
from kubevo_core.recordings import (
    MOST_BYTES,
    Answer,
    Video,
    decode_answer,
    demand,
    encode_answer,
    is_due,
)
from kubevo_core.seeding import Purpose, derive

GENOME = Genome("mlp-4-16-2", 7)
VIDEO = Video("0a" * 16, 1234, "0b" * 32, 56)


def test_every_so_many_generations_are_due_and_none_without_it():
    assert [g for g in range(10) if is_due(g, 3)] == [2, 5, 8]
    assert [g for g in range(3) if is_due(g, 1)] == [0, 1, 2]
    assert not any(is_due(g, 0) for g in range(10))


def test_a_recording_has_a_seed_and_a_subject_of_its_own():
    wanted = demand(5, 1, 8, GENOME)
    assert wanted.episode_seed == derive(5, Purpose.RECORD, 1, 8)
    assert wanted.mutation is None
    subject = names.record_subject(wanted.key)
    assert subject == f"record.r1.g8.record.s0.{GENOME.digest[:16]}.e0"
    task = decode_task(encode_task(task_of(wanted, "0" * 16)))
    assert task.key.purpose is Purpose.RECORD


@pytest.mark.parametrize("answer", [Answer(VIDEO, None, "w"), Answer(None, "no ffmpeg", "w")])
def test_an_answer_comes_back(answer):
    assert decode_answer(encode_answer(answer)) == answer


@pytest.mark.parametrize(
    "changes",
    [
        {"v": 2},
        {"object": "a.b"},
        {"object": "*" * 32},
        {"object": 5},
        {"sha256": None},
        {"bytes": 0},
        {"bytes": MOST_BYTES + 1},
        {"bytes": "many"},
        {"pictures": None},
    ],
)
def test_an_answer_outside_its_form_is_refused(changes):
    document = {**json.loads(encode_answer(Answer(VIDEO, None, "w"))), **changes}
    with pytest.raises(MessageError, match="the answer to a recording cannot be read"):
        decode_answer(json.dumps(document).encode())


@pytest.mark.parametrize("body", [b"", b"[]", b"5", b"{}", b"\xff", b'{"v":1}'])
def test_what_is_no_answer_is_refused(body):
    with pytest.raises(MessageError):
        decode_answer(body)
