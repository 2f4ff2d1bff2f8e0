"""One Experiment's children on the API server: made, repaired, scaled, and removed again.

Level-triggered: `tend` may be called at any moment and makes the world be as the manifests say. The
Deployment is compared on every call, because the watch shows it; the others, which nobody watches so
that the operator needs no right to list Secrets, at least once in a resync period.
"""

import base64
from collections.abc import Mapping
from typing import Any

from kubevo_core import names
from kubevo_core.spec import ExperimentSpec
from kubevo_operator import manifests, nats_accounts
from kubevo_operator.cluster import ApiRefused, ApiUnavailable
from kubevo_operator.manifests import Owner
from kubevo_operator.nats_accounts import AccountKeys
from kubevo_operator.services import Services

__all__ = ["Children", "NotOurs", "NotYet"]

SECRET = ("v1", "Secret")
CREDENTIALS = "user.creds"
# Keeps the number of pods when the operator stops naming it, until an autoscaler has another.
HAND_OVER = "kubevo-operator-hand-over"


# Within this time the children of a deleted namesake are removed.
COLLECTED_SECONDS = 30.0


class NotOurs(ApiRefused):
    """An object with the name of a child is there and is somebody else's."""


class NotYet(ApiUnavailable):
    """An object with the name of a child is there, but will not be for long."""


class Children:
    """The children of one Experiment."""

    def __init__(self, services: Services, owner: Owner) -> None:
        self._cluster = services.cluster
        self._owner = owner
        self._defaults = services.defaults
        self._keys = services.keys
        self._credentials = "" if services.keys else services.foreign_credentials
        self._resync = services.settings.resync_seconds
        self._clock = services.clock
        self._applied: tuple[dict[str, Any], ...] = ()
        self._applied_at = float("-inf")
        self._asked: tuple[Any, ...] = ()
        self._generation: int | None = None
        self._ours: set[tuple[str, str]] = set()
        self._counts_pods = True
        self._patient_until = services.clock() + COLLECTED_SECONDS

    async def tend(
        self,
        spec: ExperimentSpec,
        labels: Mapping[str, str],
        replicas: int | None,
        seen: Mapping[str, Any] | None,
    ) -> None:
        """Make the children be as they should; ``seen`` is the Deployment as the watch knows it.

        Raises:
            ApiUnavailable: try again later.
            ApiRefused: the API server will not have one of them.
        """
        due = self._clock() - self._applied_at >= self._resync or self._has_drifted(seen)
        asked = (spec, dict(labels), replicas)
        if not due and asked == self._asked:
            return
        if self._keys and not self._credentials:
            self._credentials = await self._evaluator_credentials(self._keys)
        wanted = manifests.children(
            self._owner, spec, labels, self._defaults, replicas, self._credentials
        )
        for child in wanted:
            if due or child not in self._applied:
                await self._require_ours(child)
                if child["kind"] == "Deployment":
                    await self._hand_over(child, replicas, seen)
                made = await self._cluster.apply(child)
                if child["kind"] == "Deployment":
                    self._generation = made["metadata"].get("generation")
        if due or {c["kind"] for c in wanted} != {c["kind"] for c in self._applied}:
            for version, kind, name in manifests.absent(self._owner, spec, self._defaults):
                await self._remove((version, kind), name)
        if due:
            self._applied_at = self._clock()
        self._applied, self._asked = wanted, asked

    def _has_drifted(self, seen: Mapping[str, Any] | None) -> bool:
        if not self._applied:
            return True
        if seen is None:  # deleted, or not seen by the watch yet: applying twice is harmless
            return self._clock() - self._applied_at > 1.0
        generation = seen.get("generation")
        # An older one is only the watch lagging behind what we did ourselves.
        return generation is not None and generation > (self._generation or 0)

    async def _require_ours(self, child: Mapping[str, Any]) -> None:
        """Refuse to take over what a person, or another program, has made under a child's name.

        Raises:
            NotOurs: it is there.
            NotYet: a namesake's child has not been collected yet.
        """
        kind, name = (child["apiVersion"], child["kind"]), child["metadata"]["name"]
        if (kind[1], name) in self._ours:
            return
        found = await self._cluster.get(kind, self._owner.namespace, name)
        if found is not None and not self._is_ours(found):
            if self._clock() < self._patient_until and self._is_namesakes(found):
                raise NotYet(f"{kind[1]} {name} of an Experiment before is still there")
            raise NotOurs(
                f"{kind[1]} {name} is there already and does not belong to this Experiment: remove "
                "it, or give the Experiment another name",
                422,  # what the API server says of an object that cannot be as it should
            )
        self._ours.add((kind[1], name))

    def _is_ours(self, found: Mapping[str, Any]) -> bool:
        owners = found["metadata"].get("ownerReferences") or ()
        return any(owner.get("uid") == self._owner.uid for owner in owners)

    def _is_namesakes(self, found: Mapping[str, Any]) -> bool:
        owners = found["metadata"].get("ownerReferences") or ()
        return any(
            owner.get("kind") == "Experiment" and owner.get("name") == self._owner.name
            for owner in owners
        )

    async def _hand_over(
        self, child: Mapping[str, Any], replicas: int | None, seen: Mapping[str, Any] | None
    ) -> None:
        """Let the number of pods stay as it is when an autoscaler is to change it from now on.

        A field that its only manager stops naming falls back to its default, which is one pod: right
        after zero, which an autoscaler would leave alone.
        """
        if replicas is None and self._counts_pods and seen is not None and seen["replicas"]:
            metadata = {key: child["metadata"][key] for key in ("name", "namespace")}
            await self._cluster.apply(
                {
                    "apiVersion": child["apiVersion"],
                    "kind": child["kind"],
                    "metadata": metadata,
                    "spec": {"replicas": seen["replicas"]},
                },
                HAND_OVER,
            )
        self._counts_pods = replicas is not None

    async def _remove(self, kind: tuple[str, str], name: str) -> None:
        """Remove a child that is not wanted any more; what a person has made stays."""
        try:
            found = await self._cluster.get(kind, self._owner.namespace, name)
            if found is not None and self._is_ours(found):
                uid = str(found["metadata"]["uid"])
                await self._cluster.delete(kind, self._owner.namespace, name, uid=uid)
        except ApiRefused as exc:
            if exc.status != 404:  # the kind itself may be unknown here: KEDA's is
                raise
        self._ours.discard((kind[1], name))

    async def _evaluator_credentials(self, keys: AccountKeys) -> str:
        """Return the credentials that are there already, so that a restart changes no pod."""
        experiment = names.experiment_id(self._owner.name, self._owner.uid)
        name = manifests.secret_name(self._owner)
        found = await self._cluster.get(SECRET, self._owner.namespace, name)
        if found is not None:
            encoded = (found.get("data") or {}).get(CREDENTIALS, "")
            text = base64.b64decode(encoded).decode("ascii", "replace")
            if nats_accounts.credentials_belong(keys, text, experiment):
                return text
        return nats_accounts.evaluator_credentials(keys, experiment)
