"""``<root>/.arriving/``: where a run is put together before it gets its name, and what died there.

Each arrival has a folder of its own and holds the lock in it; one lock for all makes looking,
making and removing one step. Flocks are on files, because network file systems lock no folders.
A run that is replaced lies here for the moment between two renames: whoever finds it behind a
process that died gives it its place back.
"""

import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from kubevo_core import names
from kubevo_core.errors import RunMismatch, StoreError
from kubevo_runtime.store_files import DiskFiles, make_directory, storing
from kubevo_runtime.store_owner import OWNER, read_owner

__all__ = ["ARRIVING", "arriving", "clear_arriving", "put_in_place"]

ARRIVING = ".arriving"
LOCK = ".lock"
RUN, OLD = "run", "old"
DISK = DiskFiles()


@contextmanager
def arriving(root: Path) -> Iterator[Path]:
    """Give an empty folder that nobody takes for a run; what earlier ones left goes first.

    It lies two levels down, deeper than runs are looked for.
    """
    parent = root / ARRIVING
    with storing(parent, "make a folder for a run that arrives"):
        make_directory(DISK, parent)
        with _locked(parent):
            _clear(root)
            beside = Path(tempfile.mkdtemp(dir=parent))
            lock = _lock(beside, fcntl.LOCK_EX)
            (beside / RUN).mkdir()
    try:
        yield beside / RUN
    finally:
        with suppress(OSError, StoreError):  # it stays for the next one to remove
            _remove(root, beside)
        os.close(lock)


def clear_arriving(root: Path) -> None:
    """Remove what arrivals that died have left; one that lives keeps its own.

    Raises:
        StoreError: the folder cannot be used.
    """
    parent = root / ARRIVING
    if parent.is_dir():
        with storing(parent, "clear what arrived in part"), _locked(parent):
            _clear(root)


def put_in_place(folder: Path, target: Path) -> None:
    """Give the run in ``folder``, of `arriving`, the name ``target``; what has that name goes.

    Whoever replaces a run holds it meanwhile.

    Raises:
        RunMismatch: something else took the name.
        StoreError: as `storing` says.
    """
    old = folder.with_name(OLD)
    with storing(target, "name a run that arrived"):
        if (target / OWNER).exists():
            target.rename(old)
            DISK.sync_directory(old.parent)
        try:
            folder.rename(target)
        except OSError as exc:
            if not target.exists():
                raise
            raise RunMismatch(
                f"{target} is there already: go on with it, or remove it first to take the other "
                "one in its place"
            ) from exc
        DISK.sync_directory(target.parent)


def _clear(root: Path) -> None:
    for left in sorted((root / ARRIVING).iterdir()):
        if left.is_symlink() or not left.is_dir():
            continue
        with suppress(OSError, StoreError):  # its owner lives, or has just removed it
            lock = _lock(left, fcntl.LOCK_EX | fcntl.LOCK_NB)
            try:
                _remove(root, left)
            finally:
                os.close(lock)


def _remove(root: Path, beside: Path) -> None:
    """Remove the folder of an arrival; a run that was taken out of its place goes back there."""
    old = beside / OLD
    if (old / OWNER).exists():
        owner = read_owner(old)
        target = root / owner.namespace / names.run_folder(owner.name, owner.uid)
        if not (target / OWNER).exists():
            old.rename(target)
            DISK.sync_directory(target.parent)
    shutil.rmtree(beside, ignore_errors=True)


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    lock = _lock(folder, fcntl.LOCK_EX)
    try:
        yield
    finally:
        os.close(lock)  # and with it the lock


def _lock(folder: Path, how: int) -> int:
    handle = os.open(folder / LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        fcntl.flock(handle, how)
    except OSError:
        os.close(handle)
        raise
    return handle
