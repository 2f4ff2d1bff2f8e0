"""The operator's own metrics; those of Experiments are `kubevo_runtime.exposition`'s.

=========================================  =========  ============================================
kubevo_operator_reconcile_seconds          histogram  one comparison of an Experiment's children
kubevo_operator_status_patches_total       counter    status patches sent
kubevo_operator_loop_lag_seconds           gauge      how late the event loop is (decaying maximum)
kubevo_operator_experiments                gauge      Experiments under care
kubevo_operator_faults_total{kind}         counter    what went wrong and was survived
=========================================  =========  ============================================
"""

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from kubevo_operator.health import Health

__all__ = ["OperatorMetrics"]

BUCKETS = (0.001, 0.005, 0.02, 0.1, 0.5, 2, 10)


class OperatorMetrics:
    """What the operator measures about itself."""

    def __init__(self, registry: CollectorRegistry, health: Health) -> None:
        self.reconcile = Histogram(
            "kubevo_operator_reconcile_seconds",
            "One comparison of an Experiment's children",
            buckets=BUCKETS,
            registry=registry,
        )
        self.status_patches = Counter(
            "kubevo_operator_status_patches", "Status patches sent", registry=registry
        )
        self.experiments = Gauge(
            "kubevo_operator_experiments", "Experiments under care", registry=registry
        )
        self.faults = Counter(
            "kubevo_operator_faults",
            "What went wrong and was survived",
            ["kind"],
            registry=registry,
        )
        lag = Gauge(
            "kubevo_operator_loop_lag_seconds", "How late the event loop is", registry=registry
        )
        lag.set_function(lambda: health.loop_lag_seconds)
