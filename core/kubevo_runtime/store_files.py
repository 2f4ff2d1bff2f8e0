"""The file layer under the run's directory: the few operations that make bytes durable.

Every change to a run goes through one `Files` object, so that a test can record the order of
write, fsync, rename and directory fsync, replay each crash that this order allows, or let the n-th
operation fail. Reading needs no such seam and works without write permission.

A new file becomes visible whole or not at all::

    create  .<name>.<token>.tmp  →  write  →  fsync  →  rename to <name>  →  fsync of the directory
"""

import errno
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Protocol

from kubevo_core.errors import StoreError, StoreFull

__all__ = [
    "DiskFiles",
    "Files",
    "make_directory",
    "replace_durably",
    "storing",
    "sweep_temporaries",
    "write_and_sync",
]

TEMPORARY = ".tmp"
_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
_READ_ONLY = {errno.EROFS, errno.EACCES, errno.EPERM}


class Files(Protocol):
    """What changes a file system; each raises OSError, and a failed ``sync`` is final."""

    def create(self, path: Path) -> int:
        """Open a file that must not exist yet."""

    def open(self, path: Path) -> int:
        """Open a file that exists, for writing."""

    def write(self, handle: int, content: bytes, offset: int) -> None:
        """Write all of ``content`` at ``offset``."""

    def sync(self, handle: int) -> None:
        """Make the file's contents durable."""

    def close(self, handle: int) -> None:
        """Close a file; a network file system may only now tell of a failed write."""

    def rename(self, source: Path, target: Path) -> None:
        """Give a file another name in its directory, replacing what had that name."""

    def unlink(self, path: Path) -> None:
        """Remove a file."""

    def make_directory(self, path: Path) -> None:
        """Make one directory; its parent exists."""

    def sync_directory(self, path: Path) -> None:
        """Make the names in a directory durable."""

    def free_bytes(self, path: Path) -> int | None:
        """Return what the volume of ``path`` still takes; None where it does not say."""


class DiskFiles:
    """The operating system's files."""

    def create(self, path: Path) -> int:
        """Open a file that must not exist yet."""
        return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644)

    def open(self, path: Path) -> int:
        """Open a file that exists, for writing."""
        return os.open(path, os.O_WRONLY | os.O_CLOEXEC)

    def write(self, handle: int, content: bytes, offset: int) -> None:
        """Write all of ``content`` at ``offset``; the system may take it in parts."""
        left = memoryview(content)
        while left:
            written = os.pwrite(handle, left, offset)
            left, offset = left[written:], offset + written

    def sync(self, handle: int) -> None:
        """Make the file's contents durable."""
        os.fsync(handle)

    def close(self, handle: int) -> None:
        """Close a file."""
        os.close(handle)

    def rename(self, source: Path, target: Path) -> None:
        """Give a file another name in its directory."""
        source.rename(target)

    def unlink(self, path: Path) -> None:
        """Remove a file."""
        path.unlink()

    def make_directory(self, path: Path) -> None:
        """Make one directory."""
        path.mkdir()

    def sync_directory(self, path: Path) -> None:
        """Make the names in a directory durable."""
        handle = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)

    def free_bytes(self, path: Path) -> int | None:
        """Return what the volume still takes from a process without privileges."""
        volume = os.statvfs(path)
        # Some network and virtual file systems report no blocks at all; that is not "full".
        return volume.f_bavail * volume.f_frsize if volume.f_blocks else None


def replace_durably(files: Files, path: Path, content: bytes) -> None:
    """Write ``path`` whole and durably; on an error what was there before stays.

    The temporary's name is drawn anew each time: a frozen writer that wakes up must never rename
    the half-written file of its successor.
    """
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}{TEMPORARY}")
    try:
        write_and_sync(files, files.create(temporary), content, 0)
        files.rename(temporary, path)
    except OSError:
        with suppress(OSError):
            files.unlink(temporary)
        raise
    files.sync_directory(path.parent)


def write_and_sync(files: Files, handle: int, content: bytes, offset: int) -> None:
    """Write, sync and close; after a failed sync the descriptor is not used again.

    The kernel drops the pages of a failed fsync, so that a second fsync would succeed without
    having written them.
    """
    try:
        files.write(handle, content, offset)
        files.sync(handle)
    except OSError:
        with suppress(OSError):
            files.close(handle)
        raise
    files.close(handle)


def make_directory(files: Files, path: Path) -> None:
    """Make a directory and its parents durably; one that exists is made durable again.

    The sync is repeated because whoever made it may have died before its own.
    """
    if path.parent != path and not path.parent.is_dir():
        make_directory(files, path.parent)
    if not path.is_dir():
        with suppress(FileExistsError):  # another repeat's thread was faster
            files.make_directory(path)
    files.sync_directory(path.parent)


def sweep_temporaries(files: Files, directory: Path) -> None:
    """Remove what writers that died have left in ``directory``; call it under the save lock."""
    for path in sorted(directory.glob(f".*{TEMPORARY}")):
        with suppress(FileNotFoundError):
            files.unlink(path)


@contextmanager
def storing(path: Path, what: str) -> Iterator[None]:
    """Turn an OSError inside into the StoreError that says what to do about it.

    Raises:
        StoreFull: no space, over a file system's quota, or over the process's file size limit.
        StoreError: read-only, gone, or a failing disk.
    """
    try:
        yield
    except OSError as exc:
        reason = f"could not {what} in {path}: {exc.strerror or exc}"
        if exc.errno in _FULL:
            raise StoreFull(
                f"{reason}; the last checkpoint is intact: free space or enlarge the volume, "
                "then resume"
            ) from exc
        if exc.errno in _READ_ONLY:
            cure = "the directory must be writable by this process"
        elif exc.errno == errno.ENOENT:
            cure = "the run's directory was moved or removed while it was in use"
        else:
            cure = "the last checkpoint is intact; check the disk and the kernel's log, then resume"
        raise StoreError(f"{reason}; {cure}") from exc
