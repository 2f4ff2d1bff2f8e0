"""``kubevo push`` and ``pull``: the real commands, the real receiving process, a real service."""

import json
import os
import shutil
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from pod_peer import Peer, pod

from kubevo_cli.__main__ import main
from kubevo_runtime.archive import pack, unpack
from kubevo_runtime.store import find_runs, open_run

LABELS = {"app.kubernetes.io/name": "kubevo", "app.kubernetes.io/component": "operator"}


@pytest.fixture(autouse=True)
def _alone(tmp_path, monkeypatch):
    for name in ("KUBEVO_SERVICE", "KUBEVO_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def volume(tmp_path):
    return tmp_path / "volume"


@pytest.fixture
def peer(served, volume):
    """Yield a cluster with a pod of kubevo, in which commands are real ones over ``volume``."""
    volume.mkdir()
    made = Peer(
        pods=[pod("kubevo-0", **LABELS)],
        forwards={"kubevo-0": served.port},
        environment={**os.environ, "KUBEVO_DATA": str(volume)},
        token=served.token,
    )
    running = made.start()
    made.url = running.url
    made.config = running.kubeconfig("team")
    yield made
    running.stop()


@pytest.fixture
def kubevo(peer, capsys, tmp_path):
    file = tmp_path / "kubeconfig"
    file.write_text(peer.config)

    def call(*arguments, code=0):
        found = main([*map(str, arguments), "--kubeconfig", str(file)])
        out, err = capsys.readouterr()
        assert found == code, err
        return out, err

    return call


@pytest.fixture
def run(make_run_in, tmp_path):
    make_run_in(tmp_path / "here", "cart", budget={"maxGenerations": 4})
    return open_run(*find_runs(tmp_path / "here"))


@pytest.fixture
def further(make_run_in, run, tmp_path):
    """Give the run what the same search has after more generations."""

    def search(generations):
        make_run_in(tmp_path / "longer", "cart", budget={"maxGenerations": generations})
        (longer,) = find_runs(tmp_path / "longer")
        stream = tmp_path / "longer.tar"
        stream.write_bytes(b"".join(pack(longer)))
        shutil.rmtree(run.path)
        with stream.open("rb") as file:
            found = unpack(file, tmp_path / "here", "local", name=run.name, uid=run.uid)
        assert found.path == run.path

    return search


def test_a_pushed_run_is_a_suspended_experiments_until_it_has_arrived(kubevo, peer, run, volume):
    out, err = kubevo("push", run.path)
    assert out == "experiment.kubevo.dev/cart goes on (generation 3)\n"
    assert "kubevo watch cart -n team" in err
    made = peer.experiments["cart"]
    assert made["spec"]["suspend"] is False
    assert made["metadata"]["annotations"] == {"kubevo.dev/pushed-from": run.uid}
    assert {k: v for k, v in made["spec"].items() if k != "suspend"} == {
        k: v for k, v in run.experiment()["spec"].items() if k != "suspend"
    }
    (path,) = find_runs(volume)
    moved = open_run(path)
    assert (moved.uid, moved.namespace) == (made["metadata"]["uid"], "team")
    assert moved.repeat(0).latest().payload == run.repeat(0).latest().payload


def test_it_may_have_another_name_and_wait(kubevo, peer, run, volume):
    out, _ = kubevo("push", run.path, "--name", "other", "--suspended", "--output", "json")
    told = json.loads(out)
    assert (told["name"], told["suspended"], told["generation"]) == ("other", True, 3)
    assert peer.experiments["other"]["spec"]["suspend"] is True
    assert open_run(*find_runs(volume)).name == "other"


@pytest.mark.parametrize("size", [0, 700, 12_000])
def test_a_push_that_breaks_anywhere_is_repeated(kubevo, peer, run, volume, size):
    peer.breaks_after = size
    _, err = kubevo("push", run.path, code=1)
    assert "push again" in err or "try again" in err
    assert find_runs(volume) == []
    assert peer.experiments["cart"]["spec"]["suspend"] is True
    uid = peer.experiments["cart"]["metadata"]["uid"]
    peer.breaks_after = None
    kubevo("push", run.path)
    assert peer.experiments["cart"]["metadata"]["uid"] == uid
    assert open_run(*find_runs(volume)).uid == uid


def test_a_push_that_only_lacks_its_last_step_is_repeated(kubevo, peer, run, volume):
    kubevo("push", run.path)
    peer.experiments["cart"]["spec"]["suspend"] = True
    out, _ = kubevo("push", run.path)
    assert "goes on (generation 3)" in out
    assert len(find_runs(volume)) == 1


def test_a_run_that_was_searched_further_takes_the_place_of_what_was_pushed(
    kubevo, peer, run, volume, further
):
    kubevo("push", run.path, "--suspended")
    (path,) = find_runs(volume)
    further(8)
    out, _ = kubevo("push", run.path)
    assert "goes on (generation 7)" in out
    assert find_runs(volume) == [path]
    newest = run.repeat(0).latest()
    assert open_run(path).repeat(0).latest().payload == newest.payload
    assert newest.generation == 7
    assert peer.experiments["cart"]["spec"]["budget"]["maxGenerations"] == 8
    assert peer.experiments["cart"]["spec"]["suspend"] is False


def test_the_same_run_pushed_twice_is_left_as_it_was(kubevo, run, volume):
    kubevo("push", run.path, "--suspended")
    (path,) = find_runs(volume)
    (path / "mark").touch()
    kubevo("push", run.path)
    assert (path / "mark").exists()


def test_what_was_pushed_and_is_damaged_there_is_replaced(kubevo, run, volume):
    kubevo("push", run.path, "--suspended")
    (path,) = find_runs(volume)
    for file in (path / "repeat-0" / "generations").iterdir():
        file.write_bytes(b"damaged")
    kubevo("push", run.path)
    assert open_run(path).repeat(0).latest().payload == run.repeat(0).latest().payload


def test_what_became_another_search_here_is_refused_with_the_difference(kubevo, peer, run, volume):
    kubevo("push", run.path, "--suspended")
    peer.experiments["cart"]["spec"]["seed"] = 4711
    _, err = kubevo("push", run.path, code=2)
    assert "spec.seed: 4711 -> " in err
    assert "--name" in err


def test_a_search_that_has_begun_there_is_not_touched(kubevo, peer, run):
    kubevo("push", run.path)
    peer.experiments["cart"]["status"] = {"takeover": 1}
    _, err = kubevo("push", run.path, code=2)
    assert "its search has begun on the cluster" in err


def test_a_run_that_an_operator_works_on_is_not_touched(kubevo, run, volume):
    kubevo("push", run.path)
    open_run(*find_runs(volume)).claim(1)
    _, err = kubevo("push", run.path, code=1)
    assert "the search of team/cart has begun" in err


def test_anothers_name_is_refused_with_the_cure(kubevo, peer, run, volume):
    peer.experiments["cart"] = {"metadata": {"name": "cart", "uid": "x"}, "spec": {}}
    _, err = kubevo("push", run.path, code=2)
    assert "--name" in err
    assert find_runs(volume) == []


def test_a_run_in_use_is_not_pushed(kubevo, peer, run):
    with run.lock():
        _, err = kubevo("push", run.path, code=1)
    assert "is in use by another process" in err
    assert peer.experiments == {}


def test_a_missing_right_names_what_to_ask_for(kubevo, peer, run):
    peer.environment = None
    _, err = kubevo("push", run.path, code=1)
    assert "create and get on pods/exec" in err


def test_what_the_receiver_says_is_told(kubevo, peer, run, volume):
    volume.chmod(0o500)
    peer.environment = {**peer.environment, "KUBEVO_DATA": "/proc/nowhere"}
    _, err = kubevo("push", run.path, code=1)
    assert "the run was not taken in" in err
    assert "cart stays suspended: push again, or delete it" in err


def test_a_pulled_run_is_the_one_that_was_there(kubevo, served, tmp_path):
    out, err = kubevo("pull", "second", "--data", tmp_path / "mine", "-n", "local")
    path = tmp_path / "mine" / "local"
    (found,) = path.iterdir()
    assert out == f"{found}\n"
    assert f"kubevo run {found}/spec.yaml --data {found} --resume" in err
    (source,) = [p for p in find_runs(served.directory) if open_run(p).name == "second"]
    for repeat in (0, 1):
        mine, theirs = open_run(found).repeat(repeat), open_run(source).repeat(repeat)
        assert mine.latest().payload == theirs.latest().payload
        assert mine.history() == theirs.history()
    _, err = kubevo("pull", "second", "--data", tmp_path / "mine", "-n", "local", code=1)
    assert "is there already" in err


def test_a_run_that_was_suspended_to_be_pulled_is_not_suspended_here(kubevo, served, tmp_path):
    (source,) = [open_run(p) for p in find_runs(served.directory) if open_run(p).name == "second"]
    document = source.experiment()
    source.replace_experiment({**document, "spec": {**document["spec"], "suspend": True}})
    try:
        kubevo("pull", "second", "--data", tmp_path / "mine", "-n", "local")
    finally:
        source.replace_experiment(document)
    found = open_run(*find_runs(tmp_path / "mine")).experiment()
    assert found["spec"]["suspend"] is False


def test_an_experiment_that_is_not_there_cannot_be_pulled(kubevo, tmp_path):
    _, err = kubevo("pull", "missing", "--data", tmp_path / "mine", "-n", "local", code=2)
    assert "missing" in err
    assert not (tmp_path / "mine").exists()
