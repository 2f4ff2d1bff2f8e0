"""Every derived name, made by one function each; no other module formats one.

::

    id                 <sanitised name>-<uid>                    my_run-1a2b3c4d…
    streams            T_<id>  R_<id>  F_<id>  V_<id>            tasks, results, failures, videos
    bucket             K_<id>                                    base genomes, contexts
    subjects           kubevo.t.<id>.<class>.<episode>           class 0 = demanded
                       kubevo.r.<id>.<episode>
                       kubevo.f.<id>.<episode>
                       kubevo.v.<id>.<object>.<part>     a video, in parts
    <episode>          r<repeat>.g<generation>.<purpose>.s<slot>.<digest16>.e<episode>
                       or describe.<context>, or record.<episode>
"""

import re

from kubevo_core.evaluation import Key

__all__ = [
    "CONSUMER",
    "CONTEXT",
    "bucket",
    "checkpoint_file",
    "consumer_filter",
    "describe_subject",
    "episode_subject",
    "experiment_id",
    "failure_stream",
    "failure_subject",
    "generation_filter",
    "record_subject",
    "recording_stream",
    "recording_subject",
    "repeat_filter",
    "repeat_folder",
    "result_stream",
    "result_subject",
    "run_folder",
    "scores_file",
    "task_stream",
    "task_subject",
    "video_file",
]

CONSUMER = "eval-0"
CONTEXT = "context"  # the bucket's key that names the pinned context
UID_PREFIX = 8
SCORES_PER_FILE = 1000


def run_folder(name: str, uid: str) -> str:
    """Return the folder of a run below its namespace."""
    return f"{name}-{uid.replace('-', '')[:UID_PREFIX]}"


def experiment_id(name: str, uid: str) -> str:
    """Return what names an Experiment on the broker.

    The uid keeps a namesake's leftovers away; and all of it, because a user's rights do not reach to
    where its requests are answered, so that whoever can guess another's streams can disturb them.
    """
    return f"{re.sub(r'[^A-Za-z0-9-]', '_', name)}-{uid.replace('-', '')}"


def task_stream(experiment: str) -> str:
    """Return the stream of tasks."""
    return f"T_{experiment}"


def result_stream(experiment: str) -> str:
    """Return the stream of results."""
    return f"R_{experiment}"


def failure_stream(experiment: str) -> str:
    """Return the stream of reported failures."""
    return f"F_{experiment}"


def recording_stream(experiment: str) -> str:
    """Return the stream of videos on their way."""
    return f"V_{experiment}"


def bucket(experiment: str) -> str:
    """Return the key-value bucket."""
    return f"K_{experiment}"


def episode_subject(key: Key) -> str:
    """Return the part of a subject that names one episode."""
    return (
        f"r{key.repeat}.g{key.generation}.{key.purpose.name.lower()}."
        f"s{key.slot}.{key.digest[:16]}.e{key.episode}"
    )


def describe_subject(context: str) -> str:
    """Return the part of a subject that names the description of one context.

    With the context in its name, an answer for a spec that was corrected since is never taken.
    """
    return f"describe.{context}"


def record_subject(key: Key) -> str:
    """Return the part of a subject that names a recording.

    Not as an episode: whoever reads a repeat's results must never meet one.
    """
    return f"record.{episode_subject(key)}"


def task_subject(experiment: str, episode: str, priority: int = 0) -> str:
    """Return the subject of a task; ``episode`` is `episode_subject` or `describe_subject`."""
    return f"kubevo.t.{experiment}.{priority}.{episode}"


def result_subject(experiment: str, episode: str) -> str:
    """Return the subject of a result."""
    return f"kubevo.r.{experiment}.{episode}"


def failure_subject(experiment: str, episode: str) -> str:
    """Return the subject of a failure report."""
    return f"kubevo.f.{experiment}.{episode}"


def recording_subject(experiment: str, object_name: str, part: str) -> str:
    """Return the subject of a part of a video; ``part`` is its number, or ``*``."""
    return f"kubevo.v.{experiment}.{object_name}.{part}"


def consumer_filter(experiment: str, priority: int = 0) -> str:
    """Return what the consumer of one priority class listens to."""
    return task_subject(experiment, ">", priority)


def repeat_filter(repeat: int) -> str:
    """Return the episode part that matches everything of one repeat."""
    return f"r{repeat}.>"


def generation_filter(repeat: int, generation: int, purpose: str) -> str:
    """Return the episode part that matches one purpose of one generation."""
    return f"r{repeat}.g{generation}.{purpose}.>"


def repeat_folder(repeat: int) -> str:
    """Return the folder of one repeat in a run's directory."""
    return f"repeat-{repeat}"


def checkpoint_file(generation: int) -> str:
    """Return the name of a generation's checkpoint; it sorts by generation."""
    return f"gen-{generation:07d}.ck"


def video_file(generation: int) -> str:
    """Return the name of the video of a generation; it sorts by generation."""
    return f"gen-{generation:07d}.mp4"


def scores_file(generation: int) -> str:
    """Return the name of the file that holds a generation's compact scores."""
    return f"scores-{generation // SCORES_PER_FILE:05d}.bin"
