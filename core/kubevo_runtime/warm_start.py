"""Where a search starts that goes on from another one's genomes: found once, then kept.

``recall`` gives what the run's own ``import.ck`` holds, or looks the source up among the runs that
are kept in the same namespace; ``import_file`` makes it durable, before generation 0. From then on
the source may go on, be pruned or be deleted.
"""

import json
from pathlib import Path

from kubevo_core import checkpoint, imports
from kubevo_core.errors import (
    CheckpointCorrupt,
    CheckpointVersionError,
    StoreError,
    WarmStartRefused,
)
from kubevo_core.generation_report import Finished
from kubevo_core.imports import Imported, Source
from kubevo_core.spec import ExperimentSpec, WarmStart
from kubevo_runtime.store import OWNER, Run, open_run
from kubevo_runtime.store_owner import read_owner

__all__ = ["import_file", "recall", "resolve"]

LISTED = 20


def recall(run: Run, spec: ExperimentSpec) -> Imported | None:
    """Return what ``run`` starts from: None without a warm start, or where it is behind already.

    Nothing is written; `import_file` keeps it.

    Raises:
        WarmStartRefused: the source cannot be used (now).
        StoreError, FormatError: ``import.ck`` is damaged, or gone although it is still needed.
    """
    if spec.warm_start is None or _is_behind(run, spec):
        return None
    try:
        payload = run.imported()
        stored = None if payload is None else imports.decode(payload)
    except CheckpointCorrupt as exc:
        raise StoreError(
            f"{exc}; restore it from a copy, or remove it to look its source up again"
        ) from exc
    # A file that was corrected before anything was played may want another source.
    if stored is not None and (stored.wanted == _wanted(spec.warm_start) or run.is_played()):
        return stored
    if run.is_played():
        raise StoreError(
            f"{run.path}: some repeats have finished generation 0 from a warm start, others have "
            "not, and import.ck, which all of them start from, is gone: restore it from a copy"
        )
    return resolve(run.path.parents[1], run.namespace, spec.warm_start, run.uid)


def _is_behind(run: Run, spec: ExperimentSpec) -> bool:
    return all(run.repeat(repeat).generations() for repeat in range(spec.repeats))


def import_file(run: Run, imported: Imported) -> None:
    """Keep ``imported`` durably in the run's directory; the same again changes nothing.

    Raises:
        StoreError: as `Run.save_import` says.
    """
    payload = imports.encode(imported)
    try:
        is_kept = run.imported() == payload
    except (CheckpointCorrupt, CheckpointVersionError):
        is_kept = False
    if not is_kept:
        run.save_import(payload)


def resolve(root: Path, namespace: str, warm_start: WarmStart, exclude_uid: str) -> Imported:
    """Return the genomes that ``warm_start`` names, of a run kept in ``root``/``namespace``.

    ``exclude_uid`` is who asks: an earlier run of the same name may be its source, not itself.

    Raises:
        WarmStartRefused: no such run, nothing finished yet, pruned, or nothing that succeeded; the
            message says what is there.
        StoreError: the disk fails.
    """
    source = open_run(_find(root / namespace, warm_start, exclude_uid))
    try:
        return _taken(source, warm_start)
    except (CheckpointCorrupt, CheckpointVersionError) as exc:
        raise WarmStartRefused(f"warmStart: {_name(source)} cannot be read: {exc}") from exc


def _wanted(warm_start: WarmStart) -> str:
    return json.dumps(warm_start.model_dump(mode="json", by_alias=True), sort_keys=True)


def _name(source: Run) -> str:
    return f"the source {source.name} ({source.uid})"


def _find(folder: Path, warm_start: WarmStart, exclude_uid: str) -> Path:
    """Return the directory of the source: of several with its name the last that was claimed."""
    found: list[tuple[int, Path]] = []
    others: dict[str, None] = {}
    for file in sorted(folder.glob(f"*/{OWNER}")):
        try:
            owner, claimed = read_owner(file.parent), file.stat().st_mtime_ns
        except (StoreError, FileNotFoundError):  # damaged or just removed: not what is looked for
            continue
        if owner.uid == exclude_uid:
            continue
        if warm_start.uid in (None, owner.uid) and warm_start.experiment in (None, owner.name):
            found.append((claimed, file.parent))
        others[owner.name if warm_start.uid is None else f"{owner.name} ({owner.uid})"] = None
    if found:
        return max(found)[1]
    field, value = (
        ("uid", warm_start.uid) if warm_start.uid else ("experiment", warm_start.experiment)
    )
    there = ", ".join(list(others)[:LISTED]) or "no other run"
    more = f" and {len(others) - LISTED} more" if len(others) > LISTED else ""
    raise WarmStartRefused(
        f"warmStart.{field}: expected a kept run {value!r} in {folder}, found {there}{more}: start "
        "that one first, keep it (retention: Retain), or name another of the same namespace"
    )


def _taken(source: Run, warm_start: WarmStart) -> Imported:
    newest = _newest(source, warm_start.repeat)
    repeat = warm_start.repeat
    if repeat is None:
        means = {r: done.best.mean for r, done in newest.items() if done.best is not None}
        if not means:
            raise WarmStartRefused(
                f"warmStart: in {_name(source)} every evaluation of every repeat has failed, so "
                "there is no genome to start from: name another source"
            )
        repeat = min(means, key=lambda r: (-means[r], r))
    done, selected = newest[repeat], warm_start.generation is not None
    if warm_start.generation is not None:
        done = _generation(source, newest[repeat], warm_start.generation)
        genomes, generation = tuple(genome for _, genome in done.parents), done.generation
    else:
        best = done.best
        genomes, generation = ((best.genome,), best.generation) if best else ((), 0)
    if not genomes:
        raise WarmStartRefused(
            f"warmStart: in {_name(source)}, repeat {repeat}, every evaluation has failed, so there "
            "is no genome to start from: name another repeat or source"
        )
    where = Source(source.name, source.uid, repeat, generation, selected)
    return Imported(genomes, where, _wanted(warm_start))


def _newest(source: Run, wanted: int | None) -> dict[int, Finished]:
    """Return the newest finished generation of each repeat that has one, or of the wanted one."""
    repeats = _field(source, "repeats") or 1
    if wanted is not None and wanted >= repeats:
        raise WarmStartRefused(
            f"warmStart.repeat: expected one of the repeats 0 to {repeats - 1} of {_name(source)}, "
            f"got {wanted}"
        )
    found = {}
    for number in source.begun() if wanted is None else [wanted]:
        loaded = source.repeat(number).latest()
        if loaded is not None:
            found[number] = checkpoint.decode(loaded.payload).finished
    if not found:
        raise WarmStartRefused(
            f"warmStart: {_name(source)} has not finished a generation"
            + ("" if wanted is None else f" of repeat {wanted}")
            + " yet: wait until it has, or name another source"
        )
    return found


def _generation(source: Run, newest: Finished, wanted: int) -> Finished:
    if wanted == newest.generation:
        return newest
    store = source.repeat(newest.repeat)
    if wanted > newest.generation:
        raise WarmStartRefused(
            f"warmStart.generation: expected a finished generation of {_name(source)}, repeat "
            f"{newest.repeat}, got {wanted}, the last one is {newest.generation}: wait, or name an "
            "earlier one"
        )
    try:
        return checkpoint.decode(store.load(wanted)).finished
    except StoreError as exc:
        if (kept := store.generations()) and wanted in kept:
            raise
        last, every = (
            _field(source, "checkpoint", "keepLast"),
            _field(source, "checkpoint", "keepEvery"),
        )
        raise WarmStartRefused(
            f"warmStart.generation: generation {wanted} of {_name(source)}, repeat "
            f"{newest.repeat}, was pruned; its checkpoint.keepLast {last} and keepEvery {every} "
            f"(and the best's generation) have kept {_listed(kept)}: name one of these"
        ) from exc


def _listed(kept: list[int]) -> str:
    shown = ", ".join(map(str, kept[-LISTED:])) or "none"
    return f"… {shown}" if len(kept) > LISTED else shown


def _field(source: Run, *path: str) -> int | None:
    """Return a number of the source's spec, which another version may have written."""
    try:
        node: object = source.experiment()
    except StoreError:
        return None
    for name in ("spec", *path):
        node = node.get(name) if isinstance(node, dict) else None
    return node if isinstance(node, int) else None
