"""Videos in a run's directory: whole or not there, few, and never in the way of a save."""

import errno

import pytest

from kubevo_core.container import Header, seal
from kubevo_core.errors import Fenced, StoreError, StoreFull
from kubevo_runtime.store import create_run, open_run
from kubevo_runtime.store_files import DiskFiles

UID = "0a1b2c3d-0000-4000-8000-000000000001"


@pytest.fixture
def run(tmp_path):
    run = create_run(tmp_path, "local", "cart", UID, {"kind": "Experiment", "spec": {}})
    run.claim()
    return run


@pytest.fixture
def repeat(run):
    return run.repeat(0)


def big(generation, repeat=0):
    return seal(Header(UID, repeat, generation), bytes(300_000))


def test_a_video_is_read_back_and_replaced(repeat):
    assert repeat.save_video(7, b"one", 7, 20) == []
    assert repeat.save_video(7, b"another", 7, 20) == []
    ((generation, file),) = repeat.videos().items()
    assert (generation, file.name, file.read_bytes()) == (7, "gen-0000007.mp4", b"another")


def test_the_newest_videos_and_the_bests_stay(repeat):
    removed = [repeat.save_video(generation, b"v", 1, 3) for generation in range(6)]
    assert removed == [[], [], [], [0], [2], [3]]
    assert sorted(repeat.videos()) == [1, 4, 5]
    assert repeat.save_video(6, b"v", None, 3) == [1]


def test_an_old_generations_video_that_comes_late_goes_at_once(repeat):
    for generation in (5, 6):
        repeat.save_video(generation, b"v", 6, 2)
    assert repeat.save_video(3, b"v", 6, 2) == [3]
    assert sorted(repeat.videos()) == [5, 6]


def test_a_frozen_old_owner_saves_no_video(run, repeat):
    open_run(run.path).claim()
    with pytest.raises(Fenced):
        repeat.save_video(0, b"v", 0, 20)
    assert repeat.videos() == {}


def test_a_video_over_the_quota_is_refused_and_nothing_changes(run, repeat):
    run.replace_experiment({"spec": {"checkpoint": {"quotaMebibytes": 1}}})
    repeat.save_video(0, bytes(500_000), 0, 20)
    with pytest.raises(StoreFull, match=r"video of generation 1 of repeat 0.*the quota is"):
        repeat.save_video(1, bytes(600_000), 0, 20)
    assert sorted(repeat.videos()) == [0]


def test_videos_make_room_for_a_save_and_for_no_more_than_it_needs(run, repeat):
    run.replace_experiment({"spec": {"checkpoint": {"quotaMebibytes": 1}}})
    other = run.repeat(1)
    for number, store in enumerate((repeat, other, repeat)):
        store.save_video(number, bytes(300_000), 0, 20)
    repeat.save(0, big(0), {"generation": 0}, b"")
    assert (sorted(repeat.videos()), sorted(other.videos())) == ([2], [1])
    other.save(0, big(0, 1), {"generation": 0}, b"")
    other.save(1, big(1, 1), {"generation": 1}, b"")
    assert repeat.videos() == other.videos() == {}
    with pytest.raises(StoreFull):
        other.save(2, big(2, 1), {"generation": 2}, b"")
    assert other.latest().generation == 1


class FullFiles(DiskFiles):
    """A disk that takes no video."""

    def write(self, handle, content, offset):
        if content.startswith(b"video"):
            raise OSError(errno.ENOSPC, "No space left on device")
        super().write(handle, content, offset)


def test_a_video_that_cannot_be_written_leaves_what_was_there(run, repeat):
    repeat.save_video(0, b"old", 0, 20)
    full = open_run(run.path, files=FullFiles()).repeat(0)
    with pytest.raises(StoreError):
        full.save_video(0, b"video", 0, 20)
    assert [path.name for path in (repeat.path / "videos").iterdir()] == ["gen-0000000.mp4"]
    assert repeat.videos()[0].read_bytes() == b"old"
