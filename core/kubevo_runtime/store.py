"""The run's directory: the one place where a search is kept, the same locally and on a cluster.

::

    <root>/<namespace>/<name>-<uid prefix>/
        spec.yaml        the Experiment; its live fields may change on resume
        OWNER            whose run it is, and which takeover may write
        import.ck        the genomes of a warm start, resolved once
        describe.json    what an evaluator answered about the environment, asked once
        repeat-<r>/
            generations/gen-<n>.ck       sealed checkpoints, newest wins; pruned
            scores/scores-<k>.bin        compact scores of every generation; never pruned
            history.jsonl, tests.jsonl   a row for each finished generation, each answered test
            videos/gen-<n>.mp4           recorded elites; the oldest go, and make room for saves
        logs/            what the processes said
        .lock .saving    held while a local process works on it, and around each save

Whoever reads needs no lock and no write permission. ``store_files`` is the file layer below,
``store_owner`` the locks and the fence, ``store_repeat`` one repeat.
"""

import json
from contextlib import AbstractContextManager
from dataclasses import fields
from pathlib import Path
from typing import Any

import yaml

from kubevo_core import names
from kubevo_core.container import Header, open_sealed, seal
from kubevo_core.errors import (
    CheckpointCorrupt,
    CheckpointVersionError,
    Fenced,
    RunMismatch,
    RunNotFound,
    StoreError,
)
from kubevo_core.messages import Description
from kubevo_runtime.store_files import (
    DiskFiles,
    Files,
    make_directory,
    replace_durably,
    storing,
    sweep_temporaries,
)
from kubevo_runtime.store_owner import (
    OWNER,
    Gate,
    Owner,
    read_owner,
    run_lock,
    walked_bytes,
    write_owner,
)
from kubevo_runtime.store_repeat import Loaded, RepeatStore

__all__ = [
    "LOGS",
    "OWNER",
    "Loaded",
    "RepeatStore",
    "Run",
    "create_run",
    "find_run",
    "find_runs",
    "open_run",
]

SPEC = "spec.yaml"
DESCRIPTION = "describe.json"
IMPORT = "import.ck"
LOGS = "logs"
LISTED = 20
MEBIBYTE = 1024 * 1024
DISK = DiskFiles()
# The same documents, ten times as fast, where PyYAML was built with it.
LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


class Run:
    """A run's directory; `open_run` and `create_run` make it."""

    def __init__(self, path: Path, owner: Owner, quota_bytes: int | None, files: Files) -> None:
        self.path = path
        self.uid = owner.uid
        self.name = owner.name
        self.namespace = owner.namespace
        self._files = files
        self._gate = Gate(files, path, owner, quota_bytes)
        self._repeats: dict[int, RepeatStore] = {}

    @property
    def takeover(self) -> int:
        """The takeover number under which this object writes."""
        return self._gate.owner.takeover

    @property
    def quota_bytes(self) -> int | None:
        """The most that the run's own files may take; None where its Experiment does not say."""
        return self._gate.quota_bytes

    def held(self) -> AbstractContextManager[Owner]:
        """Keep every other process from writing and claiming, and give what OWNER says now.

        Raises:
            RunInUse: another process holds it.
        """
        return self._gate.taking_over("hold the run")

    def experiment(self) -> dict[str, Any]:
        """Return the Experiment as it was stored.

        Raises:
            StoreError: ``spec.yaml`` is gone or is not a YAML mapping.
        """
        return _experiment(self.path)

    def replace_experiment(self, experiment: dict[str, Any]) -> None:
        """Store an Experiment whose live fields have changed; a new quota counts at once."""
        with self._gate.writing("replace the Experiment"):
            replace_durably(self._files, self.path / SPEC, _yaml(experiment))
            self._gate.quota_bytes = _quota_bytes(experiment)

    def lock(self) -> AbstractContextManager[None]:
        """Hold the run for this process alone, as long as the context lasts.

        Raises:
            RunInUse: another process holds it; the message names its pid.
        """
        return run_lock(self.path)

    def claim(self, takeover: int | None = None) -> int:
        """Become the run's only writer, sweep what dead ones left, and return the number.

        ``takeover`` must be higher than the one in OWNER; None means the next one.

        Raises:
            Fenced: ``takeover`` is not higher, and is not this process's own.
        """
        with self._gate.taking_over("claim the run") as found:
            claimed = found.claimed(found.takeover + 1 if takeover is None else takeover)
            if claimed.takeover <= found.takeover and claimed != found:
                raise Fenced(
                    f"expected a takeover number above {found.takeover} for {self.path}, got "
                    f"{claimed.takeover}; pid {found.pid} on {found.host} owns it: this process "
                    "must not write"
                )
            write_owner(self._files, self.path, claimed)
            self._gate.owner = claimed
            self._gate.quota_bytes = _quota_bytes(self.experiment())
            for directory in (
                self.path,
                *self.path.glob("repeat-*"),
                *self.path.glob("repeat-*/*"),
            ):
                if directory.is_dir():
                    sweep_temporaries(self._files, directory)
        return claimed.takeover

    def save_description(self, description: dict[str, Any]) -> None:
        """Store what an evaluator answered, durably."""
        content = json.dumps(description, indent=2, allow_nan=False).encode() + b"\n"
        with self._gate.writing("store the description"):
            replace_durably(self._files, self.path / DESCRIPTION, content)

    def description(self) -> dict[str, Any] | None:
        """Return the stored description; None where nobody has answered yet.

        Raises:
            StoreError: ``describe.json`` is damaged.
        """
        file = self.path / DESCRIPTION
        with storing(file, "read"):
            try:
                document = json.loads(file.read_bytes())
            except FileNotFoundError:
                return None
            except ValueError as exc:
                raise StoreError(f"{file} is damaged; restore it from a copy: {exc}") from exc
        expected = {item.name for item in fields(Description)}
        if not isinstance(document, dict) or set(document) != expected:
            raise StoreError(
                f"{file} is damaged; restore it from a copy: expected a mapping of "
                f"{', '.join(sorted(expected))}"
            )
        return document

    def save_import(self, payload: bytes) -> None:
        """Store the genomes of a warm start, sealed and durably, in place of what is there."""
        file, what = self.path / IMPORT, "store the warm start"
        sealed = seal(Header(self.uid, 0, 0), payload)
        with self._gate.writing(what):
            self._gate.require_room(len(sealed), what)
            before = file.stat().st_size if file.exists() else 0
            replace_durably(self._files, file, sealed)
            self._gate.count(len(sealed) - before)

    def imported(self) -> bytes | None:
        """Return the stored payload of a warm start; None where none was stored.

        Raises:
            CheckpointCorrupt, CheckpointVersionError: it does not verify; the message names it.
        """
        file = self.path / IMPORT
        with storing(file, "read"):
            try:
                header, payload = open_sealed(file.read_bytes())
            except FileNotFoundError:
                return None
            except (CheckpointCorrupt, CheckpointVersionError) as exc:
                raise type(exc)(f"{file}: {exc}") from exc
        if header != Header(self.uid, 0, 0):
            raise CheckpointCorrupt(f"{file}: expected the import of {self.uid}, found {header}")
        return payload

    def is_played(self) -> bool:
        """Tell whether a repeat has finished a generation."""
        return any(self.path.glob("repeat-*/generations/gen-*"))

    def repeat(self, repeat: int) -> RepeatStore:
        """Return the files of one repeat; the same object each time."""
        return self._repeats.setdefault(repeat, RepeatStore(self._gate, repeat))

    def begun(self) -> list[int]:
        """Return the numbers of the repeats that have a folder, in order."""
        numbers = (folder.name.partition("-")[2] for folder in self.path.glob("repeat-*"))
        return sorted(int(number) for number in numbers if number.isdecimal())

    def used_bytes(self) -> int:
        """Return the bytes of the run's own files, which the quota limits."""
        with storing(self.path, "measure the run"):
            return walked_bytes(self.path)


def create_run(
    root: Path,
    namespace: str,
    name: str,
    uid: str,
    experiment: dict[str, Any],
    *,
    files: Files = DISK,
) -> Run:
    """Make a run's directory and return it; the same run made twice is opened.

    ``spec.yaml`` is durable before OWNER makes the directory a run.

    Raises:
        RunMismatch: the directory belongs to another uid or holds another Experiment.
    """
    path = root.absolute() / namespace / names.run_folder(name, uid)
    if (path / OWNER).exists():
        run = open_run(path, files=files)
        if run.uid != uid or run.experiment() != experiment:
            raise RunMismatch(
                f"{path} already belongs to uid {run.uid}, or to another Experiment: open it, or "
                "name another directory"
            )
        return run
    with storing(path, "make the run's directory"):
        for directory in (root.absolute(), path.parent, path, path / LOGS):
            make_directory(files, directory)
        replace_durably(files, path / SPEC, _yaml(experiment))
        owner = Owner(uid, name, namespace, 0, "", 0).claimed(0)
        write_owner(files, path, owner)
    return Run(path, owner, _quota_bytes(experiment), files)


def open_run(path: Path, *, files: Files = DISK) -> Run:
    """Open the run whose directory is ``path``; nothing is written.

    Raises:
        RunNotFound: there is none.
        StoreError: OWNER or ``spec.yaml`` is damaged.
    """
    path = path.absolute()
    return Run(path, read_owner(path), _quota_bytes(_experiment(path)), files)


def find_runs(root: Path) -> list[Path]:
    """Return the directories of all runs at, or at most two levels below, ``root``."""
    patterns = (OWNER, f"*/{OWNER}", f"*/*/{OWNER}")
    return sorted(file.parent for pattern in patterns for file in root.glob(pattern))


def find_run(root: Path, *, name: str | None = None) -> Path:
    """Return the directory of the one run (or of the one run called ``name``) in ``root``.

    ``root`` may be the run's own directory.

    Raises:
        RunNotFound: none or several; the message lists what is there.
    """
    there = find_runs(root)
    if root in there:
        there = [root]
    found = [path for path in there if name is None or _name_of(path) == name]
    if len(found) == 1:
        return found[0]
    wanted = "one run" if name is None else f"one run named {name!r}"
    listed = found or there
    lines = "".join(f"\n  {path}" for path in listed[:LISTED])
    if len(listed) > LISTED:
        lines += f"\n  and {len(listed) - LISTED} more"
    if found:
        raise RunNotFound(
            f"expected {wanted} in {root}, found {len(found)}; name one by its directory:{lines}",
            ambiguous=True,
        )
    others = f", but these:{lines}" if there else "; name a run's directory, or one that holds it"
    raise RunNotFound(f"expected {wanted} in {root}, found none{others}")


def _name_of(path: Path) -> str:
    try:
        return read_owner(path).name
    except StoreError:  # one damaged run must not hide the others
        return path.name.rpartition("-")[0]


def _experiment(path: Path) -> dict[str, Any]:
    file = path / SPEC
    with storing(file, "read"):
        text = file.read_bytes()
    try:
        document = yaml.load(text, Loader=LOADER)  # noqa: S506 - a safe one
    except (yaml.YAMLError, UnicodeDecodeError) as exc:
        raise StoreError(f"{file} is not YAML; restore it: {exc}") from exc
    if not isinstance(document, dict):
        raise StoreError(
            f"expected a mapping in {file}, found {type(document).__name__}; restore the "
            "Experiment's YAML there"
        )
    return document


def _yaml(experiment: dict[str, Any]) -> bytes:
    return yaml.safe_dump(experiment, sort_keys=False, allow_unicode=True).encode()


def _quota_bytes(experiment: dict[str, Any]) -> int | None:
    """Return the quota; a document that is no Experiment of ours has none."""
    node: Any = experiment
    for field in ("spec", "checkpoint", "quotaMebibytes"):
        node = node.get(field) if isinstance(node, dict) else None
    return node * MEBIBYTE if isinstance(node, int) else None
