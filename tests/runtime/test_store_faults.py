"""Full disks, failing disks, read-only directories, rival processes and kills: clear, never fatal."""

import errno
import random
import resource
import signal
import subprocess
import sys
import textwrap
import threading

import pytest

from kubevo_core.container import Header, seal
from kubevo_core.errors import RunInUse, StoreError, StoreFull
from kubevo_runtime import store_owner
from kubevo_runtime.store import create_run, open_run
from kubevo_runtime.store_files import DiskFiles, replace_durably

UID = "0a1b2c3d-0000-4000-8000-000000000001"
EXPERIMENT = {"spec": {"seed": 7}}
OPERATIONS = (
    "create",
    "open",
    "write",
    "sync",
    "close",
    "rename",
    "unlink",
    "make_directory",
    "sync_directory",
)


def payload(generation):
    return f"generation {generation} ".encode() * 100


def row(generation):
    return {"generation": generation, "frames": 10 * generation}


def scores(generation):
    return bytes([generation % 251]) * 64


def row_of(content):
    generation = int(content.split()[1])
    return row(generation), scores(generation)


def save(run, generation):
    content = seal(Header(UID, 0, generation), payload(generation))
    run.repeat(0).save(generation, content, row(generation), scores(generation))


def fails_at(number, code, only=OPERATIONS):
    """Return files whose ``number``-th operation fails: a write half done, a close after closing."""

    class Failing(DiskFiles):
        count = 0
        failed: str | None = None
        synced_after_failure = 0

    def wrap(name):
        real = getattr(DiskFiles, name)

        def operation(self, *arguments):
            if name in only:
                self.count += 1
            if name not in only or self.count != number:
                return real(self, *arguments)
            self.failed = name
            if name == "write":
                handle, content, offset = arguments
                real(self, handle, content[: len(content) // 2], offset)
            if name == "close":
                real(self, *arguments)
            raise OSError(code, errno.errorcode[code])

        return operation

    for name in OPERATIONS:
        setattr(Failing, name, wrap(name))
    return Failing()


def error_of(action, *arguments, **options):
    try:
        action(*arguments, **options)
    except StoreError as exc:
        return exc
    return None


@pytest.fixture
def path(tmp_path):
    run = create_run(tmp_path, "local", "cart", UID, EXPERIMENT)
    run.claim()
    save(run, 0)
    save(run, 1)
    return run.path


def assert_whole(path, generations):
    """Everything up to ``generations`` is there and fits, as a new process sees it."""
    store = open_run(path).repeat(0)
    assert store.latest().payload == payload(generations - 1)
    assert store.history() == [row(g) for g in range(generations)]
    assert [store.scores(g) for g in range(generations)] == [scores(g) for g in range(generations)]
    assert not list(path.rglob("*.tmp"))


# ---- disks that are full or fail ----


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT, errno.EIO])
@pytest.mark.parametrize("resumed", [True, False])
def test_a_failure_of_any_operation_of_a_save_leaves_a_run_that_goes_on(path, code, resumed):
    hit = set()
    for number in range(1, 100):
        newest = open_run(path).repeat(0).latest().generation
        files = fails_at(number, code)
        run = open_run(path, files=files)
        error = error_of(save, run, newest + 1) or error_of(save, run, newest + 2)
        if error is None:
            break
        assert isinstance(error, StoreFull) == (code != errno.EIO)
        assert "the last checkpoint is intact" in str(error)
        hit.add(files.failed)
        loaded = open_run(path).repeat(0).latest()
        assert newest <= loaded.generation <= newest + 2
        assert loaded.payload == payload(loaded.generation)
        assert not loaded.skipped
        assert not list(path.rglob("*.tmp"))
        if resumed:
            run = open_run(path)
            run.claim()
            run.repeat(0).repair(loaded.generation, row_of)
        else:
            # The same process tries again what failed, in the same order.
            for generation in range(newest + 1, loaded.generation + 1):
                save(run, generation)
        save(run, loaded.generation + 1)
        assert_whole(path, loaded.generation + 2)
    assert number > 15
    assert hit == {"create", "open", "write", "sync", "close", "rename", "sync_directory"}


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EIO])
def test_a_failure_of_any_operation_of_a_repair_can_be_repeated(path, code):
    run = open_run(path)
    save(run, 2)
    for number in range(1, 100):
        (path / "repeat-0" / "history.jsonl").unlink()
        (path / "repeat-0" / "scores" / "scores-00000.bin").unlink()
        damaged = path / "repeat-0" / "generations" / "gen-0000003.ck"
        damaged.write_bytes(b"torn")
        try:
            open_run(path, files=fails_at(number, code)).repeat(0).repair(2, row_of)
        except StoreError:
            open_run(path).repeat(0).repair(2, row_of)
        else:
            break
        assert_whole(path, 3)
        assert not damaged.exists()
    assert number > 15


@pytest.mark.parametrize("number", range(1, 20))
def test_a_failed_claim_leaves_the_owner_as_it_was_or_claimed(path, number):
    (path / ".OWNER.00aa11bb.tmp").write_bytes(b"half")
    try:
        open_run(path, files=fails_at(number, errno.ENOSPC)).claim()
    except StoreFull:
        assert open_run(path).takeover in {1, 2}
    assert open_run(path).claim() in {2, 3}
    assert_whole(path, 2)


@pytest.mark.parametrize("number", range(1, 20))
def test_a_failed_creation_can_be_repeated(tmp_path, number):
    files = fails_at(number, errno.EIO)
    error = error_of(create_run, tmp_path, "local", "new", UID, EXPERIMENT, files=files)
    assert (error is None) == (files.failed is None)
    assert error is None or "make the run's directory" in str(error)
    run = create_run(tmp_path, "local", "new", UID, EXPERIMENT)
    save(run, 0)
    assert open_run(run.path).experiment() == EXPERIMENT


def test_a_failed_fsync_is_never_repeated_on_its_descriptor(path):
    class Watched(DiskFiles):
        def __init__(self):
            self.synced = []
            self.closed_failed = False

        def sync(self, handle):
            if not self.synced:
                self.synced.append(handle)
                raise OSError(errno.EIO, "lost")
            assert self.closed_failed
            super().sync(handle)

        def close(self, handle):
            self.closed_failed = self.closed_failed or handle in self.synced
            super().close(handle)

    files = Watched()
    with pytest.raises(OSError, match="lost"):
        replace_durably(files, path / "file", b"content")
    assert not (path / "file").exists()
    replace_durably(files, path / "file", b"content")
    assert (path / "file").read_bytes() == b"content"


def test_a_volume_that_is_nearly_full_is_refused_before_anything_is_written(path):
    class Nearly(DiskFiles):
        def free_bytes(self, path):
            return 10_000

    before = sorted(path.rglob("*"))
    with pytest.raises(StoreFull, match=r"bytes free to save generation 2 .*found 10,000"):
        save(open_run(path, files=Nearly()), 2)
    assert [each for each in sorted(path.rglob("*")) if each.name != ".saving"] == [
        each for each in before if each.name != ".saving"
    ]


def test_a_volume_that_reports_nothing_is_not_full(path):
    class Silent(DiskFiles):
        def free_bytes(self, path):
            return None

    save(open_run(path, files=Silent()), 2)
    assert_whole(path, 3)


def test_a_read_only_directory_is_read_and_refuses_writes(path):
    files = fails_at(1, errno.EROFS)
    run = open_run(path, files=files)
    store = run.repeat(0)
    assert store.latest().generation == 1
    assert (len(store.history()), store.tests(), store.scores(1)) == (2, [], scores(1))
    assert (run.experiment(), run.description(), files.count) == (EXPERIMENT, None, 0)
    with pytest.raises(StoreError, match="must be writable by this process"):
        save(run, 2)
    assert_whole(path, 2)


def test_readers_leave_no_trace(tmp_path):
    run = create_run(tmp_path, "local", "cart", UID, EXPERIMENT)
    before = sorted(tmp_path.rglob("*"))
    store = open_run(run.path).repeat(0)
    assert (store.latest(), store.history(), store.tests(), store.scores(0)) == (None, [], [], None)
    assert sorted(tmp_path.rglob("*")) == before


# ---- other processes ----

PREAMBLE = """
import itertools, sys
from pathlib import Path
from kubevo_core.container import Header, seal
from kubevo_runtime.store import open_run

run = open_run(Path(sys.argv[1]))
store = run.repeat(0)

def save(generation, size):
    payload = f"generation {generation} ".encode().ljust(size, b".")
    content = seal(Header(run.uid, 0, generation), payload)
    store.save(generation, content, {"generation": generation}, bytes(64))
"""
LOCKING = """
with run.lock():
    print("locked", flush=True)
    sys.stdin.read()
"""
FILLING = """
from kubevo_core.errors import StoreFull
try:
    save(2, 1_000_000)
except StoreFull as exc:
    print(exc)
"""
SAVING = """
run.claim()
loaded = store.latest()
first = 0 if loaded is None else loaded.generation + 1
if loaded is not None:
    number = lambda payload: int(payload.split()[1])
    store.repair(loaded.generation, lambda p: ({"generation": number(p)}, bytes(64)))
print("saving", flush=True)
for generation in itertools.count(first):
    save(generation, 200_000)
    store.prune(3, 0, 0)
    print(generation, flush=True)
"""


def started(code, path, **options):
    return subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(PREAMBLE + code), str(path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        **options,
    )


def test_a_second_process_is_told_who_holds_the_run(path):
    with started(LOCKING, path) as holder:
        assert holder.stdout.readline() == "locked\n"
        with pytest.raises(RunInUse, match=rf"pid {holder.pid} on "), open_run(path).lock():
            pass
        assert open_run(path).repeat(0).latest().generation == 1  # reading needs no lock
        holder.kill()
        holder.wait()
        with open_run(path).lock():
            pass


def test_the_lock_can_be_taken_again_after_it_was_given_back(path):
    run = open_run(path)
    for _ in range(2):
        with run.lock(), pytest.raises(RunInUse), open_run(path).lock():
            pass


def test_a_save_lock_that_stays_held_names_the_owner(path, monkeypatch):
    monkeypatch.setattr(store_owner, "PATIENCE_SECONDS", 0.05)
    gate = open_run(path)._gate
    with gate.writing("hold it"), pytest.raises(RunInUse, match=r"owner is pid \d+ on .*frozen"):
        save(open_run(path), 2)
    assert_whole(path, 2)


def test_repeats_save_from_threads_at_once(path):
    run = open_run(path)

    def work(repeat):
        for generation in range(10):
            content = seal(Header(UID, repeat, generation), payload(generation))
            run.repeat(repeat).save(generation, content, row(generation), scores(generation))

    threads = [threading.Thread(target=work, args=(repeat,)) for repeat in range(1, 5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for repeat in range(1, 5):
        assert open_run(path).repeat(repeat).latest().generation == 9
        assert len(open_run(path).repeat(repeat).history()) == 10


def test_a_file_size_limit_is_a_full_store(path):
    def limit():
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))

    with started(FILLING, path, preexec_fn=limit) as process:
        said, _ = process.communicate(timeout=60)
    assert "could not save generation 2" in said
    assert "the last checkpoint is intact" in said
    assert_whole(path, 2)


def test_killed_while_saving_the_newest_always_loads(tmp_path):
    path = create_run(tmp_path, "local", "cart", UID, EXPERIMENT).path
    chance = random.Random(20)
    acknowledged, cut = -1, 0
    for number in range(60):
        if number >= 15 and cut:
            break  # enough kills, and one of them hit a half-written file
        with started(SAVING, path) as process:
            assert process.stdout.readline() == "saving\n"
            for _ in range(chance.randrange(4)):
                acknowledged = int(process.stdout.readline())
            timer = threading.Timer(chance.random() * 0.01, process.kill)
            timer.start()
            timer.join()
            said = process.stdout.read().splitlines(keepends=True)
        acknowledged = max([acknowledged, *(int(line) for line in said if line.endswith("\n"))])
        cut += bool(list(path.rglob("*.tmp")))
        loaded = open_run(path).repeat(0).latest()
        newest = loaded.generation if loaded else -1
        assert newest in {acknowledged, acknowledged + 1}
        assert not (loaded and loaded.skipped)
        rows = open_run(path).repeat(0).history()
        assert [each["generation"] for each in rows] == list(range(len(rows)))
        assert len(rows) > acknowledged
        acknowledged = newest  # the next process starts from what this one loads
    assert acknowledged >= 15
    assert cut, "no kill hit a half-written file: draw other moments"
