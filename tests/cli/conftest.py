"""Run directories for the command's tests: the real store and engine, a synthetic evaluation."""

import io
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import structlog
import yaml

from kubevo_cli.__main__ import main


class Done(NamedTuple):
    code: int
    out: str
    err: str


@pytest.fixture
def kubevo(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> Callable[..., Done]:
    """Return the command as a function; it fails the test at a traceback."""

    def call(*arguments: object, stdin: str | bytes = "") -> Done:
        content = stdin.encode() if isinstance(stdin, str) else stdin
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(content)))
        capsys.readouterr()
        code = main([str(argument) for argument in arguments])
        out, err = capsys.readouterr()
        assert "Traceback" not in err, err
        return Done(code, out, err)

    return call


@pytest.fixture(autouse=True)
def _alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Work in a fresh folder, and leave no logging behind that writes to a test's closed stream."""
    monkeypatch.chdir(tmp_path)
    yield
    structlog.reset_defaults()


@pytest.fixture
def experiment_file(
    tmp_path: Path, experiment_document: Callable[..., dict[str, Any]]
) -> Callable[..., Path]:
    def write(**changes: Any) -> Path:
        path = tmp_path / "experiment.yaml"
        path.write_text(yaml.safe_dump(experiment_document(**changes)))
        return path

    return write
