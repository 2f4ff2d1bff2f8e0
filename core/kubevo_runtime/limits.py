"""How large an Experiment's streams may grow, from its spec: enough for it, and no more.

Pure. A stream's limit is also a reservation on the broker's disk: with one size for all, a hundred
small Experiments would claim what they never use, and a large one would stop for want of room.
"""

from dataclasses import replace
from typing import NamedTuple

from kubevo_core import names
from kubevo_core.evaluation import Episode, Key
from kubevo_core.genome import MAX_TEXT_BYTES, Mutation
from kubevo_core.messages import ResultReport, Task, encode_result, encode_task
from kubevo_core.seeding import Purpose
from kubevo_core.spec import ExperimentSpec
from kubevo_runtime.bus_types import BusSettings

__all__ = ["FAILURE_TEXT_BYTES", "RESULT_BYTES", "StreamLimits", "stream_limits"]

SMALLEST_BYTES = 16 << 20
# Tasks wait outside when there is no room, and failure reports give way to newer ones.
MOST_TASK_BYTES = 1 << 30
MOST_FAILURE_BYTES = 64 << 20
MOST_BLOB_BYTES = 1 << 30

# nats-server's file store keeps 30 bytes beside each message, and its subject; and it counts what
# a purge has left in a block for a while.
RECORD_BYTES = 30
SLACK = 1.25
# What an evaluator writes of an exception: its type and 500 characters.
FAILURE_TEXT_BYTES = 600
# A worker's name is its pod's and a number; a network's is its family, its ends and its layers.
WORKER_CHARACTERS = 260
NETWORK_CHARACTERS = 120
LONGEST_ID = "x" * 85
LONGEST_KEY = Key(31, 10_000_000, Purpose.VALIDATION, 100_000, "f" * 64, 10_000)
LONGEST_NUMBER = -1.7976931348623157e308


class StreamLimits(NamedTuple):
    """Limits of the streams of tasks, results and failures and of the bucket, in bytes."""

    task_bytes: int
    result_bytes: int
    failure_bytes: int
    blob_bytes: int

    def applied_to(self, settings: BusSettings) -> BusSettings:
        """Return ``settings`` with these limits."""
        return replace(
            settings,
            task_bytes=self.task_bytes,
            result_bytes=self.result_bytes,
            failure_bytes=self.failure_bytes,
            blob_bytes=self.blob_bytes,
        )


def stream_limits(spec: ExperimentSpec) -> StreamLimits:
    """Return the limits for a spec: at least 16 MiB each, and 1 GiB at most, but for results.

    Results are kept until their generation is finished and those of the next one come before, so
    the stream must hold all of two generations; were it smaller, a search could stop for ever.
    """
    algorithm = spec.algorithm.genetic_algorithm
    episodes = 2 * (
        algorithm.population_size * algorithm.episodes_per_evaluation
        + algorithm.elite_candidates * algorithm.elite_episodes
    )
    # A periodic test may still be open when the next one, or the final one, begins.
    episodes += 2 * algorithm.test_episodes
    # What two generations' children descend from, the carried elites, the best; or imported ones.
    bases = 2 * algorithm.parents + 4
    if spec.warm_start is not None:
        bases += algorithm.parents
    tasks = spec.repeats * episodes * _task_bytes(algorithm.mutation_power)
    results = spec.repeats * episodes * RESULT_BYTES
    return StreamLimits(
        task_bytes=min(_at_least(tasks), MOST_TASK_BYTES),
        result_bytes=_at_least(results),
        failure_bytes=min(_at_least(results // 16), MOST_FAILURE_BYTES),
        blob_bytes=min(_at_least(spec.repeats * bases * MAX_TEXT_BYTES), MOST_BLOB_BYTES),
    )


def _at_least(needed: int) -> int:
    return max(SMALLEST_BYTES, int(needed * SLACK))


def _task_bytes(sigma: str) -> int:
    """Return what the broker keeps of the largest task."""
    task = Task(
        LONGEST_KEY,
        episode_seed=0xFFFF_FFFF,
        network="x" * NETWORK_CHARACTERS,
        base="f" * 64,
        mutation=Mutation(0xFFFF_FFFF, sigma),
        context="f" * 16,
    )
    subject = names.task_subject(LONGEST_ID, names.episode_subject(LONGEST_KEY))
    return RECORD_BYTES + len(subject) + len(encode_task(task))


def _result_bytes() -> int:
    """Return what the broker keeps of the largest result, that of a failed episode."""
    most = 2**53
    episode = Episode(LONGEST_KEY, LONGEST_NUMBER, most, most, "x" * FAILURE_TEXT_BYTES)
    seconds = {"decode": LONGEST_NUMBER, "play": LONGEST_NUMBER}
    report = ResultReport(episode, "x" * WORKER_CHARACTERS, "f" * 16, seconds)
    subject = names.result_subject(LONGEST_ID, names.episode_subject(LONGEST_KEY))
    return RECORD_BYTES + len(subject) + len(encode_result(report))


# What the broker keeps of the largest result.
RESULT_BYTES = _result_bytes()
