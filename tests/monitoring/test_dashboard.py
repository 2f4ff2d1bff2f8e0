"""The dashboard is whole, and asks only for what is exposed."""

import re

import yaml

from kubevo_operator.monitoring.dashboard import UID, dashboard, rendered, rows
from kubevo_operator.monitoring.metric_table import label_values, metrics

ROWS = [
    *("Progress", "Throughput", "Time budget", "Queue and redeliveries", "Evaluators"),
    *("Diversity", "Operator", "API", "Alerts"),
]


def panels():
    return [panel for panel in dashboard()["panels"] if panel["type"] != "row"]


def queries():
    return [target["expr"] for panel in panels() for target in panel.get("targets", ())]


def test_it_is_the_same_every_time_and_can_be_imported_anew():
    assert rendered() == rendered()
    found = dashboard()
    assert found["uid"] == UID
    assert "id" not in found, "an id is the database's of one Grafana"
    assert found["schemaVersion"] >= 39


def test_its_rows_are_in_the_order_of_a_walk():
    assert [row.title for row in rows()] == ROWS
    assert [p["title"] for p in dashboard()["panels"] if p["type"] == "row"] == ROWS


def test_every_panel_has_a_description_a_unit_and_a_source():
    for panel in panels():
        assert panel["description"].endswith("."), panel["title"]
        assert panel["fieldConfig"]["defaults"]["unit"], panel["title"]
        assert panel["datasource"]["uid"] == "${datasource}", panel["title"]
        assert panel.get("targets") or panel["type"] == "alertlist", panel["title"]
        for target in panel.get("targets", ()):
            assert target["legendFormat"], panel["title"]
    titles = [panel["title"] for panel in panels()]
    assert len(titles) == len(set(titles))


def test_panels_neither_overlap_nor_leave_the_grid():
    taken = set()
    for panel in dashboard()["panels"]:
        place = panel["gridPos"]
        assert place["x"] + place["w"] <= 24
        cells = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert not cells & taken, panel["title"]
        taken |= cells
    ids = [panel["id"] for panel in dashboard()["panels"]]
    assert len(ids) == len(set(ids))


def test_every_query_selects_series_and_labels_that_exist(selectors):
    known = {series: metric for metric in metrics() for series in metric.series}
    values = label_values()
    for expr in queries():
        found = selectors(expr)
        assert found, expr
        for name, matchers in found:
            if name == "ALERTS":  # Prometheus' own
                continue
            assert name in known, f"{name} in {expr}"
            for label, operator, value in matchers:
                assert label in known[name].labels, f"{label} in {expr}"
                possible = values.get(f"{known[name].name}{{{label}}}")
                if possible is not None:
                    chosen = value.split("|") if operator.endswith("~") else [value]
                    assert set(chosen) <= set(possible), expr


def test_every_query_about_experiments_asks_for_the_chosen_ones_only(selectors):
    of_experiments = {s for m in metrics() if "experiment" in m.labels for s in m.series}
    for expr in queries():
        for name, matchers in selectors(expr):
            if name in of_experiments:
                assert ("namespace", "=~", "$namespace") in matchers, expr
                assert ("experiment", "=~", "$experiment") in matchers, expr


def test_a_legend_names_only_labels_that_the_query_keeps():
    for panel in panels():
        for target in panel.get("targets", ()):
            named = set(re.findall(r"{{(\w+)}}", target["legendFormat"]))
            kept = {
                label.strip()
                for group in re.findall(r"\bby \(([^)]*)\)", target["expr"])
                for label in group.split(",")
            }
            assert named <= kept, target["expr"]


def test_every_metric_has_a_place(selectors):
    asked = {name for expr in queries() for name, _ in selectors(expr)}
    left = [m.name for m in metrics() if not asked & set(m.series)]
    # These are for alerts: a duration that only the alert compares.
    assert left == [
        "kubevo_generation_start_timestamp_seconds",
        "kubevo_running_seconds",
    ]


def test_every_query_parses(promtool, tmp_path):
    rules = [
        {"record": f"query:{i}", "expr": re.sub(r"\$__rate_interval", "1m", expr)}
        for i, expr in enumerate(queries())
    ]
    path = tmp_path / "queries.yaml"
    path.write_text(yaml.safe_dump({"groups": [{"name": "dashboard", "rules": rules}]}))
    assert f"{len(rules)} rules found" in promtool("check", "rules", path)
