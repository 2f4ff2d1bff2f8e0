"""A tiny local-path provisioner: StorageClass ``local`` (the default), volumes in folders of the node.

It looks at the claims five times a second, which is cheap for one node, and needs no watch. A claim of
the class gets a hostPath PersistentVolume bound to it; a volume whose claim is gone is removed with its
folder. Standard library only; `node.py` starts it.
"""

import json
import shutil
import ssl
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

from layout import STORAGE_CLASS, Layout

LOOK_SECONDS = 0.2
PROVISIONER = "kubevo.dev/local-path"
CLASS: dict[str, Any] = {
    "apiVersion": "storage.k8s.io/v1",
    "kind": "StorageClass",
    "metadata": {
        "name": STORAGE_CLASS,
        "annotations": {"storageclass.kubernetes.io/is-default-class": "true"},
    },
    "provisioner": PROVISIONER,
    "reclaimPolicy": "Delete",
    "volumeBindingMode": "Immediate",
}


class Provisioner:
    """Make and remove volumes by the API server's word."""

    def __init__(self, layout: Layout) -> None:
        self._volumes = layout.volumes
        config = json.loads(layout.kubeconfig("local-path").read_text())
        cluster = config["clusters"][0]["cluster"]
        self._server = cluster["server"]
        self._tls = ssl.create_default_context(cafile=cluster["certificate-authority"])
        self._token = config["users"][0]["user"]["token"]

    def run(self) -> None:
        """Look again and again, for as long as the node lives."""
        while True:
            try:
                self._create("/apis/storage.k8s.io/v1/storageclasses", CLASS)
                while True:
                    self._look()
                    time.sleep(LOOK_SECONDS)
            except (urllib.error.URLError, OSError) as exc:
                print(exc, file=sys.stderr, flush=True)
                time.sleep(LOOK_SECONDS)

    def _look(self) -> None:
        for claim in self._ask("GET", "/api/v1/persistentvolumeclaims")["items"]:
            if (
                claim["spec"].get("storageClassName") == STORAGE_CLASS
                and claim["status"].get("phase") == "Pending"
                and not claim["metadata"].get("deletionTimestamp")
            ):
                self._provide(claim)
        for volume in self._ask("GET", "/api/v1/persistentvolumes")["items"]:
            made_by = (volume["metadata"].get("annotations") or {}).get(ANNOTATION)
            if made_by == PROVISIONER and self._is_over(volume):
                shutil.rmtree(volume["spec"]["hostPath"]["path"], ignore_errors=True)
                self._ask("DELETE", f"/api/v1/persistentvolumes/{volume['metadata']['name']}")

    @staticmethod
    def _is_over(volume: dict[str, Any]) -> bool:
        # With a hostPath, the controller-manager itself would only mark a deleted volume as failed.
        return (
            volume["status"].get("phase") in ("Released", "Failed")
            and volume["spec"]["persistentVolumeReclaimPolicy"] == "Delete"
        )

    def _provide(self, claim: dict[str, Any]) -> None:
        metadata = claim["metadata"]
        name = f"pvc-{metadata['uid']}"
        folder = self._volumes / f"{name}-{metadata['namespace']}-{metadata['name']}"
        folder.mkdir(exist_ok=True)
        # fsGroup does nothing to a hostPath.
        folder.chmod(0o777)
        volume = {
            "apiVersion": "v1",
            "kind": "PersistentVolume",
            "metadata": {"name": name, "annotations": {ANNOTATION: PROVISIONER}},
            "spec": {
                "capacity": {"storage": claim["spec"]["resources"]["requests"]["storage"]},
                "accessModes": claim["spec"]["accessModes"],
                "persistentVolumeReclaimPolicy": "Delete",
                "storageClassName": STORAGE_CLASS,
                "hostPath": {"path": str(folder), "type": "Directory"},
                "claimRef": {
                    "apiVersion": "v1",
                    "kind": "PersistentVolumeClaim",
                    **{key: metadata[key] for key in ("namespace", "name", "uid")},
                },
            },
        }
        self._create("/api/v1/persistentvolumes", volume)

    def _create(self, path: str, body: dict[str, Any]) -> None:
        try:
            self._ask("POST", path, body)
        except urllib.error.HTTPError as exc:
            if exc.code != 409:  # there already, since the look before
                raise

    def _ask(self, method: str, path: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
        request = urllib.request.Request(
            self._server + path,
            method=method,
            data=None if body is None else json.dumps(body).encode(),
            headers={"Authorization": f"Bearer {self._token}", "Content-Type": "application/json"},
        )
        with urllib.request.urlopen(request, context=self._tls, timeout=10) as answer:
            return dict(json.load(answer))


# The controller-manager leaves the deletion of volumes with this annotation to who it names.
ANNOTATION = "pv.kubernetes.io/provisioned-by"


if __name__ == "__main__":
    Provisioner(Layout(Path(sys.argv[1]))).run()
