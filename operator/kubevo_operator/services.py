"""What one Experiment's host is given: what all share, and what the watch knows of this one."""

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kubevo_operator.cluster import Cluster
from kubevo_operator.defaults import Defaults
from kubevo_operator.health import Health
from kubevo_operator.metrics import OperatorMetrics
from kubevo_operator.nats_accounts import AccountKeys
from kubevo_operator.settings import OperatorSettings
from kubevo_runtime.bus import BusSettings
from kubevo_runtime.exposition import Metrics
from kubevo_runtime.limits import StreamLimits

__all__ = ["Services", "Watched"]

# A search that cannot reach the broker for so long says so, and tries again.
GIVE_UP_SECONDS = 15.0


@dataclass(frozen=True)
class Services:
    """What all Experiments of one operator share.

    ``keys`` are the broker's, where the operator makes its users; ``foreign_credentials`` is the
    text that evaluators get elsewhere. ``fatal`` ends this process at once.
    """

    cluster: Cluster
    settings: OperatorSettings
    defaults: Defaults
    keys: AccountKeys | None
    coordinator_credentials: Path | None
    foreign_credentials: str
    metrics: Metrics
    own_metrics: OperatorMetrics
    health: Health
    clock: Callable[[], float]
    fatal: Callable[[BaseException], None]

    def bus_settings(self, identifier: str, limits: StreamLimits | None = None) -> BusSettings:
        """Return how to reach the broker as the coordinator of one Experiment."""
        settings = self.settings
        found = BusSettings(
            url=settings.nats_url,
            experiment=identifier,
            token=settings.nats_token,
            credentials=self.coordinator_credentials,
            tls_ca=settings.nats_tls_ca,
            name="kubevo-operator",
            ack_wait_seconds=settings.ack_wait_seconds,
            give_up_seconds=GIVE_UP_SECONDS,
        )
        return found if limits is None else limits.applied_to(found)


@dataclass(frozen=True)
class Watched:
    """What the watch knows of one Experiment; the functions return the latest."""

    body: Callable[[], dict[str, Any]]
    deployment: Callable[[], Mapping[str, Any] | None]
    pods: Callable[[], list[Mapping[str, Any]]]
    changed: asyncio.Event
    stopped: Any
    emit: Callable[[str, str, str], None]

    @property
    def is_deleting(self) -> bool:
        """Whether somebody has deleted the object; it waits for its finalizer."""
        return bool(self.body().get("metadata", {}).get("deletionTimestamp"))
