"""The catalogue of a directory of runs: what `kubevo run` left there, or is writing now.

Each run becomes a resource as the operator would have written it, in the namespace ``local``, with
what its files say as its status. The directory is looked at every second; a run whose files have not
changed is not read again.
"""

import asyncio
import os
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal, Self

import structlog

from kubevo_api.catalogue import ActionRefused, Document, Entry, Index, Key
from kubevo_api.runs import Library
from kubevo_core import checkpoint, spec
from kubevo_core.errors import KubevoError
from kubevo_core.generation import Stop
from kubevo_core.generation_report import Finished, population_digest, result_digest
from kubevo_runtime.outcomes import chosen_repeat, final_test
from kubevo_runtime.store import Run, find_runs, open_run

__all__ = ["LocalCatalogue"]

LOOK_SECONDS = 1.0
SPEED_GENERATIONS = 5

log = structlog.get_logger()
Signature = tuple[Any, ...]


@dataclass(frozen=True)
class _Seen:
    signature: Signature
    entry: Entry | None


class LocalCatalogue:
    """The runs at, or at most two levels below, a directory."""

    mode: Literal["local", "cluster"] = "local"

    def __init__(self, root: Path, library: Library) -> None:
        self.index = Index()
        self._root = root
        self._library = library
        self._seen: dict[Path, _Seen] = {}
        self._task: asyncio.Task[None] | None = None
        self._is_ready = False

    @property
    def is_ready(self) -> bool:
        """Whether the directory has been looked at."""
        return self._is_ready

    async def __aenter__(self) -> Self:
        await self.look()
        self._task = asyncio.create_task(self._follow())
        return self

    async def __aexit__(self, *exc: object) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def patch(self, entry: Entry, spec: Document) -> Entry:  # noqa: ARG002 - the protocol's
        """Refuse: a local run obeys the command that started it."""
        raise ActionRefused(
            f"{entry.key[1]} is a local run: end `kubevo run` with Ctrl-C to pause it, and go on "
            "with `kubevo run --resume`, with --set for another budget",
            405,
        )

    async def _follow(self) -> None:
        while True:
            await asyncio.sleep(LOOK_SECONDS)
            try:
                await self.look()
            except OSError as exc:  # the directory may be on a volume that comes and goes
                log.warning("directory_unreadable", root=str(self._root), error=str(exc))

    async def look(self) -> None:
        """Look at the directory now."""
        entries = await asyncio.to_thread(self._entries)
        self.index.replace(entries)
        self._is_ready = True

    def _entries(self) -> dict[Key, Entry]:
        """Return the runs; of several with one name, the one that was written to last."""
        locks = _locks()
        seen: dict[Path, _Seen] = {}
        found: dict[Key, tuple[float, Entry]] = {}
        for path in find_runs(self._root):
            with suppress(FileNotFoundError):  # removed since it was found
                signature = _signature(path, locks)
                known = self._seen.get(path)
                if known is None or known.signature != signature:
                    known = _Seen(signature, self._entry(path, held=bool(signature[0])))
                seen[path] = known
                if known.entry is not None:
                    at, key = _written(path), known.entry.key
                    if key not in found or found[key][0] < at:
                        found[key] = (at, known.entry)
        self._seen = seen
        return {key: entry for key, (_, entry) in found.items()}

    def _entry(self, path: Path, *, held: bool) -> Entry | None:
        try:
            return Entry(_document(open_run(path), self._library, held=held), path)
        except KubevoError as exc:  # one damaged run must not hide the others
            log.warning("run_unreadable", path=str(path), error=str(exc))
            return None


def _signature(path: Path, locks: frozenset[str]) -> Signature:
    """Return what changes when a run does; first whether a process works on it."""
    files = [path / "spec.yaml", path / "OWNER", path / ".lock"]
    for repeat in path.glob("repeat-*"):
        files += [repeat / "history.jsonl", repeat / "tests.jsonl"]
    found: list[Any] = [_is_held(path, locks)]
    for file in files:
        with suppress(FileNotFoundError):
            status = file.stat()
            found.append((file.name, status.st_ino, status.st_size, status.st_mtime_ns))
    return tuple(found)


def _written(path: Path) -> float:
    times = [(path / "OWNER").stat().st_mtime]
    times += [file.stat().st_mtime for file in path.glob("repeat-*/history.jsonl")]
    return max(times)


def _locks() -> frozenset[str]:
    """Return the files that are locked now, as the kernel names them: device and inode."""
    try:
        text = Path("/proc/locks").read_text()
    except OSError:  # not Linux: no run is shown as running
        return frozenset()
    return frozenset(word for line in text.splitlines() for word in line.split() if ":" in word)


def _is_held(path: Path, locks: frozenset[str]) -> bool:
    """Tell whether a process works on the run, without taking its lock even for a moment."""
    try:
        status = (path / ".lock").stat()
    except OSError:
        return False
    device = f"{os.major(status.st_dev):02x}:{os.minor(status.st_dev):02x}"
    return f"{device}:{status.st_ino}" in locks


def _document(run: Run, library: Library, *, held: bool) -> Document:
    stored = run.experiment()
    experiment = spec.parse(stored, f"{run.path}/spec.yaml").spec
    owner = (run.path / "OWNER").stat()
    created = _time((run.path / "spec.yaml").stat().st_ctime)
    metadata: Mapping[str, Any] = stored.get("metadata") or {}
    return {
        "apiVersion": spec.API_VERSION,
        "kind": "Experiment",
        "metadata": {
            "name": run.name,
            "namespace": run.namespace,
            "uid": run.uid,
            "creationTimestamp": created,
            "labels": metadata.get("labels") or {},
        },
        "spec": experiment.document(),
        "status": _status(run, experiment, library, _time(owner.st_mtime), held=held),
    }


def _status(
    run: Run, experiment: spec.ExperimentSpec, library: Library, start: str, *, held: bool
) -> Document:
    repeats = range(experiment.repeats)
    readers = [library.repeat(run.path, number) for number in repeats]
    histories = [reader.history().columns() for reader in readers]
    status: Document = {"startTime": start}
    lasts = [int(each["generation"][-1]) if len(each["generation"]) else -1 for each in histories]
    if min(lasts) >= 0:
        status |= _progress(experiment, histories, lasts)
    stop: Stop | None = None
    if not held and min(lasts) >= 0:
        # The newest checkpoints say more than the history; they are read when nobody adds to them.
        loaded = [run.repeat(number).latest() for number in repeats]
        snapshots = [checkpoint.decode(each.payload) for each in loaded if each is not None]
        if len(snapshots) == len(repeats):
            done = [snapshot.finished for snapshot in snapshots]
            chosen = chosen_repeat([each.best for each in done])
            if all(snapshot.stop for snapshot in snapshots):
                stop = snapshots[chosen].stop
            status |= _results(run, done, chosen, ended=stop is not None)
        times = [each.saved_at for each in loaded if each is not None]
        if stop is not None and times:
            status["completionTime"] = _time(max(times))
    status["conditions"] = _conditions(held, stop, started=min(lasts) >= 0)
    return status


def _progress(
    experiment: spec.ExperimentSpec, histories: Sequence[Mapping[str, Any]], lasts: list[int]
) -> Document:
    generation = min(lasts)
    frames = sum(int(each["frames"][-1]) for each in histories)
    speed = 0.0
    for each in histories:
        back = min(SPEED_GENERATIONS, len(each["frames"]) - 1)
        seconds = each["seconds"][-1] - each["seconds"][-1 - back] if back else each["seconds"][-1]
        played = each["frames"][-1] - (each["frames"][-1 - back] if back else 0)
        speed += float(played / seconds) if seconds > 0 else 0.0
    found: Document = {
        "progress": {
            "generation": generation,
            "generations": experiment.budget.max_generations,
            "frames": frames,
            "framesPerSecond": f"{speed:.1f}",
        }
    }
    bests = [float(each["best"][-1]) for each in histories]
    chosen = max(range(len(bests)), key=lambda n: (bests[n] == bests[n], bests[n], -n))
    last = histories[chosen]
    if bests[chosen] == bests[chosen]:
        found["best"] = {
            "fitness": repr(bests[chosen]),
            "generation": int(last["bestGeneration"][-1]),
            "repeat": chosen,
        }
    if last["elite"][-1] == last["elite"][-1]:
        found["elite"] = {"fitness": repr(float(last["elite"][-1])), "generation": lasts[chosen]}
    return found


def _results(run: Run, done: list[Finished], chosen: int, *, ended: bool) -> Document:
    found: Document = {}
    best = done[chosen].best
    if best is not None:
        found["best"] = {
            "fitness": repr(best.mean),
            "generation": best.generation,
            "repeat": chosen,
            "digest": best.genome.digest,
        }
    if ended:
        found["populationDigest"] = population_digest(done)
        found["resultDigest"] = result_digest(done)
        test = final_test(run, chosen, best)
        if test is not None and test["mean"] is not None:
            found["finalTest"] = {"mean": repr(test["mean"]), "episodes": test["episodes"]}
    return found


def _conditions(held: bool, stop: Stop | None, *, started: bool) -> list[Document]:
    if held:
        return [_condition("Running", "True", "Searching", "kubevo run works on it")]
    if stop is not None:
        kind = "Failed" if stop is Stop.ALL_EVALUATIONS_FAILED else "Succeeded"
        return [_condition(kind, "True", str(stop.value), f"stopped: {stop.value}")]
    message = "no process works on it: go on with `kubevo run FILE --resume`"
    reason = "Interrupted" if started else "NotStarted"
    return [_condition("Running", "False", reason, message)]


def _condition(kind: str, status: str, reason: str, message: str) -> Document:
    return {"type": kind, "status": status, "reason": reason, "message": message}


def _time(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
