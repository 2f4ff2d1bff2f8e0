"""Images without a registry: from a docker daemon, or packed here from one static program.

An archive is what `docker save` writes: a tar file with a layer, its configuration and a manifest.
"""

import hashlib
import io
import json
import subprocess
import tarfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from layout import PAUSE_IMAGE


def import_archive(socket: Path, archive: bytes) -> None:
    """Give containerd the images of an archive.

    Raises:
        RuntimeError: containerd refused; the message is what it said.
    """
    done = subprocess.run(_import(socket), input=archive, capture_output=True, check=False)
    if done.returncode:
        raise RuntimeError(f"ctr images import: {done.stderr.decode()}")


def load_from_docker(socket: Path, names: Sequence[str]) -> None:
    """Copy images to containerd from the docker engine that answers, else from our own.

    Raises:
        RuntimeError: docker does not have them, or containerd refused.
    """
    # Not at the top: the node imports this module, too, and has no docker.
    from docker_daemon import docker_environment

    save = ["docker", "save", *names]
    with (
        docker_environment() as environment,
        subprocess.Popen(save, stdout=subprocess.PIPE, env=environment) as saved,
    ):
        done = subprocess.run(
            _import(socket), stdin=saved.stdout, capture_output=True, text=True, check=False
        )
    if saved.returncode or done.returncode:
        raise RuntimeError(
            f"docker save {' '.join(names)} ended with {saved.returncode}, ctr images import with "
            f"{done.returncode}: {done.stderr}; build the images first (make images)"
        )


def pause_archive(program: Path) -> bytes:
    """Return the image of every pod's first container."""
    return archive(PAUSE_IMAGE, {"pause": program.read_bytes()}, {}, ["/pause"])


def archive(
    name: str, files: Mapping[str, bytes], links: Mapping[str, str], entry_point: Sequence[str]
) -> bytes:
    """Return an image of these executable files and symbolic links, run as a plain user."""
    members = [(path, tarfile.REGTYPE, content, "") for path, content in files.items()]
    members += [(path, tarfile.SYMTYPE, b"", target) for path, target in links.items()]
    members += [("tmp", tarfile.DIRTYPE, b"", "")]
    layer = _tar(members, 0o777)
    config = json.dumps(
        {
            "architecture": _architecture(),
            "os": "linux",
            "config": {"Entrypoint": list(entry_point), "User": "65532", "Env": ["PATH=/bin"]},
            "rootfs": {
                "type": "layers",
                "diff_ids": [f"sha256:{hashlib.sha256(layer).hexdigest()}"],
            },
        }
    ).encode()
    config_name = f"{hashlib.sha256(config).hexdigest()}.json"
    manifest = [{"Config": config_name, "RepoTags": [name], "Layers": ["layer.tar"]}]
    parts = {
        "layer.tar": layer,
        config_name: config,
        "manifest.json": json.dumps(manifest).encode(),
    }
    return _tar([(path, tarfile.REGTYPE, content, "") for path, content in parts.items()], 0o644)


def _tar(members: Sequence[tuple[str, bytes, bytes, str]], mode: int) -> bytes:
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as tar:
        for path, kind, content, target in members:
            member = tarfile.TarInfo(path)
            member.type, member.size, member.linkname, member.mode = (
                kind,
                len(content),
                target,
                mode,
            )
            tar.addfile(member, io.BytesIO(content))
    return packed.getvalue()


def _architecture() -> str:
    machine = subprocess.run(["uname", "-m"], capture_output=True, text=True, check=True).stdout
    return {"x86_64": "amd64", "aarch64": "arm64"}.get(machine.strip(), machine.strip())


def _import(socket: Path) -> list[str]:
    return ["ctr", "-a", str(socket), "-n", "k8s.io", "images", "import", "-"]
