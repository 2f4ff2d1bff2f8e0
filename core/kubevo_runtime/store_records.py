"""The two kinds of file that grow: JSON lines (history, tests) and fixed-size score records.

Both forgive what a crash leaves at their end, and neither ever writes after it: a file in doubt
(torn, or after a failed fsync) is written anew as a whole. A file of scores holds one record for
each of 1000 generations, at its own place::

    offset  bytes
    0       8      magic        "KUBEVOSC"
    8       2      version      u16
    10      4      size         u32 = s, bytes of scores in every record
    14      4      crc32 of 0…13
    18      8+s    for each generation: its number u32, crc32 of number and scores u32, the scores

A place of zeros, or with a wrong checksum, holds no record.
"""

import json
import struct
import zlib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from kubevo_core import names
from kubevo_core.errors import StoreError
from kubevo_runtime.store_files import Files, replace_durably, write_and_sync

__all__ = ["Lines", "Scores"]

Row = dict[str, Any]


class _Scan(NamedTuple):
    rows: list[Row]
    bad_line: int | None  # number of a bad line that has good ones after it: no crash does that


class Lines:
    """An append-only file of JSON objects, one a line, each once by its ``key`` fields."""

    def __init__(self, files: Files, path: Path, key: tuple[str, ...]) -> None:
        self.path = path
        self._files = files
        self._key = key
        # What is known of the file's end; None = look again. A file in doubt is written anew.
        self._end: int | None = None
        self._known: set[tuple[Any, ...]] = set()

    def read(self) -> list[Row]:
        """Return the rows; a torn end is left out.

        Raises:
            StoreError: a line in the middle is damaged.
        """
        scan = self._scan(self._content())
        if scan.bad_line is not None:
            raise StoreError(
                f"expected a JSON object with {', '.join(self._key)} in line {scan.bad_line} of "
                f"{self.path}, found damage: resume the run to rebuild it from the checkpoints"
            )
        return scan.rows

    def salvage(self) -> tuple[list[Row], bytes | None]:
        """Return every readable row, and the file's bytes if some line in the middle is not."""
        content = self._content()
        scan = self._scan(content)
        return scan.rows, None if scan.bad_line is None else content

    def append(self, row: Mapping[str, Any]) -> None:
        """Add a row durably; one with the same key changes nothing."""
        line = _line(row)
        if self._end is None or self._size() != self._end:
            # Torn, or written by somebody else and so perhaps not durable.
            rows = self.read()
            if self._key_of(row) not in map(self._key_of, rows):
                rows.append(dict(row))
            self.replace(rows)
            return
        if self._key_of(row) in self._known:
            return
        end, self._end = self._end, None
        write_and_sync(self._files, self._files.open(self.path), line, end)
        self._end = end + len(line)
        self._known.add(self._key_of(row))

    def replace(self, rows: Iterable[Mapping[str, Any]]) -> None:
        """Write the whole file anew, durably."""
        kept = list(rows)
        content = b"".join(map(_line, kept))
        self._end = None
        replace_durably(self._files, self.path, content)
        self._end = len(content)
        self._known = {self._key_of(row) for row in kept}

    def _content(self) -> bytes:
        try:
            return self.path.read_bytes()
        except FileNotFoundError:
            return b""

    def _size(self) -> int:
        return self.path.stat().st_size if self.path.exists() else 0

    def _scan(self, content: bytes) -> _Scan:
        rows: list[Row] = []
        bad: int | None = None
        middle: int | None = None
        # What follows the last newline was torn off in the middle, even if it parses.
        for number, line in enumerate(content.split(b"\n")[:-1], 1):
            row = self._row(line)
            if row is None:
                bad = bad or number
            else:
                rows.append(row)
                middle = middle or bad
        return _Scan(rows, middle)

    def _row(self, line: bytes) -> Row | None:
        try:
            row = json.loads(line)
        except ValueError:
            return None
        return row if isinstance(row, dict) and all(field in row for field in self._key) else None

    def _key_of(self, row: Mapping[str, Any]) -> tuple[Any, ...]:
        return tuple(row[field] for field in self._key)


def _line(row: Mapping[str, Any]) -> bytes:
    return json.dumps(row, separators=(",", ":"), allow_nan=False).encode() + b"\n"


_MAGIC = b"KUBEVOSC"
_VERSION = 1
_HEAD = struct.Struct("<8sHI")
_CHECKSUM = struct.Struct("<I")
_RECORD = struct.Struct("<II")
_START = _HEAD.size + _CHECKSUM.size


class Scores:
    """The compact scores of every generation; all of a run's records have one size."""

    def __init__(self, files: Files, folder: Path) -> None:
        self.folder = folder
        self._files = files
        # Files that this object has written whole: only those are changed in place.
        self._trusted: set[Path] = set()

    def read(self, generation: int) -> bytes | None:
        """Return a generation's record; None where there is none that verifies."""
        path = self.folder / names.scores_file(generation)
        try:
            with path.open("rb") as stream:
                size = _size_of(stream.read(_START), path)
                if size is None:
                    return None
                stream.seek(_place(generation, size))
                return _scores_in(stream.read(_RECORD.size + size), generation, size)
        except FileNotFoundError:
            return None

    def write(self, generation: int, scores: bytes) -> None:
        """Put a generation's record in its place, durably; the same again changes nothing.

        Raises:
            StoreError: the file's records have another size.
        """
        path = self.folder / names.scores_file(generation)
        size = self._record_size(path)
        if size is not None and size != len(scores):
            raise StoreError(
                f"expected {size} bytes of scores as for the other generations in {path}, got "
                f"{len(scores)}: a run's population does not change; start another run"
            )
        body = _RECORD.pack(generation, _checksum(generation, scores)) + scores
        place = _place(generation, len(scores))
        if path in self._trusted:
            if self.read(generation) != scores:
                self._trusted.discard(path)
                write_and_sync(self._files, self._files.open(path), body, place)
        else:
            old = path.read_bytes() if path.exists() else b""
            before = (_head(len(scores)) + old[_START:place]).ljust(place, b"\0")
            replace_durably(self._files, path, before + body + old[place + len(body) :])
        self._trusted.add(path)

    def cut(self, last: int) -> None:
        """Drop the records of every generation beyond ``last``."""
        final = self.folder / names.scores_file(last)
        for path in sorted(self.folder.glob("*.bin")):
            if path.name > final.name:
                self._trusted.discard(path)
                self._files.unlink(path)
        size = self._record_size(final)
        if size is not None:
            end = _place(last, size) + _RECORD.size + size
            if final.stat().st_size > end:
                self._trusted.discard(final)
                replace_durably(self._files, final, final.read_bytes()[:end])

    def _record_size(self, path: Path) -> int | None:
        try:
            with path.open("rb") as stream:
                return _size_of(stream.read(_START), path)
        except FileNotFoundError:
            return None


def _head(size: int) -> bytes:
    head = _HEAD.pack(_MAGIC, _VERSION, size)
    return head + _CHECKSUM.pack(zlib.crc32(head))


def _size_of(head: bytes, path: Path) -> int | None:
    """Return the size of a file's records, None if a crash or a flip has spoiled its head."""
    if (
        len(head) < _START
        or zlib.crc32(head[: _HEAD.size]) != _CHECKSUM.unpack_from(head, _HEAD.size)[0]
    ):
        return None
    magic, version, size = _HEAD.unpack_from(head)
    if magic == _MAGIC and version != _VERSION:
        raise StoreError(
            f"{path} has version {version}, this program reads {_VERSION}: "
            "use the program that wrote it, or a newer one"
        )
    return int(size) if magic == _MAGIC else None


def _place(generation: int, size: int) -> int:
    return _START + generation % names.SCORES_PER_FILE * (_RECORD.size + size)


def _checksum(generation: int, scores: bytes) -> int:
    return zlib.crc32(scores, zlib.crc32(generation.to_bytes(4, "little")))


def _scores_in(record: bytes, generation: int, size: int) -> bytes | None:
    if len(record) < _RECORD.size + size:
        return None
    number, checksum = _RECORD.unpack_from(record)
    scores = record[_RECORD.size :]
    intact = number == generation and checksum == _checksum(generation, scores)
    return scores if intact else None
