"""What a person names on the command line: a genome, a file that holds one, or a run's directory.

All detection is here. In order: ``-`` is a genome on stdin; a text that begins like a genome is
one; a directory is a run, or holds one; a file holds a genome as text or JSON; the rest is an error.
"""

import json
import os
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from kubevo_cli.files import read_bounded
from kubevo_cli.output import say
from kubevo_core import checkpoint, decode, genome, spec
from kubevo_core.errors import GenomeError, RunNotFound, UserError
from kubevo_core.generation_report import Best
from kubevo_core.genome import Genome
from kubevo_core.spec import Experiment
from kubevo_runtime.store import Run, find_run, open_run

__all__ = [
    "BestOfRun",
    "Source",
    "best_of",
    "experiment_of",
    "load_source",
    "open_only_run",
    "rows",
]

# JSON needs more bytes a mutation than the text.
MOST_BYTES = 8 * genome.MAX_TEXT_BYTES
_GENOME = re.compile(r"kubevo-[0-9]+:", re.ASCII)
T = TypeVar("T")


@dataclass(frozen=True)
class BestOfRun:
    """The best genome of one repeat of a run, and the run itself."""

    run: Run
    experiment: Experiment
    repeat: int
    best: Best


@dataclass(frozen=True)
class Source:
    """A genome with its search's precision and, where it came from a run, that run."""

    genome: Genome
    precision: str = "float32"
    of: BestOfRun | None = None

    @property
    def environment(self) -> spec.Environment | None:
        """The environment in which it was evolved, where that is known."""
        return self.of.experiment.spec.environment if self.of else None

    @property
    def backend(self) -> str | None:
        """The backend that its run resolved, where that is known."""
        description = self.of.run.description() if self.of else None
        return str(description["backend"]) if description and "backend" in description else None


def load_source(text: str, repeat: int | None = None) -> Source:
    """Return the genome that ``text`` names.

    Raises:
        UserError: it names nothing, or a file without a genome.
        StoreError, FormatError: the run's directory cannot be used.
    """
    if text == "-":
        return _read(read_bounded(Path("-"), MOST_BYTES), "stdin")
    if _GENOME.match(text.strip()):
        return Source(genome.parse(text))
    if os.path.isdir(text):  # noqa: PTH112 - a long text is no error here
        found = best_of(open_only_run(Path(text)), repeat)
        return Source(found.best.genome, found.experiment.spec.policy.precision, found)
    if os.path.isfile(text):  # noqa: PTH113
        return _read(read_bounded(Path(text), MOST_BYTES), text)
    if re.match(r"[a-z0-9.-]+:[a-z]", text):  # most likely a genome, and its reader knows the words
        return Source(genome.parse(text))
    if text.lstrip().startswith("{"):
        return _from_json(text)
    raise UserError(
        f"{text[:80]!r}: expected a run's directory, a file with a genome, - for stdin, or a genome "
        f"such as {genome.DIALECT}:mlp-4-16-2:7; no such file or directory"
    )


def _read(text: str, where: str) -> Source:
    try:
        return _from_json(text) if text.lstrip().startswith("{") else Source(genome.parse(text))
    except GenomeError as exc:
        raise GenomeError(f"{where}: {exc}") from exc


def _from_json(text: str) -> Source:
    found = genome.from_json(text)
    return Source(found, decode.require_precision(json.loads(text).get("precision", "float32")))


def open_only_run(directory: Path) -> Run:
    """Open the run whose directory this is, or the only one in it.

    Raises:
        RunNotFound: none or several; the message lists what is there.
        StoreError: the run is damaged.
    """
    if not directory.is_dir():
        raise RunNotFound(
            f"{directory}: expected a run's directory, or one that holds a run (kubevo run --data), "
            f"found {'a file' if directory.exists() else 'nothing there'}"
        )
    return open_run(find_run(directory))


def experiment_of(run: Run) -> Experiment:
    """Return the run's Experiment, checked.

    Raises:
        SpecError: what is stored is not one that this version reads.
    """
    return spec.parse(run.experiment(), f"{run.path}/spec.yaml")


def best_of(run: Run, repeat: int | None = None) -> BestOfRun:
    """Return the best of a repeat; by default of the repeat with the highest best (then lowest).

    Raises:
        UserError: no such repeat.
        RunNotFound: no generation is finished yet.
        FormatError: no checkpoint verifies.
    """
    experiment = experiment_of(run)
    found = _of_repeats(run, experiment, repeat, lambda number: _latest_best(run, number))
    if not found:
        raise RunNotFound(
            f"{run.path}: no generation with a best genome is finished yet; wait for the first one, "
            "or start the run"
        )
    chosen = min(found, key=lambda number: (-found[number].mean, number))
    return BestOfRun(run, experiment, chosen, found[chosen])


def rows(run: Run, repeat: int | None = None) -> tuple[int, list[dict[str, Any]]]:
    """Return a repeat's number and its history; by default of the repeat with the highest best.

    Raises:
        UserError: no such repeat.
    """
    found = _of_repeats(
        run, experiment_of(run), repeat, lambda number: run.repeat(number).history() or None
    )
    if not found:
        return repeat or 0, []
    chosen = min(found, key=lambda number: (-_last_best(found[number]), number))
    return chosen, found[chosen]


def _last_best(history: list[dict[str, Any]]) -> float:
    best = history[-1].get("best")
    return float(best["mean"]) if best else float("-inf")


def _of_repeats(
    run: Run, experiment: Experiment, repeat: int | None, read: Callable[[int], T | None]
) -> dict[int, T]:
    repeats = experiment.spec.repeats
    if repeat is not None and not 0 <= repeat < repeats:
        raise UserError(
            f"--repeat {repeat}: the run {run.name} has repeats 0 to {repeats - 1}"
            if repeats > 1
            else f"--repeat {repeat}: the run {run.name} has one repeat, 0"
        )
    wanted = range(repeats) if repeat is None else [repeat]
    values = {number: read(number) for number in wanted}
    return {number: value for number, value in values.items() if value is not None}


def _latest_best(run: Run, repeat: int) -> Best | None:
    loaded = run.repeat(repeat).latest()
    if loaded is None:
        return None
    for reason in loaded.skipped:
        say(f"skipped a checkpoint: {json.dumps(reason)[1:-1]}")
    return checkpoint.decode(loaded.payload).finished.best
