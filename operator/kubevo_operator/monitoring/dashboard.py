"""The Grafana dashboard: what a person wants to see of Experiments, the operator and the API.

``charts/kubevo/files/dashboard.json`` is `rendered`; a test fails when it is stale.
"""

import json
from typing import Any

from kubevo_operator.monitoring import search_rows, service_rows
from kubevo_operator.monitoring.panels import DATASOURCE, Row, laid_out

__all__ = ["UID", "dashboard", "rendered", "rows"]

Json = dict[str, Any]
UID = "kubevo-experiments"
SCHEMA_VERSION = 39


def dashboard() -> Json:
    """Return the dashboard's document."""
    return {
        "uid": UID,
        "title": "kubevo",
        "description": "Neuroevolution on Kubernetes: progress, speed and health of Experiments.",
        "tags": ["kubevo"],
        "schemaVersion": SCHEMA_VERSION,
        "version": 1,
        "editable": True,
        "graphTooltip": 1,
        "refresh": "30s",
        "time": {"from": "now-6h", "to": "now"},
        "timezone": "browser",
        "annotations": {"list": []},
        "links": [],
        "templating": {"list": _variables()},
        "panels": laid_out(rows()),
    }


def rendered() -> str:
    """Return the dashboard as the text of its file."""
    return json.dumps(dashboard(), indent=1, sort_keys=True) + "\n"


def rows() -> tuple[Row, ...]:
    """Return what the dashboard shows, from top to bottom."""
    return (
        Row("Progress", search_rows.PROGRESS),
        Row("Throughput", search_rows.THROUGHPUT),
        Row("Time budget", search_rows.TIME_BUDGET),
        Row("Queue and redeliveries", service_rows.QUEUE),
        Row("Evaluators", service_rows.EVALUATORS),
        Row("Diversity", search_rows.DIVERSITY),
        Row("Operator", service_rows.OPERATOR),
        Row("API", service_rows.API),
        Row("Alerts", service_rows.ALERTS),
    )


def _variables() -> list[Json]:
    chosen = {"selected": True, "text": ["All"], "value": ["$__all"]}
    many = {
        "type": "query",
        "datasource": DATASOURCE,
        "multi": True,
        "includeAll": True,
        "allValue": ".*",
        "current": chosen,
        "refresh": 2,  # at each change of the time range: Experiments come and go
        "sort": 1,
    }
    return [
        {
            "name": "datasource",
            "label": "Data source",
            "type": "datasource",
            "query": "prometheus",
            "current": {},
        },
        many | _values("namespace", "Namespace", "label_values(kubevo_results_total, namespace)"),
        many
        | _values(
            "experiment",
            "Experiment",
            'label_values(kubevo_results_total{namespace=~"$namespace"}, experiment)',
        ),
    ]


def _values(name: str, label: str, query: str) -> Json:
    asked = {"query": query, "refId": "variable"}
    return {"name": name, "label": label, "definition": query, "query": asked}
