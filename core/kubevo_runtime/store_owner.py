"""Who may write to a run: the OWNER file, the two locks, the fence and the room that is left.

``OWNER`` says whose run it is and which takeover owns it; it is replaced whole, under the save
lock. Each save takes that lock, and a writer whose takeover is lower than OWNER's is fenced: a
leader that was frozen and wakes up late cannot write. The run lock is held for a local process's
whole life. Both are flocks on files of their own, so that they end with the process that held them.
"""

import fcntl
import json
import os
import socket
import stat
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from kubevo_core.errors import Fenced, RunInUse, RunNotFound, StoreError, StoreFull
from kubevo_runtime.store_files import Files, replace_durably, storing

__all__ = ["OWNER", "Gate", "Owner", "read_owner", "run_lock", "walked_bytes", "write_owner"]

OWNER = "OWNER"
RUN_LOCK = ".lock"
SAVE_LOCK = ".saving"
# A save takes milliseconds; whoever holds the lock this long is frozen or its disk hangs.
PATIENCE_SECONDS = 60.0
LOOK_AGAIN_SECONDS = 0.01
# Directory entries, rounding to blocks, and the row; a volume is called full before it is.
SLACK_BYTES = 256 * 1024


@dataclass(frozen=True)
class Owner:
    """What the OWNER file says; ``host`` and ``pid`` name the process that claimed it last."""

    uid: str
    name: str
    namespace: str
    takeover: int
    host: str
    pid: int

    def claimed(self, takeover: int) -> "Owner":
        """Return the owner after this process's claim."""
        return replace(self, takeover=takeover, host=socket.gethostname(), pid=os.getpid())


def read_owner(path: Path) -> Owner:
    """Return what the OWNER file of the run at ``path`` says.

    Raises:
        RunNotFound: there is none.
        StoreError: it cannot be read.
    """
    file = path / OWNER
    try:
        with storing(file, "read"):
            document = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else None
        if document is None:
            raise RunNotFound(f"expected the directory of a run at {path}, found no {OWNER} in it")
        for name, kind in Owner.__annotations__.items():
            if not isinstance(document[name], kind):
                raise TypeError(f"{name} is {document[name]!r}")
        return Owner(**{name: document[name] for name in Owner.__annotations__})
    except (ValueError, KeyError, TypeError) as exc:
        raise StoreError(
            f"{file} is damaged ({type(exc).__name__}: {exc}): restore it from a copy; it is JSON "
            f"with {', '.join(Owner.__annotations__)}"
        ) from exc


def write_owner(files: Files, path: Path, owner: Owner) -> None:
    """Replace the OWNER file durably."""
    replace_durably(files, path / OWNER, json.dumps(asdict(owner), indent=2).encode() + b"\n")


@contextmanager
def run_lock(path: Path) -> Iterator[None]:
    """Hold the run for this process alone.

    Raises:
        RunInUse: another process holds it; the message names it.
    """
    file = path / RUN_LOCK
    with storing(path, "take the run's lock"):
        handle = os.open(file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        with storing(path, "take the run's lock"):
            if not _try_lock(handle):
                holder = os.pread(handle, 200, 0).decode(errors="replace").strip() or "unknown"
                raise RunInUse(
                    f"{path} is in use by another process ({holder}): wait for it or end it, "
                    "or name another directory"
                )
            os.ftruncate(handle, 0)
            os.pwrite(handle, f"pid {os.getpid()} on {socket.gethostname()}\n".encode(), 0)
        yield
    finally:
        os.close(handle)  # and with it the lock


def _try_lock(handle: int) -> bool:
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


class Gate:
    """What every write to one run passes: the save lock, the fence, and the check for room."""

    def __init__(self, files: Files, path: Path, owner: Owner, quota_bytes: int | None) -> None:
        self.files = files
        self.path = path
        self.owner = owner
        self.quota_bytes = quota_bytes
        self._threads = threading.Lock()
        self._used: int | None = None

    @contextmanager
    def writing(self, what: str) -> Iterator[None]:
        """Hold the save lock as the run's owner.

        Raises:
            Fenced: a later takeover owns the run.
            RunInUse: the lock stayed held.
            StoreFull, StoreError: as `storing` says.
        """
        with self.taking_over(what) as found:
            if found.takeover > self.owner.takeover:
                raise Fenced(self._fenced(found))
            yield

    @contextmanager
    def taking_over(self, what: str) -> Iterator[Owner]:
        """Hold the save lock whoever owns the run, and give what OWNER says now."""
        with self._threads, self._locked(), storing(self.path, what):
            found = read_owner(self.path)
            if found.uid != self.owner.uid:
                raise Fenced(self._fenced(found))
            try:
                yield found
            except OSError:
                self._used = None
                raise

    def _fenced(self, found: Owner) -> str:
        return (
            f"expected {self.path} to be owned by uid {self.owner.uid}, takeover "
            f"{self.owner.takeover}, found uid {found.uid}, takeover {found.takeover} (pid "
            f"{found.pid} on {found.host}): this process must stop, the other one goes on"
        )

    @contextmanager
    def _locked(self) -> Iterator[None]:
        with storing(self.path, "take the save lock"):
            file = self.path / SAVE_LOCK
            handle = os.open(file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            deadline = time.monotonic() + PATIENCE_SECONDS
            with storing(self.path, "take the save lock"):
                while not _try_lock(handle):
                    if time.monotonic() >= deadline:
                        owner = read_owner(self.path)
                        raise RunInUse(
                            f"the save lock of {self.path} was held for {PATIENCE_SECONDS:.0f} s; "
                            f"its owner is pid {owner.pid} on {owner.host}: if that process is "
                            "frozen, end it"
                        )
                    time.sleep(LOOK_AGAIN_SECONDS)
            yield
        finally:
            os.close(handle)

    def require_room(self, needed: int, what: str) -> None:
        """Refuse to start a write that would not fit; nothing has been written yet.

        Raises:
            StoreFull: the volume or the quota has less than ``needed`` bytes left.
        """
        cure = "the last checkpoint is intact"
        free = self.files.free_bytes(self.path)
        if free is not None and free < needed + SLACK_BYTES:
            raise StoreFull(
                f"expected {needed + SLACK_BYTES:,} bytes free to {what} in {self.path}, found "
                f"{free:,}; {cure}: free space or enlarge the volume, then resume"
            )
        if self.quota_bytes is None:
            return
        if self.used_bytes() + needed > self.quota_bytes:
            self._used = None  # the count may have drifted upwards: refuse on an exact one only
            if self.used_bytes() + needed > self.quota_bytes:
                raise StoreFull(
                    f"could not {what} in {self.path}: {self.used_bytes():,} bytes used and "
                    f"{needed:,} needed, the quota is {self.quota_bytes:,}; {cure}: raise "
                    "checkpoint.quotaMebibytes or keep fewer checkpoints (keepLast, keepEvery), "
                    "then resume"
                )

    def used_bytes(self) -> int:
        """Return the size of the run's own files, counted along since the first walk."""
        if self._used is None:
            self._used = walked_bytes(self.path)
        return self._used

    def count(self, change: int) -> None:
        """Note that the run's files grew (or shrank) by ``change`` bytes."""
        if self._used is not None:
            self._used += change


def walked_bytes(path: Path) -> int:
    """Return the size of a run's own files: not a local broker's, nor the logs."""
    total = 0
    for file in (*path.glob("*"), *path.glob("repeat-*/**/*")):
        with suppress(FileNotFoundError):  # pruned meanwhile
            status = file.stat()
            total += status.st_size if stat.S_ISREG(status.st_mode) else 0
    return total
