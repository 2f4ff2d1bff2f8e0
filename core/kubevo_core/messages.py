"""What travels over the broker: small versioned JSON, the same size at any lineage depth.

::

    task      {"v":1, <key>, "episodeSeed":7, "network":"large-dqn-18", "context":"<16 hex>",
               "base":"<64 hex>" | <init seed>, "mutation":[11,"0.002"] | null}
    result    {"v":1, <key>, "return":21.0 | null, "steps":…, "frames":…, "failure":null | "…",
               "seconds":{"decode":…,"play":…}, "worker":"…", "context":"<16 hex>"}
    failure   {"v":1, <key>, "type":"ValueError", "message":"…", "frames":…, "worker":"…"}
    <key>     "repeat","generation","purpose","slot","genome","episode"
    describe  task {"v":1, "context":…};  answer {"v":1, "description":{…}} or {"v":1, "refused":"…"}

A base is the digest of a genome whose text lies in the bucket under that digest, or an init seed.
A *context* is what a worker must know besides the task (environment, policy, description); it lies
in the bucket under the first 16 digits of its sha256. Unknown fields are ignored, unknown versions
are refused.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from kubevo_core.errors import MessageError
from kubevo_core.evaluation import Demand, Episode, Key
from kubevo_core.genome import Mutation
from kubevo_core.seeding import Purpose

__all__ = [
    "Context",
    "DescribeAnswer",
    "Description",
    "FailureReport",
    "ResultReport",
    "Task",
    "decode_describe_answer",
    "decode_failure",
    "decode_result",
    "decode_task",
    "encode_describe_answer",
    "encode_failure",
    "encode_result",
    "encode_task",
    "task_of",
]

VERSION = 1


@dataclass(frozen=True)
class Description:
    """What only an evaluator knows about a spec; asked once, then pinned for the run's life.

    ``fingerprint`` maps what could change a result (backend, precision, forward, library versions,
    ROM md5) to its value here; a worker whose own differs refuses to work.
    """

    network: str
    backend: str
    observation: str
    actions: str
    fingerprint: dict[str, str]

    def document(self) -> dict[str, Any]:
        """Return the description as plain JSON values."""
        return dict(self.__dict__)


@dataclass(frozen=True)
class Context:
    """Environment, policy and description, as the plain documents of the spec."""

    environment: dict[str, Any]
    policy: dict[str, Any]
    task_timeout_seconds: int
    description: Description | None = None

    def encode(self) -> bytes:
        """Return the context's bytes; equal contexts give equal bytes."""
        document = {**self.__dict__, "v": VERSION}
        document["description"] = self.description.document() if self.description else None
        return _dump(document, sort=True)

    @property
    def digest(self) -> str:
        """First 16 hex digits of the sha256 of the context's bytes; its name in the bucket."""
        return hashlib.sha256(self.encode()).hexdigest()[:16]

    @staticmethod
    def decode(body: bytes) -> "Context":
        """Read a context.

        Raises:
            MessageError: not one of this version.
        """
        document = _load(body, "context")
        try:
            described = document["description"]
            return Context(
                document["environment"],
                document["policy"],
                int(document["task_timeout_seconds"]),
                _description(described) if described else None,
            )
        except (KeyError, TypeError, ValueError) as exc:
            raise _malformed("context", exc) from exc


@dataclass(frozen=True, slots=True)
class Task:
    """One episode to play. ``base`` is a genome digest, or an init seed of ``network``."""

    key: Key
    episode_seed: int
    network: str
    base: str | int
    mutation: Mutation | None
    context: str


@dataclass(frozen=True, slots=True)
class ResultReport:
    """An episode's outcome and who played it; only ``episode`` enters the search."""

    episode: Episode
    worker: str
    context: str
    seconds: Mapping[str, float]


@dataclass(frozen=True, slots=True)
class FailureReport:
    """An exception that an environment raised in a worker that had passed its self-test."""

    key: Key
    type: str
    message: str
    frames: int
    steps: int
    worker: str


@dataclass(frozen=True, slots=True)
class DescribeAnswer:
    """The answer to a describe task: a description, or why the spec cannot be played."""

    description: Description | None
    refused: str | None


def task_of(demand: Demand, context: str) -> Task:
    """Return the message for ``demand``: an unmutated base travels as its init seed."""
    base = demand.base
    return Task(
        key=demand.key,
        episode_seed=demand.episode_seed,
        network=base.network,
        base=base.digest if base.mutations or demand.mutation else base.init_seed,
        mutation=demand.mutation,
        context=context,
    )


def _dump(document: Mapping[str, Any], *, sort: bool = False) -> bytes:
    return json.dumps(
        document, separators=(",", ":"), sort_keys=sort, allow_nan=False, ensure_ascii=False
    ).encode()


def _load(body: bytes, what: str) -> dict[str, Any]:
    try:
        document = json.loads(body)
        version = document["v"]
    except (ValueError, KeyError, TypeError) as exc:
        raise _malformed(what, exc) from exc
    if version != VERSION:
        raise MessageError(
            f"a {what} has version {version!r}, this program reads {VERSION}: upgrade the older one"
        )
    return dict(document)


def _malformed(what: str, exc: Exception) -> MessageError:
    return MessageError(f"a {what} message cannot be read: {type(exc).__name__}: {exc}")


def _key_fields(key: Key) -> dict[str, Any]:
    return {
        "repeat": key.repeat,
        "generation": key.generation,
        "purpose": int(key.purpose),
        "slot": key.slot,
        "genome": key.digest,
        "episode": key.episode,
    }


def _key(document: Mapping[str, Any]) -> Key:
    return Key(
        int(document["repeat"]),
        int(document["generation"]),
        Purpose(document["purpose"]),
        int(document["slot"]),
        str(document["genome"]),
        int(document["episode"]),
    )


def encode_task(task: Task) -> bytes:
    """Return a task's bytes: about 330, at any lineage depth."""
    mutation = task.mutation
    return _dump(
        {
            "v": VERSION,
            **_key_fields(task.key),
            "episodeSeed": task.episode_seed,
            "network": task.network,
            "context": task.context,
            "base": task.base,
            "mutation": [mutation.seed, mutation.sigma] if mutation else None,
        }
    )


def decode_task(body: bytes) -> Task | str:
    """Read a task, or return the context digest of a describe task.

    Raises:
        MessageError: not one of this version.
    """
    document = _load(body, "task")
    try:
        if "genome" not in document:
            return str(document["context"])
        mutation = document["mutation"]
        return Task(
            _key(document),
            int(document["episodeSeed"]),
            str(document["network"]),
            document["base"],
            Mutation(int(mutation[0]), str(mutation[1])) if mutation else None,
            str(document["context"]),
        )
    except (KeyError, TypeError, ValueError, IndexError) as exc:
        raise _malformed("task", exc) from exc


def encode_describe_task(context: str) -> bytes:
    """Return the bytes of the task that asks for a description of ``context``."""
    return _dump({"v": VERSION, "context": context})


def encode_result(report: ResultReport) -> bytes:
    """Return a result's bytes; floats keep every bit in JSON."""
    episode = report.episode
    return _dump(
        {
            "v": VERSION,
            **_key_fields(episode.key),
            "return": episode.episode_return,
            "steps": episode.steps,
            "frames": episode.frames,
            "failure": episode.failure,
            "seconds": dict(report.seconds),
            "worker": report.worker,
            "context": report.context,
        }
    )


def decode_result(body: bytes) -> ResultReport:
    """Read a result.

    Raises:
        MessageError: not one of this version.
    """
    document = _load(body, "result")
    try:
        value, failure = document["return"], document["failure"]
        episode = Episode(
            _key(document),
            None if value is None else float(value),
            int(document["steps"]),
            int(document["frames"]),
            None if failure is None else str(failure),
        )
        return ResultReport(
            episode, str(document["worker"]), str(document["context"]), dict(document["seconds"])
        )
    except (KeyError, TypeError, ValueError) as exc:
        raise _malformed("result", exc) from exc


def encode_failure(report: FailureReport) -> bytes:
    """Return a failure report's bytes."""
    return _dump(
        {
            "v": VERSION,
            **_key_fields(report.key),
            "type": report.type,
            "message": report.message,
            "frames": report.frames,
            "steps": report.steps,
            "worker": report.worker,
        }
    )


def decode_failure(body: bytes) -> FailureReport:
    """Read a failure report.

    Raises:
        MessageError: not one of this version.
    """
    document = _load(body, "failure")
    try:
        return FailureReport(
            _key(document),
            str(document["type"]),
            str(document["message"]),
            int(document["frames"]),
            int(document["steps"]),
            str(document["worker"]),
        )
    except (KeyError, TypeError, ValueError) as exc:
        raise _malformed("failure", exc) from exc


def encode_describe_answer(answer: DescribeAnswer) -> bytes:
    """Return the bytes of an answer to a describe task."""
    described = answer.description
    return _dump(
        {
            "v": VERSION,
            "description": described.document() if described else None,
            "refused": answer.refused,
        }
    )


def decode_describe_answer(body: bytes) -> DescribeAnswer:
    """Read an answer to a describe task.

    Raises:
        MessageError: not one of this version.
    """
    document = _load(body, "description")
    try:
        described = document["description"]
        return DescribeAnswer(_description(described) if described else None, document["refused"])
    except (KeyError, TypeError, ValueError) as exc:
        raise _malformed("description", exc) from exc


def _description(document: Mapping[str, Any]) -> Description:
    return Description(
        str(document["network"]),
        str(document["backend"]),
        str(document["observation"]),
        str(document["actions"]),
        {str(name): str(value) for name, value in document["fingerprint"].items()},
    )
