"""A static busybox for the tests' image: the machine's, else Debian's, unpacked into the cache.

``python busybox.py`` (`make cluster-packages`) fetches it where there is none; nothing is installed, so
that the machine's own busybox, which may be a dynamic one, stays. Standard library only.
"""

import os
import shutil
import subprocess
import tempfile
from pathlib import Path

PACKAGE = "busybox-static"


def static_busybox() -> Path | None:
    """Return a busybox that needs no library."""
    for found in (shutil.which("busybox"), _cached()):
        if found and Path(found).exists() and _is_static(Path(found)):
            return Path(found)
    return None


def fetch() -> None:
    """Unpack Debian's into the cache.

    Raises:
        SystemExit: it could not be had; the message is what apt-get said.
    """
    target = _cached()
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent) as name:
        for command in (("update", "-qq"), ("download", "-qq", PACKAGE)):
            _run("apt-get", "-o", "DPkg::Lock::Timeout=300", *command, folder=name)
        (package,) = Path(name).glob("*.deb")
        _run("dpkg-deb", "-x", package.name, "root", folder=name)
        # Older packages have it in /bin.
        (program,) = Path(name, "root").rglob("bin/busybox")
        program.replace(target)


def _cached() -> Path:
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return cache / "kubevo/busybox/busybox"


def _is_static(program: Path) -> bool:
    # ldd fails for what needs no loader.
    done = subprocess.run(["ldd", program], capture_output=True, check=False)
    return done.returncode != 0


def _run(*command: str, folder: str) -> None:
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{' '.join(command)}: {done.stderr.strip()}")


if __name__ == "__main__":
    if static_busybox() is None:
        fetch()
