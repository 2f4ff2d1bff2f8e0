"""Reading runs' directories: histories that grow, checkpoints, scores, lineages, tests, failures.

Every method may block and is called from a thread. Nothing is written and no lock is taken; a run
may be searched by another process meanwhile. What was read is kept within bounds: histories as
columns that are continued where the file has grown, and the last few decoded checkpoints.
"""

import json
import os
import threading
from collections import OrderedDict, deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from kubevo_api.history import History
from kubevo_core import checkpoint, names
from kubevo_core.checkpoint import SCORE, Snapshot
from kubevo_core.errors import KubevoError, StoreError
from kubevo_core.generation_report import Finished, Individual
from kubevo_core.messages import Description
from kubevo_runtime.store import Run, open_run

__all__ = ["Ancestor", "GenomesPruned", "Library", "NotThere", "RepeatReader"]

HISTORY_BYTES = 256 * 1024 * 1024
SNAPSHOTS = 8
FAILURES = 10_000
HISTORY = "history.jsonl"


class NotThere(KubevoError):
    """What was asked for does not exist, or not yet."""


class GenomesPruned(KubevoError):
    """The generation was searched, but its checkpoint was pruned: its genomes are gone."""


@dataclass(frozen=True)
class Ancestor:
    """One step of a lineage; ``slot`` equal to the population's size is the carried elite."""

    generation: int
    slot: int
    fitness: float | None
    is_elite: bool


@dataclass
class _Followed:
    """A history file that is being read on: where, and what was found so far."""

    history: History = field(default_factory=History)
    failures: deque[dict[str, Any]] = field(default_factory=lambda: deque(maxlen=FAILURES))
    inode: int = -1
    offset: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)


class Library:
    """What has been read of any number of runs, within bounds."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._histories: OrderedDict[Path, _Followed] = OrderedDict()
        self._snapshots: OrderedDict[Path, Snapshot] = OrderedDict()

    def repeat(self, path: Path, repeat: int) -> "RepeatReader":
        """Return the reader of one repeat of the run at ``path``.

        Raises:
            StoreError: there is no run, or it is damaged.
        """
        return RepeatReader(self, open_run(path), repeat)

    def best_repeat(self, path: Path, repeats: int) -> int:
        """Return the repeat whose best is the highest so far, the lowest on a tie."""
        if repeats == 1:
            return 0
        run = open_run(path)
        means = [
            RepeatReader(self, run, number).history().columns()["best"] for number in range(repeats)
        ]
        last = [
            values[-1] if len(values) and not np.isnan(values[-1]) else -np.inf for values in means
        ]
        return int(np.argmax(last))

    def followed(self, file: Path) -> _Followed:
        """Return what ``file`` holds now; what follows the last whole line is left out.

        Raises:
            StoreError: a line is damaged.
        """
        with self._lock:
            followed = self._histories.setdefault(file, _Followed())
            self._histories.move_to_end(file)
            while (
                len(self._histories) > 1
                and sum(each.history.nbytes for each in self._histories.values()) > HISTORY_BYTES
            ):
                self._histories.popitem(last=False)
        with followed.lock:
            _read_on(followed, file)
            return followed

    def snapshot(self, file: Path, load: Any) -> Snapshot:
        """Return a decoded checkpoint, by ``load()`` where it is not kept."""
        with self._lock:
            found = self._snapshots.get(file)
            if found is not None:
                self._snapshots.move_to_end(file)
                return found
        decoded: Snapshot = checkpoint.decode(load())
        with self._lock:
            self._snapshots[file] = decoded
            while len(self._snapshots) > SNAPSHOTS:
                self._snapshots.popitem(last=False)
        return decoded


def _read_on(followed: _Followed, file: Path) -> None:
    try:
        with file.open("rb") as stream:
            status = os.fstat(stream.fileno())
            if status.st_ino != followed.inode or status.st_size < followed.offset:
                # Replaced, as a resuming search does: it may have been cut.
                followed.history, followed.inode, followed.offset = History(), status.st_ino, 0
                followed.failures.clear()
            stream.seek(followed.offset)
            content = stream.read()
    except FileNotFoundError:
        return
    except OSError as exc:
        raise StoreError(f"{file} cannot be read: {exc.strerror}: check the volume") from exc
    whole = content.rfind(b"\n") + 1
    try:
        rows = [json.loads(line) for line in content[:whole].splitlines()]
    except ValueError as exc:
        raise StoreError(
            f"{file} is damaged after byte {followed.offset:,}: resume the run to rebuild it from "
            f"the checkpoints ({exc})"
        ) from exc
    followed.history.extend(rows)
    for row in rows:
        followed.failures.extend(
            {"generation": row["generation"], **each} for each in row.get("failures", ())
        )
    followed.offset += whole


class RepeatReader:
    """One repeat of one run."""

    def __init__(self, library: Library, run: Run, repeat: int) -> None:
        self.run = run
        self.repeat = repeat
        self._library = library
        self._store = run.repeat(repeat)
        self._folder = run.path / names.repeat_folder(repeat)

    def history(self) -> History:
        """Return the finished generations."""
        return self._library.followed(self._folder / HISTORY).history

    def last(self) -> int:
        """Return the newest finished generation.

        Raises:
            NotThere: there is none yet.
        """
        generations = self.history().columns()["generation"]
        if not len(generations):
            raise NotThere("no generation is finished yet: wait for the first one")
        return int(generations[-1])

    def retained(self) -> list[int]:
        """Return the generations whose genomes are kept, ascending."""
        return self._store.generations()

    def tests(self) -> list[dict[str, Any]]:
        """Return the rows of the tests that were answered."""
        return self._store.tests()

    def failures(self) -> list[dict[str, Any]]:
        """Return the first failed episodes of each generation, oldest first."""
        return list(self._library.followed(self._folder / HISTORY).failures)

    def videos(self) -> dict[int, Path]:
        """Return the recorded episodes by generation."""
        return self._store.videos()

    def description(self) -> Description | None:
        """Return what an evaluator said of the environment; None before it has."""
        found = self.run.description()
        return (
            None
            if found is None
            else Description(
                **{
                    name: found[name]
                    for name in ("network", "backend", "observation", "actions", "fingerprint")
                }
            )
        )

    def finished(self, generation: int) -> Finished:
        """Return a generation with its genomes.

        Raises:
            NotThere: it is not finished yet.
            GenomesPruned: its checkpoint is gone.
            CheckpointCorrupt, CheckpointVersionError: it cannot be read.
        """
        if generation > self.last():
            raise NotThere(
                f"generation {generation} is not finished; the newest one is {self.last()}"
            )
        try:
            return self._library.snapshot(
                self._folder / "generations" / names.checkpoint_file(generation),
                lambda: self._store.load(generation),
            ).finished
        except StoreError as exc:
            if generation in self.retained():
                raise
            raise GenomesPruned(
                f"the genomes of generation {generation} were pruned; kept are those of "
                f"{_ranges_text(self.retained())} ({self.rule()}); scores of every generation are kept"
            ) from exc

    def rule(self) -> str:
        """Return the retention rule in words."""
        kept = self.run.experiment().get("spec", {}).get("checkpoint") or {}
        last, every = kept.get("keepLast", "the default"), kept.get("keepEvery", 0)
        return f"checkpoint.keepLast {last}, keepEvery {every}, and the best"

    def newest(self) -> Finished:
        """Return the newest generation whose checkpoint verifies.

        Raises:
            NotThere: none is finished yet.
        """
        last = self.last()
        try:
            return self.finished(last)
        except GenomesPruned:  # saved since the history was read
            return self.finished(self.last())
        except KubevoError:
            loaded = self._store.latest()
            if loaded is None:
                raise
            return self.finished(loaded.generation)

    def individual(self, generation: int, slot: int) -> Individual:
        """Return an individual with its genome.

        Raises:
            NotThere: no such slot.
        """
        population = self.finished(generation).population
        if not 0 <= slot < len(population):
            raise NotThere(f"generation {generation} has slots 0 to {len(population) - 1}")
        return population[slot]

    def scores(self, generation: int) -> npt.NDArray[np.void]:
        """Return fitness (NaN = failed), frames and parent of every slot, also of pruned genomes.

        Raises:
            NotThere: the generation is not finished.
        """
        found = self._store.scores(generation)
        if found is None:
            raise NotThere(f"generation {generation} of repeat {self.repeat} is not finished")
        return np.frombuffer(found, SCORE)

    def lineage(self, generation: int, slot: int) -> Iterator[Ancestor]:
        """Yield an individual and its ancestors, newest first, down to generation 0.

        Raises:
            NotThere: there is no such individual.
        """
        elites = self.history().columns()
        first = int(elites["generation"][0]) if len(elites["generation"]) else 0

        def elite_of(number: int) -> int:
            value = elites["eliteSlot"][number - first]
            return -1 if np.isnan(value) else int(value)

        while generation >= 0:
            scores = self.scores(generation)
            # The carried elite is the elite of the generation before, played again.
            carried = slot == len(scores) and generation > first and elite_of(generation - 1) >= 0
            if not carried and not 0 <= slot < len(scores):
                raise NotThere(f"generation {generation} has slots 0 to {len(scores) - 1}")
            # Its fitness is what it was validated with.
            fitness, parent = (
                (elites["elite"][generation - 1 - first], elite_of(generation - 1))
                if carried
                else (scores[slot]["fitness"], int(scores[slot]["parent"]))
            )
            known = None if np.isnan(fitness) else float(fitness)
            yield Ancestor(generation, slot, known, slot == elite_of(generation))
            generation, slot = generation - 1, parent
            if parent < 0:
                return


def _ranges_text(numbers: list[int]) -> str:
    return (
        ", ".join(
            f"{start}" if start == end else f"{start} to {end}" for start, end in ranges(numbers)
        )
        or "none"
    )


def ranges(numbers: list[int]) -> list[tuple[int, int]]:
    """Return ascending numbers as (first, last) of each run without a gap."""
    found: list[tuple[int, int]] = []
    for number in numbers:
        if found and found[-1][1] == number - 1:
            found[-1] = (found[-1][0], number)
        else:
            found.append((number, number))
    return found
