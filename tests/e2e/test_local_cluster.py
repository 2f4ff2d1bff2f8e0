"""The harness's own promises that need no node: what it refuses, and what it takes for its own."""

import json
import os
import signal
import subprocess
import sys
import tarfile
from io import BytesIO
from pathlib import Path

import docker_daemon
import host
import local_cluster
import pytest
from cluster_access import Cluster
from layout import Layout
from node_images import archive
from node_process import note_process


def test_a_pid_that_another_process_has_now_is_not_the_clusters(tmp_path):
    layout = Layout(tmp_path)
    assert not local_cluster.is_up(layout)
    noted = {"pid": os.getpid(), "start": host.start_time(os.getpid())}
    layout.pid_file.write_text(json.dumps(noted))
    assert not local_cluster.is_up(layout)  # cut off on its way up
    layout.ready.touch()
    assert local_cluster.is_up(layout)
    layout.pid_file.write_text(json.dumps({**noted, "start": "1"}))
    assert not local_cluster.is_up(layout)
    layout.pid_file.write_text('{"pid"')  # killed while it was written
    assert not local_cluster.is_up(layout)


def test_a_process_that_has_ended_has_no_start_time():
    child = subprocess.Popen([sys.executable, "-c", ""])
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)  # a zombie
    assert host.start_time(child.pid) == ""
    child.wait()
    assert host.start_time(child.pid) == ""


def test_noted_kernel_settings_are_those_of_the_first_start(tmp_path):
    note = tmp_path / "kernel.json"
    note.write_text("{}")
    host.note_kernel_settings(note)
    assert note.read_text() == "{}"


def test_two_at_once_are_refused():
    with (
        local_cluster._alone(),
        pytest.raises(SystemExit, match="another make cluster"),
        local_cluster._alone(),
    ):
        pass


def test_an_archive_is_an_image_of_its_files():
    packed = archive("x.dev/y:1", {"bin/a": b"A"}, {"bin/b": "a"}, ["/bin/b"])
    with tarfile.open(fileobj=BytesIO(packed)) as outer:
        manifest = json.load(outer.extractfile("manifest.json"))[0]
        assert manifest["RepoTags"] == ["x.dev/y:1"]
        config = json.load(outer.extractfile(manifest["Config"]))
        assert config["config"]["User"] == "65532"
        with tarfile.open(fileobj=BytesIO(outer.extractfile("layer.tar").read())) as layer:
            assert set(layer.getnames()) == {"bin/a", "bin/b", "tmp"}


def test_a_sessions_cluster_is_known_by_its_living_process(tmp_path):
    layout = Layout(tmp_path)
    assert not local_cluster.is_sessions(layout)  # a person's
    note_process(layout.session, os.getpid())
    assert local_cluster.is_sessions(layout)
    with pytest.raises(SystemExit, match="another test session"):
        local_cluster.up_for_a_session(layout)
    local_cluster.keep(layout)
    assert not local_cluster.is_sessions(layout)


COMMAND = """\
import signal, sys, time
from pathlib import Path
def tidy(signum, frame):
    time.sleep(0.5)  # longer than Python's own patience with a child after Ctrl-C
    Path("tidied").write_text(str(signum))
    sys.exit(7)
signal.signal(signal.SIGINT, tidy)
signal.signal(signal.SIGTERM, tidy)
Path("started").touch()
time.sleep(60)
"""


@pytest.mark.parametrize("told", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_command_tidies_up_before_its_engine_ends(tmp_path, told):
    # A docker that answers, so that none is started.
    docker = tmp_path / "docker"
    docker.write_text("#!/bin/sh\n")
    docker.chmod(0o755)
    daemon = [sys.executable, Path(docker_daemon.__file__), sys.executable, "-c", COMMAND]
    environment = {**os.environ, "PATH": f"{tmp_path}{os.pathsep}{os.environ['PATH']}"}
    with subprocess.Popen(daemon, cwd=tmp_path, env=environment, start_new_session=True) as process:
        try:
            Cluster.until("the command's start", (tmp_path / "started").exists)
            if told == signal.SIGINT:
                os.killpg(process.pid, told)  # as a terminal does
            else:
                process.send_signal(told)
            assert process.wait(timeout=30) == 7
        finally:
            process.kill()
    assert (tmp_path / "tidied").read_text() == str(int(told))


def test_another_cluster_is_not_touched_unasked(tmp_path):
    environment = {**os.environ, "KUBECONFIG": str(tmp_path / "none")}
    environment.pop("KUBEVO_E2E_CLUSTER", None)
    smoke = Path(__file__).with_name("test_cluster_smoke.py")
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-m", "e2e", smoke]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "set KUBEVO_E2E_CLUSTER=yes" in done.stdout + done.stderr
