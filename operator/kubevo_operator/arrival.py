"""``python -m kubevo_operator.arrival NAMESPACE NAME UID``: take in a run that `kubevo push` sends.

It runs beside the operator, in its pod, because that is where the volume is; the run comes by stdin.
Its Experiment is suspended meanwhile, so the operator leaves the directory alone. Until its search
has begun here, a run that is sent again takes the place of what was sent before. Prints one JSON
object; the exit code is 1 where nothing has arrived.
"""

import hashlib
import json
import os
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import IO

from kubevo_core import names
from kubevo_core.errors import FormatError, KubevoError, RunMismatch, StoreError, UserError
from kubevo_runtime.archive import unpack
from kubevo_runtime.store import OWNER, Run, open_run

__all__ = ["receive"]

REFUSED, WRONG = 1, 2
_LABEL = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?", re.ASCII)
_NAME = re.compile(r"[a-z0-9]([-a-z0-9.]{0,61}[a-z0-9])?", re.ASCII)
_UID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", re.ASCII)


def receive(stream: IO[bytes], root: Path, namespace: str, name: str, uid: str) -> Run:
    """Store the run of a suspended Experiment below ``root``; the same one sent twice is kept.

    A process that dies loses neither: what was there stays, or is put back (`arriving`).

    Raises:
        UserError: ``namespace``, ``name`` or ``uid`` cannot be one.
        RunMismatch: an operator has worked on it already.
        KubevoError: as `kubevo_runtime.archive.unpack` says.
    """
    for what, text, pattern in (
        ("namespace", namespace, _LABEL),
        ("name", name, _NAME),
        ("uid", uid, _UID),
    ):
        if not pattern.fullmatch(text):
            raise UserError(f"expected the {what} of an Experiment, got {text[:80]!r}")
    there = root / namespace / names.run_folder(name, uid)
    if (there / OWNER).exists():
        _require_not_begun(open_run(there))  # before it is sent
    return unpack(
        stream,
        root,
        namespace,
        name=name,
        uid=uid,
        gives_way=_gives_way,
        within_quota=True,
    )


def _gives_way(there: Run, arrived: Run) -> bool:
    _require_not_begun(there)
    try:
        return _newest(there) != _newest(arrived)
    except (FormatError, StoreError):  # what is there cannot be gone on with
        return True


def _require_not_begun(run: Run) -> None:
    if run.takeover:
        raise RunMismatch(
            f"the search of {run.namespace}/{run.name} has begun in {run.path}: it goes on by "
            "itself; to send another run, push it under another name"
        )


def _newest(run: Run) -> dict[int, tuple[int, bytes]]:
    """Return the newest generation of each repeat that has begun, and a digest of its payload."""
    found = {}
    for repeat in run.begun():
        loaded = run.repeat(repeat).latest()
        if loaded is not None:
            found[repeat] = loaded.generation, hashlib.sha256(loaded.payload).digest()
        del loaded  # one payload at a time is in memory
    return found


def main(arguments: Sequence[str]) -> int:
    """Receive a run and tell where it is."""
    try:
        if len(arguments) != 3 or "KUBEVO_DATA" not in os.environ:
            raise UserError("expected NAMESPACE NAME UID, and the volume in KUBEVO_DATA")
        root = Path(os.environ["KUBEVO_DATA"])
        run = receive(sys.stdin.buffer, root, *arguments)
    except KubevoError as exc:
        sys.stderr.write(f"{exc}\n")
        return WRONG if isinstance(exc, UserError) else REFUSED
    generations = [generation for generation, _ in _newest(run).values()]
    document = {"directory": str(run.path), "generation": min(generations, default=None)}
    sys.stdout.write(json.dumps(document) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
