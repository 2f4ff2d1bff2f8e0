"""The reference names every metric as it is registered, and nothing else."""

import re

from prometheus_client import CollectorRegistry

from kubevo_api.metrics import Metrics as ApiMetrics
from kubevo_core.generation import Outcome
from kubevo_operator.health import Health
from kubevo_operator.metrics import OperatorMetrics
from kubevo_operator.monitoring.metric_table import label_values, markdown, metrics
from kubevo_runtime import exposition
from kubevo_runtime.exposition import Metrics


def registered(registry):
    """Return name -> (type, labels) as a registry's collectors were made."""
    found = {}
    for collector in set(registry._collector_to_names):
        suffix = "_total" if collector._type == "counter" else ""
        found[collector._name + suffix] = (collector._type, tuple(collector._labelnames))
    return found


def test_every_registered_metric_is_in_the_table_and_no_other():
    registry = CollectorRegistry()
    Metrics(registry)
    OperatorMetrics(registry, Health(lambda: 0.0, 30))
    expected = registered(registry) | registered(ApiMetrics().registry)
    assert {m.name: (m.kind, m.labels) for m in metrics()} == expected


def test_every_metric_has_a_row_with_its_unit_and_meaning():
    rows = [line for line in markdown().splitlines() if line.startswith("| `kubevo_")]
    assert len(rows) == len(metrics())
    for metric in metrics():
        (row,) = [row for row in rows if f"`{metric.name}`" in row]
        cells = [cell.strip() for cell in row.strip("|").split("|")]
        assert len(cells) == 6
        assert cells[3:] == [metric.unit, metric.meaning, metric.exposed_by]
        assert all(cells[i] for i in (0, 1, 3, 4, 5))


def test_names_follow_prometheus_rules():
    for metric in metrics():
        assert re.fullmatch(r"kubevo_[a-z]+(_[a-z]+)*", metric.name)
        assert metric.name.endswith("_total") == (metric.kind == "counter")
        if metric.unit in ("seconds", "bytes"):
            assert metric.name.endswith(f"_{metric.unit}")
        if metric.unit == "seconds since 1970":
            assert metric.name.endswith("_timestamp_seconds")


def test_the_values_of_labels_are_those_of_the_sources():
    values = label_values()
    assert set(values["kubevo_results_total{outcome}"]) == {outcome.value for outcome in Outcome}
    assert set(values["kubevo_experiment_state{state}"]) == set(exposition.STATES)
    assert set(values["kubevo_fitness{stat}"]) == set(exposition.STATS)
    names = {f"{m.name}{{{label}}}" for m in metrics() for label in m.labels}
    assert set(values) <= names
