"""``kubevo evaluate`` and ``kubevo play``: a genome in its environment, with returns or a video.

Episode k's seed is derived from (--seed, TEST, k) alone, so that the first episodes of a longer
evaluation are those of a shorter one. The evaluator is imported only here, when it is needed.
"""

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kubevo_cli import output
from kubevo_cli.assignments import applied, parse_assignments, wants_text
from kubevo_cli.export import require_writable
from kubevo_cli.sources import Source, load_source
from kubevo_core import seeding, spec
from kubevo_core.errors import SpecError, UserError
from kubevo_core.fitness import mean_return
from kubevo_runtime.intervals import mean_interval

if TYPE_CHECKING:
    from kubevo_evaluator.rollout import Played

__all__ = ["PlayOptions", "episode_seeds", "evaluate", "play"]

ENVIRONMENT = "spec.environment."


@dataclass(frozen=True)
class PlayOptions:
    """What ``evaluate`` and ``play`` were asked to play; None is the run's own, or the default."""

    source: str
    environment: str | None
    seed: int
    backend: str | None
    precision: str | None
    assignments: tuple[str, ...]
    repeat: int | None
    output: str


def episode_seeds(seed: int, episodes: int) -> list[int]:
    """Return the seeds of the first ``episodes`` episodes; each depends on ``seed`` and its number."""
    return [seeding.derive(seed, seeding.Purpose.TEST, number) for number in range(episodes)]


def evaluate(options: PlayOptions, episodes: int) -> int:
    """Play ``episodes`` episodes, print what they gave, and return the exit code: 1 if any failed.

    Raises:
        UserError: the genome or the environment cannot be used.
        KubevoError: as the tree in `kubevo_core.errors` says.
    """
    source = _source(options)
    environment, backend = _environment(options, source), _backend(options, source)
    from kubevo_evaluator.evaluation import evaluate_genome

    played = evaluate_genome(
        source.genome,
        environment,
        backend,
        episode_seeds(options.seed, episodes),
        lambda number, _: output.count("episode", number + 1, episodes),
        precision=source.precision,
    )
    document = {
        "genome": source.genome.text,
        "digest": source.genome.digest,
        "environment": environment.model_dump(mode="json", by_alias=True),
        "backend": _resolved(backend),
        "precision": source.precision,
        "seed": options.seed,
        **_statistics(played),
    }
    if options.output == "json":
        output.write_json(document)
    else:
        _write_statistics(document)
    for failure in document["failures"]:
        output.say(f"episode {failure['episode']} failed: {failure['failure']}")
    return 1 if document["failures"] else 0


def _statistics(played: Sequence["Played"]) -> dict[str, Any]:
    """Return the numbers of an evaluation; means and the like are of the episodes with a return."""
    returns = [each.episode_return for each in played]
    good = [value for value in returns if value is not None]
    interval = mean_interval(good)
    return {
        "episodes": len(returns),
        "mean": mean_return(good),
        "median": statistics.median(good) if good else None,
        "std": statistics.stdev(good) if len(good) > 1 else None,
        "ci95": list(interval) if interval else None,
        "min": min(good, default=None),
        "max": max(good, default=None),
        "steps": sum(each.steps for each in played),
        "frames": sum(each.frames for each in played),
        "episodeReturns": returns,
        "failures": [
            {"episode": number, "failure": each.failure.text}
            for number, each in enumerate(played)
            if each.failure is not None
        ],
    }


def _write_statistics(document: Mapping[str, Any]) -> None:
    interval = document["ci95"]
    failed = len(document["failures"])
    fields = {
        "environment": document["environment"]["id"],
        "episodes": f"{document['episodes']}" + (f" ({failed} failed)" if failed else ""),
        "mean": document["mean"],
        "95 % CI": f"{output.number(interval[0])} to {output.number(interval[1])}"
        if interval
        else None,
        "median": document["median"],
        "std": document["std"],
        "min": document["min"],
        "max": document["max"],
        "frames": document["frames"],
    }
    output.write_fields(fields)


def play(options: PlayOptions, record: Path | None, fps: int | None, *, force: bool) -> int:
    """Play episode 0 of the seed and print its return; with ``record`` also write a video.

    Raises:
        UserError: the genome, the environment or the video's name cannot be used.
        KubevoError: as the tree in `kubevo_core.errors` says.
    """
    if record is not None:
        require_writable(record, [".mp4"], force=force)
    elif fps is not None:
        raise UserError(f"--fps {fps} is for a recording: give --record best.mp4 too")
    source = _source(options)
    environment, backend = _environment(options, source), _backend(options, source)
    seeds = episode_seeds(options.seed, 1)
    from kubevo_evaluator.evaluation import evaluate_genome

    play_one = partial(
        evaluate_genome, source.genome, environment, backend, seeds, precision=source.precision
    )

    document: dict[str, Any] = {"environment": environment.id, "seed": options.seed}
    if record is None:
        (played,) = play_one()
    else:
        from kubevo_evaluator.video import Recorder

        with Recorder(record, environment, fps) as recorder:
            (played,) = play_one(on_step=recorder, render=True)
        document |= {"file": str(record), "pictures": recorder.pictures, "fps": recorder.fps}
    failure = played.failure.text if played.failure else None
    document |= {
        "episodeReturn": played.episode_return,
        "steps": played.steps,
        "frames": played.frames,
        "failure": failure,
    }
    if options.output == "json":
        output.write_json(document)
    else:
        shown = {name: value for name, value in document.items() if name != "failure"}
        shown["seed"] = str(options.seed)
        output.write_fields({"return": shown.pop("episodeReturn"), **shown})
        if record is None:
            output.say("no picture was made; --record best.mp4 writes a video")
    if failure:
        output.say(f"the episode failed: {failure}")
    return 1 if failure else 0


def _source(options: PlayOptions) -> Source:
    found = load_source(options.source, options.repeat)
    return found if options.precision is None else replace(found, precision=options.precision)


def _backend(options: PlayOptions, source: Source) -> str:
    # The run's own backend gives the run's own bytes; another one may differ in the last bit.
    return options.backend or source.backend or "auto"


def _resolved(backend: str) -> str:
    from kubevo_evaluator.policies import resolve

    return resolve(backend)


def _environment(options: PlayOptions, source: Source) -> spec.Environment:
    """Return the environment to play: --env, or the run's own, then changed by --set.

    The run's settings are kept only for its own environment; they may not fit another one.
    """
    own = source.environment
    wanted = options.environment or (own.id if own else None)
    if wanted is None:
        raise UserError(
            "a genome alone does not tell its environment: name it, such as --env CartPole-v1"
        )
    if own is not None and own.id == wanted:
        environment: dict[str, Any] = own.model_dump(mode="json", by_alias=True)
    else:
        environment = {"id": wanted}
    changes = parse_assignments(options.assignments)
    for change in changes:
        if not change.path.startswith(ENVIRONMENT):
            raise SpecError(
                f"--set {change.path}: expected a path that begins with {ENVIRONMENT}; nothing else "
                "of a spec matters here"
            )
    document = _any_experiment(environment, _family(source))
    where = "--env" if not changes else "--set"
    try:
        return spec.parse(applied(document, changes), where).spec.environment
    except SpecError as exc:
        texts = wants_text(changes, str(exc), where)
        if not texts:
            raise
    return spec.parse(applied(document, changes, texts), where).spec.environment


def _family(source: Source) -> str:
    return source.genome.network.rstrip("-0123456789")


def _any_experiment(environment: dict[str, Any], family: str) -> dict[str, Any]:
    """Return a valid Experiment around ``environment``: the spec checks whole Experiments only."""
    return {
        "apiVersion": spec.API_VERSION,
        "kind": "Experiment",
        "metadata": {"name": "evaluate"},
        "spec": {
            "environment": environment,
            "policy": {"network": family},
            "algorithm": {"geneticAlgorithm": {}},
            "budget": {"maxGenerations": 1},
        },
    }
