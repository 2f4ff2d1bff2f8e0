"""A run that moves: as another one elsewhere, whole or not at all, with the same bytes to its end."""

import asyncio
import io
import tarfile

import pytest

from kubevo_core import names
from kubevo_core.errors import CheckpointCorrupt, RunMismatch, RunNotFound, StoreError, StoreFull
from kubevo_runtime import archive, events
from kubevo_runtime.archive import pack, unpack
from kubevo_runtime.arriving import ARRIVING, arriving, clear_arriving
from kubevo_runtime.experiment import run_experiment
from kubevo_runtime.store import OWNER, create_run, find_runs, open_run
from kubevo_runtime.testing import FakeBus

HERE, THERE = "0a1b2c3d-0000-4000-8000-000000000001", "ffffffff-0000-4000-8000-000000000002"
SPEC = {"budget": {"maxGenerations": 6}, "repeats": 2}


class Died(Exception):
    """Stands for the end of the process."""


@pytest.fixture
def search(make_experiment, synthetic_play, synthetic_worker):
    """Search in a run's directory, to the end or until ``stop_after`` generations are finished."""

    async def work(directory, stop_after=None):
        directory.claim()
        bus, finished = FakeBus(), 0

        def sink(event):
            nonlocal finished
            finished += isinstance(event, events.GenerationFinished)
            if finished == stop_after:
                raise Died

        worker = asyncio.create_task(synthetic_worker(bus.worker(), synthetic_play(), "mlp-4-16-2"))
        try:
            return await run_experiment(
                directory, make_experiment(**SPEC), bus.coordinator(), sink, lambda: 0.0
            )
        finally:
            worker.cancel()
            await asyncio.gather(worker, return_exceptions=True)

    return work


@pytest.fixture
def make_run(tmp_path, make_experiment):
    def make(folder="laptop", uid=HERE):
        document = make_experiment(**SPEC).document()
        return create_run(tmp_path / folder, "local", "cart", uid, document)

    return make


@pytest.fixture
async def half_run(make_run, search):
    """Return a run that was ended in the middle, with a video."""
    run = make_run()
    with pytest.raises(Died):
        await search(run, stop_after=5)
    run.repeat(0).save_video(1, b"a video", None, 3)
    return run


def packed(run):
    return b"".join(pack(run.path))


def files(path):
    """Return the files below a folder but the one that only carries a lock for arrivals."""
    there = [file for file in path.rglob("*") if file.is_file()]
    return {file.relative_to(path): file for file in there if file.parent.name != ARRIVING}


def rewritten(content, change):
    """Return a packed run, each file replaced by ``change(name, content)``; None leaves it out."""
    target = io.BytesIO()
    with (
        tarfile.open(fileobj=io.BytesIO(content)) as old,
        tarfile.open(fileobj=target, mode="w") as new,
    ):
        for entry in old:
            name, body = entry.name, old.extractfile(entry).read()
            changed = change(name, body)
            if changed is not None:
                entry.size = len(changed)
                new.addfile(entry, io.BytesIO(changed))
    return target.getvalue()


def digests(outcomes):
    return outcomes.result_digest, outcomes.population_digest


async def test_a_run_that_moved_in_the_middle_ends_with_the_same_bytes(
    make_run, search, half_run, tmp_path
):
    undisturbed = await search(make_run("undisturbed"))
    moved = unpack(
        io.BytesIO(packed(half_run)), tmp_path / "cluster", "lab", name="cart-2", uid=THERE
    )
    assert moved.path == tmp_path / "cluster" / "lab" / names.run_folder("cart-2", THERE)
    assert (moved.uid, moved.name, moved.namespace) == (THERE, "cart-2", "lab")
    at_arrival = moved.repeat(0).latest()
    assert at_arrival.generation == half_run.repeat(0).latest().generation >= 1
    assert digests(await search(moved)) == digests(undisturbed)
    # and what stayed behind is as it was
    assert digests(await search(half_run)) == digests(undisturbed)


def test_everything_that_belongs_to_the_search_arrives_and_nothing_else(half_run, tmp_path):
    for stray in ("api-token", "RETAIN", "logs/worker-0.log", "repeat-0/generations/.gen.tmp"):
        (half_run.path / stray).write_text("stays here")
    (half_run.path / "broker").mkdir()
    (half_run.path / "broker" / "stream").write_text("stays here")
    moved = unpack(io.BytesIO(packed(half_run)), tmp_path / "there", "local")
    here, there = files(half_run.path), files(moved.path)
    assert {file for file in here if file not in there and not file.name.startswith(".")} == {
        file.relative_to(half_run.path)
        for file in (
            half_run.path / "api-token",
            half_run.path / "RETAIN",
            half_run.path / "logs/worker-0.log",
            half_run.path / "broker/stream",
        )
    }
    assert (moved.path / "logs").is_dir()  # as `create_run` makes it
    kept = [file for file in there if file.name != OWNER]
    assert all(here[file].read_bytes() == there[file].read_bytes() for file in kept)
    assert any(file.suffix == ".mp4" for file in kept)


async def test_a_pack_of_a_run_that_is_searched_meanwhile_can_go_on(
    make_run, search, half_run, tmp_path
):
    stream = pack(half_run.path)
    first = next(stream)
    undisturbed = digests(await search(half_run))  # prunes, and writes beyond what was listed
    moved = unpack(io.BytesIO(first + b"".join(stream)), tmp_path / "there", "local")
    assert digests(await search(moved)) == undisturbed


async def test_each_repeat_is_sent_though_the_earlier_ones_take_longer_than_checkpoints_live(
    make_run, search, tmp_path
):
    run = make_run()
    await search(run)  # both repeats are over, with more checkpoints than one
    stream = pack(run.path)
    content = next(stream)
    while b"repeat-0/generations" not in content[-512:]:
        content += next(stream)
    # Meanwhile the second one goes on.
    second = run.path / "repeat-1" / "generations"
    newest = max(second.iterdir())
    for file in sorted(second.iterdir()):
        if file != newest:
            file.unlink()
    moved_payload = run.repeat(1).latest().payload
    moved = unpack(io.BytesIO(content + b"".join(stream)), tmp_path / "there", "local")
    assert moved.repeat(1).latest().payload == moved_payload


async def test_checkpoints_that_all_vanish_before_their_turn_are_listed_again(
    make_run, search, tmp_path, monkeypatch
):
    run = make_run()
    await search(run)
    folder = run.path / "repeat-1" / "generations"
    newest = max(folder.iterdir())
    payload = run.repeat(1).latest().payload
    later = newest.rename(tmp_path / newest.name)
    assert any(folder.iterdir())

    def slow(path, name, read=archive._packed):
        if name.startswith("repeat-1/generations") and later.exists():
            for file in list(folder.iterdir()):
                file.unlink()
            later.rename(newest)
        return read(path, name)

    monkeypatch.setattr(archive, "_packed", slow)
    moved = unpack(io.BytesIO(packed(run)), tmp_path / "there", "local")
    assert moved.repeat(1).latest().payload == payload


async def test_a_repeat_whose_checkpoints_cannot_be_caught_is_told_and_not_dropped(
    half_run, monkeypatch
):
    def too_slow(path, name, read=archive._packed):
        if "generations" in name:
            (path / name).unlink()
        return read(path, name)

    monkeypatch.setattr(archive, "_packed", too_slow)
    with pytest.raises(StoreError, match="was pruned before it could be read"):
        packed(half_run)


def test_what_stands_behind_no_checkpoint_is_refused(half_run, tmp_path):
    def without(name, body):
        return None if name.startswith("repeat-0/generations") else body

    with pytest.raises(StoreError, match="expected a checkpoint of repeat-0"):
        unpack(io.BytesIO(rewritten(packed(half_run), without)), tmp_path / "there", "local")
    assert files(tmp_path / "there") == {}


def test_it_is_there_already(half_run, tmp_path):
    content = packed(half_run)
    unpack(io.BytesIO(content), tmp_path / "there", "local")
    with pytest.raises(RunMismatch, match="is there already"):
        unpack(io.BytesIO(content), tmp_path / "there", "local")
    assert files(tmp_path / "there" / ARRIVING) == {}


def test_a_stream_that_is_cut_off_anywhere_leaves_nothing(half_run, tmp_path):
    content = packed(half_run)
    end = len(content.rstrip(b"\0"))
    with tarfile.open(fileobj=io.BytesIO(content)) as tar:
        between = [entry.offset for entry in tar]
    for length in (0, 1, 511, 512, 700, *between, end // 2, end - 1):
        with pytest.raises(StoreError, match="damaged or cut off"):
            unpack(io.BytesIO(content[:length]), tmp_path / "there", "local")
    assert find_runs(tmp_path / "there") == []
    assert files(tmp_path / "there") == {}


@pytest.mark.parametrize(
    "name", ["../x", "/etc/x", "logs/x", "repeat-0/../../x", "repeat-0/generations/x.ck", OWNER]
)
def test_a_file_that_is_none_of_a_runs_is_refused(half_run, tmp_path, name):
    target = io.BytesIO()
    with tarfile.open(fileobj=target, mode="w") as tar:
        for each, body in ((OWNER, (half_run.path / OWNER).read_bytes()), (name, b"x")):
            entry = tarfile.TarInfo(each)
            entry.size = len(body)
            tar.addfile(entry, io.BytesIO(body))
    with pytest.raises(StoreError, match="a run's own files"):
        unpack(io.BytesIO(target.getvalue()), tmp_path / "there", "local")
    assert files(tmp_path / "there") == {}


def test_a_link_is_refused(half_run, tmp_path):
    target = io.BytesIO()
    with tarfile.open(fileobj=target, mode="w") as tar:
        entry = tarfile.TarInfo(OWNER)
        entry.type, entry.linkname = tarfile.SYMTYPE, "/etc/passwd"
        tar.addfile(entry)
    with pytest.raises(StoreError, match="a run's own files"):
        unpack(io.BytesIO(target.getvalue()), tmp_path / "there", "local")


def test_a_damaged_checkpoint_is_named_and_nothing_arrives(half_run, tmp_path):
    def damage(name, body):
        return body[:-40] + b"?" + body[-39:] if name.endswith(".ck") else body

    with pytest.raises(CheckpointCorrupt, match=r"repeat-0/generations/gen-\d+\.ck of the run"):
        unpack(io.BytesIO(rewritten(packed(half_run), damage)), tmp_path / "there", "local")
    assert find_runs(tmp_path / "there") == []


def test_another_runs_checkpoint_is_refused(half_run, tmp_path):
    def rename(name, body):
        return body.replace(HERE.encode(), THERE.encode()) if name == OWNER else body

    with pytest.raises(StoreError, match="it is another run's"):
        unpack(io.BytesIO(rewritten(packed(half_run), rename)), tmp_path / "there", "local")


def test_what_an_earlier_arrival_left_goes_with_the_next(half_run, tmp_path):
    left = tmp_path / "there" / ARRIVING / "left" / "run"
    left.mkdir(parents=True)
    (left / OWNER).write_bytes((half_run.path / OWNER).read_bytes())
    assert find_runs(tmp_path / "there") == []
    moved = unpack(io.BytesIO(packed(half_run)), tmp_path / "there", "local")
    assert find_runs(tmp_path / "there") == [moved.path]
    assert not left.exists()


def test_a_folder_without_a_run_has_nothing_to_pack(tmp_path):
    with pytest.raises(RunNotFound):
        next(pack(tmp_path))


def test_a_run_that_has_not_begun_can_move(make_run, tmp_path):
    moved = unpack(io.BytesIO(packed(make_run())), tmp_path / "there", "lab", uid=THERE)
    assert open_run(moved.path).experiment()["spec"]["repeats"] == 2


def test_what_does_not_fit_is_refused_before_it_is_read(half_run, tmp_path):
    def header(name, size):
        entry = tarfile.TarInfo(name)
        entry.size = size
        return entry.tobuf(tarfile.PAX_FORMAT)

    body = (half_run.path / OWNER).read_bytes()
    start = header(OWNER, len(body)) + body + b"\0" * (-len(body) % 512)
    for size in (257 * 1024**2, 8 * 1024**3):
        large = io.BytesIO(start + header("repeat-0/generations/gen-0000001.ck", size) + b"x" * 512)
        with pytest.raises(StoreError, match="at most 268,435,456"):
            unpack(large, tmp_path / "there", "local")


def test_an_arrival_keeps_to_the_experiments_quota(half_run, tmp_path):
    document = half_run.experiment()
    document["spec"]["checkpoint"]["quotaMebibytes"] = 1
    half_run.replace_experiment(document)
    (half_run.path / "repeat-0" / "videos" / "gen-0000002.mp4").write_bytes(b"v" * (18 * 1024**2))
    content = packed(half_run)
    with pytest.raises(StoreFull, match=r"checkpoint\.quotaMebibytes"):
        unpack(io.BytesIO(content), tmp_path / "there", "local", within_quota=True)
    assert files(tmp_path / "there") == {}
    unpack(io.BytesIO(content), tmp_path / "there", "local")  # on one's own disk


def test_a_run_that_is_replaced_is_asked_about_and_gives_way(half_run, tmp_path):
    content = packed(half_run)
    first = unpack(io.BytesIO(content), tmp_path / "there", "local")
    (first.path / "mark").touch()
    asked = []

    def answer(value):
        def gives_way(there, arrived):
            asked.append((there.path, arrived.repeat(0).latest().generation))
            return value

        return gives_way

    unpack(io.BytesIO(content), tmp_path / "there", "local", gives_way=answer(False))
    assert (first.path / "mark").exists()
    unpack(io.BytesIO(content), tmp_path / "there", "local", gives_way=answer(True))
    assert not (first.path / "mark").exists()
    assert asked == [(first.path, half_run.repeat(0).latest().generation)] * 2
    assert find_runs(tmp_path / "there") == [first.path]
    assert files(tmp_path / "there" / ARRIVING) == {}


def test_a_run_that_was_being_replaced_gets_its_place_back(half_run, tmp_path):
    root = tmp_path / "there"
    run = unpack(io.BytesIO(packed(half_run)), root, "local")
    before = {name: file.read_bytes() for name, file in files(run.path).items()}
    # as a process leaves it that dies between the two renames
    left = root / ARRIVING / "died"
    (left / "run").mkdir(parents=True)
    run.path.rename(left / "old")
    assert find_runs(root) == []
    clear_arriving(root)
    assert {name: file.read_bytes() for name, file in files(run.path).items()} == before
    assert not left.exists()


def test_what_arrives_now_is_left_alone_by_others(tmp_path):
    tmp_path.joinpath("there").mkdir()
    with arriving(tmp_path / "there") as first, arriving(tmp_path / "there") as second:
        clear_arriving(tmp_path / "there")
        assert first.is_dir()
        assert second.is_dir()
    assert not first.parent.exists()
    assert not second.parent.exists()
