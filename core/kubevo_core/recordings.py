"""Recordings of elites: which generations get one, and what an evaluator answers.

A recording is an episode like any other, with a purpose and a seed of its own; what comes back is a
video, which travels in parts beside the answer::

    answer    {"v":1, "object":"<32 hex>", "bytes":…, "sha256":"<64 hex>", "pictures":…,
               "failure":null, "worker":"…"}
              or, without a video, "object":null and why in "failure"

The engine knows nothing of recordings, so they cannot change a search.
"""

import json
from dataclasses import dataclass

from kubevo_core.errors import MessageError
from kubevo_core.evaluation import Demand, Key
from kubevo_core.genome import Genome
from kubevo_core.seeding import Purpose, derive

__all__ = [
    "MOST_BYTES",
    "MOST_DELIVERIES",
    "MOST_KEPT",
    "MOST_SECONDS",
    "PART_BYTES",
    "Answer",
    "Video",
    "decode_answer",
    "demand",
    "encode_answer",
    "is_due",
]

VERSION = 1
# Of one video: its length when it is played, and its file.
MOST_SECONDS = 180
MOST_BYTES = 16 << 20
PART_BYTES = 128 << 10
# Videos of one repeat.
MOST_KEPT = 20
# A recording that so many workers took and died with, or gave back, is given up; less than what a local
# run allows to any task, so that the worker can say so.
MOST_DELIVERIES = 3


@dataclass(frozen=True, slots=True)
class Video:
    """A video in parts: the name they have in common, their length together, and its sha256."""

    object: str
    size: int
    sha256: str
    pictures: int


@dataclass(frozen=True, slots=True)
class Answer:
    """What became of a recording: the video, or why there is none."""

    video: Video | None
    failure: str | None
    worker: str


def is_due(generation: int, every_generations: int) -> bool:
    """Tell whether a generation's elite is recorded; 0 records none."""
    return every_generations > 0 and (generation + 1) % every_generations == 0


def demand(seed: int, repeat: int, generation: int, genome: Genome) -> Demand:
    """Return the episode to record; ``seed`` is the Experiment's."""
    key = Key(repeat, generation, Purpose.RECORD, 0, genome.digest, 0)
    return Demand(key, genome, None, derive(seed, Purpose.RECORD, repeat, generation))


def encode_answer(answer: Answer) -> bytes:
    """Return an answer's bytes."""
    video = answer.video
    document = {
        "v": VERSION,
        "object": video.object if video else None,
        "bytes": video.size if video else 0,
        "sha256": video.sha256 if video else None,
        "pictures": video.pictures if video else 0,
        "failure": answer.failure,
        "worker": answer.worker,
    }
    return json.dumps(document, separators=(",", ":"), ensure_ascii=False).encode()


def decode_answer(body: bytes) -> Answer:
    """Read an answer.

    Raises:
        MessageError: not one of this version, or a video outside its limits.
    """
    try:
        document = json.loads(body)
        if document["v"] != VERSION:
            raise ValueError(f"expected version {VERSION}, got {document['v']!r}")
        if document["object"] is None:
            return Answer(None, str(document["failure"]), str(document["worker"]))
        video = Video(
            _hexadecimal(document["object"], 32),
            int(document["bytes"]),
            _hexadecimal(document["sha256"], 64),
            int(document["pictures"]),
        )
        if not 0 < video.size <= MOST_BYTES:
            raise ValueError(f"expected 1 to {MOST_BYTES} bytes, got {video.size}")
        return Answer(video, None, str(document["worker"]))
    except (KeyError, TypeError, ValueError) as exc:
        raise MessageError(
            f"the answer to a recording cannot be read: {type(exc).__name__}: {exc}; an evaluator "
            "of another version gave it, perhaps: use the same image"
        ) from exc


def _hexadecimal(text: object, length: int) -> str:
    # It becomes a part of a subject, where a dot or a star would mean something else.
    if not isinstance(text, str) or len(text) != length or set(text) - set("0123456789abcdef"):
        raise ValueError(f"expected {length} hexadecimal digits, got {str(text)[:80]!r}")
    return text
