"""What a person adds to the evaluators' pods: a merge in which lists of named items are maps.

Pure. The person's word counts, but for what the operator needs: its variables, its volumes, its
mounts. null removes a default.
"""

import copy
from collections.abc import Mapping
from typing import Any

from kubevo_operator.evaluators import EVALUATOR, is_evaluator

__all__ = ["merge_pod_spec"]

Document = dict[str, Any]
# Lists whose items have an identity, as the API server itself merges them.
_KEYS: dict[str, str] = {
    "containers": "name",
    "env": "name",
    "ephemeralContainers": "name",
    "imagePullSecrets": "name",
    "initContainers": "name",
    "resourceClaims": "name",
    "volumeDevices": "devicePath",
    "volumeMounts": "mountPath",
    "volumes": "name",
}
_OURS = ("env", "volumeMounts")


def merge_pod_spec(ours: Document, theirs: Mapping[str, Any]) -> Document:
    """Return the pods' spec with what a person added.

    An item ``evaluator`` among the containers is about every evaluator container; the others are
    sidecars. Values that do not have the form of a pod's spec are passed on: the API server's answer
    explains them better than we could.
    """
    theirs = dict(theirs)
    containers = theirs.pop("containers", None) or []
    if not isinstance(containers, list):
        return _merge_maps(ours, {**theirs, "containers": containers})
    merged = _merge_maps(ours, theirs)
    merged["volumes"] = _keep(ours["volumes"], merged.get("volumes"), "name")
    for patch in (item for item in containers if _name(item) == EVALUATOR):
        merged["containers"] = [_evaluator(item, patch) for item in merged["containers"]]
    # One of our numbered names would be taken for a process of ours.
    others = [item for item in containers if not is_evaluator(_name(item))]
    merged["containers"] += copy.deepcopy(others)
    return merged


def _evaluator(ours: Document, patch: Mapping[str, Any]) -> Document:
    merged = _merge_maps(ours, {**patch, "name": ours["name"]})
    for field in _OURS:
        merged[field] = _keep(ours[field], merged.get(field), _KEYS[field])
    return merged


def _keep(ours: list[Document], merged: Any, key: str) -> list[Document]:
    """Return ``merged`` with our own items as we made them, also where somebody removed them."""
    named = {item[key] for item in ours}
    others = merged if isinstance(merged, list) else []
    mine = copy.deepcopy(ours)
    return mine + [item for item in others if _name(item, key) not in named]


def _merge(ours: Any, theirs: Any, field: str) -> Any:
    if isinstance(ours, dict) and isinstance(theirs, Mapping):
        return _merge_maps(ours, theirs)
    key = _KEYS.get(field)
    if key and isinstance(ours, list) and isinstance(theirs, list):
        return _merge_lists(ours, theirs, key)
    return copy.deepcopy(theirs)


def _merge_maps(ours: Document, theirs: Mapping[str, Any]) -> Document:
    merged = {
        key: _merge(ours.get(key), value, key) for key, value in theirs.items() if value is not None
    }
    kept = {key: copy.deepcopy(value) for key, value in ours.items() if key not in theirs}
    found = kept | merged
    # The order of our own fields stays, so that equal documents print equally.
    return {key: found[key] for key in [*ours, *theirs] if key in found}


def _merge_lists(ours: list[Any], theirs: list[Any], key: str) -> list[Any]:
    patches = {_name(item, key): item for item in theirs}
    named = [_name(item, key) for item in ours]
    found = [
        _merge(item, patches[name], "") if name in patches else copy.deepcopy(item)
        for item, name in zip(ours, named, strict=True)
    ]
    return found + [copy.deepcopy(item) for item in theirs if _name(item, key) not in named]


def _name(item: Any, key: str = "name") -> str:
    found = item.get(key) if isinstance(item, Mapping) else None
    return found if isinstance(found, str) else ""
