"""Build the images and print their sizes: ``build.py`` (``make images``).

Standard library only, so that it runs with any Python. The base is PYTHON_IMAGE; unset, the official
one, or where that cannot be pulled a local one (`tests/e2e/local_base.py`). Tags are the version in
pyproject.toml. PIP_INDEX_URL and proxy variables of the environment are handed to the builds.
"""

import argparse
import json
import os
import subprocess
import sys
import time
import tomllib
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]
OFFICIAL = "python:3.11-slim-bookworm"
HANDED_ON = (
    *("PIP_INDEX_URL", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY"),
    *("http_proxy", "https_proxy", "no_proxy"),
)


@dataclass(frozen=True)
class Image:
    """One image: its name without registry and tag, and how large it may be over its base."""

    name: str
    most_megabytes: int
    on_python: bool = True

    @property
    def dockerfile(self) -> str:
        """Return the Dockerfile's name."""
        return f"Dockerfile.{self.name.removeprefix('kubevo-')}"


IMAGES = (
    Image("kubevo-operator", 250),
    Image("kubevo-evaluator", 450),
    Image("kubevo-nats", 30, on_python=False),
)


def version() -> str:
    """Return the version in pyproject.toml, which is the images' tag."""
    read = tomllib.loads((ROOT / "pyproject.toml").read_text())
    return str(read["project"]["version"])


def base() -> str:
    """Return the base's name, present on the engine.

    Raises:
        SystemExit: the named one cannot be had, or no local one can be made.
    """
    named = os.environ.get("PYTHON_IMAGE")
    name = named or OFFICIAL
    if _quiet("image", "inspect", name) or _quiet("pull", "--quiet", name):
        return name
    if named:
        raise SystemExit(f"PYTHON_IMAGE={named}: docker neither has it nor can pull it")
    print(f"{OFFICIAL} cannot be pulled: taking a base made here", flush=True)
    made = subprocess.run(
        [sys.executable, ROOT / "tests/e2e/local_base.py"],
        stdout=subprocess.PIPE,
        text=True,
        check=False,
    )
    if made.returncode:
        raise SystemExit(made.returncode)
    return made.stdout.strip()


def build(image: Image, tag: str, on: str, extras: str) -> None:
    """Build one image.

    Raises:
        SystemExit: the build failed; its output is on the screen.
    """
    arguments = {"PYTHON_IMAGE": on, "VERSION": version(), "REVISION": _revision()}
    if image.name == "kubevo-evaluator":
        arguments["EXTRAS"] = extras
    command = ["docker", "build", "--file", image.dockerfile, "--tag", tag]
    for name, value in arguments.items():
        command += ["--build-arg", f"{name}={value}"]
    for name in HANDED_ON:
        if os.environ.get(name):
            command += ["--build-arg", name]  # the value stays off the command line
    if not _quiet("network", "inspect", "bridge"):
        command += ["--network", "host"]  # an engine without a bridge
    done = subprocess.run([*command, "."], cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.stderr.write(done.stdout + done.stderr)
        raise SystemExit(
            f"{image.dockerfile}: docker build ended with {done.returncode}, see above"
        )


def size(name: str) -> int:
    """Return an image's size in bytes, all layers, not compressed."""
    return int(_output("image", "inspect", "--format", "{{.Size}}", name))


def _quiet(*arguments: str) -> bool:
    done = subprocess.run(["docker", *arguments], capture_output=True, check=False)
    return done.returncode == 0


def _output(*arguments: str) -> str:
    done = subprocess.run(["docker", *arguments], capture_output=True, text=True, check=True)
    return done.stdout.strip()


def _revision() -> str:
    """Return the commit, with a mark when the files differ from it."""
    command = ["git", "describe", "--always", "--abbrev=40", "--dirty", "--exclude=*"]
    try:
        found = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return "unknown"  # an archive of the sources
    return found.stdout.strip()


def main() -> int:
    """Build what the command line asks for and print a line for each image."""
    parser = argparse.ArgumentParser(description="Build the images and print their sizes.")
    parser.add_argument("--only", action="append", choices=[each.name for each in IMAGES])
    parser.add_argument(
        "--registry", default="", help="prefix of the names, such as r.example/team/"
    )
    parser.add_argument("--tag", default=version())
    parser.add_argument("--extras", default="evaluator", help="evaluator or evaluator,torch")
    chosen = parser.parse_args()
    on = base()
    built = []
    for image in IMAGES:
        if chosen.only and image.name not in chosen.only:
            continue
        began = time.monotonic()
        name = f"{chosen.registry}{image.name}:{chosen.tag}"
        build(image, name, on, chosen.extras)
        over = size(name) - (size(on) if image.on_python else 0)
        built.append({"image": name, "bytes": size(name), "bytesOverBase": over, "base": on})
        print(
            f"{name:40} {size(name) / 1e6:6.0f} MB, {over / 1e6:4.0f} MB over its base "
            f"(aim {image.most_megabytes}), {time.monotonic() - began:.0f} s",
            flush=True,
        )
    (ROOT / "dist").mkdir(exist_ok=True)
    (ROOT / "dist/images.json").write_text(json.dumps(built, indent=2) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
