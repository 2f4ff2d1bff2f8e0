"""Run directories for the command's tests: the real store and engine, a synthetic evaluation."""

import io
import sys
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import structlog
import yaml

from kubevo_cli.__main__ import main
from kubevo_core import checkpoint, container, spec
from kubevo_core.generation import (
    Limits,
    Phase,
    Settings,
    ask,
    close_tests,
    completed_tests,
    finish,
    is_complete,
    start,
    tell,
)
from kubevo_runtime.store import Run, create_run

NETWORK = "mlp-4-16-2"


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


def fill(run: Run, experiment: spec.Experiment, play: Callable[..., Any]) -> None:
    """Carry each repeat of ``experiment`` to its end in the run's directory."""
    for repeat in range(experiment.spec.repeats):
        limits, store = Limits.of(experiment.spec), run.repeat(repeat)
        state, seconds = start(Settings.of(experiment.spec, repeat, NETWORK)), 0.0
        while state.phase is not Phase.STOPPED:
            for demand in ask(state, limits):
                tell(state, play(demand))
            for report in completed_tests(state):
                store.append_test(report.row())
                state = close_tests(state, [(report.generation, report.purpose)])
            if is_complete(state):
                seconds += 0.5
                state = finish(state, limits, seconds)
                done = state.finished
                sealed = container.seal(
                    container.Header(run.uid, repeat, done.generation), checkpoint.encode(state)
                )
                store.save(done.generation, sealed, done.row(), checkpoint.scores(done))


@pytest.fixture
def make_run(
    tmp_path: Path,
    experiment_document: Callable[..., dict[str, Any]],
    synthetic_play: Callable[..., Any],
) -> Callable[..., Run]:
    """Return a maker of finished runs in ``<tmp_path>/<root>``."""

    def make(
        root: str = "data",
        name: str = "test",
        law: str = "climb",
        fail_every: int = 10**6,
        **changes: Any,
    ) -> Run:
        document = experiment_document(**changes)
        document["metadata"]["name"] = name
        experiment = spec.parse(document, "test")
        uid = f"{zlib.crc32(f'{root}/{name}'.encode()):08x}-0000-4000-8000-000000000000"
        run = create_run(tmp_path / root, "local", name, uid, experiment.document())
        fill(run, experiment, synthetic_play(law, fail_every))
        return run

    return make
