"""Every crash that the order of file operations allows leaves a run that loads and goes on.

A recorder writes down what the store does to the file system. For every prefix of that log the
crash states are built that a POSIX file system may show after a power loss: contents that were not
fsynced are there, lost, half there or zeros; names that were not fsynced with their directory are
there or not, in any combination. (Pillai et al., "All File Systems Are Not Created Equal", 2014.)
"""

import hashlib
import itertools
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from kubevo_core.container import Header, seal
from kubevo_core.errors import RunNotFound
from kubevo_runtime.store import create_run, open_run
from kubevo_runtime.store_files import DiskFiles

UID = "0a1b2c3d-0000-4000-8000-000000000001"
EXPERIMENT = {"spec": {"seed": 7}}
GENERATIONS = 8
TEST_ROW = {"generation": 1, "purpose": "test", "mean": 1.0}


def payload(generation):
    return f"generation {generation} ".encode() * 4


def row(generation):
    return {"generation": generation, "frames": 10 * generation}


def scores(generation):
    return bytes([65 + generation]) * 16


def row_of(content):
    generation = int(content.split()[1])
    return row(generation), scores(generation)


def save(run, generation):
    content = seal(Header(UID, 0, generation), payload(generation))
    run.repeat(0).save(generation, content, row(generation), scores(generation))


class Unsynced(DiskFiles):
    """For the reader's side of the test, where no power is lost."""

    def sync(self, handle):
        pass

    def sync_directory(self, path):
        pass


class Recorder(Unsynced):
    """Does everything and writes it down; files are numbered, since names move."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.log: list[tuple] = []
        self.handles: dict[int, int] = {}
        self.inodes: dict[Path, int] = {}

    def note(self, kind: str, *details: object) -> None:
        self.log.append((kind, *details))

    def create(self, path):
        handle = super().create(path)
        inode = self.handles[handle] = sum(1 for each in self.log if each[0] == "create")
        self.inodes[path] = inode
        self.note("create", path, inode)
        return handle

    def open(self, path):
        handle = super().open(path)
        self.handles[handle] = self.inodes[path]
        return handle

    def write(self, handle, content, offset):
        super().write(handle, content, offset)
        self.note("write", self.handles[handle], offset, bytes(content))

    def sync(self, handle):
        self.note("sync", self.handles[handle])

    def rename(self, source, target):
        super().rename(source, target)
        self.inodes[target] = self.inodes.pop(source)
        self.note("rename", source, target, self.inodes[target])

    def unlink(self, path):
        super().unlink(path)
        self.note("unlink", path)

    def make_directory(self, path):
        super().make_directory(path)
        self.note("directory", path)

    def sync_directory(self, path):
        self.note("sync_directory", path)


@dataclass
class Disk:
    """What is durable, and what is only in memory."""

    durable: dict[int, bytes] = field(default_factory=dict)
    current: dict[int, bytes] = field(default_factory=dict)
    entries: dict[Path, int | None] = field(default_factory=dict)  # None = a directory
    pending: list[tuple] = field(default_factory=list)

    def apply(self, operation: tuple) -> None:
        match operation:
            case ("create", _, inode):
                self.durable[inode] = self.current[inode] = b""
                self.pending.append(operation)
            case ("write", inode, offset, content):
                old = self.current[inode].ljust(offset, b"\0")
                self.current[inode] = old[:offset] + content + old[offset + len(content) :]
            case ("sync", inode):
                self.durable[inode] = self.current[inode]
            case ("rename" | "unlink" | "directory", *_):
                self.pending.append(operation)
            case ("sync_directory", directory):
                here = [each for each in self.pending if each[1].parent == directory]
                self.pending = [each for each in self.pending if each not in here]
                self.entries = named(self.entries, here)

    def states(self) -> Iterator[dict[Path, bytes | None]]:
        """Give every tree of files that a crash now may leave."""
        dirty = any(self.durable[i] != self.current[i] for i in self.current)
        assert len(self.pending) <= 8, "too much is pending to try every combination"
        for chosen in itertools.product((False, True), repeat=len(self.pending)):
            entries = named(self.entries, itertools.compress(self.pending, chosen))
            for spoil in (whole, lost, half, zeros) if dirty else (whole,):
                yield {
                    path: None if i is None else spoil(self.durable[i], self.current[i])
                    for path, i in entries.items()
                }


def named(entries, operations):
    found = dict(entries)
    for operation in operations:
        match operation:
            case ("create", path, inode):
                found[path] = inode
            case ("rename", source, target, inode):
                found.pop(source, None)
                found[target] = inode
            case ("unlink", path):
                found.pop(path, None)
            case ("directory", path):
                found[path] = None
    return found


def whole(durable, current):
    return current


def lost(durable, current):
    return durable


def half(durable, current):
    same = sum(
        1
        for _ in itertools.takewhile(
            lambda pair: pair[0] == pair[1], zip(durable, current, strict=False)
        )
    )
    return durable if durable == current else current[: same + (len(current) - same) // 2]


def zeros(durable, current):
    return durable.ljust(len(current), b"\0")


def build(tree: dict[Path, bytes | None], source: Path, target: Path) -> None:
    """Write a tree; what lies in a directory whose name was lost is lost with it."""
    target.mkdir()
    for path, content in sorted(tree.items()):
        place = target / path.relative_to(source)
        if place.parent.is_dir():
            if content is None:
                place.mkdir()
            else:
                place.write_bytes(content)


def recorded(root: Path) -> list[tuple]:
    """Return the log of a run that is created, saves, prunes, ends, and is resumed."""
    files = Recorder(root)
    run = create_run(root, "local", "cart", UID, EXPERIMENT, files=files)
    files.note("created")
    run.claim()
    for generation in range(GENERATIONS - 1):
        files.note("saving", generation)
        save(run, generation)
        files.note("saved", generation)
        run.repeat(0).prune(1, 0, 0)
        if generation == 1:
            run.repeat(0).append_test(TEST_ROW)
            files.note("tested")
    run = open_run(run.path, files=files)
    run.claim()
    run.repeat(0).repair(GENERATIONS - 2, row_of)
    files.note("saving", GENERATIONS - 1)
    save(run, GENERATIONS - 1)
    files.note("saved", GENERATIONS - 1)
    return files.log


def check(root: Path, done: dict[str, int]) -> None:
    """Open what a crash has left, read it, repair it, and go on."""
    path = root / "recorded" / "local" / "cart-0a1b2c3d"
    try:
        run = open_run(path, files=Unsynced())
    except RunNotFound:
        assert "created" not in done
        return
    assert (run.uid, run.experiment()) == (UID, EXPERIMENT)
    store = run.repeat(0)
    loaded = store.latest()
    generation = -1 if loaded is None else loaded.generation
    assert done.get("saved", -1) <= generation <= done.get("saving", -1)
    rows = store.history()
    assert rows == [row(g) for g in range(len(rows))]
    assert len(rows) >= done.get("saved", -1) + 1
    assert store.tests() == [TEST_ROW] or "tested" not in done
    run.claim()
    if loaded is not None:
        assert (loaded.payload, loaded.skipped) == (payload(generation), [])
        store.repair(generation, row_of)
    assert store.history() == [row(g) for g in range(generation + 1)]
    save(run, generation + 1)
    again = open_run(path)
    assert again.repeat(0).latest().generation == generation + 1
    assert again.repeat(0).history() == [row(g) for g in range(generation + 2)]
    assert [again.repeat(0).scores(g) for g in range(generation + 2)] == [
        scores(g) for g in range(generation + 2)
    ]
    assert not list(path.rglob("*.tmp"))
    assert not list(path.rglob("*.corrupt"))


def check_all(log: list[tuple], source: Path, scratch: Path) -> int:
    """Check every crash state of every prefix; return how many differed."""
    seen: set[bytes] = set()
    disk, done = Disk(), {}
    for number, operation in enumerate(log):
        disk.apply(operation)
        if operation[0] in {"created", "saving", "saved", "tested"}:
            done[operation[0]] = operation[-1]
        for tree in disk.states():
            digest = hashlib.sha256(repr((sorted(tree.items()), done)).encode()).digest()
            if digest in seen:
                continue
            seen.add(digest)
            build(tree, source, scratch)
            try:
                check(scratch, done)
            except Exception as exc:
                raise AssertionError(f"crash after operation {number}, {operation[:3]}") from exc
            shutil.rmtree(scratch)
    return len(seen)


def test_every_crash_state_loads_repairs_and_goes_on(tmp_path):
    log = recorded(tmp_path / "recorded")
    states = check_all(log, tmp_path, tmp_path / "crashed")
    assert len(log) > 150
    assert states > 150


@pytest.mark.parametrize("forgotten", ["sync", "sync_directory"])
def test_the_simulation_notices_a_forgotten(tmp_path, forgotten):
    log = recorded(tmp_path / "recorded")
    with pytest.raises(AssertionError, match="crash after operation"):
        check_all([each for each in log if each[0] != forgotten], tmp_path, tmp_path / "crashed")


@pytest.mark.parametrize("name", ["generations", "history", "OWNER"])
def test_the_simulation_notices_one_forgotten_fsync(tmp_path, name):
    log = recorded(tmp_path / "recorded")
    inodes = {each[2] for each in log if each[0] == "create" and name in str(each[1])}
    assert inodes
    kept = [each for each in log if not (each[0] == "sync" and each[1] in inodes)]
    with pytest.raises(AssertionError, match="crash after operation"):
        check_all(kept, tmp_path, tmp_path / "crashed")
