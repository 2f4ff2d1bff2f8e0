"""``kubevo export``: the best genome as weights (safetensors) or as JSON.

The safetensors file is written here, because the library sorts tensors by name: in layout order
the data behind the header is exactly the flat parameter vector, so its sha256 is the one of
``decode.sha256``, and any reader of the format reads it::

    8 bytes   length of the header, little-endian u64
    header    JSON: __metadata__ (kubevo, dialect, genome, environment, sha256), then each tensor's
              dtype, shape and offsets; padded with spaces to a multiple of 8
    data      float32, little-endian, tensors in the order of the network's layout
"""

import json
import os
import secrets
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from kubevo_cli import output
from kubevo_cli.sources import Source, load_source
from kubevo_core import decode
from kubevo_core.errors import UserError
from kubevo_core.genome import DIALECT
from kubevo_core.networks import network

__all__ = ["export", "safetensors_bytes", "write_atomically"]


def export(source: str, target: Path, repeat: int | None, form: str, *, force: bool) -> None:
    """Write the genome that ``source`` names to ``target``; its suffix says in which format.

    Raises:
        UserError: another suffix, the file exists, or nothing is named by ``source``.
        KubevoError: the run cannot be read.
    """
    require_writable(target, sorted(WRITERS), force=force)
    found = load_source(source, repeat)
    theta = decode.parameters(found.genome)
    digest = decode.sha256(theta)
    write_atomically(target, lambda file: file.write_bytes(WRITERS[target.suffix](found)))
    document = {
        "file": str(target),
        "network": found.genome.network,
        "parameters": int(theta.size),
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
            "parameters": output.number(int(theta.size)),
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


def safetensors_bytes(source: Source) -> bytes:
    """Return the genome's weights as a safetensors file, tensors in layout order."""
    theta = decode.parameters(source.genome)
    metadata = {
        "kubevo": "weights-1",
        "dialect": DIALECT,
        "network": source.genome.network,
        "genome": json.dumps(source.genome.to_json()),
        "sha256": decode.sha256(theta),
    }
    environment = _environment(source)
    if environment is not None:
        metadata["environment"] = json.dumps(environment)
    header: dict[str, Any] = {"__metadata__": metadata}
    start = 0
    for tensor in network(source.genome.network).layout:
        end = start + 4 * tensor.size
        header[tensor.name] = {
            "dtype": "F32",
            "shape": list(tensor.shape),
            "data_offsets": [start, end],
        }
        start = end
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text + theta.astype("<f4", copy=False).tobytes()


def _json_bytes(source: Source) -> bytes:
    document = source.genome.to_json()
    environment = _environment(source)
    if environment is not None:
        document["environment"] = environment
    return json.dumps(document, indent=2).encode() + b"\n"


def _environment(source: Source) -> dict[str, Any] | None:
    found = source.environment
    return found.model_dump(mode="json", by_alias=True) if found is not None else None


WRITERS: dict[str, Callable[[Source], bytes]] = {
    ".json": _json_bytes,
    ".safetensors": safetensors_bytes,
}
