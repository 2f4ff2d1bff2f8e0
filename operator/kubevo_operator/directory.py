"""An Experiment's directory on the operator's volume, and the right to write to it.

The takeover number is raised on the object first, by a patch that fails if anybody else has changed
it, and then claimed in the directory, whose every save compares it. So an old operator that wakes up
is refused by both. Blocking but for `take_over`.
"""

import asyncio
import shutil
from pathlib import Path

from kubevo_core import names
from kubevo_core.spec import Experiment, ExperimentSpec
from kubevo_operator.cluster import EXPERIMENT, ApiRefused, Cluster, Conflict
from kubevo_operator.manifests import Owner
from kubevo_runtime.experiment import can_go_on
from kubevo_runtime.store import OWNER, Run, create_run, open_run

__all__ = ["RETAIN", "Directory"]

# A file in a run's directory: it stays when its Experiment goes.
RETAIN = "RETAIN"


class Directory:
    """Where one Experiment's run is kept, below ``root``."""

    def __init__(self, root: Path, owner: Owner, cluster: Cluster) -> None:
        self._root = root
        self._owner = owner
        self._cluster = cluster
        self.path = root / owner.namespace / names.run_folder(owner.name, owner.uid)

    async def take_over(self) -> int:
        """Raise the object's takeover number and return it; before any checkpoint is loaded.

        Raises:
            ApiRefused: the Experiment is gone.
        """
        owner = self._owner
        while True:
            found = await self._cluster.get(EXPERIMENT, owner.namespace, owner.name)
            if found is None or found["metadata"]["uid"] != owner.uid:
                raise ApiRefused(f"the Experiment {owner.name} is gone", 404)
            status = dict(found.get("status") or {})
            on_disk = await asyncio.to_thread(self._claimed)
            status["takeover"] = number = max(int(status.get("takeover") or 0), on_disk) + 1
            try:
                await self._cluster.apply_status(
                    {
                        "apiVersion": EXPERIMENT[0],
                        "kind": EXPERIMENT[1],
                        "metadata": {
                            "name": owner.name,
                            "namespace": owner.namespace,
                            "uid": owner.uid,
                            "resourceVersion": found["metadata"]["resourceVersion"],
                        },
                        "status": status,
                    }
                )
            except Conflict:
                continue
            return number

    def open(self, experiment: Experiment, takeover: int) -> Run:
        """Open the run's directory, or make it, as its only writer, with the spec as it is now.

        Raises:
            Fenced: a later takeover owns it.
            StoreError, OSError: it cannot be used.
        """
        document, owner = experiment.document(), self._owner
        if not (self.path / OWNER).exists():
            create_run(self._root, owner.namespace, owner.name, owner.uid, document)
        run = open_run(self.path)
        run.claim(takeover)
        if run.experiment() != document:
            run.replace_experiment(document)
        return run

    def can_go_on(self, spec: ExperimentSpec) -> bool:
        """Tell whether a finished run has something left to do under ``spec``."""
        return (self.path / OWNER).exists() and can_go_on(open_run(self.path), spec)

    def is_asked_more(self, spec: ExperimentSpec) -> bool:
        """Tell whether ``spec`` has another budget than the run was searched under."""
        if not (self.path / OWNER).exists():
            return False
        stored = open_run(self.path).experiment().get("spec") or {}
        return bool(stored.get("budget") != spec.document()["budget"])

    def note_retention(self, retention: str) -> None:
        """Keep on the volume what the Experiment wants, for a sweep that finds no Experiment.

        The stored spec is written only by who searches. What is not marked is judged by that one.
        """
        if not (self.path / OWNER).exists():
            return
        mark = self.path / RETAIN
        if retention == "Retain":
            mark.touch()
        else:
            mark.unlink(missing_ok=True)

    def remove(self) -> None:
        """Remove everything."""
        shutil.rmtree(self.path, ignore_errors=True)

    def _claimed(self) -> int:
        return open_run(self.path).takeover if (self.path / OWNER).exists() else 0
