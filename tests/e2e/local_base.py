"""A base for the images where no registry can be reached: ``local_base.py`` makes and names it.

Debian's minimal system with its Python 3.11, by debootstrap from Debian's own archive, and with the
certificate authorities of this machine, so that pip works behind an inspecting proxy. It is for tests:
what is published stands on the official Python image, which gets security updates.
"""

import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

NAME = "kubevo-base:local"
SUITE = "bookworm"
# The resolver of debootstrap takes the first provider of a virtual package, so the second is named.
PACKAGES = ("ca-certificates", "python3-distutils", "python3.11", "python3.11-venv")
AUTHORITIES = "etc/ssl/certs/ca-certificates.crt"
UNWANTED = (
    "debootstrap",
    "usr/share/doc",
    "usr/share/info",
    "usr/share/lintian",
    "usr/share/locale",
    "usr/share/man",
    "var/cache/apt",
    "var/lib/apt/lists",
    "var/log",
)
RECIPE_LABEL = "dev.kubevo.recipe"


def ensure() -> str:
    """Return the name of the base, made now if there is none of this recipe (about two minutes).

    Raises:
        SystemExit: it cannot be made here; the message says what is missing.
    """
    recipe = hashlib.sha256(Path(__file__).read_bytes()).hexdigest()[:16]
    label = f'{{{{index .Config.Labels "{RECIPE_LABEL}"}}}}'
    command = ["docker", "image", "inspect", "--format", label, NAME]
    found = subprocess.run(command, capture_output=True, text=True, check=False)
    if found.stdout.strip() == recipe:
        return NAME
    if os.geteuid() or shutil.which("debootstrap") is None:
        raise SystemExit(
            "a local base image is made by debootstrap as root (on Debian: apt-get install "
            "debootstrap); or name a base with Python 3.11: PYTHON_IMAGE=... make images"
        )
    # debootstrap makes device files, which some file systems of /tmp refuse.
    with tempfile.TemporaryDirectory(prefix="kubevo-base-", dir="/var/tmp") as name:
        root = Path(name)
        _bootstrap(root)
        _prepare(root)
        _import(root, recipe)
    return NAME


def _bootstrap(root: Path) -> None:
    command = [
        "debootstrap",
        "--variant=minbase",
        f"--include={','.join(PACKAGES)}",
        SUITE,
        str(root),
    ]
    mirror = os.environ.get("DEBIAN_MIRROR")
    done = subprocess.run(
        [*command, *([mirror] if mirror else [])], capture_output=True, text=True, check=False
    )
    if done.returncode:
        lines = "\n".join((done.stdout + done.stderr).splitlines()[-10:])
        raise SystemExit(f"debootstrap ended with {done.returncode}:\n{lines}")


def _prepare(root: Path) -> None:
    for each in UNWANTED:
        shutil.rmtree(root / each, ignore_errors=True)
        if each != "debootstrap":
            (root / each).mkdir(parents=True)
    for link in ("python", "python3"):  # where the official image has them
        (root / "usr/local/bin" / link).symlink_to("/usr/bin/python3.11")
    ours = Path("/", AUTHORITIES)
    if ours.exists():
        shutil.copyfile(ours, root / AUTHORITIES)


def _import(root: Path, recipe: str) -> None:
    changes = [f"ENV PIP_CERT=/{AUTHORITIES}", f"LABEL {RECIPE_LABEL}={recipe}", 'CMD ["python3"]']
    command = ["docker", "import", *(part for each in changes for part in ("--change", each))]
    pack = ["tar", "--numeric-owner", "-C", str(root), "-c", "."]
    with subprocess.Popen(pack, stdout=subprocess.PIPE) as packed:
        done = subprocess.run(
            [*command, "-", NAME], stdin=packed.stdout, capture_output=True, text=True, check=False
        )
    if packed.returncode or done.returncode:
        raise SystemExit(f"docker import of {root} failed: {done.stderr.strip()}")


def main() -> int:
    """Make the base if need be and print its name."""
    sys.stdout.write(f"{ensure()}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
