"""``kubevo export``: the best genome as weights, ONNX, a script that plays it, a card, or JSON."""

import os
import secrets
from collections.abc import Callable
from contextlib import suppress
from importlib.metadata import version
from pathlib import Path
from typing import Any

from kubevo_api.exports import FORMATS
from kubevo_api.exports.model import Facts, Model
from kubevo_cli import output
from kubevo_cli.sources import BestOfRun, Source, load_source
from kubevo_core import decode, networks
from kubevo_core.errors import UserError
from kubevo_runtime.intervals import mean_interval
from kubevo_runtime.outcomes import final_test

__all__ = ["export", "model_of", "require_writable", "write_atomically"]

SUFFIXES = {Path(name).suffix: name for name in FORMATS}


def export(source: str, target: Path, repeat: int | None, form: str, *, force: bool) -> None:
    """Write the genome that ``source`` names to ``target``; its suffix says in which format.

    Raises:
        UserError: another suffix, the file exists, or nothing is named by ``source``.
        KubevoError: the run cannot be read.
    """
    require_writable(target, sorted(SUFFIXES), force=force)
    found = load_source(source, repeat)
    model = model_of(found)
    digest, size = decode.sha256(model.weights), networks.network(found.genome.network).size
    content = FORMATS[SUFFIXES[target.suffix]].write(model)
    write_atomically(target, lambda file: file.write_bytes(content))
    document = {
        "file": str(target),
        "network": found.genome.network,
        "parameters": size,
        "precision": found.precision,
        "digest": found.genome.digest,
        "sha256": digest,
    }
    if form == "json":
        output.write_json(document)
        return
    output.write_fields(
        {
            "file": str(target),
            "network": found.genome.network,
            "parameters": output.number(size),
            "precision": found.precision,
            "genome": found.genome.digest,
            "sha256": f"{digest} (of the flat float32 vector)",
        }
    )


def require_writable(target: Path, suffixes: list[str], *, force: bool) -> None:
    """Refuse a target before any work is done.

    Raises:
        UserError: its suffix is not one of ``suffixes``, its folder is missing, or it exists.
    """
    if target.suffix not in suffixes:
        raise UserError(
            f"{target}: expected a file name that ends in {' or '.join(suffixes)}, got "
            f"{target.suffix or 'none'!r}"
        )
    if not target.parent.is_dir():
        raise UserError(f"{target}: the folder {target.parent} does not exist; make it first")
    if target.is_dir():
        raise UserError(f"{target}: expected a file, this is a directory")
    if target.exists() and not force:
        raise UserError(f"{target}: exists already; --force overwrites it")


def write_atomically(target: Path, write: Callable[[Path], Any]) -> None:
    """Let ``write`` fill a file beside ``target``, then put it in place; nothing half-written stays.

    Raises:
        OSError: it cannot be written; what was at ``target`` is still there.
    """
    # The suffix stays last: some writers choose the format by it.
    beside = target.with_name(f".{target.stem}.{secrets.token_hex(4)}{target.suffix}")
    try:
        write(beside)
        with beside.open("rb") as file:
            os.fsync(file.fileno())
        beside.replace(target)
    finally:
        with suppress(OSError):
            beside.unlink()


def model_of(source: Source) -> Model:
    """Return what an export of a source is made of."""
    of = source.of
    if of is None:
        return Model(source.genome, precision=source.precision)
    description = of.run.description()
    return Model(
        genome=source.genome,
        environment=source.environment,
        actions=str(description["actions"]) if description else None,
        facts=_facts(of, source.backend),
        precision=source.precision,
    )


def _facts(of: BestOfRun, backend: str | None) -> Facts:
    spec, test = of.experiment.spec, final_test(of.run, of.repeat, of.best)
    mean = test["mean"] if test else None
    interval = mean_interval(test["episodeReturns"]) if test and mean is not None else None
    rows = of.run.repeat(of.repeat).history()
    return Facts(
        experiment=of.run.name,
        namespace=of.run.namespace,
        uid=of.run.uid,
        repeat=of.repeat,
        generation=of.best.generation,
        fitness=of.best.mean,
        validation_episodes=spec.algorithm.genetic_algorithm.elite_episodes,
        final_test_mean=mean,
        final_test_interval=interval,
        # A test with a failed episode has no mean; the service says nothing of it either.
        final_test_episodes=test["episodes"] if test and mean is not None else 0,
        frames=int(rows[-1]["frames"]) if rows else 0,
        seed=spec.seed,
        backend=backend,
        version=version("kubevo"),
    )
