"""One repeat's part of a run's directory: checkpoints, compact scores, history and tests.

A save makes three things durable, in an order that a crash may cut anywhere::

    gen-<n>.ck  →  the scores' record  →  the history's row

so that a row or a record without its checkpoint cannot be; what is missing behind a checkpoint is
rebuilt from it by `RepeatStore.repair`. A checkpoint's name is given once and its bytes never
change. Readers need neither lock nor write permission.

Videos are for people alone: they are written whole and durably like everything else, but where room
is short they go, so that a save never fails because of them.
"""

import json
import re
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kubevo_core import names
from kubevo_core.container import Header, open_sealed
from kubevo_core.errors import CheckpointCorrupt, CheckpointVersionError, StoreError, StoreFull
from kubevo_runtime.store_files import make_directory, replace_durably, storing
from kubevo_runtime.store_owner import Gate
from kubevo_runtime.store_records import Lines, Scores

__all__ = ["Loaded", "RepeatStore"]

_CHECKPOINT = re.compile(r"gen-(\d{7,})\.ck", re.ASCII)
_VIDEO = re.compile(r"gen-(\d{7,})\.mp4", re.ASCII)
ASIDE = ".corrupt"
LISTINGS = 5
RowOf = Callable[[bytes], tuple[Mapping[str, Any], bytes]]


@dataclass(frozen=True)
class Loaded:
    """A checkpoint that verified, and why each newer one was skipped.

    ``size`` is the file's in bytes, ``saved_at`` when it was written, in seconds since 1970.
    """

    generation: int
    header: Header
    payload: bytes
    skipped: list[str]
    size: int
    saved_at: float


class RepeatStore:
    """The files of one repeat; `Run.repeat` makes it."""

    def __init__(self, gate: Gate, repeat: int) -> None:
        self.repeat = repeat
        self.path = gate.path / names.repeat_folder(repeat)
        self._gate = gate
        self._checkpoints = self.path / "generations"
        self._videos = self.path / "videos"
        self._scores = Scores(gate.files, self.path / "scores")
        self._history = Lines(gate.files, self.path / "history.jsonl", ("generation",))
        self._tests = Lines(gate.files, self.path / "tests.jsonl", ("generation", "purpose"))
        self._made = False

    # ---- writing ----

    def save(
        self, generation: int, checkpoint: bytes, row: Mapping[str, Any], scores: bytes
    ) -> None:
        """Make a finished generation durable; saving the same again changes nothing.

        Raises:
            CheckpointCorrupt: ``checkpoint`` is not a sealed one of this run, repeat, generation.
            StoreFull: no room; every earlier checkpoint is intact, and saving again is fine.
            Fenced: a later takeover owns the run.
            StoreError: another checkpoint has this generation's name, or the disk fails.
        """
        self._verify(checkpoint, generation)
        row = {**row, "generation": generation}
        needed = len(checkpoint) + len(scores) + len(json.dumps(row, allow_nan=False))
        what = f"save generation {generation} of repeat {self.repeat}"
        with self._gate.writing(what):
            self._require_room(needed, what)
            self._make_directories()
            file = self._file(generation)
            self._require_same(file, generation, checkpoint)
            before = file.stat().st_size if file.exists() else 0
            # Written again even if it is there: whoever wrote it may have died before the fsync.
            replace_durably(self._gate.files, file, checkpoint)
            self._gate.count(needed - before)
            self._scores.write(generation, scores)
            self._history.append(row)

    def append_test(self, row: Mapping[str, Any]) -> None:
        """Add a test's row durably; one of the same generation and purpose changes nothing."""
        what = f"append a test of repeat {self.repeat}"
        with self._gate.writing(what):
            self._require_room(len(json.dumps(row, allow_nan=False)), what)
            self._make_directories()
            self._tests.append(row)

    def save_video(
        self, generation: int, content: bytes, best_generation: int | None, keep: int
    ) -> list[int]:
        """Keep a recorded episode, in place of what is there; return which older ones went for it.

        The newest ``keep`` stay; the best's is always one of them.

        Raises:
            StoreFull: no room; nothing has changed, and the search has what is left.
            Fenced, StoreError: as `save` says.
        """
        what = f"save the video of generation {generation} of repeat {self.repeat}"
        with self._gate.writing(what):
            self._gate.require_room(len(content), what)
            self._make_directories()
            make_directory(self._gate.files, self._videos)
            file = self._videos / names.video_file(generation)
            before = file.stat().st_size if file.exists() else 0
            replace_durably(self._gate.files, file, content)
            self._gate.count(len(content) - before)
            there = sorted(self.videos().items())
            old = [each for each in there if each[0] != best_generation]
            unwanted = old[: max(0, len(there) - keep)]
            for _, path in unwanted:
                self._remove_video(path)
            return [number for number, _ in unwanted]

    def repair(self, generation: int, row_of: RowOf) -> None:
        """Make everything fit the checkpoint of ``generation``, from which the run goes on.

        Later history rows and scores are cut, missing earlier ones rebuilt by ``row_of(payload)``
        from the checkpoints that are there. Later checkpoints, none of which verified, and damaged
        files of lines are kept under a name that ends in ``.corrupt``.

        Raises:
            StoreError: a later checkpoint does verify; go on from that one.
        """
        with self._gate.writing(f"repair repeat {self.repeat}"):
            self._make_directories()
            self._set_newer_aside(generation)
            rows = {int(r["generation"]): r for r in self._salvage(self._history)}
            kept = {number: row for number, row in rows.items() if number <= generation}
            for number in (each for each in self.generations() if each <= generation):
                if number in kept and self._scores.read(number) is not None:
                    continue
                with suppress(CheckpointCorrupt):
                    row, scores = row_of(self.load(number))
                    kept.setdefault(number, {**row, "generation": number})
                    self._scores.write(number, scores)
            self._scores.cut(generation)
            self._history.replace(kept[number] for number in sorted(kept))
            self._tests.replace(self._salvage(self._tests))

    def prune(self, keep_last: int, keep_every: int, best_generation: int) -> list[int]:
        """Remove checkpoints but the newest ones, every so many-th, and the best; return which.

        Scores and history stay. ``keep_every`` 0 keeps none for its number's sake.

        Raises:
            StoreError: the newest checkpoint does not verify; nothing was removed.
        """
        if keep_last < 1 or keep_every < 0:
            raise ValueError(f"expected keep_last >= 1, keep_every >= 0: {keep_last}, {keep_every}")
        with self._gate.writing(f"prune checkpoints of repeat {self.repeat}"):
            there = self.generations()
            unwanted = [
                number
                for number in there[:-keep_last]
                if number != best_generation and (not keep_every or number % keep_every)
            ]
            if unwanted:
                self._require_newest(there[-1])
            for number in unwanted:
                # No fsync of the directory: a file that comes back is pruned the next time.
                size = self._file(number).stat().st_size
                self._gate.files.unlink(self._file(number))
                self._gate.count(-size)
            return unwanted

    # ---- reading ----

    def generations(self) -> list[int]:
        """Return the generations whose checkpoint is there, ascending; it may not verify."""
        with storing(self._checkpoints, "list checkpoints"):
            try:
                found = [_CHECKPOINT.fullmatch(each.name) for each in self._checkpoints.iterdir()]
            except FileNotFoundError:
                return []
        return sorted(int(match[1]) for match in found if match)

    def latest(self) -> Loaded | None:
        """Return the newest checkpoint that verifies; None where none was ever saved.

        Raises:
            CheckpointVersionError: a newer program wrote the newest readable one.
            CheckpointCorrupt: there are checkpoints, but none verifies.
            StoreError: the disk fails; which checkpoint is the newest cannot be known.
        """
        skipped: list[str] = []
        # Pruning may remove what was just listed; a writer always leaves a newer one.
        for _ in range(LISTINGS):
            skipped, vanished = [], False
            for generation in reversed(self.generations()):
                try:
                    header, payload = self._open(generation)
                except FileNotFoundError:
                    vanished = True
                except CheckpointCorrupt as exc:
                    skipped.append(str(exc))
                else:
                    return self._loaded(generation, header, payload, skipped)
            if not vanished:
                break
        if skipped:
            raise CheckpointCorrupt(
                f"no checkpoint in {self._checkpoints} verifies: restore the directory from a "
                "copy, or start another run\n  " + "\n  ".join(skipped)
            )
        return None

    def load(self, generation: int) -> bytes:
        """Return the payload of one generation's checkpoint.

        Raises:
            CheckpointCorrupt, CheckpointVersionError: as `open_sealed` says.
            StoreError: it is not there; the message says which are.
        """
        try:
            return self._open(generation)[1]
        except FileNotFoundError as exc:
            there = ", ".join(map(str, self.generations()[-20:])) or "none"
            raise StoreError(
                f"expected the checkpoint of generation {generation} in {self._checkpoints}, found "
                f"those of {there}: it was pruned or never written; checkpoint.keepLast and "
                "keepEvery say which are kept"
            ) from exc

    def history(self) -> list[dict[str, Any]]:
        """Return one row for each finished generation, ascending; a torn end is left out."""
        with storing(self.path, "read the history"):
            return self._history.read()

    def tests(self) -> list[dict[str, Any]]:
        """Return the rows of the tests that were answered."""
        with storing(self.path, "read the tests"):
            return self._tests.read()

    def videos(self) -> dict[int, Path]:
        """Return the recorded episodes by generation; a file is whole as soon as it is there."""
        with storing(self._videos, "list recordings"):
            try:
                found = [(_VIDEO.fullmatch(file.name), file) for file in self._videos.iterdir()]
            except FileNotFoundError:
                return {}
        return {int(match[1]): file for match, file in found if match}

    def scores(self, generation: int) -> bytes | None:
        """Return the compact scores of a generation; None where there are none."""
        with storing(self.path, "read the scores"):
            return self._scores.read(generation)

    # ---- inside ----

    def _require_room(self, needed: int, what: str) -> None:
        """Require room for what the search must keep; videos, the oldest first, go for it."""
        videos = sorted(
            (
                path
                for path in self._gate.path.glob("repeat-*/videos/*")
                if _VIDEO.fullmatch(path.name)
            ),
            key=lambda path: (path.name, str(path)),
        )
        while True:
            try:
                self._gate.require_room(needed, what)
            except StoreFull:
                if not videos:
                    raise
                self._remove_video(videos.pop(0))
            else:
                return

    def _remove_video(self, path: Path) -> None:
        # No fsync of the directory: a file that comes back is removed the next time.
        with suppress(FileNotFoundError):
            size = path.stat().st_size
            self._gate.files.unlink(path)
            self._gate.count(-size)

    def _file(self, generation: int) -> Path:
        return self._checkpoints / names.checkpoint_file(generation)

    def _loaded(
        self, generation: int, header: Header, payload: bytes, skipped: list[str]
    ) -> Loaded:
        try:
            status = self._file(generation).stat()
        except FileNotFoundError:  # pruned since it was read
            return Loaded(generation, header, payload, skipped, len(payload), 0.0)
        return Loaded(generation, header, payload, skipped, status.st_size, status.st_mtime)

    def _make_directories(self) -> None:
        if not self._made:
            for directory in (self.path, self._checkpoints, self._scores.folder):
                make_directory(self._gate.files, directory)
            self._made = True

    def _open(self, generation: int) -> tuple[Header, bytes]:
        file = self._file(generation)
        try:
            content = file.read_bytes()
        except FileNotFoundError:
            raise
        except OSError as exc:
            # Not corruption: the bytes may be well, and going on from an older one would lose work.
            raise StoreError(f"could not read {file}: {exc.strerror}: check the disk") from exc
        try:
            return self._verify(content, generation)
        except (CheckpointCorrupt, CheckpointVersionError) as exc:
            raise type(exc)(f"{file}: {exc}") from exc

    def _verify(self, content: bytes, generation: int) -> tuple[Header, bytes]:
        header, payload = open_sealed(content)
        expected = Header(self._gate.owner.uid, self.repeat, generation)
        if header != expected:
            raise CheckpointCorrupt(f"expected the checkpoint of {expected}, found {header}")
        return header, payload

    def _require_same(self, file: Path, generation: int, checkpoint: bytes) -> None:
        try:
            _, payload = self._open(generation)
        except FileNotFoundError:
            return
        except CheckpointCorrupt:
            self._set_aside(file)
            return
        if payload != open_sealed(checkpoint)[1]:
            raise StoreError(
                f"{file} holds another checkpoint of generation {generation}, and checkpoints never "
                "change: resume from it instead of computing the generation again"
            )

    def _require_newest(self, generation: int) -> None:
        try:
            self._open(generation)
        except CheckpointCorrupt as exc:
            raise StoreError(f"pruned nothing, the newest checkpoint is damaged: {exc}") from exc

    def _set_newer_aside(self, generation: int) -> None:
        for number in (each for each in self.generations() if each > generation):
            try:
                self._open(number)
            except CheckpointCorrupt:
                self._set_aside(self._file(number))
            else:
                raise StoreError(
                    f"asked to go on from generation {generation}, but {self._file(number)} "
                    f"verifies: load the latest one"
                )

    def _set_aside(self, file: Path) -> None:
        self._gate.files.rename(file, _free_name(file))
        self._gate.files.sync_directory(file.parent)

    def _salvage(self, lines: Lines) -> list[dict[str, Any]]:
        rows, damaged = lines.salvage()
        if damaged is not None:
            replace_durably(self._gate.files, _free_name(lines.path), damaged)
        return rows


def _free_name(file: Path) -> Path:
    number = 1
    while (aside := file.with_name(f"{file.name}.{number}{ASIDE}")).exists():
        number += 1
    return aside
