"""The harness itself, where it is more than the programs that it starts."""

from pathlib import Path

from binaries import LEAST_GO, _version
from kubelet import expand, moved


def test_names_in_an_environment_are_expanded_as_kubernetes_does():
    assert expand("$(POD)-$(N)", {"POD": "a", "N": "1"}) == "a-1"
    assert expand("$(OTHER)", {"POD": "a"}) == "$(OTHER)"


def test_a_path_below_a_mount_is_moved_and_no_other():
    mounts = {"/var/run/kubevo": Path("/tmp/x")}
    assert moved("/var/run/kubevo/user.creds", mounts) == "/tmp/x/user.creds"
    assert moved("/var/run/kubevo", mounts) == "/tmp/x"
    assert moved("/var/run/kubevo-other", mounts) == "/var/run/kubevo-other"


def test_a_go_that_cannot_tell_its_version_is_too_old(tmp_path):
    program = tmp_path / "go"
    program.write_text("#!/bin/sh\necho go version go1.26.3 linux/amd64\n")
    program.chmod(0o755)
    assert _version(str(program)) >= LEAST_GO
    program.write_text("#!/bin/sh\necho something else\n")
    assert _version(str(program)) < LEAST_GO
