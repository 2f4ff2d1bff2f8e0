"""The service's own Prometheus metrics; none of them names an Experiment or a caller."""

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

__all__ = ["Metrics"]

SECONDS = (0.001, 0.005, 0.02, 0.1, 0.5, 2, 10, 60)


class Metrics:
    """The metrics of one service."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self._requests = Counter(
            "kubevo_api_requests",
            "Requests answered",
            ("method", "route", "status"),
            registry=self.registry,
        )
        self._seconds = Histogram(
            "kubevo_api_request_seconds",
            "Time to the end of the answer, event streams included",
            ("route",),
            buckets=SECONDS,
            registry=self.registry,
        )
        self.streams = Gauge(
            "kubevo_api_streams", "Event streams that are open", registry=self.registry
        )
        self.cache_bytes = Gauge(
            "kubevo_api_export_cache_bytes", "Size of the exported models", registry=self.registry
        )

    def request(self, method: str, route: str, status: int, seconds: float) -> None:
        """Count one request; an unknown method is OTHER."""
        known = method if method in ("GET", "HEAD", "POST", "OPTIONS") else "OTHER"
        self._requests.labels(known, route, str(status)).inc()
        self._seconds.labels(route).observe(seconds)

    def text(self) -> bytes:
        """Return the metrics in Prometheus' text format."""
        return generate_latest(self.registry)
