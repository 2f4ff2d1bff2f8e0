"""The built images and a way to run them as strictly as a cluster does.

They are those of `make images`, or of KUBEVO_IMAGE_TAG; docker is the one that answers, else our own.
"""

import json
import os
import subprocess
import sys
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
sys.path[:0] = [str(ROOT / "images"), str(ROOT / "tests/e2e")]

from build import IMAGES, version
from docker_daemon import docker_environment

STRICT = (
    *("--read-only", "--tmpfs", "/tmp", "--cap-drop", "ALL"),
    *("--security-opt", "no-new-privileges", "--network", "host"),
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark every test here: they need an engine and images, which `make test` does not make."""
    for item in items:
        if Path(item.path).parent == Path(__file__).parent:
            item.add_marker(pytest.mark.e2e)


@dataclass(frozen=True)
class Docker:
    """The engine, and the images by their short names: operator, evaluator, nats."""

    environment: dict[str, str]
    tag: str

    def name(self, image: str) -> str:
        """Return an image's full name."""
        return f"kubevo-{image}:{self.tag}"

    def call(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run docker and return what it said."""
        return subprocess.run(
            ["docker", *arguments],
            env=self.environment,
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
        )

    def inspect(self, image: str) -> dict[str, Any]:
        """Return what docker knows of an image."""
        done = self.call("image", "inspect", self.name(image))
        assert done.returncode == 0, f"{done.stderr}; build the images first: make images"
        return json.loads(done.stdout)[0]

    def run(self, image: str, *words: str, options: tuple[str, ...] = ()):
        """Run an image to its end, as strictly as a cluster does."""
        return self.call("run", "--rm", *STRICT, *options, self.name(image), *words)

    def python(self, image: str, program: str, options: tuple[str, ...] = ()) -> str:
        """Run a program of a test in an image and return what it printed."""
        done = self.call(
            *("run", "--rm", *STRICT, *options, "--entrypoint", "python"),
            *(self.name(image), "-W", "error", "-c", program),
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    @contextmanager
    def started(self, image: str, *words: str, options: tuple[str, ...] = ()) -> Iterator[str]:
        """Start an image in the background; the value is the container's name."""
        name = f"kubevo-test-{uuid.uuid4().hex[:12]}"
        done = self.call("run", "-d", "--name", name, *STRICT, *options, self.name(image), *words)
        try:
            assert done.returncode == 0, done.stderr
            yield name
        finally:
            self.call("rm", "--force", "--volumes", name)


@pytest.fixture(scope="session")
def docker() -> Iterator[Docker]:
    with docker_environment() as environment:
        tag = os.environ.get("KUBEVO_IMAGE_TAG") or version()
        found = Docker(environment, tag)
        for image in IMAGES:
            found.inspect(image.name.removeprefix("kubevo-"))
        yield found
