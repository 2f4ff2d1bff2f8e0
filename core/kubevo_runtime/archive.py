"""A run as one tar stream, and back: how a search moves from one machine to another.

``pack`` reads a run's directory, also while it is searched: checkpoints come before what is written
behind them, the newest ahead, so that what follows is never behind them, and a row too many is cut
where the run goes on. ``unpack`` makes a run of the stream under its new name and uid. A checkpoint
carries the uid of its run, so each is sealed anew; the search in it stays the same, byte for byte.

A run appears whole or not at all: it is put together aside (`arriving`) and gets its name at the end.
"""

import os
import re
import tarfile
from collections.abc import Callable, Generator, Iterator
from contextlib import suppress
from pathlib import Path
from typing import IO

from kubevo_core import names
from kubevo_core.container import Header, open_sealed, seal
from kubevo_core.errors import FormatError, RunMismatch, StoreError, StoreFull
from kubevo_runtime.arriving import arriving, put_in_place
from kubevo_runtime.store import LOGS, OWNER, Run, open_run
from kubevo_runtime.store_files import DiskFiles, make_directory, storing
from kubevo_runtime.store_owner import Owner, read_owner, write_owner

__all__ = ["pack", "unpack"]

END = "END"  # without it the stream was cut off between two files
PIECE_BYTES = 1024**2
MEBIBYTE = 1024**2
LEAST_FREE_BYTES = 16 * MEBIBYTE
LISTINGS = 20
DISK = DiskFiles()
_CUT_OFF = "expected a run as kubevo packs it, the stream is damaged or cut off"
_SEALED = re.compile(r"import\.ck|repeat-\d{1,9}/generations/gen-\d{7,10}\.ck", re.ASCII)
_CHECKPOINT = re.compile(r"gen-\d{7,10}\.ck", re.ASCII)
_REPEAT = re.compile(r"repeat-\d{1,9}", re.ASCII)
# What is sent of each repeat after its checkpoints, in this order.
_BEHIND = (
    re.compile(r"scores/scores-\d{5,10}\.bin", re.ASCII),
    re.compile(r"(history|tests)\.jsonl", re.ASCII),
    re.compile(r"videos/gen-\d{7,10}\.mp4", re.ASCII),
)
# The files of a run that belong to the search, and how large one may be. A sealed one is in memory
# as a whole, and more than once; the others never are.
_KNOWN = (
    (re.compile(r"OWNER", re.ASCII), MEBIBYTE),
    (re.compile(r"spec\.yaml|describe\.json", re.ASCII), 4 * MEBIBYTE),
    (_SEALED, 256 * MEBIBYTE),
    *((re.compile(rf"repeat-\d{{1,9}}/{p.pattern}", re.ASCII), 4096 * MEBIBYTE) for p in _BEHIND),
)


def pack(path: Path) -> Iterator[bytes]:
    """Yield the run at ``path`` as a tar stream, in pieces of at most a mebibyte.

    Raises:
        RunNotFound: there is no run.
        StoreError: a file cannot be read, or what is pruned cannot be followed.
    """
    open_run(path)  # says what is wrong before anything is sent
    size = 0
    for piece in _content(path):
        size += len(piece)
        yield piece
    end = _header(END, 0) + tarfile.NUL * (2 * tarfile.BLOCKSIZE)
    # Whole records: who reads records from a pipe that stays open gets the last one, too.
    yield end + tarfile.NUL * (-(size + len(end)) % tarfile.RECORDSIZE)


def _content(path: Path) -> Iterator[bytes]:
    for name in (OWNER, "spec.yaml"):  # its quota bounds what is taken in
        yield from _packed(path, name)
    begun: dict[str, bool] = {}
    for repeat in sorted(_listed(path, "repeat-*", _REPEAT)):
        begun[repeat] = yield from _checkpoints(path, repeat)
    # What is written once, before the first checkpoint of all.
    for name in ("import.ck", "describe.json"):
        yield from _packed(path, name)
    # A repeat that began meanwhile is left out: it begins anew where this arrives.
    for pattern in _BEHIND:
        for repeat in filter(begun.get, begun):
            folder = path / repeat
            there = _listed(folder, "*", pattern) + _listed(folder, "*/*", pattern)
            for name in sorted(there, reverse=True):
                yield from _packed(path, f"{repeat}/{name}")


def _checkpoints(path: Path, repeat: str) -> Generator[bytes, None, bool]:
    """Send a repeat's checkpoints as they are now: listed earlier, they might all be pruned."""
    folder = f"{repeat}/generations"
    has_begun = False
    for _ in range(LISTINGS):
        is_sent = False
        there = sorted(_listed(path / folder, "*", _CHECKPOINT), reverse=True)
        for name in there:
            is_there = yield from _packed(path, f"{folder}/{name}")
            is_sent = is_sent or is_there
        has_begun = has_begun or bool(there)
        if is_sent or not has_begun:
            return is_sent
    raise StoreError(
        f"every checkpoint of {path / folder} was pruned before it could be read, {LISTINGS} "
        "times: suspend the search, or raise its checkpoint.keepLast, and try again"
    )


def _packed(path: Path, name: str) -> Generator[bytes, None, bool]:
    """Send a file; return whether it was there."""
    with storing(path / name, "read"):
        try:
            file = (path / name).open("rb")
        except FileNotFoundError:  # never there, or pruned meanwhile
            return False
    # What is replaced or pruned now stays as it is for whoever has opened it.
    with file:
        left = os.fstat(file.fileno()).st_size
        yield _header(name, left)
        padding = -left % tarfile.BLOCKSIZE
        while left:
            with storing(path / name, "read"):
                piece = file.read(min(left, PIECE_BYTES))
            if not piece:
                raise StoreError(f"{path / name} has become shorter while it was read: try again")
            left -= len(piece)
            yield piece
        yield tarfile.NUL * padding
    return True


def _header(name: str, size: int) -> bytes:
    entry = tarfile.TarInfo(name)
    entry.size = size
    return entry.tobuf(tarfile.PAX_FORMAT)


def _listed(folder: Path, glob: str, pattern: re.Pattern[str]) -> list[str]:
    with storing(folder, "list"):
        there = [file.relative_to(folder).as_posix() for file in folder.glob(glob)]
    return [name for name in there if pattern.fullmatch(name)]


def _never(there: Run, _arrived: Run) -> bool:
    raise RunMismatch(
        f"{there.path} is there already: go on with it, or remove it first to take the other one "
        "in its place"
    )


def unpack(
    stream: IO[bytes],
    root: Path,
    namespace: str,
    *,
    name: str | None = None,
    uid: str | None = None,
    gives_way: Callable[[Run, Run], bool] = _never,
    within_quota: bool = False,
) -> Run:
    """Make a run of what `pack` gave, as ``name`` and ``uid`` (default: those it had).

    Where there is a run of that name and uid, ``gives_way(there, arrived)`` is asked whether the
    one that arrived takes its place; nobody writes to it meanwhile. ``within_quota`` takes in no
    more than the Experiment's own quota.

    Raises:
        RunMismatch: there is a run of that name and uid already.
        StoreFull: there is no room for it.
        StoreError: the stream is not a run's, or is cut off.
        CheckpointCorrupt, CheckpointVersionError: a checkpoint does not verify.
    """
    root = root.absolute()
    with storing(root, "make the folder of a run that arrives"):
        make_directory(DISK, root)
        _require_free(root, 0)
        make_directory(DISK, root / namespace)
    with arriving(root) as folder:
        source = _extract(stream, folder, uid, within_quota)
        owner = Owner(
            uid or source.uid, name or source.name, namespace, takeover=0, host="", pid=0
        ).claimed(0)
        target = root / namespace / names.run_folder(owner.name, owner.uid)
        with storing(folder, "store a run that arrives"):
            make_directory(DISK, folder / LOGS)
            write_owner(DISK, folder, owner)
        arrived = _verified(folder)
        if (target / OWNER).exists():
            there = open_run(target)
            with there.held():
                if not gives_way(open_run(target), arrived):
                    return there
                put_in_place(folder, target)
        else:
            put_in_place(folder, target)
    return open_run(target)


def _extract(stream: IO[bytes], folder: Path, uid: str | None, within_quota: bool) -> Owner:
    """Store every file of the stream, checkpoints sealed for ``uid``; return whose run it was."""
    source: Owner | None = None
    quota: int | None = None
    size = 0
    try:
        with tarfile.open(fileobj=stream, mode="r|") as tar:
            for entry in tar:
                if entry.name == END and source is not None:
                    return source
                _require_known(entry, is_first=source is None)
                _require_free(folder, entry.size)
                size += entry.size
                _require_quota(quota, size)
                file = tar.extractfile(entry)
                assert file is not None
                pieces: Iterator[bytes] = iter(lambda f=file: f.read(PIECE_BYTES), b"")  # type: ignore[misc]
                if source is not None and _SEALED.fullmatch(entry.name):
                    pieces = _sealed_anew(entry.name, pieces, source.uid, uid or source.uid)
                _store(folder / entry.name, pieces)
                source = source or read_owner(folder)
                if within_quota and entry.name == "spec.yaml":
                    quota = open_run(folder).quota_bytes
    except (tarfile.TarError, EOFError, OSError) as exc:
        raise StoreError(f"{_CUT_OFF} ({exc}): send it again") from exc
    raise StoreError(f"{_CUT_OFF}: send it again")


def _require_known(entry: tarfile.TarInfo, *, is_first: bool) -> None:
    most = next((most for pattern, most in _KNOWN if pattern.fullmatch(entry.name)), -1)
    is_known = (entry.name == OWNER) == is_first and entry.isreg()
    if not (is_known and entry.size <= most):
        allowed = f" (at most {most:,})" if most >= 0 else ""
        raise StoreError(
            f"expected {OWNER} and then a run's own files, got {entry.name[:200]!r} of "
            f"{entry.size:,} bytes{allowed}: pack it with kubevo push or pull, of this version or "
            "an older one"
        )


def _require_free(folder: Path, size: int) -> None:
    with storing(folder, "look for room"):
        free = DISK.free_bytes(folder)
    if free is not None and free < size + LEAST_FREE_BYTES:
        raise StoreFull(
            f"expected {size + LEAST_FREE_BYTES:,} bytes free in {folder} for the run that "
            f"arrives, found {free:,}: enlarge the volume, or free space on it"
        )


def _require_quota(quota: int | None, size: int) -> None:
    # What was written while it was sent, and rows of a run that was full, must not stop it.
    if quota is not None and size > quota + LEAST_FREE_BYTES:
        raise StoreFull(
            f"the run that arrives has more than {size:,} bytes, its quota is {quota:,}: raise "
            "checkpoint.quotaMebibytes, or remove videos and checkpoints that are not needed"
        )


def _sealed_anew(name: str, pieces: Iterator[bytes], source_uid: str, uid: str) -> Iterator[bytes]:
    try:
        header, payload = open_sealed(b"".join(pieces))
    except FormatError as exc:
        raise type(exc)(f"{name} of the run that arrives: {exc}") from exc
    if header.uid != source_uid:
        raise StoreError(
            f"{name} of the run that arrives: expected a checkpoint of {source_uid}, found one of "
            f"{header.uid}: it is another run's, remove it there"
        )
    yield seal(Header(uid, header.repeat, header.generation), payload)


def _store(file: Path, pieces: Iterator[bytes]) -> None:
    """Write a file durably; one that breaks off goes with its folder."""
    with storing(file, "store a run that arrives"):
        make_directory(DISK, file.parent)
        handle = DISK.create(file)
    offset = 0
    try:
        for piece in pieces:
            with storing(file, "store a run that arrives"):
                DISK.write(handle, piece, offset)
            offset += len(piece)
        with storing(file, "store a run that arrives"):
            DISK.sync(handle)
    finally:
        with suppress(OSError):  # the sync has told
            DISK.close(handle)
    with storing(file, "store a run that arrives"):
        DISK.sync_directory(file.parent)


def _verified(folder: Path) -> Run:
    """Read what arrived as a search would: it must be able to go on."""
    run = open_run(folder)
    run.description()
    for number in run.begun():
        repeat = run.repeat(number)
        if repeat.latest() is None and (repeat.history() or any(repeat.path.glob("scores/*"))):
            raise StoreError(
                f"expected a checkpoint of {repeat.path.name} of the run that arrives, found only what "
                "was written behind one: its checkpoints were pruned while it was packed, send "
                "it again"
            )
    return run
