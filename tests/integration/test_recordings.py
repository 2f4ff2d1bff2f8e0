"""Elites recorded beside a search: the videos play, and the search is the one without them."""

import os
import signal
import sys

import imageio_ffmpeg
import pytest

from kubevo_runtime.store import open_run

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="finds processes in /proc")

POLICY = {"network": "mlp", "hiddenLayers": [8]}
CART = {"id": "CartPole-v1", "maxEpisodeSteps": 60}


def document(experiment, every, generations=6, **spec):
    return experiment(
        spec.pop("environment", CART),
        POLICY,
        recording={"everyGenerations": every},
        budget={"maxGenerations": generations},
        **spec,
    )


def digests(summary):
    return summary["populationDigest"], summary["resultDigest"]


@pytest.fixture(scope="module")
def plain(experiment, new_search):
    """Return the digests of the search without recordings."""
    search = new_search(document(experiment, 0))
    search.start()
    found = digests(search.finish())
    assert not list(search.directory.glob("repeat-*/videos"))
    return found


def test_every_second_elite_and_the_best_are_recorded_beside_the_same_search(
    experiment, new_search, plain
):
    search = new_search(document(experiment, 2))
    search.start()
    summary = search.finish()
    assert digests(summary) == plain
    store = open_run(search.directory).repeat(0)
    wanted = {1, 3, 5, summary["best"]["generation"]}
    assert set(store.videos()) == wanted
    for file in store.videos().values():
        assert file.read_bytes()[4:8] == b"ftyp"
        pictures, seconds = imageio_ffmpeg.count_frames_and_secs(str(file))
        assert 5 < pictures <= 61
        assert seconds == pytest.approx(pictures / 30, abs=0.05)
    rows = search.history()
    assert len(rows) == 6
    assert search.starts == 1


RENDERER = """
import os, signal
import gymnasium
from gymnasium.envs.classic_control import CartPoleEnv

class Broken(CartPoleEnv):
    def __init__(self, fault="", **others):
        super().__init__(**others)
        self.fault = fault

    def render(self):
        if self.fault == "raises":
            raise RuntimeError("no GL here")
        if self.fault == "exits":
            raise SystemExit(3)
        os.kill(os.getpid(), signal.SIGKILL)

gymnasium.register("Broken-v0", entry_point=Broken)
"""


@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        ("raises", "RuntimeError: no GL here"),
        ("exits", "SystemExit: 3"),
        ("kills", "3 workers took this recording and died or gave it back"),
    ],
)
def test_a_broken_renderer_changes_nothing(experiment, new_search, plain, tmp_path, fault, reason):
    (tmp_path / "broken_renderer.py").write_text(RENDERER)
    environment = {
        "id": "broken_renderer:Broken-v0",
        "maxEpisodeSteps": 60,
        "kwargs": {"fault": f'"{fault}"'},
    }
    search = new_search(
        document(experiment, 6, environment=environment),
        PYTHONPATH=os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")]),
        KUBEVO_ACK_WAIT_SECONDS="1.5",
    )
    search.start()
    summary = search.finish()
    assert summary["reason"] == "maxGenerations"
    assert open_run(search.directory).repeat(0).videos() == {}
    assert reason in search._said()


def test_a_worker_killed_while_it_records_costs_another_recording_at_most(
    experiment, new_search, plain, until, tmp_path
):
    search = new_search(
        document(experiment, 6), TMPDIR=str(tmp_path), KUBEVO_ACK_WAIT_SECONDS="1.5"
    )
    search.start()

    def holder():
        search.require_running()
        for folder in tmp_path.glob("kubevo-recording-*"):
            for child in search.children():
                if child.worker and any(folder.iterdir()):
                    return child
        return None

    child = until(holder, "a worker that records", 60)
    for each in search.children():  # the one that records among them
        if each.worker:
            os.kill(each.pid, signal.SIGKILL)
    assert child.worker
    summary = search.finish()
    assert digests(summary) == plain
    assert 5 in open_run(search.directory).repeat(0).videos()
