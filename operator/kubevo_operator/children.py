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
from kubevo_operator.cluster import ApiRefused
from kubevo_operator.manifests import Owner
from kubevo_operator.nats_accounts import BrokerKeys
from kubevo_operator.services import Services

__all__ = ["Children"]

SECRET = ("v1", "Secret")
CREDENTIALS = "user.creds"


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

    async def _remove(self, kind: tuple[str, str], name: str) -> None:
        try:
            await self._cluster.delete(kind, self._owner.namespace, name)
        except ApiRefused as exc:
            if exc.status != 404:  # the kind itself may be unknown here: KEDA's is
                raise

    async def _evaluator_credentials(self, keys: BrokerKeys) -> str:
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
