"""Recording one episode for the search: a video's bytes, or why there is none.

It plays beside the search's own evaluator, in an environment and a policy of its own that end with
it, and it raises nothing: whatever a renderer or an encoder does wrong is a reason to give, never a
verdict about this process or the search.
"""

import tempfile
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from kubevo_core import recordings, spec
from kubevo_core.genome import Genome
from kubevo_evaluator.evaluation import evaluate_genome

__all__ = ["Recorded", "record"]

REASON_LENGTH = 500
# One thread: the other cores belong to other evaluators. The file ends soon after it is too large.
ENCODER = ("-threads", "1", "-fs", str(recordings.MOST_BYTES + (1 << 20)))


@dataclass(frozen=True, slots=True)
class Recorded:
    """An mp4's bytes and its number of pictures; or, without pictures, why there is none."""

    content: bytes
    pictures: int
    failure: str | None = None


def record(
    genome: Genome,
    environment: spec.Environment,
    policy_backend: str,
    episode_seed: int,
    precision: str = "float32",
) -> Recorded:
    """Play one episode of ``genome`` and return its video, of bounded length and size.

    A longer episode is recorded up to that length, a failed one up to its failure.
    """
    try:
        with tempfile.TemporaryDirectory(prefix="kubevo-recording-") as folder:
            file = Path(folder) / "episode.mp4"
            return _recorded(file, genome, environment, policy_backend, episode_seed, precision)
    except (Exception, SystemExit) as exc:  # noqa: BLE001 - the environment's and the encoder's edge
        text = " ".join(str(exc).split())
        return Recorded(b"", 0, f"{type(exc).__name__}: {text}"[:REASON_LENGTH])


def _recorded(
    file: Path,
    genome: Genome,
    environment: spec.Environment,
    policy_backend: str,
    episode_seed: int,
    precision: str,
) -> Recorded:
    from kubevo_evaluator.video import (
        LongEnough,
        Recorder,
    )  # needs an encoder, as nothing else does

    recorder = Recorder(
        file, environment, None, most_seconds=recordings.MOST_SECONDS, encoder=ENCODER
    )
    with suppress(LongEnough), recorder:
        evaluate_genome(
            genome,
            environment,
            policy_backend,
            [episode_seed],
            precision=precision,
            on_step=recorder,
            render=True,
        )
    size = file.stat().st_size
    if size > recordings.MOST_BYTES:
        return Recorded(
            b"",
            0,
            f"the video of {recorder.pictures} pictures is too large: expected at most "
            f"{recordings.MOST_BYTES:,} bytes, got {size:,} or more; a smaller "
            "environment.maxEpisodeSteps gives a shorter one",
        )
    return Recorded(file.read_bytes(), recorder.pictures)
