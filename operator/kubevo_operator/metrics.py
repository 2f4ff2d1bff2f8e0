"""The operator's own metrics, and the one word for an Experiment's state.

Those of Experiments are `kubevo_runtime.exposition`'s. `FAMILIES` and `FAULTS` are the one place where
ours are named and explained; ``docs/reference-metrics.md`` is made of them.
"""

from collections.abc import Iterable, Mapping
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from kubevo_operator.conditions import Type
from kubevo_operator.health import Health
from kubevo_runtime.exposition import Family, State

__all__ = ["FAMILIES", "FAULTS", "OperatorMetrics", "state_of"]

BUCKETS = (0.001, 0.005, 0.02, 0.1, 0.5, 2, 10)
FAULTS: dict[str, str] = {
    "children": "an Experiment's Deployment, Secret or other child could not be kept; tried again",
    "search": "an Experiment's search, or what follows its end, failed; its conditions say why",
    "sweep": "what nobody owns any more could not be removed; tried again later",
}
# By name, without the prefix and without a counter's suffix.
FAMILIES: dict[str, Family] = {
    "operator_leading": Family(
        Gauge, "1 while this replica leads and its watches are set up, else 0", "0 or 1"
    ),
    "operator_experiments": Family(Gauge, "Experiments under care", "experiments"),
    "operator_reconcile_seconds": Family(
        Histogram,
        "One comparison of an Experiment's children",
        "seconds",
        (),
        {"buckets": BUCKETS},
    ),
    "operator_status_patches": Family(Counter, "Status patches sent", "patches"),
    "operator_loop_lag_seconds": Family(
        Gauge, "How late the event loop is (decaying maximum)", "seconds"
    ),
    "operator_faults": Family(Counter, "What went wrong and was survived", "faults", ("kind",)),
}
# The first condition that has this status decides: a suspended Experiment is Ready, too, and one
# whose newest spec is refused may run on with the spec before.
_STATES: tuple[tuple[Type, str, State], ...] = (
    (Type.SUCCEEDED, "True", "succeeded"),
    (Type.FAILED, "True", "failed"),
    (Type.SUSPENDED, "True", "suspended"),
    (Type.RUNNING, "True", "running"),
    (Type.READY, "False", "blocked"),
)


class OperatorMetrics:
    """What the operator measures about itself."""

    def __init__(self, registry: CollectorRegistry, health: Health) -> None:
        made: dict[str, Any] = {
            name: family.kind(
                f"kubevo_{name}", family.help, family.labels, registry=registry, **family.options
            )
            for name, family in FAMILIES.items()
        }
        self.reconcile: Histogram = made["operator_reconcile_seconds"]
        self.status_patches: Counter = made["operator_status_patches"]
        self.experiments: Gauge = made["operator_experiments"]
        self.faults: Counter = made["operator_faults"]
        for kind in FAULTS:
            self.faults.labels(kind)  # a rate does not see a series' first value
        made["operator_loop_lag_seconds"].set_function(lambda: health.loop_lag_seconds)
        made["operator_leading"].set_function(lambda: float(health.leads and health.is_ready))


def state_of(conditions: Iterable[Mapping[str, Any]]) -> State:
    """Return the one word for what the conditions of a status say together."""
    said = {(item.get("type"), item.get("status")) for item in conditions}
    for kind, status, state in _STATES:
        if (str(kind), status) in said:
            return state
    return "waiting"
